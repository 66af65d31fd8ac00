package dynamo

import (
	"context"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
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
func (s *Store) ListAudit(ctx context.Context, tenant string, limit int, cursor string) (audit.Page, error) {
	q := delivery.Query{EndpointID: dynamoitem.AuditPartition(tenant), Limit: limit, Cursor: cursor}
	first, last, err := q.Bounds()
	if err != nil {
		return audit.Page{}, err
	}
	out, err := s.db.Query(ctx, &dynamodb.QueryInput{
		TableName:              &s.tables.Deliveries,
		KeyConditionExpression: aws.String("endpoint_id = :partition AND event_id BETWEEN :first AND :last"),
		ExpressionAttributeValues: dynamoitem.Item{
			":partition": dynamoitem.S(q.EndpointID), ":first": dynamoitem.S(first), ":last": dynamoitem.S(last),
		},
		ScanIndexForward: aws.Bool(false), Limit: aws.Int32(int32(q.PageSize() + 1)), ReturnConsumedCapacity: s.returnCapacity(),
	})
	if err != nil {
		return audit.Page{}, fmt.Errorf("read the audit log: %w", err)
	}
	s.recordRead(out.ConsumedCapacity)
	var page audit.Page
	for _, item := range out.Items {
		if len(page.Entries) == q.PageSize() {
			page.Next = q.CursorAfter(page.Entries[len(page.Entries)-1].ID)
			break
		}
		e, err := dynamoitem.DecodeAudit(item)
		if err != nil {
			return page, err
		}
		page.Entries = append(page.Entries, e)
	}
	return page, nil
}
