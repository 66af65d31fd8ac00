package dynamo

import (
	"context"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/ops/audit"
	"github.com/tidings-dev/tidings/pkg/store/dynamoitem"
)

// Bind: see console.Notes. What has expired counts as free, though DynamoDB
// deletes it only some time later.
func (s *Store) Bind(ctx context.Context, key, value string, expires time.Time) (string, error) {
	out, err := s.db.PutItem(ctx, &dynamodb.PutItemInput{
		TableName: &s.tables.Control, Item: dynamoitem.EncodeBound(key, value, expires),
		ConditionExpression:                 aws.String("attribute_not_exists(#key) OR expires_at <= :now"),
		ExpressionAttributeNames:            map[string]string{"#key": dynamoitem.Key},
		ExpressionAttributeValues:           dynamoitem.Item{":now": dynamoitem.Seconds(time.Now())},
		ReturnValuesOnConditionCheckFailure: types.ReturnValuesOnConditionCheckFailureAllOld,
		ReturnConsumedCapacity:              s.returnCapacity(),
	})
	if old, failed := conditionFailed(err); failed {
		holds, _, err := dynamoitem.DecodeBound(old)
		return holds, err
	}
	if err != nil {
		return "", fmt.Errorf("bind a key in Control: %w", err)
	}
	s.recordWrite(out.ConsumedCapacity)
	return value, nil
}

// Bound: see console.Notes.
func (s *Store) Bound(ctx context.Context, key string) (string, error) {
	out, err := s.db.GetItem(ctx, &dynamodb.GetItemInput{
		TableName: &s.tables.Control, Key: dynamoitem.Item{dynamoitem.Key: dynamoitem.S(key)}, ConsistentRead: aws.Bool(true),
		ReturnConsumedCapacity: s.returnCapacity(),
	})
	if err != nil {
		return "", fmt.Errorf("read a key in Control: %w", err)
	}
	s.recordRead(out.ConsumedCapacity)
	if out.Item == nil {
		return "", nil
	}
	value, expires, err := dynamoitem.DecodeBound(out.Item)
	if err != nil || !expires.IsZero() && !time.Now().Before(expires) {
		return "", err
	}
	return value, nil
}

// Unbind: see console.Notes.
func (s *Store) Unbind(ctx context.Context, key string) error {
	out, err := s.db.DeleteItem(ctx, &dynamodb.DeleteItemInput{
		TableName: &s.tables.Control, Key: dynamoitem.Item{dynamoitem.Key: dynamoitem.S(key)}, ReturnConsumedCapacity: s.returnCapacity(),
	})
	if err != nil {
		return fmt.Errorf("free a key in Control: %w", err)
	}
	s.recordWrite(out.ConsumedCapacity)
	return nil
}

// Count: see console.Notes. A write that the SDK repeats may count twice.
func (s *Store) Count(ctx context.Context, key string, expires time.Time) (int, error) {
	out, err := s.db.UpdateItem(ctx, &dynamodb.UpdateItemInput{
		TableName: &s.tables.Control, Key: dynamoitem.Item{dynamoitem.Key: dynamoitem.S(key)},
		UpdateExpression:          aws.String("SET expires_at = :expires ADD tally :one"),
		ExpressionAttributeValues: dynamoitem.Item{":expires": dynamoitem.Seconds(expires), ":one": dynamoitem.N(1)},
		ReturnValues:              types.ReturnValueUpdatedNew, ReturnConsumedCapacity: s.returnCapacity(),
	})
	if err != nil {
		return 0, fmt.Errorf("count in Control: %w", err)
	}
	s.recordWrite(out.ConsumedCapacity)
	return dynamoitem.DecodeTally(out.Attributes)
}

// PutAudit: see console.Audit. A later write under the same id replaces the earlier.
func (s *Store) PutAudit(ctx context.Context, e audit.Entry) error {
	out, err := s.db.PutItem(ctx, &dynamodb.PutItemInput{
		TableName: &s.tables.Deliveries, Item: dynamoitem.EncodeAudit(e), ReturnConsumedCapacity: s.returnCapacity(),
	})
	if err != nil {
		return fmt.Errorf("write the audit log: %w", err)
	}
	s.recordWrite(out.ConsumedCapacity)
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
