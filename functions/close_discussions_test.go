package functions_test

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/tidings-dev/tidings/pkg/emit/capture"
	"github.com/tidings-dev/tidings/pkg/local"
	"github.com/tidings-dev/tidings/pkg/local/dynamoemulator"
	"github.com/tidings-dev/tidings/pkg/local/samtemplate"
	"github.com/tidings-dev/tidings/pkg/platform"
	"github.com/tidings-dev/tidings/pkg/platform/discussions"
	"github.com/tidings-dev/tidings/pkg/store/dynamoitem"
	"github.com/tidings-dev/tidings/test/dynamotest"
	"github.com/tidings-dev/tidings/test/streamtest"
)

// expired is how many: the local DynamoDB takes minutes for 10,000 where it has
// to share two cores. In memory, package discussions closes as many each time.
var expired = flag.Int("expired", 1000, "how many discussions expire at once")

// Many discussions expire at once: the deployed binary closes all of them, on a
// real DynamoDB API, and its stream says of each exactly once that it was closed.
func TestCloseDiscussionsAsDeployed(t *testing.T) {
	n := *expired
	client, stack := dynamotest.New(t)
	table := local.Tables(stack.Name).Platform
	var batch []types.WriteRequest
	for i := range n + 1 {
		d := platform.Discussion{ID: fmt.Sprint("d_", i), Status: platform.Open, ExpiresAt: time.UnixMilli(1769690096789)}
		if i == n {
			d.ID, d.ExpiresAt = "young", time.Now().Add(24*time.Hour)
		}
		batch = append(batch, types.WriteRequest{PutRequest: &types.PutRequest{Item: dynamoitem.EncodeRecord(d)}})
		if len(batch) == 25 || i == n {
			out, err := client.BatchWriteItem(t.Context(), &dynamodb.BatchWriteItemInput{RequestItems: map[string][]types.WriteRequest{table: batch}})
			if err != nil || len(out.UnprocessedItems) > 0 {
				t.Fatalf("%v, %v", out, err)
			}
			batch = nil
		}
	}
	f := start(t, "close-discussions", environment(stack, "close-discussions", *client.Options().BaseEndpoint))
	closed := 0
	for done := false; !done; {
		a := f.invoke(t, event(t, "close-discussions"))
		if a.failure != nil {
			t.Fatal(a.failure)
		}
		var got discussions.Closed
		if err := json.Unmarshal(a.body, &got); err != nil || got.Failed != 0 || got.Closed == 0 {
			t.Fatalf("%s, %v", a.body, err)
		}
		closed, done = closed+got.Closed, got.Done
	}
	if closed != n {
		t.Errorf("%d are closed, want %d", closed, n)
	}
	if a := f.invoke(t, []byte(`{}`)); string(a.body) != `{"closed":0,"spared":0,"failed":0,"done":true}` {
		t.Errorf("once more: %s", a.body)
	}
	if a := f.invoke(t, []byte(`{"action":"open"}`)); a.failure == nil || !strings.Contains(a.failure.Message, "the action is close") {
		t.Errorf("something else: %+v", a)
	}

	// The stream, to its end: a mark is written last.
	mark := platform.User{ID: "mark", Email: "mark@example.org", Name: "Mark"}
	if _, err := client.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: &table, Item: dynamoitem.EncodeRecord(mark)}); err != nil {
		t.Fatal(err)
	}
	told, ids := map[string]int{}, map[string]bool{}
	marked := make(chan struct{})
	handle := func(_ context.Context, batch events.DynamoDBEvent) (any, error) {
		for _, r := range batch.Records {
			list, err := capture.Events(streamtest.Changes(r)[0])
			if err != nil {
				t.Error(err)
			}
			for _, c := range list {
				ids[c.Event.ID] = true
				if c.Event.Type == "discussion.auto_closed" {
					told[r.Change.Keys[dynamoitem.PK].String()]++
				}
			}
			if r.Change.Keys[dynamoitem.PK].String() == mark.Key().PK {
				close(marked)
			}
		}
		return events.DynamoDBEventResponse{}, nil
	}
	checkpoints, err := local.OpenCheckpoints("")
	if err != nil {
		t.Fatal(err)
	}
	quiet := slog.New(slog.DiscardHandler)
	fn := &local.Function{Function: samtemplate.Function{Folder: "emit", Timeout: time.Minute}, Handle: handle, Log: quiet}
	stream := &local.DynamoStream{
		DB: client, Streams: dynamoemulator.Streams(*client.Options().BaseEndpoint), Table: table, Checkpoints: checkpoints,
		Mapping: func(shard local.Shard, after string) *local.StreamMapping {
			return &local.StreamMapping{Function: fn, Shard: shard, After: after, Trigger: samtemplate.StreamTrigger{BatchSize: 1000}}
		},
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- stream.Run(ctx) }()
	select {
	case <-marked:
	case err := <-ended:
		t.Fatalf("the stream ended: %v", err)
	case <-time.After(2 * time.Minute):
		t.Fatal("the stream did not come to its end in two minutes")
	}
	cancel()
	<-ended
	if len(told) != n || len(ids) != n+1 || told["DISCUSSION#young"] != 0 {
		t.Errorf("%d discussions are told of by %d events, want %d", len(told), len(ids)-1, n)
	}
	for pk, k := range told {
		if k != 1 {
			t.Fatalf("%s is told of %d times", pk, k)
		}
	}
}
