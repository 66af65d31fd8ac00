package dispatch

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/delivery/breaker"
	"github.com/tidings-dev/tidings/pkg/delivery/ratelimit"
	"github.com/tidings-dev/tidings/pkg/delivery/retry"
	"github.com/tidings-dev/tidings/pkg/delivery/work"
	"github.com/tidings-dev/tidings/pkg/destination"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/ops/tracing"
)

// Deliver makes the attempts that a batch of work items asks for, all at once,
// and reports the items that the queue has to bring again. One item's trouble
// is its own.
//
// Attempts at an endpoint with a rate limit need slots; the batch reserves those
// of an endpoint in one write, when all items have been looked at. What needs none
// waits for nobody.
func (d *Dispatcher) Deliver(ctx context.Context, batch []work.Message) (failed []string) {
	ctx, counted := d.count(ctx)
	defer counted()
	errs := make([]error, len(batch))
	fresh := make([]int, 0, len(batch))
	var suspects []int
	for i, message := range batch {
		if message.Receives > suspectAfter {
			suspects = append(suspects, i)
		} else {
			fresh = append(fresh, i)
		}
	}
	// One of several suspects may be what kills its worker, and takes the receipts of
	// its whole batch along each time. So one is served with the others that are
	// above suspicion, and the rest goes back on the queue, to come in other company.
	if len(suspects) > 0 {
		chosen := int(d.Random() * float64(len(suspects)))
		fresh = append(fresh, suspects[chosen])
		for _, i := range slices.Delete(suspects, chosen, chosen+1) {
			errs[i] = d.putBack(ctx, batch[i].Body)
		}
	}
	d.deliverTogether(ctx, batch, fresh, errs)
	for i, err := range errs {
		if err == nil {
			continue
		}
		d.Log.ErrorContext(ctx, "deliver.failed", "message_id", batch[i].ID,
			"receive_count", batch[i].Receives, "error", err.Error())
		failed = append(failed, batch[i].ID)
	}
	return failed
}

const (
	// suspectAfter is after how many receives an item is one that may have killed
	// its worker.
	suspectAfter = 2
	// suspectSpread is over how long suspects are spread that go back on the queue.
	suspectSpread = 30 * time.Second
)

// deliverTogether serves some of a batch's messages side by side, and notes the
// errors of those that have to come again. Each has one goroutine; one that needs a
// slot waits in the middle until all have been considered and slots are reserved.
func (d *Dispatcher) deliverTogether(ctx context.Context, batch []work.Message, which []int, errs []error) {
	jobs := make([]*job, len(batch)) // that need a slot
	var considered, served sync.WaitGroup
	considered.Add(len(which))
	reserved := make(chan struct{})
	for _, i := range which {
		served.Go(func() {
			deepen(i)
			var j *job
			errs[i] = recoverToError(func() (err error) {
				j, err = d.read(ctx, batch[i])
				return err
			})
			if errs[i] == nil && j != nil && j.late(d.Now()) {
				jobs[i] = j
				considered.Done()
				<-reserved
			} else {
				considered.Done()
			}
			if errs[i] != nil || j == nil {
				return // it comes again, or was served without an attempt
			}
			errs[i] = recoverToError(func() error { return d.serve(ctx, j) })
		})
	}
	considered.Wait()
	d.reserve(ctx, jobs, errs)
	close(reserved)
	served.Wait()
}

// deepen makes a goroutine's stack as large as an attempt needs it, while there is
// nothing on it: growing it on the way copied it twice or more, which took 7 % of
// the time.
//
//go:noinline
func deepen(by int) byte {
	var frame [8 << 10]byte
	return frame[by%len(frame)] // what the compiler doesn't see through
}

// recoverToError turns a panic into an error: one item's trouble is its own.
func recoverToError(work func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return work()
}

// read decides whether the attempt may be made that a message asks for.
func (d *Dispatcher) read(ctx context.Context, m work.Message) (*job, error) {
	item, err := work.Decode(m.Body)
	if err != nil {
		return nil, err
	}
	j, err := d.consider(ctx, item)
	if err != nil || j == nil {
		return nil, err
	}
	j.sent = m.SentAt
	if m.Receives > 1 && j.late(d.Now()) {
		return d.needed(ctx, j)
	}
	return j, nil
}

