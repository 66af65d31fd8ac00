package simulation

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/delivery/retry"
	"github.com/tidings-dev/tidings/pkg/dispatch"
	"github.com/tidings-dev/tidings/pkg/emit"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/event/filter"
	"github.com/tidings-dev/tidings/pkg/event/journal"
)

// The invariants, by the name that a violation reports.
const (
	settles     = "every accepted event settles"          // delivered, dead or skipped at every subscribed endpoint
	reasons     = "dead and skipped have a right reason"  // and no delivery expires while its receiver is healthy
	truthful    = "delivered means delivered"             // the receiver got it, byte for byte
	unasked     = "nothing goes where it was not wanted"  // types, filter, tenant, disabled and deleted endpoints
	apart       = "attempts do not overlap"               //
	alone       = "a quick receiver never works on two"   // of one delivery at once: it ends within its timeout
	final       = "nothing is attempted after delivered"  // except after a replay
	early       = "no attempt before its time"            // backoff, Retry-After
	counted     = "no more attempts than the policy says" //
	duplicates  = "duplicates only where a worker died"   // or its verdict was lost
	durable     = "what emit answered for is stored"      //
	idempotent  = "one key is one event"                  //
	recorded    = "every event is in the journal"         // once, also where nobody subscribed
	growing     = "attempts only grow"                    //
	quiet       = "everything comes to rest"              // queue, streams and due index, in time
	maxViolated = 5                                       // a run ends after so many violations
)

// checker checks the invariants against what the receivers and the store saw.
type checker struct {
	s          *sim
	deliveries map[delivery.Key]*deliveryLog
	events     map[string]*eventLog
	keys       map[string]string       // event by idempotency key
	past       map[string][]version    // of each endpoint
	endpoints  map[string]*endpointLog // by endpoint

	open    map[delivery.Key]delivery.Delivery
	deleted map[delivery.Key]bool // by TTL
	trimmed map[string]bool       // records of a stream, by the id of their event or change
	expired time.Time             // when TTL was last looked after
}

// deliveryLog is what the checker knows of a delivery.
type deliveryLog struct {
	attempts  []*attempt
	round     int       // attempts since the last replay
	delivered bool      // stored, and not replayed since
	notBefore time.Time // of the next attempt
	claims    int       // the highest number of attempts stored
	replays   int
	claimed   map[*worker]string // ids of claims
}

// eventLog is what the checker knows of an event.
type eventLog struct {
	id      string
	event   event.Accepted
	decoded event.Event
	stored  time.Time
	first   time.Time // first start of its fan-out
	done    time.Time // first end of its fan-out
	last    time.Time // last start of its fan-out
}

// version is the state of an endpoint from a time on; nil when deleted.
type version struct {
	from     time.Time
	endpoint *endpoint.Endpoint
}

func newChecker(s *sim) *checker {
	return &checker{s: s, deliveries: map[delivery.Key]*deliveryLog{}, events: map[string]*eventLog{}, keys: map[string]string{}, past: map[string][]version{}, endpoints: map[string]*endpointLog{},
		open: map[delivery.Key]delivery.Delivery{}, deleted: map[delivery.Key]bool{}, trimmed: map[string]bool{}, expired: s.start}
}

// violated reports a violation.
func (j *checker) violated(invariant string, key delivery.Key, format string, args ...any) {
	v := Violation{Invariant: invariant, Key: key, At: clock(time.Since(j.s.start)), Says: fmt.Sprintf(format, args...)}
	j.s.note(key, "BROKEN: %s: %s", invariant, v.Says)
	if len(j.s.Violations) < maxViolated {
		j.s.Violations = append(j.s.Violations, v)
	}
	j.s.over = j.s.over || len(j.s.Violations) >= maxViolated
}

func (j *checker) delivery(k delivery.Key) *deliveryLog {
	t := j.deliveries[k]
	if t == nil {
		t = &deliveryLog{claimed: map[*worker]string{}}
		j.deliveries[k] = t
	}
	return t
}

