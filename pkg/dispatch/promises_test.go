package dispatch_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/delivery/work"
	"github.com/tidings-dev/tidings/pkg/destination"
	"github.com/tidings-dev/tidings/pkg/dispatch"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/event"
)

// Each test here holds one rule that nothing else shows unless several faults meet.

// slowlyAnswered is a store that applies a claim at once and answers later.
type slowlyAnswered struct {
	dispatch.Deliveries
	took time.Duration
}

func (s slowlyAnswered) Claim(ctx context.Context, c delivery.Claim) (delivery.Delivery, error) {
	d, err := s.Deliveries.Claim(ctx, c)
	time.Sleep(s.took)
	return d, err
}

// Another worker whose clock is five seconds ahead takes the delivery over five seconds
// before the lease ends by this worker's clock. An attempt that would have to end earlier than
// its timeout does not begin: a slow receiver would still work on it when the next one comes.
func TestNothingIsSentInTheLastFiveSecondsOfTheLease(t *testing.T) {
	const lease = endpoint.DefaultTimeout + dispatch.LeaseMargin
	for took, want := range map[time.Duration]time.Duration{
		0:                                    endpoint.DefaultTimeout,
		dispatch.LeaseMargin - 5*time.Second: endpoint.DefaultTimeout,
		dispatch.LeaseMargin - 5*time.Second + time.Millisecond: 0,
		dispatch.LeaseMargin:  0,
		lease - 6*time.Second: 0,
		lease:                 0,
	} {
		t.Run(fmt.Sprint("the claim took ", took), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, func(c *dispatch.Config) { c.Deliveries = slowlyAnswered{c.Deliveries, took} })
				w.endpoint()
				var ran time.Duration
				w.receiver.answer = func(ctx context.Context, _ destination.Message) delivery.Outcome {
					began := time.Now()
					<-ctx.Done()
					ran = time.Since(began)
					return delivery.Outcome{Class: delivery.Timeout, Error: "no answer in time"}
				}
				w.deliver(w.fannedOut())
				if ran != want || (w.receiver.count() == 1) != (want > 0) {
					t.Errorf("%d attempts, the last ran for %s, want %s", w.receiver.count(), ran, want)
				}
			})
		})
	}
}

// The receiver has answered: that the invocation was cancelled is no reason to forget it.
func TestAVerdictIsStoredAfterTheInvocationWasCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(c *dispatch.Config) { c.Deliveries = obedient{c.Deliveries} })
		w.endpoint()
		item := w.fannedOut()
		ctx, cancel := context.WithCancel(t.Context())
		w.receiver.answer = func(context.Context, destination.Message) delivery.Outcome {
			cancel()
			return delivery.Outcome{Class: delivery.Success, Status: 200}
		}
		if failed := w.Deliver(ctx, []work.Message{{ID: "m", Body: item.Encode(), Receives: 1}}); len(failed) != 0 {
			t.Errorf("failed: %v", failed)
		}
		if d := w.delivery(item); d.State != delivery.Delivered {
			t.Errorf("it is %s, and the receiver has it", d.State)
		}
	})
}

// obedient is a store whose writes fail once their context has ended.
type obedient struct{ dispatch.Deliveries }

func (o obedient) Complete(ctx context.Context, d delivery.Delivery) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return o.Deliveries.Complete(ctx, d)
}

// A suspect that is put back is on the queue again, or not acknowledged.
func TestASuspectThatCannotBePutBackIsNotAcknowledged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.endpoint()
		items := w.accept(3)
		w.queue.take()
		w.queue.fail = func(work.Item) error { return errors.New("throttled") }
		var batch []work.Message
		for i, item := range items {
			batch = append(batch, work.Message{ID: fmt.Sprint(i), Body: item.Encode(), Receives: 3})
		}
		failed := w.Deliver(t.Context(), batch)
		if len(failed) != 2 || w.receiver.count() != 1 {
			t.Errorf("%d attempts, not acknowledged: %v; want one attempt, and the two others back", w.receiver.count(), failed)
		}
		w.queue.fail = nil
		if again := w.Deliver(t.Context(), batch); len(again) != 0 || len(w.queue.take()) != 2 {
			t.Errorf("put back, and not acknowledged: %v", again)
		}
	})
}

// pages is a due index that answers in pages of one.
type pages struct{ dispatch.DueIndex }

func (p pages) Due(ctx context.Context, shard int, before time.Time, cursor string, _ int) ([]delivery.Due, string, error) {
	return p.DueIndex.Due(ctx, shard, before, cursor, 1)
}

func TestASweepReadsEveryPage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(c *dispatch.Config) { c.Due = pages{c.Due} })
		w.endpoint()
		w.receiver.answer = lost
		const n = 60 // in 16 shards, so several in each
		for range n {
			w.deliver(w.fannedOut())
			w.queue.take()
		}
		time.Sleep(dispatch.Backstop)
		if swept, err := w.Sweep(t.Context()); err != nil || !swept.Done || swept.Queued != n || len(w.queue.take()) != n {
			t.Errorf("swept %+v, %v; want all %d", swept, err, n)
		}
	})
}

