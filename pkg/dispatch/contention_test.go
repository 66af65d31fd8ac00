package dispatch_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/delivery/work"
	"github.com/tidings-dev/tidings/pkg/destination"
	"github.com/tidings-dev/tidings/pkg/dispatch"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/local"
	"github.com/tidings-dev/tidings/pkg/signature"
	"github.com/tidings-dev/tidings/pkg/store/dynamo"
	"github.com/tidings-dev/tidings/test/dynamotest"
)

// dice is a random source that is safe for concurrent use.
type dice struct {
	mu     sync.Mutex
	random *rand.Rand
}

func (d *dice) one(of int) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.random.IntN(of) == 0
}

var errLost = errors.New("the answer was lost")

// lossy is a store that applies some writes and returns an error, as if the response
// was lost.
type lossy struct {
	dispatch.Deliveries
	dice *dice
}

func (l lossy) Claim(ctx context.Context, c delivery.Claim) (delivery.Delivery, error) {
	d, err := l.Deliveries.Claim(ctx, c)
	if err == nil && l.dice.one(4) {
		return d, errLost
	}
	return d, err
}

func (l lossy) Complete(ctx context.Context, d delivery.Delivery) error {
	if l.dice.one(6) {
		return errLost // and was not applied
	}
	err := l.Deliveries.Complete(ctx, d)
	if err == nil && l.dice.one(6) {
		return errLost
	}
	return err
}

// crowd is the receiver and the clock of many workers. The clock does not advance
// during a round, so no lease ends, and the workers may make only one attempt.
type crowd struct {
	dice *dice

	mu       sync.Mutex
	now      time.Time
	attempts int // in this round
	answered int // attempts ever answered with success
}

func (c *crowd) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *crowd) Deliver(context.Context, destination.Target, destination.Message) delivery.Outcome {
	c.mu.Lock()
	c.attempts++
	c.mu.Unlock()
	switch {
	case c.dice.one(4):
		panic("the worker dies in the attempt")
	case c.dice.one(3):
		return delivery.Outcome{Class: delivery.Answered, Status: 500, Error: "the receiver answered 500"}
	}
	c.mu.Lock()
	c.answered++
	c.mu.Unlock()
	return delivery.Outcome{Class: delivery.Success, Status: 200}
}

// 64 workers receive the same message, on a real DynamoDB API, while responses are lost
// and workers die. A message counts as acknowledged if one of them acknowledges it.
// After each round, something must still hold the delivery.
func TestManyWorkersWithLostWritesKeepTheDelivery(t *testing.T) {
	if testing.Short() {
		t.Skip("runs many schedules")
	}
	client, stack := dynamotest.New(t)
	store := dynamo.New(client, local.Tables(stack.Name))
	const workers = 64
	for seed := range uint64(4) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			chance := &dice{random: rand.New(rand.NewPCG(seed, 1))}
			c := &crowd{dice: chance, now: time.Now().Truncate(time.Millisecond)}
			q := &sentItems{}
			e := endpoint.Endpoint{
				Tenant: event.DefaultTenant, ID: endpoint.NewID(c.now), URL: "https://receiver.example/", EventTypes: []string{"*"}, Status: endpoint.Enabled,
				Secrets: []endpoint.SigningSecret{{Secret: signature.NewSecret()}}, Version: 1, CreatedAt: c.now, UpdatedAt: c.now,
			}
			if err := store.AddEndpoint(t.Context(), e); err != nil {
				t.Fatal(err)
			}
			id := event.NewID(c.now)
			body, err := event.Event{ID: id, Type: "user.posted_comment", Timestamp: c.now, Data: []byte(comment)}.Encode()
			if err != nil {
				t.Fatal(err)
			}
			all := make([]*dispatch.Dispatcher, workers)
			for i := range all {
				all[i] = dispatch.New(dispatch.Config{
					Events: store, Endpoints: store, Disabler: store, Deliveries: lossy{store, chance}, Due: store, Replays: store,
					Statistics: store, Waiting: store, Breakers: store, Limits: store, Journal: store, Jobs: store, Queue: q, Sender: c, CacheTime: time.Hour,
					Log: slog.New(slog.DiscardHandler), Now: c.Now,
				})
			}
			key := delivery.Key{EndpointID: e.ID, EventID: id}
			waiting := []work.Item{{Tenant: e.Tenant, EndpointID: e.ID, EventID: id, EventType: "user.posted_comment", Body: body}}
			for round := 1; ; round++ {
				if round > 100 {
					t.Fatal("no end after a hundred rounds")
				}
				acknowledged := make([]bool, len(waiting))
				var mu sync.Mutex
				var running sync.WaitGroup
				for i := range max(workers, len(waiting)) {
					one := i % len(waiting)
					running.Go(func() {
						failed := all[i%workers].Deliver(t.Context(), []work.Message{{ID: "m", Body: waiting[one].Encode()}})
						mu.Lock()
						defer mu.Unlock()
						acknowledged[one] = acknowledged[one] || len(failed) == 0
					})
				}
				running.Wait()
				if c.attempts > 1 {
					t.Fatalf("round %d: %d attempts under one lease", round, c.attempts)
				}
				d, err := store.GetDelivery(t.Context(), key)
				if err != nil {
					t.Fatal(err)
				}
				var left []work.Item
				for i, done := range acknowledged {
					if !done {
						left = append(left, waiting[i])
					}
				}
				// What came back several times is one message for all that matters.
				kinds := map[int]bool{}
				for _, item := range q.take() {
					if !item.Wake && !kinds[item.Attempts] {
						kinds[item.Attempts] = true
						left = append(left, item)
					}
				}
				if d.State.Settled() {
					if d.State == delivery.Delivered && c.answered == 0 {
						t.Error("delivered, and the receiver knows nothing of it")
					}
					t.Logf("%s after %d rounds and %d attempts", d.State, round, d.Attempts)
					return
				}
				c.mu.Lock()
				c.attempts = 0
				c.now = c.now.Add(e.AttemptTimeout() + dispatch.LeaseMargin + 2*time.Second)
				c.mu.Unlock()
				if len(left) == 0 {
					if d.DueAt.IsZero() {
						t.Fatalf("round %d: nothing holds the delivery any more: %+v", round, d)
					}
					c.mu.Lock()
					c.now = d.DueAt
					c.mu.Unlock()
					if _, err := all[0].Sweep(t.Context()); err != nil {
						t.Fatal(err)
					}
					if left = q.take(); len(left) == 0 {
						t.Fatalf("round %d: the sweep does not find %+v", round, d)
					}
				}
				waiting = left
			}
		})
	}
}
