package dynamo

import (
	"context"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/ops/audit"
	"github.com/tidings-dev/tidings/pkg/store/dynamoitem"
)

// PutAudit: see console.Audit. A later write under the same id replaces the earlier.
func (s *Store) PutAudit(ctx context.Context, e audit.Entry) error {
	if _, _, err := s.put(ctx, s.tables.Deliveries, &dynamodb.PutItemInput{Item: dynamoitem.EncodeAudit(e)}); err != nil {
		return fmt.Errorf("write the audit log: %w", err)
	}
	return nil
}

// ListAudit: see console.Audit.
func (s *Store) ListAudit(ctx context.Context, tenant string, limit int, cursor string) (page audit.Page, err error) {
	q := delivery.Query{EndpointID: dynamoitem.AuditPartition(tenant), Limit: limit, Cursor: cursor}
	page.Next, err = s.listPartition(ctx, q, func(item dynamoitem.Item) error {
		e, err := dynamoitem.DecodeAudit(item)
		page.Entries = append(page.Entries, e)
		return err
	})
	if err != nil {
		return page, fmt.Errorf("read the audit log: %w", err)
	}
	return page, nil
}

// listPartition reads a page of a partition of Deliveries whose items are no deliveries,
// newest first, and passes each item to add. It returns the cursor of the next page.
func (s *Store) listPartition(ctx context.Context, q delivery.Query, add func(dynamoitem.Item) error) (next string, err error) {
	in, err := s.newestFirst(q)
	if err != nil {
		return "", err
	}
	out, err := s.db.Query(ctx, in)
	if err != nil {
		return "", err
	}
	s.recordRead(out.ConsumedCapacity)
	last := ""
	for n, item := range out.Items {
		if n == q.PageSize() {
			return q.CursorAfter(last), nil
		}
		key, err := dynamoitem.DecodeDeliveryKey(item)
		if err != nil {
			return "", err
		}
		if err := add(item); err != nil {
			return "", err
		}
		last = key.EventID
	}
	return "", nil
}