// The work item is the first attempt's only trace: a worker that cannot read what it needs
// must not acknowledge it.
func TestAMessageIsNotAcknowledgedWhatEverCannotBeRead(t *testing.T) {
	for name, change := range map[string]func(*dispatch.Config){
		"the event":    func(c *dispatch.Config) { c.Events = absentTable{} },
		"the endpoint": func(c *dispatch.Config) { c.Endpoints = absentTable{} },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.endpoint()
				item := w.fannedOut()
				item.Body = nil // as of a retry, or a large event
				change(&w.Config)
				broken := dispatch.New(w.Config)
				if failed := w.deliverBy(broken, item); len(failed) != 1 {
					t.Errorf("not acknowledged: %v; want the message", failed)
				}
				if w.receiver.count() != 0 {
					t.Error("it was attempted")
				}
			})
		})
	}
}

// absentTable is a table that cannot be read.
type absentTable struct{}

func (absentTable) GetEvent(context.Context, string) (event.Accepted, error) {
	return event.Accepted{}, errors.New("the table is away")
}

func (absentTable) KeepEvent(context.Context, string, time.Time) error {
	return errors.New("the table is away")
}

func (absentTable) GetEndpoint(context.Context, string, string) (endpoint.Endpoint, error) {
	return endpoint.Endpoint{}, errors.New("the table is away")
}

func (absentTable) EndpointsVersion(context.Context, string) (int64, error) {
	return 0, errors.New("the table is away")
}

func (absentTable) ReadEndpoints(context.Context, string, bool) (endpoint.List, error) {
	return endpoint.List{}, errors.New("the table is away")
}

// inOrder notes the order of writes and messages.
type inOrder struct {
	dispatch.Deliveries
	dispatch.Queue
	dispatch.DueIndex
	did []string
}

func (o *inOrder) Complete(ctx context.Context, d delivery.Delivery) error {
	o.did = append(o.did, "stored")
	return o.Deliveries.Complete(ctx, d)
}

func (o *inOrder) Postpone(ctx context.Context, d delivery.Due, to time.Time) (delivery.Delivery, error) {
	o.did = append(o.did, "postponed")
	return o.DueIndex.Postpone(ctx, d, to)
}

func (o *inOrder) Send(ctx context.Context, items []work.Item) []error {
	o.did = append(o.did, "queued")
	return o.Queue.Send(ctx, items)
}

// A retry's message that is queued before its verdict is stored would find the delivery in
// flight; a sweep that queues before it moves the due time would queue it twice.
func TestWhatIsStoredComesBeforeWhatIsQueued(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		order := &inOrder{}
		w := newWorld(t, func(c *dispatch.Config) {
			order.Deliveries, order.Queue, order.DueIndex = c.Deliveries, c.Queue, c.Due
			c.Deliveries, c.Queue, c.Due = order, order, order
		})
		w.endpoint()
		w.receiver.answer = lost
		item := w.fannedOut()
		order.did = nil
		w.deliver(item)
		if got := strings.Join(order.did, ", "); got != "stored, queued" {
			t.Errorf("a failed attempt: %s", got)
		}
		order.did = nil
		time.Sleep(dispatch.Backstop)
		if _, err := w.Sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(order.did, ", "); got != "postponed, queued" {
			t.Errorf("a sweep: %s", got)
		}
	})
}

// A message of a delivery that another worker has claimed is all that is left of the
// delivery if that worker dies.
func TestAMessageThatCannotBePutBackIsNotAcknowledged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.endpoint()
		item := w.fannedOut()
		begun, end := make(chan struct{}), make(chan struct{})
		w.receiver.answer = func(context.Context, destination.Message) delivery.Outcome {
			close(begun)
			<-end
			return delivery.Outcome{Class: delivery.Success, Status: 200}
		}
		go w.deliver(item)
		<-begun
		w.queue.fail = func(work.Item) error { return errors.New("throttled") }
		if failed := w.deliverBy(dispatch.New(w.Config), item); len(failed) != 1 {
			t.Errorf("not acknowledged: %v; want the second message", failed)
		}
		close(end)
		synctest.Wait()
	})
}

// A message that is received again once is no suspect: a worker that died had ten of them.
func TestTwoReceivesMakeNoSuspect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.endpoint()
		var batch []work.Message
		for i, item := range w.accept(4) {
			batch = append(batch, work.Message{ID: fmt.Sprint(i), Body: item.Encode(), Receives: 1 + i%2})
		}
		if failed := w.Deliver(t.Context(), batch); len(failed) != 0 || w.receiver.count() != 4 {
			t.Errorf("%d attempts, not acknowledged: %v; want 4 attempts", w.receiver.count(), failed)
		}
	})
}

// An endpoint that answered 410 and could not be disabled would get every further event.
func TestAnEndpointThatCannotBeDisabledIsReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(c *dispatch.Config) { c.Disabler = absentTable{} })
		w.endpoint()
		w.receiver.answer = answering(410)
		if failed := w.deliver(w.fannedOut()); len(failed) != 1 {
			t.Errorf("not acknowledged: %v; want the message", failed)
		}
	})
}

func (absentTable) DisableEndpoint(context.Context, string, string, string, time.Time) error {
	return errors.New("the table is away")
}
