package dynamo_test

import (
	"context"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/tidings-dev/tidings/pkg/store/dynamo"
	"github.com/tidings-dev/tidings/pkg/store/dynamoitem"
)

// fakeQuery is a DynamoDB that answers every query with the same last key and records the
// start key of the query.
type fakeQuery struct {
	dynamo.Client
	start, last dynamoitem.Item
	queries     int
}

func (a *fakeQuery) Query(_ context.Context, in *dynamodb.QueryInput, _ ...func(*dynamodb.Options)) (*dynamodb.QueryOutput, error) {
	a.start = in.ExclusiveStartKey
	a.queries++
	return &dynamodb.QueryOutput{LastEvaluatedKey: a.last}, nil
}

// FuzzDueCursor: a valid cursor becomes a complete key of the due index in the requested
// shard, and a page that ends there returns an equal cursor. An invalid cursor makes no
// request.
func FuzzDueCursor(f *testing.F) {
	for _, seed := range []string{"", "x", "e30", "eyJBdCI6MSwiRW5kcG9pbnRJRCI6ImVwXzEiLCJFdmVudElEIjoiMDEifQ", "eyJBdCI6MWUzfQ", "bnVsbA", "W10", "eyJBdCI6LTEsImVuZHBvaW50aWQiOiJhIiwiZXZlbnRpZCI6ImIiLCJkdWVfc2hhcmQiOjN9"} {
		f.Add(seed, 0)
		f.Add(seed, 7)
	}
	f.Fuzz(func(t *testing.T, cursor string, shard int) {
		db := &fakeQuery{}
		s := dynamo.New(db, dynamo.Tables{Deliveries: "d"})
		_, next, err := s.Due(t.Context(), shard, time.UnixMilli(0), cursor, 10)
		if err != nil {
			if len(err.Error()) > 1024 || db.queries != 0 {
				t.Errorf("an error of %d bytes, %d queries", len(err.Error()), db.queries)
			}
			return
		}
		if next != "" || (db.start == nil) != (cursor == "") {
			t.Errorf("cursor %q begins at %v", cursor, db.start)
		}
		if cursor == "" {
			return
		}
		if n, ok := db.start["due_shard"].(*types.AttributeValueMemberN); !ok || n.Value != dynamoitem.N(int64(shard)).(*types.AttributeValueMemberN).Value || len(db.start) != 4 {
			t.Errorf("cursor %q begins at %v, not in shard %d", cursor, db.start, shard)
		}
		begun := db.start
		if due, err := dynamoitem.DecodeDue(begun); err != nil || due.EndpointID == "" || due.EventID == "" {
			t.Fatalf("cursor %q begins at %v, which is not a key (%v)", cursor, begun, err)
		}
		db.last = begun
		_, next, err = s.Due(t.Context(), shard, time.UnixMilli(0), "", 10)
		if err != nil || next == "" {
			t.Fatalf("a page that ends at %v returns cursor %q, %v", begun, next, err)
		}
		if _, _, err := s.Due(t.Context(), shard, time.UnixMilli(0), next, 10); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(begun, db.start, cmpopts.IgnoreUnexported(types.AttributeValueMemberN{}, types.AttributeValueMemberS{})); d != "" {
			t.Errorf("cursor %q leads elsewhere: %s", cursor, d)
		}
	})
}