// tolerance is the maximum difference of two clocks.
func (j *checker) tolerance() time.Duration { return 2*j.s.plan.maxSkew + time.Millisecond }

// ---- during the run --------------------------------------------------------------------

func (j *checker) accepted(number int, p produced, r emit.Result) {
	if _, err := j.s.store.GetEvent(context.Background(), r.ID); err != nil {
		j.violated(durable, delivery.Key{EventID: r.ID}, "emit acknowledged %s, but the store says: %v", r.ID, err)
	}
	if p.key == "" {
		return
	}
	key := fmt.Sprintf("%s of producer %d", p.key, number)
	if was, ok := j.keys[key]; ok && was != r.ID {
		j.violated(idempotent, delivery.Key{EventID: r.ID}, "key %s created %s and %s", p.key, was, r.ID)
	}
	j.keys[key] = r.ID
}

func (j *checker) stored(id string) {
	a, err := j.s.store.GetEvent(context.Background(), id)
	if err != nil {
		panic(err)
	}
	e, err := event.Decode(a.Body)
	if err != nil {
		panic(err)
	}
	j.events[id] = &eventLog{id: id, event: a, decoded: e, stored: time.Now()}
	j.s.Counts.Events++
}

func (j *checker) fanOutBegins(id string) {
	f := j.events[id]
	f.last = time.Now()
	if f.first.IsZero() {
		f.first = f.last
	}
}

func (j *checker) fannedOut(id string) {
	if f := j.events[id]; f.done.IsZero() {
		f.done = time.Now()
	}
}

func (j *checker) endpointChanged(tenant, id string) {
	v := version{from: time.Now()}
	e, err := j.s.store.GetEndpoint(context.Background(), tenant, id)
	switch {
	case err == nil:
		v.endpoint = &e
	case !errors.Is(err, endpoint.ErrNotFound):
		panic(err)
	}
	j.past[id] = append(j.past[id], v)
}

func (j *checker) claimed(w *worker, d delivery.Delivery) {
	t := j.delivery(d.Key)
	if d.Attempts < t.claims {
		j.violated(growing, d.Key, "attempt %d was claimed after attempt %d", d.Attempts, t.claims)
	}
	t.claims = max(t.claims, d.Attempts)
	t.claimed[w] = d.ClaimID
}

func (j *checker) replayed(k delivery.Key) {
	j.s.Counts.Replayed++
	t := j.delivery(k)
	t.delivered, t.round, t.notBefore = false, 0, time.Time{}
	t.replays++
}

// sent checks the start of an attempt by its worker.
func (j *checker) sent(a *attempt) {
	now := time.Now()
	j.s.Counts.Attempts++
	t := j.delivery(a.key)
	if t.delivered {
		j.violated(final, a.key, "%s attempts a delivered delivery", a.w)
	}
	if len(t.attempts) > 0 {
		before := t.attempts[len(t.attempts)-1]
		if before.ended.IsZero() {
			j.violated(apart, a.key, "%s begins an attempt while that of %s, begun at %s, is in flight", a.w, before.w, clock(before.sent.Sub(j.s.start)))
		}
		if before.took && t.round > 0 {
			j.s.Counts.Duplicates++
			if before.acked && len(before.excuses) == 0 {
				j.violated(duplicates, a.key, "the receiver had answered with success, %s was alive and there was no fault in the write of its verdict (%q)", before.w, before.stored)
			}
		}
	}
	if now.Before(t.notBefore.Add(-j.tolerance())) {
		j.violated(early, a.key, "%s attempts %s before its time, which is %s", a.w, t.notBefore.Sub(now), clock(t.notBefore.Sub(j.s.start)))
	}
	t.attempts = append(t.attempts, a)
	t.round++
	a.claimID = t.claimed[a.w]
	j.start(a)

	most, wanted := 0, false
	for _, v := range j.versions(a.key.EndpointID, now.Add(-dispatch.CacheTime-dispatchTimeout-maxLag-j.tolerance()), now) {
		if v.endpoint != nil && v.endpoint.Status == endpoint.Enabled {
			wanted = true
		}
	}
	for _, v := range j.past[a.key.EndpointID] {
		if v.endpoint != nil {
			n := v.endpoint.Retry.MaxAttempts
			if n == 0 {
				n = retry.DefaultMaxAttempts
			}
			most = max(most, n)
		}
	}
	if !wanted {
		j.violated(unasked, a.key, "%s attempts a delivery to an endpoint that has been off for longer than the cache time", a.w)
	}
	if t.round > most {
		j.violated(counted, a.key, "%s begins attempt %d; at most %d were ever allowed", a.w, t.round, most)
	}
	f := j.events[a.key.EventID]
	if f == nil || !a.sameBody(f.event.Body) {
		j.violated(truthful, a.key, "%s sends another body than was accepted", a.w)
	}
}

