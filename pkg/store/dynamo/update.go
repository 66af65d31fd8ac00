package dynamo

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/store/dynamoitem"
)

// conditionFailed reports whether a write's condition failed, and returns the stored
// item (nil if there is none, or if the write did not ask for it).
func conditionFailed(err error) (old dynamoitem.Item, failed bool) {
	var check *types.ConditionalCheckFailedException
	if errors.As(err, &check) {
		return check.Item, true
	}
	return nil, false
}

// update builds an update expression.
type update struct {
	sets, removes []string
	values        dynamoitem.Item
}

func (u *update) set(name string, value types.AttributeValue) {
	u.sets = append(u.sets, "#"+name+" = :"+name)
	u.values[":"+name] = value
}

// setIfAbsent sets an attribute that the item does not have yet.
func (u *update) setIfAbsent(name string, value types.AttributeValue) {
	u.sets = append(u.sets, "#"+name+" = if_not_exists(#"+name+", :"+name+")")
	u.values[":"+name] = value
}

func (u *update) remove(names ...string) {
	for _, name := range names {
		u.removes = append(u.removes, "#"+name)
	}
}

// assign sets the named attributes to those of an item, and removes those it lacks.
func (u *update) assign(item dynamoitem.Item, names ...string) {
	for _, name := range names {
		if value := item[name]; value != nil {
			u.set(name, value)
		} else {
			u.remove(name)
		}
	}
}

// written sets the times of every write of a delivery, and its retention, if it has none yet
// and it is not the default.
func (u *update) written(s delivery.State, now time.Time, days int) {
	u.set(dynamoitem.UpdatedAt, dynamoitem.Millis(now))
	u.set(dynamoitem.ExpiresAt, dynamoitem.Seconds(delivery.Expiry(s, now, days)))
	if days != 0 {
		u.setIfAbsent(dynamoitem.RetentionDays, dynamoitem.N(int64(days)))
	}
}

// created sets what a delivery gets when its record is created. The event type may be
// unknown ("").
func (u *update) created(tenant, eventType string, accepted, now time.Time) {
	u.setIfAbsent(dynamoitem.Tenant, dynamoitem.S(tenant))
	if eventType != "" {
		u.setIfAbsent(dynamoitem.EventType, dynamoitem.S(eventType))
	}
	u.setIfAbsent(dynamoitem.Since, dynamoitem.Millis(accepted))
	u.setIfAbsent(dynamoitem.CreatedAt, dynamoitem.Millis(now))
}

func (u *update) expression() string {
	var parts []string
	if len(u.sets) > 0 {
		parts = append(parts, "SET "+strings.Join(u.sets, ", "))
	}
	if len(u.removes) > 0 {
		parts = append(parts, "REMOVE "+strings.Join(u.removes, ", "))
	}
	return strings.Join(parts, " ")
}

// names maps every #name in the expressions to its attribute. The expressions use
// placeholders because several attribute names are reserved words in DynamoDB.
func names(expressions ...string) map[string]string {
	found := map[string]string{}
	for _, e := range expressions {
		for _, word := range strings.FieldsFunc(e, func(r rune) bool { return strings.ContainsRune(" ,()=<>", r) }) {
			if name, ok := strings.CutPrefix(word, "#"); ok {
				found[word] = name
			}
		}
	}
	return found
}

// get reads an item. It returns nil if there is none.
func (s *Store) get(ctx context.Context, table string, key dynamoitem.Item, consistent bool) (dynamoitem.Item, error) {
	out, err := s.db.GetItem(ctx, &dynamodb.GetItemInput{TableName: &table, Key: key, ConsistentRead: &consistent, ReturnConsumedCapacity: s.returnCapacity()})
	if err != nil {
		return nil, err
	}
	s.recordRead(out.ConsumedCapacity)
	return out.Item, nil
}

// put writes an item. If the condition fails, it returns failed and the stored item (nil
// if there is none).
func (s *Store) put(ctx context.Context, table string, in *dynamodb.PutItemInput) (stored dynamoitem.Item, failed bool, err error) {
	in.TableName, in.ReturnConsumedCapacity = &table, s.returnCapacity()
	if in.ConditionExpression != nil {
		in.ReturnValuesOnConditionCheckFailure = types.ReturnValuesOnConditionCheckFailureAllOld
	}
	out, err := s.db.PutItem(ctx, in)
	if stored, failed = conditionFailed(err); failed {
		return stored, true, nil
	}
	if err != nil {
		return nil, false, err
	}
	s.recordWrite(out.ConsumedCapacity)
	return nil, false, nil
}

// update applies a conditional update to an item. It returns the item after the update,
// or the stored item and false if the condition failed.
func (s *Store) update(ctx context.Context, table string, key dynamoitem.Item, u update, condition string) (after, stored dynamoitem.Item, ok bool, err error) {
	expression := u.expression()
	out, err := s.db.UpdateItem(ctx, &dynamodb.UpdateItemInput{
		TableName: &table, Key: key, UpdateExpression: &expression, ConditionExpression: &condition,
		ExpressionAttributeNames: names(expression, condition), ExpressionAttributeValues: u.values,
		ReturnValues:                        types.ReturnValueAllNew,
		ReturnValuesOnConditionCheckFailure: types.ReturnValuesOnConditionCheckFailureAllOld,
		ReturnConsumedCapacity:              s.returnCapacity(),
	})
	if old, failed := conditionFailed(err); failed {
		return nil, old, false, nil
	}
	if err != nil {
		return nil, nil, false, err
	}
	s.recordWrite(out.ConsumedCapacity)
	return out.Attributes, nil, true, nil
}

// encodeCursor returns the text of a cursor. The value must be one that always marshals.
func encodeCursor(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return base64.RawURLEncoding.EncodeToString(text)
}

func decodeCursor(cursor string, v any) error {
	text, err := base64.RawURLEncoding.DecodeString(cursor)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, v)
}

// batchGet is the maximum number of keys in one BatchGetItem.
const batchGet = 100

// getAll reads items by key, up to batchGet per request. Missing items are omitted. It
// repeats keys that DynamoDB has throttled, with backoff, until the context ends.
func (s *Store) getAll(ctx context.Context, table string, ask types.KeysAndAttributes) (items []dynamoitem.Item, err error) {
	wait := 50 * time.Millisecond
	for keys := ask.Keys; len(keys) > 0; {
		n := min(len(keys), batchGet)
		ask.Keys = keys[:n]
		out, err := s.db.BatchGetItem(ctx, &dynamodb.BatchGetItemInput{
			RequestItems:           map[string]types.KeysAndAttributes{table: ask},
			ReturnConsumedCapacity: s.returnCapacity(),
		})
		if err != nil {
			return nil, err
		}
		for i := range out.ConsumedCapacity {
			s.recordRead(&out.ConsumedCapacity[i])
		}
		items = append(items, out.Responses[table]...)
		left := out.UnprocessedKeys[table].Keys
		keys = append(left, keys[n:]...)
		if len(left) > 0 {
			select {
			case <-time.After(wait):
				wait *= 2
			case <-ctx.Done():
				return nil, fmt.Errorf("table %s is throttled: %w", table, ctx.Err())
			}
		}
	}
	return items, nil
}
