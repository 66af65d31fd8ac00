package dispatch_test

import (
	"context"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/delivery/work"
	"github.com/tidings-dev/tidings/pkg/destination"
	"github.com/tidings-dev/tidings/pkg/dispatch"
	"github.com/tidings-dev/tidings/pkg/local/queue"
)

// deadLetters returns a dead-letter queue with messages of the given bodies.
func deadLetters(t *testing.T, bodies ...string) *queue.Queue {
	t.Helper()
	q, err := queue.Open(queue.Config{Visibility: 30 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	for _, body := range bodies {
		if _, err := q.Put(body, "", 0); err != nil {
			t.Fatal(err)
		}
	}
	return q
}

func TestRedriveQueuesDeadLettersAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.endpoint()
		bodies := []string{"not a work item"}
		items := w.accept(25)
		for _, item := range items {
			bodies = append(bodies, item.Encode())
		}
		w.Config.DeadLetters = deadLetters(t, bodies...)
		answer, err := w.Run(t.Context(), dispatch.Command{Action: "redrive"})
		if err != nil || answer.(dispatch.Redriven) != (dispatch.Redriven{Redriven: 25, Unreadable: 1, Done: true}) {
			t.Fatalf("redriven: %+v, %v", answer, err)
		}
		w.drive(time.Second)
		for _, item := range items {
			if d := w.delivery(item); d.State != delivery.Delivered {
				t.Errorf("%s is %s", item.EventID, d.State)
			}
		}
		// Nothing is redriven twice, and what nobody can read is still there.
		time.Sleep(time.Minute)
		again, err := w.Redrive(t.Context())
		if err != nil || again != (dispatch.Redriven{Unreadable: 1, Done: true}) {
			t.Errorf("again: %+v, %v", again, err)
		}
	})
}

func TestALetterThatCannotBeQueuedStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.endpoint()
		items := w.accept(3)
		w.Config.DeadLetters = deadLetters(t, items[0].Encode(), items[1].Encode(), items[2].Encode())
		w.queue.fail = func(item work.Item) error {
			if item.EventID == items[1].EventID {
				return errors.New("throttled")
			}
			return nil
		}
		done, err := w.Redrive(t.Context())
		if err == nil || done.Redriven != 2 || done.Done {
			t.Fatalf("redriven: %+v, %v", done, err)
		}
		w.queue.fail = nil
		time.Sleep(time.Minute)
		if done, err = w.Redrive(t.Context()); err != nil || done.Redriven != 1 {
			t.Errorf("later: %+v, %v; want the one that was left", done, err)
		}
	})
}

// If a worker crashes, SQS delivers its whole batch again. The message that crashes it
// must end as a dead letter, and the others must not.
func TestAMessageThatCrashesItsWorkerDoesNotAffectOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const maxReceives = 10
		w := newWorld(t, func(c *dispatch.Config) { c.Random = mathrand.Float64 })
		w.endpoint()
		items := w.accept(10)
		killer := items[0]
		died := make(chan struct{}, 1)
		release := make(chan struct{})
		var process atomic.Pointer[atomic.Bool] // whether the process of this round is dead
		w.receiver.answer = func(_ context.Context, m destination.Message) delivery.Outcome {
			dead := process.Load()
			if m.EventID == killer.EventID {
				dead.Store(true)
				died <- struct{}{}
			}
			time.Sleep(time.Second)
			if dead.Load() {
				<-release // nothing of a dead process goes on
			}
			return delivery.Outcome{Class: delivery.Success, Status: 200}
		}
		w.queue.take()
		type message struct {
			item     work.Item
			receives int
			visible  time.Time
		}
		var alive []*message
		arrive := func(items []work.Item) {
			for _, item := range items {
				alive = append(alive, &message{item: item, visible: time.Now().Add(item.Delay)})
			}
		}
		arrive(items)
		var zombies sync.WaitGroup
		buried := map[string]bool{}
		for round := 0; len(alive) > 0 && round < 300; round++ {
			var batch []work.Message
			slices.SortStableFunc(alive, func(a, b *message) int { return a.visible.Compare(b.visible) })
			time.Sleep(max(time.Until(alive[0].visible), time.Second))
			n := 0
			for n < len(alive) && n < 10 && !alive[n].visible.After(time.Now()) {
				n++
			}
			received := slices.Clone(alive[:n])
			alive = slices.Clone(alive[n:])
			for i, m := range received {
				if m.receives++; m.receives > maxReceives {
					buried[m.item.EventID] = true
					continue
				}
				batch = append(batch, work.Message{ID: fmt.Sprint(i), Body: m.item.Encode(), Receives: m.receives})
			}
			// Each round is another process, whose answer is lost if it dies.
			process.Store(new(atomic.Bool))
			worker := dispatch.New(w.Config)
			answered := make(chan []string, 1)
			zombies.Go(func() { answered <- worker.Deliver(context.WithoutCancel(t.Context()), batch) })
			failed := map[string]bool{}
			select {
			case <-died:
				for _, m := range batch {
					failed[m.ID] = true
				}
			case response := <-answered:
				for _, id := range response {
					failed[id] = true
				}
			}
			for i, m := range received {
				if failed[fmt.Sprint(i)] {
					m.visible = time.Now().Add(6 * time.Minute)
					alive = append(alive, m)
				}
			}
			arrive(w.queue.take())
		}
		if d := w.delivery(killer); !buried[killer.EventID] && d.State != delivery.Dead {
			t.Errorf("the one that kills is %s, and no dead letter", d.State)
		}
		for _, item := range items[1:] {
			if d := w.delivery(item); d.State != delivery.Delivered {
				t.Errorf("%s was taken along: it is %s", item.EventID, d.State)
			}
		}
		close(release)
		zombies.Wait()
	})
}
