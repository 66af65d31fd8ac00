package dynamo_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/tidings-dev/tidings/pkg/admin"
	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/delivery/breaker"
	"github.com/tidings-dev/tidings/pkg/destination"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/event/catalog"
	"github.com/tidings-dev/tidings/pkg/local"
	"github.com/tidings-dev/tidings/pkg/ops/stats"
	"github.com/tidings-dev/tidings/pkg/store/dynamo"
	"github.com/tidings-dev/tidings/pkg/store/dynamoitem"
	"github.com/tidings-dev/tidings/test/dynamotest"
	"github.com/tidings-dev/tidings/test/storetest"
)

func TestConformance(t *testing.T) {
	if testing.Short() {
		t.Skip("the memory store runs the same suite")
	}
	storetest.Run(t, func(t *testing.T) storetest.Store {
		client, stack := dynamotest.New(t)
		return dynamo.New(client, local.Tables(stack.Name))
	})
}

// meter sums write and read units.
type meter struct {
	mu           sync.Mutex
	writes       float64
	reads        float64
	indexTouched bool
}

func (m *meter) add(write bool, c types.ConsumedCapacity) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if write {
		m.writes += aws.ToFloat64(c.CapacityUnits)
	} else {
		m.reads += aws.ToFloat64(c.CapacityUnits)
	}
	m.indexTouched = m.indexTouched || len(c.GlobalSecondaryIndexes) > 0
}

func TestASuccessfulFirstAttemptCostsThreeWriteUnits(t *testing.T) {
	client, stack := dynamotest.New(t)
	m := firstAttempt(t, client, stack.Name)
	if m.writes != 3 || m.reads != 0 || m.indexTouched {
		t.Errorf("%g write units, %g read units, index touched: %v; want 3, 0 and an untouched index", m.writes, m.reads, m.indexTouched)
	}
}

