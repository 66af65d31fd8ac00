package dynamo

import (
	"context"
	"errors"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

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

func (u *update) remove(name string) { u.removes = append(u.removes, "#"+name) }

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

// batchGet is the maximum number of keys in one BatchGetItem.
const batchGet = 100

// getAll reads items by key, up to batchGet per request. Missing items are omitted.
func (s *Store) getAll(ctx context.Context, table string, ask types.KeysAndAttributes) (items []dynamoitem.Item, err error) {
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
		if len(left) == n {
			return nil, errors.New("the table is throttled")
		}
		keys = append(left, keys[n:]...)
	}
	return items, nil
}
