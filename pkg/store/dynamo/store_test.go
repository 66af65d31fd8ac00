package dynamo_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/tidings-dev/tidings/pkg/admin"
	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/destination"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/local"
	"github.com/tidings-dev/tidings/pkg/ops/stats"
	"github.com/tidings-dev/tidings/pkg/store/dynamo"
	"github.com/tidings-dev/tidings/pkg/store/dynamoitem"
	"github.com/tidings-dev/tidings/test/dynamotest"
	"github.com/tidings-dev/tidings/test/storetest"
)

func TestConformance(t *testing.T) {
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
		tables.Events:     {dynamoitem.Item{dynamoitem.EventID: dynamoitem.S(a.ID)}, now.Add(dynamoitem.EventRetention)},
		tables.Deliveries: {dynamoitem.DeliveryKey(key), now.Add(delivery.Retention)},
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
	admin := &admin.Endpoints{Store: s, Types: []string{"x"}, Check: func(destination.Target) error { return nil }, Now: time.Now}
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