// arrived checks an attempt at its receiver, which may go on working after an attempt ended
// for its worker. As docs/receiving.md says: a receiver whose response comes within its
// timeout never has two requests of one delivery at once.
func (j *checker) arrived(a *attempt) {
	now, shortest := time.Now(), endpoint.MaxTimeout
	for _, v := range j.past[a.key.EndpointID] {
		if v.endpoint != nil {
			shortest = min(shortest, v.endpoint.AttemptTimeout())
		}
	}
	for _, before := range j.delivery(a.key).attempts {
		if before == a || before.arrived.IsZero() || !before.works.After(now) {
			continue
		}
		// The timeout counts from when the request was sent: it can travel for seconds.
		if since := now.Sub(before.sent); since < shortest-j.tolerance() && before.outcome.Class != delivery.Protocol {
			j.violated(alone, a.key, "an attempt of %s arrives %s after that of %s was sent, on which the receiver is working; its timeout is %s", a.w, since, before.w, shortest)
		}
	}
}

// attemptOf returns the attempt that a worker made with a claim, or nil if it sent nothing.
func (j *checker) attemptOf(w *worker, k delivery.Key, claimID string) *attempt {
	if t := j.deliveries[k]; t != nil {
		for _, a := range slices.Backward(t.attempts) {
			if a.w == w && a.claimID == claimID {
				return a
			}
		}
	}
	return nil
}

// completed checks a verdict that was stored.
func (j *checker) completed(a *attempt, d delivery.Delivery, err error) {
	if err != nil {
		return
	}
	t := j.delivery(d.Key)
	if d.Attempts < t.claims {
		j.violated(growing, d.Key, "a verdict on attempt %d was stored after attempt %d was claimed", d.Attempts, t.claims)
	}
	if a != nil {
		a.stored = d.State
	}
	switch d.State {
	case delivery.Delivered:
		t.delivered = true
		if a == nil || !a.took {
			j.violated(truthful, d.Key, "it is stored as delivered, but the receiver never got it")
		}
	case delivery.Pending:
		if a != nil && !a.ended.IsZero() {
			t.notBefore = j.earliest(a, t.round)
		}
	}
}

// earliest returns when the attempt after a failed one may begin, computed from what
// the receiver saw.
func (j *checker) earliest(a *attempt, round int) time.Time {
	limit := retry.DefaultMaxDelay
	for _, v := range j.past[a.key.EndpointID] {
		if v.endpoint != nil && v.endpoint.Retry.MaxDelay != 0 {
			limit = min(limit, v.endpoint.Retry.MaxDelay)
		}
	}
	wait := limit
	if round < 20 {
		wait = min(limit, time.Second<<round)
	}
	wait = wait * 3 / 4 // the jitter shortens by a quarter at most
	wait = max(wait, min(limit, a.outcome.RetryAfter))
	return a.ended.Add(wait)
}

// versions returns the versions of an endpoint within a time.
func (j *checker) versions(id string, from, to time.Time) []version {
	var list []version
	for i, v := range j.past[id] {
		if !v.from.After(to) && (i+1 == len(j.past[id]) || !j.past[id][i+1].from.Before(from)) {
			list = append(list, v)
		}
	}
	return list
}