// needed looks, before a slot is reserved for a message that comes again, whether
// its delivery has any use for one: a settled delivery whose message comes a hundred
// times would take a hundred slots, and under a slow limit hold others up for hours.
// A slot can't be given back, because others may have been given behind it.
func (d *Dispatcher) needed(ctx context.Context, j *job) (*job, error) {
	held, err := d.Deliveries.GetDelivery(ctx, j.key())
	if errors.Is(err, delivery.ErrNotFound) {
		return j, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look at %s: %w", j.key(), err)
	}
	if _, refused := (delivery.Claim{Key: j.key(), Attempts: j.item.Attempts, Now: d.Now()}).Apply(&held); refused != nil {
		return nil, d.refused(ctx, j.item, refused)
	}
	return j, nil
}

// putBack queues an item again, at some later moment.
func (d *Dispatcher) putBack(ctx context.Context, body string) error {
	item, err := work.Decode(body)
	if err != nil {
		return err
	}
	item.Delay = time.Duration(d.Random() * float64(suspectSpread))
	if errs := d.Queue.Send(ctx, []work.Item{item}); errs != nil {
		return errs[0]
	}
	return nil
}

// job is a work item whose attempt nothing speaks against so far.
type job struct {
	item     work.Item
	endpoint *endpoint.Endpoint
	accepted event.Accepted
	event    event.Event
	at       time.Time // when the event was accepted
	until    time.Time // after which no attempt may be made
	limit    ratelimit.Limit
	slot     time.Time // when the attempt may begin under the limit
	probe    bool      // the circuit is half-open: the attempt needs the one probe
	sent     time.Time // when the item was put on the queue; zero where nobody knows
}

func (j *job) key() delivery.Key {
	return delivery.Key{EndpointID: j.endpoint.ID, EventID: j.accepted.ID}
}

// late reports whether the job's slot is none any more: an attempt now would come
// together with those that follow it.
func (j *job) late(now time.Time) bool {
	return j.limit.Enabled() && now.After(j.slot.Add(ratelimit.Grace))
}

// consider decides whether an item's attempt may be made. It returns no job for
// an item that it has served without one.
func (d *Dispatcher) consider(ctx context.Context, item work.Item) (*job, error) {
	if item.Wake {
		return nil, d.wake(ctx, item)
	}
	ep, err := d.endpoints.get(ctx, item.Tenant, item.EndpointID)
	if err == nil && ep.Status != endpoint.Enabled || errors.Is(err, endpoint.ErrNotFound) {
		// Skipping is final, so it is decided on what the table says now.
		ep, err = d.endpoints.fresh(ctx, item.Tenant, item.EndpointID)
	}
	switch {
	case errors.Is(err, endpoint.ErrNotFound):
		return nil, d.settle(ctx, item, delivery.Skipped, "the endpoint was removed", time.Time{})
	case err != nil:
		return nil, err
	case ep.Status != endpoint.Enabled:
		return nil, d.settle(ctx, item, delivery.Skipped, "the endpoint is disabled: "+ep.StatusReason, time.Time{})
	}
	j := &job{item: item, endpoint: ep, slot: item.Slot}
	if j.at, err = event.IDTime(item.EventID); err != nil {
		return nil, err
	}
	since := item.Since
	if since.IsZero() {
		since = j.at
	}
	now, limit := d.Now(), ep.Retry.AgeLimit()
	if j.until = since.Add(limit); now.After(j.until) {
		reason := fmt.Sprintf("it has waited for longer than %s", limit)
		return nil, d.settle(ctx, item, delivery.Dead, reason, now.Add(-limit))
	}
	j.accepted = event.Accepted{ID: item.EventID, Tenant: item.Tenant, Body: item.Body, Trace: item.Trace}
	if len(item.Body) == 0 {
		j.accepted, err = d.Events.GetEvent(ctx, item.EventID)
		if errors.Is(err, event.ErrNotFound) {
			return nil, d.settle(ctx, item, delivery.Skipped, "the event has expired", time.Time{})
		}
		if err != nil {
			return nil, fmt.Errorf("event %s: %w", item.EventID, err)
		}
	}
	if item.Trace != "" {
		j.accepted.Trace = item.Trace // the fan out's, of which the event's own does not know
	}
	if j.event, err = event.Decode(j.accepted.Body); err != nil {
		return nil, fmt.Errorf("event %s: %w", item.EventID, err)
	}
	circuit, err := d.circuits.look(ctx, ep.Tenant, ep.ID, false)
	if err != nil {
		return nil, err
	}
	verdict := circuit.Admit(now)
	if verdict.Wait {
		return nil, d.parkForCircuit(ctx, j, circuit)
	}
	j.probe = verdict.Probe
	j.limit = ratelimit.Stricter(ep.Limit, ratelimit.Pace(circuit.Slow))
	return j, nil
}

