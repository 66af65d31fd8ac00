package functions_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/local"
	"github.com/tidings-dev/tidings/pkg/local/dynamoemulator"
	"github.com/tidings-dev/tidings/pkg/local/samtemplate"
	"github.com/tidings-dev/tidings/pkg/platform"
	"github.com/tidings-dev/tidings/pkg/platform/discussions"
	"github.com/tidings-dev/tidings/pkg/store/dynamo"
	"github.com/tidings-dev/tidings/pkg/store/dynamoitem"
	"github.com/tidings-dev/tidings/test/checkout"
	"github.com/tidings-dev/tidings/test/dynamotest"
)

// ownTable is a platform's own table: its keys are community and number, it has no
// index, and its stream goes to emit.
type ownTable struct {
	t       *testing.T
	db      *dynamodb.Client
	name    string
	batches chan events.DynamoDBEvent
	emit    *process
}

func newOwnTable(t *testing.T, db *dynamodb.Client, name string) *ownTable {
	t.Helper()
	_, err := db.CreateTable(t.Context(), &dynamodb.CreateTableInput{
		TableName: &name, BillingMode: types.BillingModePayPerRequest,
		AttributeDefinitions: []types.AttributeDefinition{
			{AttributeName: aws.String("community"), AttributeType: types.ScalarAttributeTypeS},
			{AttributeName: aws.String("number"), AttributeType: types.ScalarAttributeTypeN},
		},
		KeySchema: []types.KeySchemaElement{
			{AttributeName: aws.String("community"), KeyType: types.KeyTypeHash}, {AttributeName: aws.String("number"), KeyType: types.KeyTypeRange},
		},
		StreamSpecification: &types.StreamSpecification{StreamEnabled: aws.Bool(true), StreamViewType: types.StreamViewTypeNewAndOldImages},
	})
	if err != nil {
		t.Fatal(err)
	}
	return &ownTable{t: t, db: db, name: name, batches: make(chan events.DynamoDBEvent)}
}

// put writes a record as the platform does: without an attribute of Tidings' own.
func (o *ownTable) put(number int, attributes dynamoitem.Item) {
	o.t.Helper()
	item := dynamoitem.Item{"community": dynamoitem.S("climbers"), "number": dynamoitem.N(int64(number))}
	maps.Copy(item, attributes)
	if _, err := o.db.PutItem(o.t.Context(), &dynamodb.PutItemInput{TableName: &o.name, Item: item}); err != nil {
		o.t.Fatal(err)
	}
}

func (o *ownTable) get(number int) dynamoitem.Item {
	o.t.Helper()
	out, err := o.db.GetItem(o.t.Context(), &dynamodb.GetItemInput{
		TableName: &o.name, ConsistentRead: aws.Bool(true),
		Key: dynamoitem.Item{"community": dynamoitem.S("climbers"), "number": dynamoitem.N(int64(number))},
	})
	if err != nil {
		o.t.Fatal(err)
	}
	return out.Item
}

