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

	"github.com/tidings-dev/tidings/pkg/emit/capture/rules"
	"github.com/tidings-dev/tidings/pkg/local"
	"github.com/tidings-dev/tidings/pkg/local/dynamoemulator"
	"github.com/tidings-dev/tidings/pkg/local/samtemplate"
	"github.com/tidings-dev/tidings/pkg/platform"
	"github.com/tidings-dev/tidings/pkg/platform/discussions"
	"github.com/tidings-dev/tidings/pkg/store/dynamoitem"
	"github.com/tidings-dev/tidings/test/dynamotest"
	"github.com/tidings-dev/tidings/test/streamtest"
)

// The tests of package discussions close 10,000 in memory. The local DynamoDB would
// take minutes for as many on two cores.
var expired = flag.Int("expired", 1000, "number of discussions that expire at once")

func TestCloseDiscussionsClosesEachExpiredDiscussionOnce(t *testing.T) {
	t.Parallel()
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
		got := f.invoke(t, sample(t, "close-discussions"))
		if got.failure != nil {
			t.Fatal(got.failure)
		}
		var result discussions.Closed
		if err := json.Unmarshal(got.body, &result); err != nil || result.Failed != 0 || result.Closed == 0 {
			t.Fatalf("%s, %v", got.body, err)
		}
		closed, done = closed+result.Closed, result.Done
	}
	if closed != n {
		t.Errorf("closed %d, want %d", closed, n)
	}
	if got := f.invoke(t, []byte(`{}`)); string(got.body) != `{"closed":0,"spared":0,"failed":0,"done":true}` {
		t.Errorf("second run: %s", got.body)
	}
	if got := f.invoke(t, []byte(`{"action":"open"}`)); got.failure == nil || !strings.Contains(got.failure.Message, "the actions are close and index") {
		t.Errorf("unknown action: %+v", got)
	}

	// Read the table's stream up to a last record, and count the events per discussion.
	last := platform.User{ID: "last", Email: "last@example.org", Name: "Last"}
	if _, err := client.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: &table, Item: dynamoitem.EncodeRecord(last)}); err != nil {
		t.Fatal(err)
	}
	perDiscussion, ids := map[string]int{}, map[string]bool{}
	lastRead := make(chan struct{})
	handle := func(_ context.Context, batch events.DynamoDBEvent) (any, error) {
		for _, r := range batch.Records {
			list, err := rules.Shipped().Events(streamtest.Changes(r)[0])
			if err != nil {
				t.Error(err)
			}
			for _, c := range list {
				ids[c.Event.ID] = true
				if c.Event.Type == "discussion.auto_closed" {
					perDiscussion[r.Change.Keys[dynamoitem.PK].String()]++
				}
			}
			if r.Change.Keys[dynamoitem.PK].String() == last.Key().PK {
				close(lastRead)
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
	stopped := make(chan error, 1)
	go func() { stopped <- stream.Run(ctx) }()
	select {
	case <-lastRead:
	case err := <-stopped:
		t.Fatalf("reading the stream stopped: %v", err)
	case <-time.After(2 * time.Minute):
		t.Fatal("the last record was not read from the stream within two minutes")
	}
	cancel()
	<-stopped
	// One more event comes from the user who is the last record.
	if len(perDiscussion) != n || len(ids) != n+1 || perDiscussion["DISCUSSION#young"] != 0 {
		t.Errorf("%d events for %d discussions, want one for each of %d", len(ids)-1, len(perDiscussion), n)
	}
	for pk, count := range perDiscussion {
		if count != 1 {
			t.Fatalf("%s has %d events, want 1", pk, count)
		}
	}
}