// reserve gets slots for the jobs that there are: a write an endpoint, the oldest
// events first. Where that fails, it is the error of each.
func (d *Dispatcher) reserve(ctx context.Context, jobs []*job, errs []error) {
	var byEndpoint map[string][]int
	for i, j := range jobs {
		if j != nil {
			if byEndpoint == nil {
				byEndpoint = map[string][]int{}
			}
			byEndpoint[j.endpoint.ID] = append(byEndpoint[j.endpoint.ID], i)
		}
	}
	var running sync.WaitGroup
	for _, indexes := range byEndpoint {
		running.Go(func() {
			slices.SortStableFunc(indexes, func(a, b int) int { return cmp.Compare(jobs[a].accepted.ID, jobs[b].accepted.ID) })
			wanting := make([]*job, len(indexes))
			for n, i := range indexes {
				wanting[n] = jobs[i]
			}
			if err := d.reserveSlots(ctx, wanting); err != nil {
				for _, i := range indexes {
					errs[i] = err
				}
			}
		})
	}
	running.Wait()
}

// reserveSlots reserves slots for jobs of one endpoint.
func (d *Dispatcher) reserveSlots(ctx context.Context, jobs []*job) error {
	limit, now := jobs[0].limit, d.Now()
	after, err := d.Limits.ReserveSlots(ctx, jobs[0].endpoint.Limit.Key(jobs[0].endpoint.ID), limit.Cost(len(jobs)), now)
	if err != nil {
		return err
	}
	for i, slot := range limit.Slots(after, len(jobs), now) {
		jobs[i].slot = slot
	}
	return nil
}

// serve makes a job's attempt when its slot comes, or lets it wait for it. When
// it returns nil the item may be forgotten.
func (d *Dispatcher) serve(ctx context.Context, j *job) error {
	if j.limit.Enabled() {
		wait := j.slot.Sub(d.Now())
		if wait > slotWait {
			return d.parkForSlot(ctx, j)
		}
		if err := pause(ctx, wait); err != nil {
			return err
		}
		if j.late(d.Now()) {
			if err := d.reserveSlots(ctx, []*job{j}); err != nil {
				return err
			}
			return d.parkForSlot(ctx, j)
		}
	}
	claimID, lease := d.ClaimID(), j.endpoint.AttemptTimeout()+LeaseMargin
	now := d.Now()
	if deadline, ok := ctx.Deadline(); ok && deadline.Before(now.Add(j.endpoint.AttemptTimeout())) {
		return fmt.Errorf("%s: the invocation has too little time left for an attempt", j.key())
	}
	if j.probe {
		circuit, probing, err := d.circuits.change(ctx, j.endpoint.Tenant, j.endpoint.ID, true, func(s breaker.State) (breaker.State, bool) {
			return s.ClaimProbe(claimID, d.Now(), lease)
		})
		if err != nil {
			return fmt.Errorf("circuit of %s: %w", j.endpoint.ID, err)
		}
		if !probing && circuit.Admit(d.Now()).Wait {
			return d.parkForCircuit(ctx, j, circuit)
		}
		j.probe = probing
	}
	claimed, err := d.Deliveries.Claim(ctx, delivery.Claim{
		Key: j.key(), Tenant: j.item.Tenant, EventType: j.event.Type, Accepted: j.at,
		Attempts: j.item.Attempts, ID: claimID, Now: now, Lease: lease,
	})
	if err != nil && j.probe {
		d.returnProbe(ctx, j.endpoint, claimID)
	}
	var refused *delivery.Refusal
	if errors.As(err, &refused) {
		return d.refused(ctx, j.item, refused)
	}
	if err != nil {
		return fmt.Errorf("claim %s: %w", j.key(), err)
	}
	attempt, outcome := d.attempt(ctx, claimed, j)
	return d.conclude(ctx, claimed, j, claimID, attempt, outcome)
}

