package capture_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/google/go-cmp/cmp"

	emithandler "github.com/tidings-dev/tidings/functions/emit/handler"
	"github.com/tidings-dev/tidings/pkg/emit"
	"github.com/tidings-dev/tidings/pkg/emit/capture"
	"github.com/tidings-dev/tidings/pkg/emit/capture/rules"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/event/validate"
	"github.com/tidings-dev/tidings/pkg/local"
	"github.com/tidings-dev/tidings/pkg/local/dynamoemulator"
	"github.com/tidings-dev/tidings/pkg/local/samtemplate"
	"github.com/tidings-dev/tidings/pkg/platform"
	"github.com/tidings-dev/tidings/pkg/store/dynamoitem"
	"github.com/tidings-dev/tidings/pkg/store/memory"
	"github.com/tidings-dev/tidings/test/dynamotest"
	"github.com/tidings-dev/tidings/test/streamtest"
)

// made is the time in the records; recorded is the time of the stream's record.
var (
	made     = time.Date(2026, 1, 29, 12, 34, 56, 789e6, time.UTC)
	changed  = made.Add(time.Hour)
	recorded = made.Add(2 * time.Hour).Truncate(time.Second)
)

// record returns the change's stream record.
func (c change) record(n int) events.DynamoDBEventRecord {
	r := events.DynamoDBEventRecord{
		EventID: fmt.Sprint("record ", n), EventSource: "aws:dynamodb", EventSourceArn: "arn:aws:dynamodb:us-east-1:0:table/t/stream/s",
		Change: events.DynamoDBStreamRecord{ApproximateCreationDateTime: events.SecondsEpochTime{Time: recorded}, SequenceNumber: fmt.Sprintf("%021d", n)},
	}
	image := func(i dynamoitem.Item) map[string]events.DynamoDBAttributeValue {
		if i == nil {
			return nil
		}
		m := map[string]events.DynamoDBAttributeValue{}
		for name, v := range i {
			switch v := v.(type) {
			case *types.AttributeValueMemberS:
				m[name] = events.NewStringAttribute(v.Value)
			case *types.AttributeValueMemberN:
				m[name] = events.NewNumberAttribute(v.Value)
			case *types.AttributeValueMemberB:
				m[name] = events.NewBinaryAttribute(v.Value)
			case *types.AttributeValueMemberSS:
				m[name] = events.NewStringSetAttribute(v.Value)
			case *types.AttributeValueMemberNULL:
				m[name] = events.NewNullAttribute()
			case *types.AttributeValueMemberBOOL:
				m[name] = events.NewBooleanAttribute(v.Value)
			}
		}
		return m
	}
	r.Change.OldImage, r.Change.NewImage = image(c.before), image(c.after)
	switch {
	case c.before == nil:
		r.EventName = "INSERT"
	case c.after == nil:
		r.EventName = "REMOVE"
	default:
		r.EventName = "MODIFY"
	}
	if c.byTTL {
		r.UserIdentity = &events.DynamoDBUserIdentity{Type: "Service", PrincipalID: "dynamodb.amazonaws.com"}
	}
	return r
}

// change returns the decoded record.
func (c change) change(n int) platform.Change { return streamtest.Changes(c.record(n))[0] }

func asSaid(list []capture.Captured, at time.Time) []said {
	var got []said
	for _, c := range list {
		data := strings.ReplaceAll(string(c.Event.Data), at.UTC().Format("2006-01-02T15:04:05.000Z"), "RECORDED")
		tenant := c.Tenant
		if strings.HasPrefix(tenant, "row-") {
			tenant = event.DefaultTenant
		}
		one := said{c.Event.Type, c.Event.ActorUserID, tenant, data, c.Event.Timestamp}
		if one.At.Equal(at) {
			one.At = time.Time{}
		}
		got = append(got, one)
	}
	return got
}

