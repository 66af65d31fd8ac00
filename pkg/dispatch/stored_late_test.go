package dispatch_test

import (
	"encoding/json"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/event"
)

// An event that is stored long after its ID was made gets all its attempts: its age counts
// from when it was stored.
func TestAgeCountsFromWhenTheEventWasStored(t *testing.T) {
	for name, c := range map[string]struct {
		late      time.Duration // from the ID to the store
		timeKnown bool
		status    int
		want      delivery.State
		attempts  int // at least
	}{
		"at once":                      {0, true, 200, delivery.Delivered, 1},
		"73 hours later":               {73 * time.Hour, true, 200, delivery.Delivered, 1},
		"73 hours later, all failing":  {73 * time.Hour, true, 503, delivery.Dead, 3},
		"seven days later":             {7 * 24 * time.Hour, true, 200, delivery.Delivered, 1},
		"73 hours, no time in stream":  {73 * time.Hour, false, 200, delivery.Dead, 0},
		"a minute later, all failing":  {time.Minute, true, 503, delivery.Dead, 3},
		"an hour later, slow delivery": {time.Hour, true, 200, delivery.Delivered, 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.receiver.answer = answering(c.status)
				if c.status == 200 {
					w.receiver.answer = nil
				}
				w.endpoint(func(e *endpoint.Endpoint) { e.Retry.MaxAttempts, e.Breaker.Failures = 3, 100 })
				id := event.NewID(time.Now())
				time.Sleep(c.late)
				body, err := event.Event{ID: id, Type: "user.posted_comment", Timestamp: time.Now(), Data: json.RawMessage(comment)}.Encode()
				if err != nil {
					t.Fatal(err)
				}
				a := event.Accepted{ID: id, Tenant: event.DefaultTenant, Body: body}
				if err := w.store.PutEvent(t.Context(), a); err != nil {
					t.Fatal(err)
				}
				record := event.Change{Inserted: true, SequenceNumber: "1", Event: a}
				if c.timeKnown {
					record.At = time.Now().Truncate(time.Second)
				}
				w.FanOut(t.Context(), []event.Change{record})
				items := w.queue.take()
				if len(items) != 1 || items[0].Since.IsZero() != (c.late < 10*time.Minute || !c.timeKnown) {
					t.Fatalf("queued %+v", items)
				}
				d := w.run(items[0], 100*time.Hour)
				if d.State != c.want || d.Attempts < c.attempts {
					t.Errorf("%s after %d attempts (%s), want %s after at least %d", d.State, d.Attempts, d.Reason, c.want, c.attempts)
				}
			})
		})
	}
}