// stream reads the table's stream until the test ends.
func (o *ownTable) stream() {
	o.t.Helper()
	checkpoints, err := local.OpenCheckpoints("")
	if err != nil {
		o.t.Fatal(err)
	}
	handle := func(ctx context.Context, batch events.DynamoDBEvent) (any, error) {
		select {
		case o.batches <- batch:
			return events.DynamoDBEventResponse{}, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	fn := &local.Function{Function: samtemplate.Function{Folder: "emit", Timeout: time.Minute}, Handle: handle, Log: slog.New(slog.DiscardHandler)}
	s := &local.DynamoStream{
		DB: o.db, Streams: dynamoemulator.Streams(*o.db.Options().BaseEndpoint), Table: o.name, Checkpoints: checkpoints,
		Mapping: func(shard local.Shard, after string) *local.StreamMapping {
			return &local.StreamMapping{Function: fn, Shard: shard, After: after, Trigger: samtemplate.StreamTrigger{BatchSize: 100}}
		},
	}
	ctx, cancel := context.WithCancel(context.Background())
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		_ = s.Run(ctx)
	}()
	o.t.Cleanup(func() {
		cancel()
		<-stopped
	})
}

// capture invokes emit with all changes of the table until now.
func (o *ownTable) capture(last int) {
	o.t.Helper()
	o.put(last, dynamoitem.Item{"note": dynamoitem.S("the last record")})
	for {
		select {
		case batch := <-o.batches:
			payload, err := json.Marshal(batch)
			if err != nil {
				o.t.Fatal(err)
			}
			if got := o.emit.invoke(o.t, payload); got.failure != nil || string(got.body) != `{"batchItemFailures":[]}` {
				o.t.Fatalf("emit: %s, %+v", got.body, got.failure)
			}
			for _, r := range batch.Records {
				if n, err := r.Change.Keys["number"].Integer(); err == nil && int(n) == last {
					return
				}
			}
		case <-time.After(time.Minute):
			o.t.Fatal("the stream's last record did not come within a minute")
		}
	}
}

// Discussions of a table that has other keys than this stack's, and whose records know
// nothing of Tidings, are closed, extended and listed, in the form that the table has.
func TestDiscussionsOfAPlatformsOwnTable(t *testing.T) {
	t.Parallel()
	client, _ := dynamotest.New(t)
	name := dynamotest.StackName(t)
	table := newOwnTable(t, client, "own-"+name)

	path, err := checkout.Path("template.yaml")
	if err != nil {
		t.Fatal(err)
	}
	template, err := samtemplate.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	stack, err := template.Resolve(samtemplate.Context{
		StackName: name, Region: dynamoemulator.Region, Account: "000000000000",
		Parameters: map[string]string{"PlatformStreamArn": "arn:aws:dynamodb:us-east-1:000000000000:table/" + table.name + "/stream/2026-01-29T12:34:56.789"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := dynamoemulator.CreateTables(t.Context(), client, stack.Tables); err != nil {
		t.Fatal(err)
	}
	url := *client.Options().BaseEndpoint
	closer := start(t, "close-discussions", environment(stack, "close-discussions", url))
	table.emit = start(t, "emit", environment(stack, "emit", url))
	tables := local.Tables(stack.Name)
	tables.Platform = table.name
	store := dynamo.New(client, tables)
	closes := func(want int) {
		t.Helper()
		got := closer.invoke(t, sample(t, "close-discussions"))
		var result discussions.Closed
		if err := json.Unmarshal(got.body, &result); err != nil || result != (discussions.Closed{Closed: want, Done: true}) {
			t.Fatalf("closed %s, %+v, want %d\n%s", got.body, got.failure, want, closer.log)
		}
	}

	past, future := time.Now().Add(-time.Minute).UTC(), time.Now().Add(time.Hour).UTC().Truncate(time.Second)
	record := func(id string, ends types.AttributeValue) dynamoitem.Item {
		return dynamoitem.Item{
			"kind": dynamoitem.S("discussion"), "discussion_id": dynamoitem.S(id), "status": dynamoitem.S("open"), "expires_at": ends,
			"title": dynamoitem.S("Title of " + id), "community_id": dynamoitem.S("c_climbers"),
		}
	}
	// A discussion from before the deployment, which the stream may not have any more.
	table.put(1, record("d_before", dynamoitem.Millis(past)))
	closes(1)
	table.stream()
	table.put(2, record("d_seconds", dynamoitem.Seconds(past)))
	table.put(3, record("d_millis", dynamoitem.Millis(past)))
	table.put(4, record("d_iso", dynamoitem.S(past.Format(time.RFC3339))))
	table.put(5, record("d_later", dynamoitem.S(future.Format(time.RFC3339))))
	table.put(6, record("d_deleted", dynamoitem.Millis(future)))
	table.put(7, dynamoitem.Item{"kind": dynamoitem.S("user"), "user_id": dynamoitem.S("u_1"), "email": dynamoitem.S("ada@example.org"), "name": dynamoitem.S("Ada")})
	table.capture(100)
	closes(3)
	closes(0)

	for number, form := range map[int]func(string) (time.Time, error){
		2: func(v string) (time.Time, error) { n, err := strconv.ParseInt(v, 10, 64); return time.Unix(n, 0), err },
		3: func(v string) (time.Time, error) {
			n, err := strconv.ParseInt(v, 10, 64)
			return time.UnixMilli(n), err
		},
		4: func(v string) (time.Time, error) { return time.Parse(time.RFC3339, v) },
	} {
		item := table.get(number)
		value := fmt.Sprint(item["closed_at"])
		switch v := item["closed_at"].(type) {
		case *types.AttributeValueMemberS:
			value = v.Value
		case *types.AttributeValueMemberN:
			value = v.Value
		}
		if at, err := form(value); err != nil || time.Since(at).Abs() > time.Hour || item["closed_shard"] != nil {
			t.Errorf("record %d was closed at %q, %v; want the form of its expires_at\n%v", number, value, err, item)
		}
	}

	// The console's side.
	extended, err := store.ExtendDiscussion(t.Context(), platform.Extension{
		Tenant: event.DefaultTenant, ID: "d_later", To: future.Add(24 * time.Hour), Seen: future, Login: "console:ada", At: time.Now().Truncate(time.Millisecond),
	})
	if err != nil || !extended.ExpiresAt.Equal(future.Add(24*time.Hour)) {
		t.Errorf("extended: %+v, %v", extended, err)
	}
	if v, ok := table.get(5)["expires_at"].(*types.AttributeValueMemberS); !ok || !strings.HasPrefix(v.Value, future.Add(24*time.Hour).Format("2006-01-02T15:04:05")) {
		t.Errorf("the extended record has the end %v", table.get(5)["expires_at"])
	}
	if _, err := client.DeleteItem(t.Context(), &dynamodb.DeleteItemInput{
		TableName: &table.name, Key: dynamoitem.Item{"community": dynamoitem.S("climbers"), "number": dynamoitem.N(6)},
	}); err != nil {
		t.Fatal(err)
	}
	table.capture(101)
	for view, want := range map[platform.View]string{platform.ViewOpen: "d_later", platform.ViewClosed: "d_before d_iso d_millis d_seconds"} {
		page, err := store.ListDiscussions(t.Context(), platform.Query{Tenant: event.DefaultTenant, View: view})
		if err != nil {
			t.Fatal(err)
		}
		ids := map[string]bool{}
		for _, d := range page.Discussions {
			ids[d.ID] = d.Title == "Title of "+d.ID && d.CommunityID == "c_climbers"
		}
		for _, id := range strings.Fields(want) {
			if !ids[id] {
				t.Errorf("%s: %s is missing, or has no title or community", view, id)
			}
		}
		if len(ids) != len(strings.Fields(want)) {
			t.Errorf("%s: %v, want %s", view, ids, want)
		}
	}
	if _, err := store.GetDiscussion(t.Context(), event.DefaultTenant, "d_deleted"); err == nil {
		t.Error("a deleted discussion is still indexed")
	}

	// Each change has one event, and writing the index none.
	out, err := client.Scan(t.Context(), &dynamodb.ScanInput{TableName: &tables.Events})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]int{}
	for _, item := range out.Items {
		e, err := event.Decode([]byte(item["body"].(*types.AttributeValueMemberS).Value))
		if err != nil {
			t.Fatal(err)
		}
		got[e.Type]++
	}
	if want := map[string]int{"discussion.auto_closed": 4, "discussion.extended": 1, "user.joined_platform": 1}; !maps.Equal(got, want) {
		t.Errorf("events %v, want %v", got, want)
	}
}