// firstAttempt stores an event and delivers it in the first attempt, and returns the cost.
func firstAttempt(t *testing.T, client *dynamodb.Client, stack string) *meter {
	t.Helper()
	var m meter
	s := dynamo.New(client, local.Tables(stack), dynamo.WithMeter(m.add))
	now := time.Now()
	body, err := event.Event{ID: event.NewID(now), Type: "user.joined_community", Timestamp: now, ActorUserID: "u_1042",
		Data: json.RawMessage(`{"community_id":"c_7","community_name":"Gophers Berlin"}`)}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	a := event.Accepted{ID: event.NewID(now), Tenant: event.DefaultTenant, Body: body}
	if err := s.PutEvent(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	claimed, err := s.Claim(t.Context(), delivery.Claim{
		Key: delivery.Key{EndpointID: endpoint.NewID(now), EventID: a.ID}, Tenant: a.Tenant, EventType: "user.joined_community",
		Accepted: now, ID: "worker", Now: now, Lease: 25 * time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	done := delivery.Conclusion{State: delivery.Delivered, Now: now, Attempt: delivery.Attempt{Number: 1, At: now, Class: delivery.Success, Status: 200}}
	if err := s.Complete(t.Context(), done.Apply(claimed)); err != nil {
		t.Fatal(err)
	}
	return &m
}

// A dead letter is in the index of the dead ones: one unit more, and another when it is
// replayed. A page of them is read at once, whatever else is stored.
func TestADeadLetterCostsOneWriteUnitMore(t *testing.T) {
	client, stack := dynamotest.New(t)
	var m meter
	s := dynamo.New(client, local.Tables(stack.Name), dynamo.WithMeter(m.add))
	now := time.Now().Truncate(time.Millisecond)
	endpointID := endpoint.NewID(now)
	deliver := func(state delivery.State) delivery.Key {
		t.Helper()
		key := delivery.Key{EndpointID: endpointID, EventID: event.NewID(now)}
		claimed, err := s.Claim(t.Context(), delivery.Claim{
			Key: key, Tenant: "t", EventType: "user.joined_community", Accepted: now, ID: "worker", Now: now, Lease: 25 * time.Second,
		})
		if err != nil {
			t.Fatal(err)
		}
		done := delivery.Conclusion{State: state, Now: now, Reason: strings.Repeat("x", 200), Snippet: strings.Repeat("y", delivery.MaxSnippetBytes),
			Attempt: delivery.Attempt{Number: 1, At: now, Class: delivery.Answered, Status: 503}}
		if err := s.Complete(t.Context(), done.Apply(claimed)); err != nil {
			t.Fatal(err)
		}
		return key
	}
	key := deliver(delivery.Dead)
	if m.writes != 3 {
		t.Errorf("a dead letter costs %g write units, want 3: claim, verdict and the index", m.writes)
	}
	m.writes = 0
	if _, err := s.Replay(t.Context(), delivery.Replay{Key: key, Now: now, DueAt: now.Add(time.Minute)}); err != nil {
		t.Fatal(err)
	}
	if m.writes != 3 {
		t.Errorf("a replay costs %g write units, want 3: the delivery, the due index, and the index that it leaves", m.writes)
	}
	for n := range 200 {
		deliver(delivery.Delivered)
		if n%3 == 0 {
			deliver(delivery.Dead)
		}
	}
	m.reads = 0
	page, err := s.QueryDeliveries(t.Context(), delivery.Query{EndpointID: endpointID, State: delivery.Dead, Limit: 50})
	if err != nil || len(page.Deliveries) != 50 || m.reads > 7 {
		t.Errorf("a page of %d dead letters costs %g read units, %v; want 50 for at most 7", len(page.Deliveries), m.reads, err)
	}
}

func TestItemsExpire(t *testing.T) {
	client, stack := dynamotest.New(t)
	tables := local.Tables(stack.Name)
	s := dynamo.New(client, tables)
	now := time.Now()
	a := event.Accepted{ID: event.NewID(now), Tenant: "t", Body: []byte(`{}`)}
	if err := s.PutEvent(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	key := delivery.Key{EndpointID: "ep_1", EventID: a.ID}
	if _, err := s.Claim(t.Context(), delivery.Claim{Key: key, Tenant: "t", EventType: "x", Accepted: now, ID: "w", Now: now, Lease: time.Second}); err != nil {
		t.Fatal(err)
	}
	expires := now.Add(time.Hour)
	if _, err := s.ReserveKey(t.Context(), "t", "k", event.Reservation{EventID: a.ID, Digest: "d"}, expires); err != nil {
		t.Fatal(err)
	}
	for table, c := range map[string]struct {
		key  dynamoitem.Item
		want time.Time
	}{
		tables.Events:     {dynamoitem.Item{dynamoitem.EventID: dynamoitem.S(a.ID)}, now.Add(event.Retention(0))},
		tables.Deliveries: {dynamoitem.DeliveryKey(key), now.Add(event.Retention(0))},
		tables.Control:    {dynamoitem.Item{dynamoitem.Key: dynamoitem.S(dynamoitem.IdempotencyKey("t", "k"))}, expires},
	} {
		out, err := client.GetItem(t.Context(), &dynamodb.GetItemInput{TableName: &table, Key: c.key})
		if err != nil {
			t.Fatal(err)
		}
		if got, want := out.Item[dynamoitem.ExpiresAt], dynamoitem.Seconds(c.want); got.(*types.AttributeValueMemberN).Value != want.(*types.AttributeValueMemberN).Value {
			t.Errorf("%s expires at %v, want %v", table, got, want)
		}
		ttl, err := client.DescribeTimeToLive(t.Context(), &dynamodb.DescribeTimeToLiveInput{TableName: &table})
		if err != nil || aws.ToString(ttl.TimeToLiveDescription.AttributeName) != dynamoitem.ExpiresAt {
			t.Errorf("%s: TTL attribute %v, %v", table, ttl, err)
		}
	}
}

// repeating applies every write twice, like the SDK when the first response was lost.
type repeating struct{ dynamo.Client }

func (a *repeating) UpdateItem(ctx context.Context, in *dynamodb.UpdateItemInput, o ...func(*dynamodb.Options)) (*dynamodb.UpdateItemOutput, error) {
	if _, err := a.Client.UpdateItem(ctx, in, o...); err != nil {
		return nil, err
	}
	return a.Client.UpdateItem(ctx, in, o...)
}

func (a *repeating) PutItem(ctx context.Context, in *dynamodb.PutItemInput, o ...func(*dynamodb.Options)) (*dynamodb.PutItemOutput, error) {
	if _, err := a.Client.PutItem(ctx, in, o...); err != nil {
		return nil, err
	}
	return a.Client.PutItem(ctx, in, o...)
}

func TestARepeatedWriteOfAnEndpointCountsOnce(t *testing.T) {
	client, stack := dynamotest.New(t)
	s := dynamo.New(&repeating{client}, local.Tables(stack.Name))
	admin := &admin.Endpoints{Store: s, Catalog: catalog.Default(), Check: func(destination.Target) error { return nil }, Now: time.Now}
	added, err := admin.Add(t.Context(), endpoint.Endpoint{Tenant: "t", URL: "https://example.com"})
	if err != nil {
		t.Fatalf("add: %v; want its secret", err)
	}
	rotated, err := admin.RotateSecret(t.Context(), "t", added.ID, time.Hour)
	if err != nil || rotated.Version != 2 || len(rotated.Secrets) != 2 {
		t.Errorf("rotate: version %d with %d secrets, %v; want one rotation", rotated.Version, len(rotated.Secrets), err)
	}
}

func TestDueRejectsInvalidCursors(t *testing.T) {
	client, stack := dynamotest.New(t)
	s := dynamo.New(client, local.Tables(stack.Name))
	for _, text := range []string{"null", "{}", "[]", "x"} {
		if _, _, err := s.Due(t.Context(), 0, time.Now(), base64.RawURLEncoding.EncodeToString([]byte(text)), 10); err == nil {
			t.Errorf("the cursor %s is accepted", text)
		}
	}
}

func TestARepeatedWriteCountsOnce(t *testing.T) {
	client, stack := dynamotest.New(t)
	s := dynamo.New(&repeating{client}, local.Tables(stack.Name))
	now := time.Now().Truncate(time.Millisecond)
	c := delivery.Claim{Key: delivery.Key{EndpointID: "ep_1", EventID: event.NewID(now)}, Tenant: "t", EventType: "x", Accepted: now, ID: "w", Now: now, Lease: time.Minute}
	claimed, err := s.Claim(t.Context(), c)
	if err != nil || claimed.Attempts != 1 {
		t.Fatalf("claim = %+v, %v; want the first attempt", claimed, err)
	}
	if err := s.AddStatistics(t.Context(), stats.Batch{ID: "b", At: now, Counts: stats.Counts{Attempts: 1}}); err != nil {
		t.Fatal(err)
	}
	if all, _, err := s.ReadStatistics(t.Context(), stats.Buckets(now, now)); err != nil || len(all) != 1 || all[stats.Bucket(now)].Minutes[0].Attempts != 1 {
		t.Errorf("statistics = %+v, %v; want one attempt", all, err)
	}
	pending := delivery.Conclusion{State: delivery.Dead, Reason: "no", Now: now, Attempt: delivery.Attempt{Number: 1, At: now, Class: delivery.Answered}}
	if err := s.Complete(t.Context(), pending.Apply(claimed)); err != nil {
		t.Errorf("complete: %v", err)
	}
	replayed, err := s.Replay(t.Context(), delivery.Replay{Key: c.Key, Now: now.Add(time.Second), DueAt: now.Add(time.Minute)})
	if err != nil || replayed.State != delivery.Pending {
		t.Errorf("replay = %+v, %v", replayed, err)
	}
	if _, err := s.Postpone(t.Context(), delivery.Due{Key: c.Key, DueAt: now.Add(time.Minute)}, now.Add(time.Hour)); !errors.Is(err, delivery.ErrFenced) {
		// The sweep finds the delivery at its new due time.
		t.Errorf("postpone: %v, want ErrFenced", err)
	}
}

func TestAMalformedEndpointIsListedAsDisabled(t *testing.T) {
	client, stack := dynamotest.New(t)
	tables := local.Tables(stack.Name)
	s := dynamo.New(client, tables)
	if _, err := client.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: &tables.Endpoints, Item: dynamoitem.Item{
		dynamoitem.Tenant: dynamoitem.S("t"), dynamoitem.EndpointID: dynamoitem.S("ep_broken"), dynamoitem.Status: dynamoitem.S("enabled"), "url": dynamoitem.S("https://example.com"),
	}}); err != nil {
		t.Fatal(err)
	}
	list, err := s.ListEndpoints(t.Context(), "t")
	if err != nil || len(list) != 1 || list[0].ID != "ep_broken" || list[0].Status != endpoint.Disabled || list[0].StatusReason == "" {
		t.Errorf("list = %+v, %v; want it disabled, with the error as the reason", list, err)
	}
}

func TestCostOfStatistics(t *testing.T) {
	client, stack := dynamotest.New(t)
	var m meter
	calls := &counting{Client: client}
	s := dynamo.New(calls, local.Tables(stack.Name), dynamo.WithMeter(m.add))
	now := stats.Bucket(time.Now())
	// A busy bucket: every count of every minute, latencies in four buckets.
	for minute := range 10 {
		b := stats.Batch{
			ID: "the same shard" + string(rune('a'+minute)), At: now.Add(time.Duration(minute) * time.Minute), Worked: true, LastEvent: now,
			Counts:    stats.Counts{Accepted: 1234, Queued: 1234, Attempts: 1234, Delivered: 1234, Failed: 12, Retried: 12, Dead: 1, Skipped: 1},
			Latencies: []time.Duration{10 * time.Millisecond, 20 * time.Millisecond, 50 * time.Millisecond, 100 * time.Millisecond},
		}
		if err := s.AddStatistics(t.Context(), b); err != nil {
			t.Fatal(err)
		}
	}
	if m.writes != 10 {
		t.Errorf("%g write units for 10 batches", m.writes)
	}
	reader := &stats.Reader{Source: s, Now: func() time.Time { return now.Add(24 * time.Hour) }}
	for i, want := range []int{3, 4} {
		if _, err := reader.Summary(t.Context()); err != nil || calls.batches != want {
			t.Errorf("summary %d: %d reads in all, %v; want %d", i+1, calls.batches, err, want)
		}
	}
	out, err := client.GetItem(t.Context(), &dynamodb.GetItemInput{
		TableName: aws.String(local.Tables(stack.Name).Control),
		Key:       dynamoitem.Item{dynamoitem.Key: dynamoitem.S(dynamoitem.StatisticsKey(now, stats.Batch{ID: "the same sharda"}.Shard()))},
	})
	if err != nil || out.Item[dynamoitem.ExpiresAt] == nil {
		t.Errorf("statistics never expire: %v, %v", out, err)
	}
}

// counting counts batch reads.
type counting struct {
	dynamo.Client
	batches int
}

func (c *counting) BatchGetItem(ctx context.Context, in *dynamodb.BatchGetItemInput, o ...func(*dynamodb.Options)) (*dynamodb.BatchGetItemOutput, error) {
	c.batches++
	return c.Client.BatchGetItem(ctx, in, o...)
}

// A breaker that cannot be decoded must not stall its endpoint.
func TestAnUnreadableBreakerIsReplaced(t *testing.T) {
	client, stack := dynamotest.New(t)
	store := dynamo.New(client, local.Tables(stack.Name))
	now := time.Now()
	for name, corrupt := range map[string]dynamoitem.Item{
		"a count that is text":      {dynamoitem.Version: dynamoitem.N(7), "failures": dynamoitem.S("many")},
		"a version that is text":    {dynamoitem.Version: dynamoitem.S("x")},
		"no version":                {"failures": dynamoitem.N(3)},
		"in the index of open ones": {dynamoitem.Version: dynamoitem.N(2), dynamoitem.WakeShard: dynamoitem.N(0), dynamoitem.WakeAt: dynamoitem.Millis(now), "phase": dynamoitem.N(1)},
	} {
		t.Run(name, func(t *testing.T) {
			id := endpoint.NewID(now)
			for key, value := range dynamoitem.BreakerKey(id) {
				corrupt[key] = value
			}
			if _, err := client.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: aws.String(local.Tables(stack.Name).Control), Item: corrupt}); err != nil {
				t.Fatal(err)
			}
			b, err := store.GetBreaker(t.Context(), "t1", id, true)
			if !errors.Is(err, breaker.ErrUnreadable) || !b.Clean() || b.EndpointID != id || b.Tenant != "t1" {
				t.Fatalf("GetBreaker = %+v, %v; want a clean one and ErrUnreadable", b, err)
			}
			if _, err := store.ListCircuits(t.Context(), time.Time{}); err != nil {
				t.Errorf("ListCircuits: %v", err)
			}
			b.Failures, b.WriteID = 1, "w"
			if _, err := store.PutBreaker(t.Context(), b, now); err != nil {
				t.Fatalf("it is not replaced: %v", err)
			}
			if b, err = store.GetBreaker(t.Context(), "t1", id, true); err != nil || b.Failures != 1 {
				t.Errorf("afterwards: %+v, %v", b, err)
			}
		})
	}
}