// ---- after the run ---------------------------------------------------------------------

// unsettled reports that the system did not come to rest in time.
func (j *checker) unsettled() {
	c := j.s.cloud
	busy := ""
	for _, w := range c.workers {
		if w.busy != nil {
			busy += " " + w.busy.name
		}
	}
	due, _ := c.earliestDue()
	j.violated(quiet, delivery.Key{}, "%s after the faults ended there is still work: messages %+v, %d producers, earliest due %s, busy:%s",
		j.s.plan.settle, c.queue.queue.Stats(), c.producing, clock(due.Sub(j.s.start)), busy)
}

// wants reports whether a version of an endpoint is subscribed to an event.
func (v version) wants(f *eventLog) bool {
	e := v.endpoint
	if e == nil || e.Status == endpoint.Disabled || e.Tenant != f.event.Tenant || !e.Subscribes(f.decoded.Type) {
		return false
	}
	if len(e.Filter) == 0 {
		return true
	}
	p, err := filter.Compile(e.Filter)
	if err != nil {
		panic(err)
	}
	doc, err := filter.Parse(f.event.Body)
	if err != nil {
		panic(err)
	}
	return p.Matches(doc)
}

// findAll searches the journals of all tenants.
func (j *checker) findAll(ctx context.Context) {
	found, tenants := map[string]int{}, map[string]bool{}
	for _, f := range j.events {
		tenants[f.event.Tenant] = true
	}
	for tenant := range tenants {
		for q := (journal.Query{Tenant: tenant, Limit: 100, Examine: 1000}); ; {
			page, err := journal.Search(ctx, j.s.store, q)
			if err != nil {
				panic(err)
			}
			for _, e := range page.Entries {
				found[e.ID]++
			}
			if q.Cursor = page.Next; q.Cursor == "" {
				break
			}
		}
	}
	for _, id := range slices.Sorted(maps.Keys(j.events)) {
		if found[id] == 0 && !time.Now().Before(event.RetainedUntil(id, j.events[id].event.RetentionDays)) {
			continue // it has expired
		}
		if found[id] != 1 {
			j.violated(recorded, delivery.Key{EventID: id}, "it is found %d times", found[id])
		}
	}
}

// finish checks the whole run.
func (j *checker) finish() {
	if len(j.s.Violations) > 0 {
		return
	}
	j.judgeLoad()
	j.judgeCapture()
	ctx := context.Background()
	j.findAll(ctx)
	for _, id := range slices.Sorted(maps.Keys(j.past)) {
		for _, eventID := range slices.Sorted(maps.Keys(j.events)) {
			f, key := j.events[eventID], delivery.Key{EndpointID: id, EventID: eventID}
			d, err := j.s.store.GetDelivery(ctx, key)
			has := err == nil
			must, may := true, false
			for _, v := range j.versions(id, f.first.Add(-j.tolerance()), f.done) {
				must = must && v.wants(f)
			}
			if len(j.past[id]) > 0 && j.past[id][0].from.After(f.first.Add(-j.tolerance())) {
				must = false
			}
			for _, v := range j.versions(id, f.first.Add(-dispatch.CacheTime-j.tolerance()), f.last.Add(dispatchTimeout)) {
				may = may || v.wants(f)
			}
			switch {
			case j.deleted[key]: // it was settled, a month ago
				continue
			case must && !has:
				j.violated(settles, key, "there is no delivery of an event that the endpoint was subscribed to from before it was fanned out")
				continue
			case has && !may:
				j.violated(unasked, key, "there is a delivery of an event that the endpoint was never subscribed to")
			case !has:
				if t := j.deliveries[key]; t != nil && len(t.attempts) > 0 {
					j.violated(truthful, key, "it was attempted, but is not in the store")
				}
				continue
			}
			j.s.Counts.Deliveries++
			j.settled(key, d, must)
		}
	}
}