// pause waits, unless ctx ends before.
func pause(ctx context.Context, wait time.Duration) error {
	if wait <= 0 {
		return nil
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// wholeMillis rounds a slot up: stores keep milliseconds, and a slot is never early.
func wholeMillis(slot time.Time) time.Time {
	return slot.Add(time.Millisecond - 1).Truncate(time.Millisecond)
}

// parkForSlot lets a delivery wait for its slot: in the queue where it is near, in
// the due index where it is not.
func (d *Dispatcher) parkForSlot(ctx context.Context, j *job) error {
	slot := wholeMillis(j.slot)
	wait := slot.Sub(d.Now())
	park := delivery.Park{Slot: slot, DueAt: slot, Reason: "it waits for its turn under the rate limit"}
	if wait <= work.MaxDelay {
		park.DueAt = slot.Add(Backstop)
	}
	held, served, err := d.park(ctx, j, park)
	if err != nil || served || wait > work.MaxDelay {
		return err
	}
	item := itemOf(held, wait)
	item.Body, item.Trace = j.item.Body, j.item.Trace
	if errs := d.Queue.Send(ctx, []work.Item{item}); errs != nil {
		// The due time holds the delivery: it will be late, not lost.
		d.Log.WarnContext(ctx, "park.not_queued", "endpoint_id", item.EndpointID, "event_id", item.EventID, "error", errs[0].Error())
	}
	return nil
}

// parkForCircuit lets a delivery wait until the circuit closes, without spending
// an attempt.
func (d *Dispatcher) parkForCircuit(ctx context.Context, j *job, circuit breaker.State) error {
	due := d.Now().Add(ParkTime)
	if tooOld := j.until.Add(time.Millisecond); tooOld.Before(due) {
		due = tooOld
	}
	held, served, err := d.park(ctx, j, delivery.Park{InBacklog: true, DueAt: due, Reason: "the circuit is open: " + circuit.Cause})
	if err != nil || served {
		return err
	}
	// The circuit may have closed while the delivery was being parked, and whoever
	// let go what waited may not have seen it.
	circuit, err = d.circuits.look(ctx, j.endpoint.Tenant, j.endpoint.ID, true)
	if err != nil {
		return err
	}
	if circuit.Phase == breaker.Open {
		return nil
	}
	_, err = d.release(ctx, j.endpoint, circuit, []delivery.BacklogEntry{{Key: held.Key}}, false)
	return err
}

// park makes a delivery wait. served says that there was nothing to let wait: its
// item has found its end.
func (d *Dispatcher) park(ctx context.Context, j *job, p delivery.Park) (held delivery.Delivery, served bool, err error) {
	p.Key, p.Tenant, p.EventType, p.Accepted, p.Attempts, p.Now = j.key(), j.item.Tenant, j.event.Type, j.at, j.item.Attempts, d.Now()
	held, err = d.Deliveries.Park(ctx, p)
	var refused *delivery.Refusal
	if errors.As(err, &refused) {
		return held, true, d.refused(ctx, j.item, refused)
	}
	if err != nil {
		return held, false, fmt.Errorf("park %s: %w", j.key(), err)
	}
	return held, false, nil
}

// attempt sends the event once, within the lease.
func (d *Dispatcher) attempt(ctx context.Context, claimed delivery.Delivery, j *job) (delivery.Attempt, delivery.Outcome) {
	ep, began := j.endpoint, d.Now()
	attempt := delivery.Attempt{Number: claimed.Attempts, At: began}
	if limit := ep.Retry.AttemptLimit(); claimed.CountedAttempts() > limit {
		// Workers died on it until nothing was left to try.
		return attempt, delivery.Outcome{Class: delivery.Lost, Permanent: true,
			Error: fmt.Sprintf("workers died during %d attempts before storing a verdict", limit)}
	}
	until := began.Add(ep.AttemptTimeout())
	if last := claimed.LeaseUntil.Add(-leaseReserve); last.Before(until) {
		until = last
	}
	if !until.After(began) {
		return attempt, delivery.Outcome{Class: delivery.Lost, Error: "the lease was nearly over before the attempt could begin"}
	}
	if j.late(began) {
		return attempt, delivery.Outcome{Class: delivery.CalledOff, Error: "its turn under the rate limit had passed before anything was sent"}
	}
	ctx, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	under, end := d.Tracer.Begin("attempt", j.accepted.Trace)
	message := destination.Compose(*ep, j.event, j.accepted.Body, d.Catalog.Subject(j.event.Type, j.event.Data), under, began)
	outcome := d.Sender.Deliver(ctx, destination.TargetOf(*ep), message)
	if outcome.Timings.Total == 0 {
		outcome.Timings.Total = d.Now().Sub(began)
	}
	var found map[string]any
	if tracing.IsRecording(d.Tracer) {
		found = annotations(j, attempt.Number, outcome)
	}
	end(markOfOutcome(outcome), found)
	return attempt, outcome
}

// conclude stores the verdict and sees to what follows from it.
func (d *Dispatcher) conclude(ctx context.Context, claimed delivery.Delivery, j *job, claimID string, attempt delivery.Attempt, outcome delivery.Outcome) error {
	// The answer is there: even an invocation that runs out of time should
	// store it, or the receiver gets the event again.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), verdictTime)
	defer cancel()

	ep, now := j.endpoint, d.Now()
	decision := retry.Decide(retry.Attempt{Number: claimed.CountedAttempts(), Since: claimed.Since, Outcome: outcome}, ep.Retry, now, d.Random())
	attempt.Class, attempt.Status, attempt.Timings = outcome.Class, outcome.Status, outcome.Timings
	conclusion := delivery.Conclusion{
		State: decision.State, Reason: decision.Reason, Snippet: outcome.Snippet, Attempt: attempt,
		NotSent: outcome.Class == delivery.CalledOff, Now: now,
	}
	wait := decision.At.Sub(now)
	if decision.State == delivery.Pending {
		conclusion.NextAt = decision.At.Truncate(time.Millisecond)
		conclusion.DueAt = conclusion.NextAt
		if wait <= work.MaxDelay {
			conclusion.DueAt = conclusion.NextAt.Add(Backstop)
		}
	}
	next := conclusion.Apply(claimed)
	err := d.Deliveries.Complete(ctx, next)
	d.logAttempt(ctx, j, next, attempt, outcome, err)
	reported := d.report(ctx, ep, claimID, outcome)
	if errors.Is(err, delivery.ErrFenced) {
		return reported // whoever took over holds the delivery now
	}
	if err != nil {
		return fmt.Errorf("store the verdict on %s: %w", claimed.Key, err)
	}
	if decision.DisableEndpoint {
		if err := d.disable(ctx, ep, outcome.Error, now); err != nil {
			return err
		}
	}
	if decision.State == delivery.Pending && wait <= work.MaxDelay {
		item := j.item
		item.Attempts, item.Since, item.Slot, item.Delay = next.Attempts, next.Since, time.Time{}, max(wait, 0)
		if errs := d.Queue.Send(ctx, []work.Item{item}); errs != nil {
			// The due time holds the delivery: it will be late, not lost.
			d.Log.WarnContext(ctx, "retry.not_queued", "endpoint_id", ep.ID, "event_id", item.EventID, "error", errs[0].Error())
		}
	}
	return reported
}

func (d *Dispatcher) disable(ctx context.Context, ep *endpoint.Endpoint, reason string, now time.Time) error {
	if err := d.Disabler.DisableEndpoint(ctx, ep.Tenant, ep.ID, reason, now); err != nil {
		return fmt.Errorf("disable endpoint %s: %w", ep.ID, err)
	}
	d.endpoints.forget(ep.Tenant, ep.ID)
	d.Log.WarnContext(ctx, "endpoint.disabled", "endpoint_id", ep.ID, "tenant", ep.Tenant, "reason", reason)
	return nil
}

// refused decides what becomes of an item whose claim was refused.
func (d *Dispatcher) refused(ctx context.Context, item work.Item, r *delivery.Refusal) error {
	switch r.Cause {
	case delivery.CauseSettled, delivery.CauseSuperseded:
		return nil
	}
	wait := max(r.Until.Sub(d.Now()), 0)
	if r.Cause == delivery.CauseEarly && wait > work.MaxDelay && !r.DueAt.IsZero() && !r.DueAt.After(r.Until.Add(Backstop)) {
		return nil // the sweep brings it then; the queue would carry it round and round
	}
	// Another worker is at it, or it is not time yet. The item must not be
	// forgotten: if that worker dies, nothing else may hold the delivery. It
	// comes back when there is something to see, without counting as a failure.
	item.Attempts, item.Slot = r.Attempts, r.Slot
	if r.Cause == delivery.CauseInFlight {
		wait += time.Second // let the verdict come first
	}
	item.Delay = min(wait, work.MaxDelay)
	if errs := d.Queue.Send(ctx, []work.Item{item}); errs != nil {
		return fmt.Errorf("put %s/%s back: %w", item.EndpointID, item.EventID, errs[0])
	}
	return nil
}

// settle ends a delivery without an attempt.
func (d *Dispatcher) settle(ctx context.Context, item work.Item, state delivery.State, reason string, sinceBefore time.Time) error {
	key := delivery.Key{EndpointID: item.EndpointID, EventID: item.EventID}
	accepted, err := event.IDTime(item.EventID)
	if err != nil {
		return err
	}
	err = d.Deliveries.Settle(ctx, delivery.Settle{
		Key: key, Tenant: item.Tenant, EventType: item.EventType, Accepted: accepted,
		State: state, Reason: reason, SinceBefore: sinceBefore, Now: d.Now(),
	})
	var refused *delivery.Refusal
	if errors.As(err, &refused) {
		return d.refused(ctx, item, refused)
	}
	if err != nil {
		return fmt.Errorf("settle %s: %w", key, err)
	}
	d.Log.InfoContext(ctx, "delivery."+string(state), "endpoint_id", item.EndpointID, "event_id", item.EventID, "reason", reason)
	return nil
}