// between calls a function before the next update, as another worker would.
type between struct {
	dynamo.Client
	do func()
}

func (b *between) UpdateItem(ctx context.Context, in *dynamodb.UpdateItemInput, o ...func(*dynamodb.Options)) (*dynamodb.UpdateItemOutput, error) {
	if do := b.do; do != nil {
		b.do = nil
		do()
	}
	return b.Client.UpdateItem(ctx, in, o...)
}

// A replay reads first. What another worker does before it writes must stay.
func TestAReplayDoesNotUndoWhatHappensBeforeItsWrite(t *testing.T) {
	client, stack := dynamotest.New(t)
	now := time.Now().Truncate(time.Millisecond)
	s := dynamo.New(client, local.Tables(stack.Name))
	claim := func(t *testing.T, key delivery.Key, attempts int) delivery.Delivery {
		t.Helper()
		d, err := s.Claim(t.Context(), delivery.Claim{Key: key, Tenant: "t", EventType: "x", Accepted: now, Attempts: attempts, ID: fmt.Sprint("claim ", attempts), Now: now, Lease: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	bury := func(t *testing.T, d delivery.Delivery) {
		t.Helper()
		end := delivery.Conclusion{State: delivery.Dead, Reason: "no", Now: now, Attempt: delivery.Attempt{Number: d.Attempts, At: now, Class: delivery.Answered}}
		if err := s.Complete(t.Context(), end.Apply(d)); err != nil {
			t.Fatal(err)
		}
	}
	other := delivery.Replay{Now: now.Add(time.Hour), DueAt: now.Add(2 * time.Hour)}
	replay := func(t *testing.T, key delivery.Key) {
		t.Helper()
		other.Key = key
		if _, err := s.Replay(t.Context(), other); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		meanwhile func(t *testing.T, key delivery.Key)
		want      delivery.State
		attempts  int
	}{
		"it was replayed": {replay, delivery.Pending, 1},
		"it was replayed, and is dead again": {func(t *testing.T, key delivery.Key) {
			replay(t, key)
			d, err := s.Claim(t.Context(), delivery.Claim{Key: key, Tenant: "t", EventType: "x", Accepted: now, Attempts: 1, ID: "later", Now: now.Add(time.Hour), Lease: time.Minute})
			if err != nil {
				t.Fatal(err)
			}
			bury(t, d)
		}, delivery.Dead, 2},
	} {
		t.Run(name, func(t *testing.T) {
			key := delivery.Key{EndpointID: "ep_1", EventID: event.NewID(now)}
			bury(t, claim(t, key, 0))
			racing := dynamo.New(&between{client, func() { c.meanwhile(t, key) }}, local.Tables(stack.Name))
			if d, err := racing.Replay(t.Context(), delivery.Replay{Key: key, Now: now.Add(time.Second), DueAt: now.Add(time.Minute)}); err == nil {
				t.Errorf("replayed: %+v", d)
			}
			d, err := s.GetDelivery(t.Context(), key)
			if err != nil || d.State != c.want || d.Attempts != c.attempts || !d.Since.Equal(other.Now) {
				t.Errorf("it is %+v, %v; want it as the other worker left it", d, err)
			}
		})
	}
}

// No transition leaves a delivery in the backlog that is not pending, but if one did, a
// drain must not queue it.
func TestTheBacklogHasPendingDeliveriesOnly(t *testing.T) {
	client, stack := dynamotest.New(t)
	tables := local.Tables(stack.Name)
	s := dynamo.New(client, tables)
	now := time.Now().Truncate(time.Millisecond)
	key := delivery.Key{EndpointID: "ep_1", EventID: event.NewID(now)}
	claimed, err := s.Claim(t.Context(), delivery.Claim{Key: key, Tenant: "t", EventType: "x", Accepted: now, ID: "w", Now: now, Lease: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	item := dynamoitem.EncodeDelivery(claimed)
	item[dynamoitem.Waiting] = dynamoitem.S(key.EndpointID)
	if _, err := client.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: &tables.Deliveries, Item: item}); err != nil {
		t.Fatal(err)
	}
	if page, err := s.ListBacklog(t.Context(), key.EndpointID, "", 10); err != nil || len(page.Deliveries) != 0 || page.Last != key.EventID {
		t.Errorf("the backlog has a delivery in flight: %+v, %v", page, err)
	}
}