// settled checks a delivery after the run. wanted says that its endpoint was
// subscribed to the event before it was fanned out.
func (j *checker) settled(key delivery.Key, d delivery.Delivery, wanted bool) {
	t := j.delivery(key)
	switch d.State {
	case delivery.Delivered:
		j.s.Counts.Delivered++
		if !slices.ContainsFunc(t.attempts, func(a *attempt) bool { return a.took }) {
			j.violated(truthful, key, "it is delivered, but the receiver never got it")
		}
	case delivery.Dead:
		j.s.Counts.Dead++
		j.dead(key, d, t, wanted)
	case delivery.Skipped:
		j.s.Counts.Skipped++
		off := false
		f := j.events[key.EventID]
		// The worker read the endpoint just before it skipped the delivery, unless an
		// operation in between was slow.
		before := time.Second
		if j.s.plan.faults.slow > 0 {
			before = dispatchTimeout
		}
		from := d.UpdatedAt.Add(-before - j.tolerance())
		if from.Before(f.stored) {
			from = f.stored
		}
		for _, v := range j.versions(key.EndpointID, from, d.UpdatedAt.Add(j.tolerance())) {
			off = off || v.endpoint == nil || v.endpoint.Status == endpoint.Disabled
		}
		// A replay may come when the event has been deleted. Nothing else outlives its event.
		gone := d.Since.After(f.stored.Add(time.Minute)) && d.UpdatedAt.Sub(f.stored) > event.Retention(j.s.plan.retentionDays)-time.Hour
		if !off && !gone || d.Reason == "" {
			j.violated(reasons, key, "it is skipped (%q), but the endpoint was never off", d.Reason)
		}
	default:
		j.violated(settles, key, "at the end of the run it is %s, attempts %d, next %s, due %s", d.State, d.Attempts,
			clock(d.NextAttemptAt.Sub(j.s.start)), clock(d.DueAt.Sub(j.s.start)))
	}
	if len(t.attempts) > d.Attempts {
		j.violated(growing, key, "the receiver saw %d attempts, but the store has %d", len(t.attempts), d.Attempts)
	}
}

func (j *checker) dead(key delivery.Key, d delivery.Delivery, t *deliveryLog, wanted bool) {
	if d.Reason == "" {
		j.violated(reasons, key, "it is dead without a reason")
	}
	least, youngest := retry.DefaultMaxAttempts, retry.DefaultMaxAge
	for _, v := range j.past[key.EndpointID] {
		if v.endpoint != nil {
			n, age := v.endpoint.Retry.MaxAttempts, v.endpoint.Retry.MaxAge
			if n == 0 {
				n = retry.DefaultMaxAttempts
			}
			if age == 0 {
				age = retry.DefaultMaxAge
			}
			least, youngest = min(least, n), min(youngest, age)
		}
	}
	last := delivery.Outcome{}
	if len(t.attempts) > 0 {
		last = t.attempts[len(t.attempts)-1].outcome
	}
	switch {
	case last.Class == delivery.Gone:
	case d.CountedAttempts() >= least, last.Class == delivery.Lost && d.Attempts > 8: // eight workers died in a row
	default:
		// It expired.
		age := d.UpdatedAt.Sub(d.Since)
		soon := 6*time.Hour + 2*j.tolerance() // a retry after the age limit is not scheduled
		if age < youngest-soon {
			j.violated(reasons, key, "it is dead (%s) after %d attempts and %s; the policy allowed at least %d attempts and %s", d.Reason, d.Attempts, age, least, youngest)
		}
		// Nothing dies of age but for a receiver that was down, or saturated, all the time. A
		// replayed batch may create the delivery hours later, when it has expired.
		from := d.Since
		if f := j.events[key.EventID]; f.done.After(from) {
			from = f.done
		}
		pause := j.longestPause(key.EndpointID, len(t.attempts) > 0)
		if longest, share := j.reachable(key, from, d.UpdatedAt); wanted && longest > pause && share < 0.9 {
			j.violated(used, key, "it expired (%s) after %d attempts, but its receiver had been healthy for %s (no more than %s may pass), its limit used by %.0f %%", d.Reason, len(t.attempts), longest, pause, 100*share)
		}
	}
}
