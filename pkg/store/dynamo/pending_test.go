package dynamo_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/local"
	"github.com/tidings-dev/tidings/pkg/store/dynamo"
	"github.com/tidings-dev/tidings/test/dynamotest"
)

// What is read depends on the page, not on the other deliveries.
func TestAPageOfPendingDeliveriesReadsOnlyThose(t *testing.T) {
	client, stack := dynamotest.New(t)
	var m meter
	s := dynamo.New(client, local.Tables(stack.Name), dynamo.WithMeter(m.add))
	now := time.Now().Truncate(time.Millisecond)
	id := endpoint.NewID(now)
	deliver := func(i int, state delivery.State) {
		t.Helper()
		at := now.Add(time.Duration(i) * time.Millisecond)
		d, err := s.Claim(t.Context(), delivery.Claim{
			Key: delivery.Key{EndpointID: id, EventID: event.NewID(at)}, Tenant: "t1", EventType: "user.posted_comment", Accepted: at, ID: fmt.Sprint("worker ", i), Now: at, Lease: time.Minute,
		})
		if err != nil {
			t.Fatal(err)
		}
		done := delivery.Conclusion{State: state, Now: at, Attempt: delivery.Attempt{Number: 1, At: at, Class: delivery.Success, Status: 200}}
		if state == delivery.Pending {
			done.NextAt, done.DueAt = at.Add(time.Hour), at.Add(time.Hour)
		}
		if err := s.Complete(t.Context(), done.Apply(d)); err != nil {
			t.Fatal(err)
		}
	}
	var reads [2]float64
	const others, some = 300, 10
	for i := range some {
		deliver(i, delivery.Pending)
	}
	for round := range reads {
		m.reads = 0
		page, err := s.ListPending(t.Context(), delivery.PendingQuery{Endpoints: []string{id}, Limit: 50, DueBy: now.Add(25 * time.Hour), MaxDue: 100})
		if err != nil || len(page.Deliveries) != some || page.Last.EventID != "" {
			t.Fatalf("%d deliveries, more %t, %v", len(page.Deliveries), page.Last.EventID != "", err)
		}
		reads[round] = m.reads
		if round == 0 {
			for i := range others {
				deliver(some+i, delivery.Delivered)
			}
		}
	}
	// Half a unit for each of 16 shards, for the backlog, and for each delivery.
	if most := 8.5 + some*0.5; reads[0] != reads[1] || reads[1] > most {
		t.Errorf("%g read units, and %g among %d others; want the same, and at most %g", reads[0], reads[1], others, most)
	}
}
