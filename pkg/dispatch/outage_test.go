package dispatch_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/delivery/breaker"
	"github.com/tidings-dev/tidings/pkg/delivery/work"
	"github.com/tidings-dev/tidings/pkg/dispatch"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/local/queue"
)

// away is a table that does not answer until a time.
type away struct {
	dispatch.Breakers
	until time.Time
}

var errAway = errors.New("the table does not answer")

func (a away) GetBreaker(ctx context.Context, tenant, id string, consistent bool) (breaker.State, error) {
	if time.Now().Before(a.until) {
		return breaker.State{}, errAway
	}
	return a.Breakers.GetBreaker(ctx, tenant, id, consistent)
}

func (a away) ListCircuits(ctx context.Context, by time.Time) ([]breaker.State, error) {
	if time.Now().Before(a.until) {
		return nil, errAway
	}
	return a.Breakers.ListCircuits(ctx, by)
}

// lacking cannot read one event.
type lacking struct {
	dispatch.Events
	id *string
}

func (l lacking) GetEvent(ctx context.Context, id string) (event.Accepted, error) {
	if id == *l.id {
		return event.Accepted{}, errors.New("the item cannot be decoded")
	}
	return l.Events.GetEvent(ctx, id)
}

// queues are a work queue with the template's settings and its dead-letter queue.
func (w *world) queues() (work, dead *queue.Queue) {
	w.t.Helper()
	open := func(c queue.Config) *queue.Queue {
		c.Visibility = 6 * time.Minute
		q, err := queue.Open(c)
		if err != nil {
			w.t.Fatal(err)
		}
		return q
	}
	dead = open(queue.Config{Name: "dead"})
	return open(queue.Config{Name: "work", MaxReceives: 10, Dead: dead}), dead
}

// driveQueues delivers from a real queue, and sweeps every minute.
func (w *world) driveQueues(q *queue.Queue, span time.Duration) {
	w.t.Helper()
	for end := time.Now().Add(span); time.Now().Before(end); time.Sleep(10 * time.Second) {
		if time.Now().Second() < 10 {
			_, _ = w.Sweep(w.t.Context()) // it fails while the table is away
		}
		for _, item := range w.queue.take() {
			if _, err := q.Put(item.Encode(), item.Group(), item.Delay); err != nil {
				w.t.Fatal(err)
			}
		}
		for {
			batch, err := q.Poll(10, 6*time.Minute)
			if err != nil {
				w.t.Fatal(err)
			}
			if len(batch) == 0 {
				break
			}
			failed := map[string]bool{}
			var messages []work.Message
			for _, m := range batch {
				messages = append(messages, work.Message{ID: m.ID, Body: m.Body, Receives: m.Receives})
			}
			for _, id := range w.Deliver(w.t.Context(), messages) {
				failed[id] = true
			}
			for _, m := range batch {
				if !failed[m.ID] {
					_ = q.Delete(m.Receipt)
				}
			}
		}
	}
}

// An hour of a dependency's outage empties the work queue into its dead-letter queue. When
// the dependency is back, the sweep sends everything back.
func TestAnOutageOfADependencyIsRecoveredFromByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		end := time.Now().Add(3 * time.Hour)
		w := newWorld(t, func(c *dispatch.Config) { c.Breakers = away{c.Breakers, end} })
		q, dead := w.queues()
		w.Config.DeadLetters = dead
		w.endpoint()
		items := w.accept(35)
		w.requeue(items...)
		w.driveQueues(q, time.Until(end)-time.Minute)
		if letters := dead.Stats(); letters.Visible == 0 {
			t.Fatalf("after three hours the dead-letter queue has %+v, want some of %d", letters, len(items))
		}
		w.driveQueues(q, 15*time.Minute)
		for _, item := range items {
			if d := w.delivery(item); d.State != delivery.Delivered {
				t.Errorf("%s is %s a quarter of an hour later", item.EventID, d.State)
			}
		}
		if left := dead.Stats(); left != (queue.Stats{}) {
			t.Errorf("the dead-letter queue is left with %+v", left)
		}
	})
}

// What cannot be processed although everything works must not go round for ever, and must
// not stay where nobody looks.
func TestAMessageThatIsNeverProcessedBecomesADeadDelivery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken := ""
		w := newWorld(t, func(c *dispatch.Config) { c.Events = lacking{c.Events, &broken} })
		q, dead := w.queues()
		w.Config.DeadLetters = dead
		w.endpoint()
		items := w.accept(3)
		for i := range items {
			items[i].Body = nil // so that the event is read
		}
		broken = items[1].EventID
		w.requeue(items...)
		w.driveQueues(q, 12*time.Hour)
		for i, item := range items {
			d := w.delivery(item)
			if want := map[bool]delivery.State{false: delivery.Delivered, true: delivery.Dead}[i == 1]; d.State != want {
				t.Errorf("number %d is %s (%s), want %s", i, d.State, d.Reason, want)
			}
			if i == 1 && !strings.Contains(d.Reason, "redriven 5 times") {
				t.Errorf("the reason is %q", d.Reason)
			}
		}
		if left := dead.Stats(); left != (queue.Stats{}) {
			t.Errorf("the dead-letter queue is left with %+v", left)
		}
	})
}
