package dispatch_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/delivery/work"
	"github.com/tidings-dev/tidings/pkg/destination"
	"github.com/tidings-dev/tidings/pkg/dispatch"
	"github.com/tidings-dev/tidings/pkg/endpoint"
)

// slowClaims is a store whose claims take a while.
type slowClaims struct {
	dispatch.Deliveries
	took time.Duration
}

func (s slowClaims) Claim(ctx context.Context, c delivery.Claim) (delivery.Delivery, error) {
	time.Sleep(s.took)
	return s.Deliveries.Claim(ctx, c)
}

// A batch never outlives its invocation: Lambda would kill it before it stored its
// verdicts, and every receiver would get its event again.
func TestABatchEndsBeforeItsInvocation(t *testing.T) {
	for name, c := range map[string]struct {
		left, claim time.Duration
		attempts    int
		state       delivery.State // "" for no record
	}{
		"enough time":                         {60 * time.Second, 0, 1, delivery.Pending},
		"just enough time":                    {endpoint.DefaultTimeout + 3*time.Second, 0, 1, delivery.Pending},
		"too little for the attempt":          {endpoint.DefaultTimeout - time.Second, 0, 0, ""},
		"too little for its verdict":          {endpoint.DefaultTimeout + time.Second, 0, 0, ""},
		"too little once the claim is stored": {endpoint.DefaultTimeout + 4*time.Second, 2 * time.Second, 0, delivery.Pending},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, func(config *dispatch.Config) { config.Deliveries = slowClaims{config.Deliveries, c.claim} })
				e := w.endpoint()
				w.receiver.answer = func(ctx context.Context, _ destination.Message) delivery.Outcome {
					<-ctx.Done()
					return delivery.Outcome{Class: delivery.Timeout, Error: "no answer in time"}
				}
				item := w.fannedOut()
				began := time.Now()
				ctx, cancel := context.WithTimeout(t.Context(), c.left)
				defer cancel()
				if failed := w.Deliver(ctx, []work.Message{{ID: "m", Body: item.Encode(), Receives: 1}}); len(failed) != 0 {
					t.Errorf("failed: %v", failed)
				}
				if took := time.Since(began); took >= c.left {
					t.Errorf("the batch took %s of %s", took, c.left)
				}
				if got := w.receiver.count(); got != c.attempts {
					t.Errorf("%d attempts, want %d", got, c.attempts)
				}
				d, err := w.store.GetDelivery(t.Context(), delivery.Key{EndpointID: e.ID, EventID: item.EventID})
				if (err != nil) != (c.state == "") || d.State != c.state {
					t.Errorf("delivery %+v, %v; want state %q", d, err, c.state)
				}
				if c.attempts == 0 {
					if c.state != "" && (len(d.History) != 1 || d.History[0].Class != delivery.CalledOff) {
						t.Errorf("history %+v, want the attempt called off", d.History)
					}
					if back := w.queue.take(); len(back) != 1 || back[0].EventID != item.EventID || c.state == "" && back[0].Delay != 2*time.Second {
						t.Errorf("back in the queue: %+v", back)
					}
				}
			})
		})
	}
}