func TestChangesGiveTheEventsOfTheCatalog(t *testing.T) {
	all := changes()
	lost := 0
	for _, c := range all {
		if c.lost && len(c.want) == 1 {
			lost++
		}
	}
	if len(all) < 80 || lost != 10 {
		t.Fatalf("the table has %d changes, of which %d were lost once", len(all), lost)
	}
	ids := map[string]string{}
	seen := map[string]bool{}
	for n, c := range all {
		t.Run(c.name, func(t *testing.T) {
			got, err := rules.Shipped().Events(c.change(n))
			if c.failed != "" {
				if err == nil && len(got) == 1 {
					err = validate.Default().Validate(got[0].Event.Type, got[0].Event.Data)
				}
				if err == nil || !strings.Contains(err.Error(), c.failed) {
					t.Fatalf("%v, %v; want an error that says %s", got, err, c.failed)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, asSaid(got, recorded)); diff != "" {
				t.Errorf("means (-want +got):\n%s", diff)
			}
			again, _ := rules.Shipped().Events(c.change(n))
			for i, one := range got {
				seen[one.Event.Type] = true
				if again[i].Event.ID != one.Event.ID {
					t.Error("read again, it has another id")
				}
				if at, err := event.IDTime(one.Event.ID); err != nil || !at.Equal(recorded) {
					t.Errorf("its id says %s, %v", at, err)
				}
				if other, ok := ids[one.Event.ID]; ok {
					t.Errorf("it has the id of %s", other)
				}
				ids[one.Event.ID] = c.name
				if err := validate.Default().Validate(one.Event.Type, one.Event.Data); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for _, eventType := range validate.Default().Types() {
		if !seen[eventType] {
			t.Errorf("no change means %s", eventType)
		}
	}
}

func TestEventsCarryTheChangesRequestID(t *testing.T) {
	for written, want := range map[string]string{"req-1": "req-1", " req\r\n1\x00\u007f\u0085 ": "req1", "\ufffd\uffff": "", strings.Repeat("ü", 200): strings.Repeat("ü", 126) + "…"} {
		c := change{after: item(user, "request_id", written)}
		got, err := rules.Shipped().Events(c.change(1))
		if err != nil || got[0].Event.RequestID != want {
			t.Errorf("%+v, %v", got, err)
		}
	}
}

// Two changes of an item within a second have different IDs, and so has the same
// sequence number in another stream.
func TestIDsDependOnTheStreamRecord(t *testing.T) {
	c := change{after: item(user)}
	id := func(r platform.Change) string {
		got, err := rules.Shipped().Events(r)
		if err != nil {
			t.Fatal(err)
		}
		return got[0].Event.ID
	}
	base, other, stream := c.change(1), c.change(2), c.change(1)
	stream.Stream += "2"
	if id(base) == id(other) || id(base) == id(stream) {
		t.Error("two records give one id")
	}
	timeless := c.change(1)
	timeless.At = time.Time{}
	if _, err := rules.Shipped().Events(timeless); err == nil {
		t.Error("a record without a time has an id")
	}
}

// sink keeps the events that are stored.
type sink struct {
	mu     sync.Mutex
	events map[string]event.Accepted
}

func (s *sink) PutEvent(_ context.Context, a event.Accepted) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.events[a.ID]; ok {
		return event.ErrExists
	}
	s.events[a.ID] = a
	return nil
}

// The same changes are written to a DynamoDB and read from its stream. Unlike the real
// one, the local DynamoDB adds writes that change nothing to the stream.
func TestChangesOfARealTable(t *testing.T) {
	client, stack := dynamotest.New(t)
	table := stack.Name + "-Own"
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	// A platform's own table: without the indexes of ours, its times can have any type.
	if _, err := client.CreateTable(ctx, &dynamodb.CreateTableInput{
		TableName: &table, BillingMode: types.BillingModePayPerRequest,
		AttributeDefinitions: []types.AttributeDefinition{{AttributeName: aws.String("pk"), AttributeType: types.ScalarAttributeTypeS}, {AttributeName: aws.String("sk"), AttributeType: types.ScalarAttributeTypeS}},
		KeySchema:            []types.KeySchemaElement{{AttributeName: aws.String("pk"), KeyType: types.KeyTypeHash}, {AttributeName: aws.String("sk"), KeyType: types.KeyTypeRange}},
		StreamSpecification:  &types.StreamSpecification{StreamEnabled: aws.Bool(true), StreamViewType: types.StreamViewTypeNewAndOldImages},
	}); err != nil {
		t.Fatal(err)
	}
	all := changes()
	key := func(n int) dynamoitem.Item {
		return dynamoitem.Item{dynamoitem.PK: dynamoitem.S(fmt.Sprint("change ", n)), dynamoitem.SK: dynamoitem.S("x")}
	}
	put := func(n int, i dynamoitem.Item) {
		t.Helper()
		moved := dynamoitem.Item{}
		for name, v := range i {
			moved[name] = v
		}
		for name, v := range key(n) {
			moved[name] = v
		}
		if dynamoitem.KindOf(i) == platform.KindMembership { // two joins of one user within a minute are one event
			moved[dynamoitem.Tenant] = dynamoitem.S(fmt.Sprint("row-", n))
		}
		if _, err := client.PutItem(ctx, &dynamodb.PutItemInput{TableName: &table, Item: moved}); err != nil {
			t.Fatal(err)
		}
	}
	want := map[string][]said{} // by the item's pk
	writes, failed := 0, 0
	for n, c := range all {
		if c.byTTL {
			continue // no local DynamoDB deletes by TTL
		}
		pk := fmt.Sprint("change ", n)
		if c.before != nil {
			put(n, c.before)
			writes++
			// What stood there had to be written, which may mean something itself.
			first, err := rules.Shipped().Events(change{after: c.before}.change(n))
			if err != nil {
				failed++
			}
			want[pk] = asSaid(first, recorded)
		}
		if c.after != nil {
			put(n, c.after)
		} else if _, err := client.DeleteItem(ctx, &dynamodb.DeleteItemInput{TableName: &table, Key: key(n)}); err != nil {
			t.Fatal(err)
		}
		writes++
		want[pk] = append(want[pk], c.want...)
		if c.failed != "" {
			failed++
		}
	}

	kept := &sink{events: map[string]event.Accepted{}}
	others := memory.New(time.Now)
	em := &emit.Emitter{Catalog: validate.Default(), Events: kept, Keys: others, Failed: others, Stuck: others, Statistics: others, Log: slog.New(slog.DiscardHandler), Now: time.Now}
	var records []events.DynamoDBEventRecord
	done := make(chan struct{})
	handle := func(ctx context.Context, payload json.RawMessage) (any, error) {
		var batch events.DynamoDBEvent
		if err := json.Unmarshal(payload, &batch); err != nil {
			return nil, err
		}
		records = append(records, batch.Records...)
		if len(records) == writes {
			defer close(done)
		}
		return emithandler.Route(em)(ctx, payload)
	}
	checkpoints, err := local.OpenCheckpoints("")
	if err != nil {
		t.Fatal(err)
	}
	fn := &local.Function{Function: samtemplate.Function{Folder: "emit", Timeout: time.Minute}, Handle: handle, Log: slog.New(slog.DiscardHandler)}
	stream := &local.DynamoStream{
		DB: client, Streams: dynamoemulator.Streams(*client.Options().BaseEndpoint), Table: table, Checkpoints: checkpoints,
		Mapping: func(shard local.Shard, after string) *local.StreamMapping {
			return &local.StreamMapping{Function: fn, Shard: shard, After: after, Trigger: samtemplate.StreamTrigger{BatchSize: 10, ReportsItems: true}}
		},
	}
	ended := make(chan error, 1)
	go func() { ended <- stream.Run(ctx) }()
	select {
	case <-done:
	case err := <-ended:
		t.Fatalf("the stream ended: %v", err)
	case <-time.After(time.Minute):
		t.Fatal("not all writes came through the stream in a minute")
	}
	cancel()
	if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}

	got := map[string][]said{}
	total := 0
	for _, r := range records {
		list, _ := rules.Shipped().Events(streamtest.Changes(r)[0]) // a failed change is none
		list = slices.DeleteFunc(list, func(c capture.Captured) bool { return validate.Default().Validate(c.Event.Type, c.Event.Data) != nil })
		pk := r.Change.Keys[dynamoitem.PK].String()
		got[pk] = append(got[pk], asSaid(list, r.Change.ApproximateCreationDateTime.UTC())...)
		for _, one := range list {
			total++
			a, ok := kept.events[one.Event.ID]
			stored, err := event.Decode(a.Body)
			if !ok || err != nil || stored.Type != one.Event.Type || string(stored.Data) != string(one.Event.Data) || a.Tenant != one.Tenant {
				t.Errorf("%s: stored is %+v, %v", pk, a, err)
			}
		}
	}
	for n, c := range all {
		pk := fmt.Sprint("change ", n)
		if diff := cmp.Diff(want[pk], got[pk]); diff != "" {
			t.Errorf("%s: means (-want +got):\n%s", c.name, diff)
		}
	}
	if n, _, err := others.CountFailedChanges(t.Context()); err != nil || n != failed {
		t.Errorf("%d changes are kept as failed, want %d (%v)", n, failed, err)
	}
	if len(kept.events) != total || total == 0 {
		t.Errorf("%d events are stored, %d were meant", len(kept.events), total)
	}
	// The whole stream again: nothing is captured twice.
	if answer := em.Capture(t.Context(), streamtest.Changes(records...)); len(answer) != 0 || len(kept.events) != total {
		t.Errorf("replayed: %+v, %d events", answer, len(kept.events))
	}
}

// The events of the longest records fit into what emit stores, whatever the envelope
// holds.
func TestTheLargestEventsFit(t *testing.T) {
	wide := strings.Repeat("\x01", 256) // six bytes each in JSON
	for _, text := range []string{wide, strings.Repeat(wide, 1560), strings.Repeat("🎟", 99_000), strings.Repeat(`"`, 390_000), strings.Repeat("x", 398_000)} {
		for _, c := range []change{
			{after: item(comment, "user_id", wide, "request_id", wide, "comment_text", text, "comment_id", wide, "discussion_id", wide, "discussion_title", text, "user_name", text, "community_id", wide, "community_name", text)},
			{after: item(flag, "user_id", wide, "request_id", wide, "comment_id", wide, "flagged_user_id", wide, "reason", text, "comment_text", text, "discussion_title", text, "discussion_id", text)},
		} {
			got, err := rules.Shipped().Events(c.change(1))
			if err != nil {
				t.Fatal(err)
			}
			e := got[0].Event
			if err := validate.Default().Validate(e.Type, e.Data); err != nil {
				t.Error(err)
			}
			e.TraceID = strings.Repeat("x", 256)
			if body, err := e.Encode(); err != nil || len(text) > 300_000 && e.Type == "user.posted_comment" && len(body) < 200_000 {
				t.Errorf("%s of %d bytes: %d bytes, %v", e.Type, len(text), len(body), err)
			}
		}
	}
}
