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
)

// The invariants, by the name that a violation has.
const (
	settles     = "every accepted event settles"          // delivered, dead or skipped at every endpoint that wanted it
	reasons     = "dead and skipped have a right reason"  // and nothing dies while its receiver is well
	truthful    = "delivered means delivered"             // the receiver took it, byte for byte
	unasked     = "nothing goes where it was not wanted"  // types, filter, tenant, disabled and removed endpoints
	apart       = "attempts do not overlap"               //
	final       = "nothing is attempted after delivered"  // but after a replay
	early       = "no attempt before its time"            // backoff, Retry-After
	counted     = "no more attempts than the policy says" //
	duplicates  = "duplicates only where a worker died"   // or its verdict was lost
	durable     = "what emit answered for is stored"      //
	idempotent  = "one key is one event"                  //
	growing     = "attempts only grow"                    //
	quiet       = "everything comes to rest"              // queue, streams, due index, in the time that the rules allow
	maxViolated = 5                                       // a run that is broken breaks often
)

// judge watches a run from the receivers' side and from the store's.
type judge struct {
	s      *sim
	tracks map[delivery.Key]*track
	events map[string]*fact
	keys   map[string]string    // event by producer's key
	past   map[string][]version // of endpoints
	sides  map[string]*side     // by endpoint
}

// track is what is known of a delivery.
type track struct {
	attempts  []*attempt
	round     int       // attempts since the last replay
	delivered bool      // stored, and not replayed since
	notBefore time.Time // of the next attempt
	claims    int       // the highest number of attempts stored
	replays   int
	claimed   map[*worker]string // ids of claims
}

// fact is an event.
type fact struct {
	id      string
	event   event.Accepted
	decoded event.Event
	stored  time.Time
	first   time.Time // when its fan out first began
	done    time.Time // when it was first done
	last    time.Time // when it last began
}

// version is an endpoint as it was from a time on; nil where it was gone.
type version struct {
	from     time.Time
	endpoint *endpoint.Endpoint
}

func newJudge(s *sim) *judge {
	return &judge{s: s, tracks: map[delivery.Key]*track{}, events: map[string]*fact{}, keys: map[string]string{}, past: map[string][]version{}, sides: map[string]*side{}}
}

// broken notes a violation.
func (j *judge) broken(invariant string, key delivery.Key, format string, args ...any) {
	v := Violation{Invariant: invariant, Key: key, At: clock(time.Since(j.s.start)), Says: fmt.Sprintf(format, args...)}
	j.s.note(key, "BROKEN: %s: %s", invariant, v.Says)
	if len(j.s.Violations) < maxViolated {
		j.s.Violations = append(j.s.Violations, v)
	}
	j.s.over = j.s.over || len(j.s.Violations) >= maxViolated
}

func (j *judge) track(k delivery.Key) *track {
	t := j.tracks[k]
	if t == nil {
		t = &track{claimed: map[*worker]string{}}
		j.tracks[k] = t
	}
	return t
}

// tolerance is how much clocks may differ.
func (j *judge) tolerance() time.Duration { return 2*j.s.plan.maxSkew + time.Millisecond }

// ---- as it goes ----------------------------------------------------------------------

func (j *judge) accepted(number int, p produced, r emit.Result) {
	if _, err := j.s.store.GetEvent(context.Background(), r.ID); err != nil {
		j.broken(durable, delivery.Key{EventID: r.ID}, "emit answered for %s, and the store says: %v", r.ID, err)
	}
	if p.key == "" {
		return
	}
	key := fmt.Sprintf("%s of producer %d", p.key, number)
	if was, ok := j.keys[key]; ok && was != r.ID {
		j.broken(idempotent, delivery.Key{EventID: r.ID}, "%s stands for %s and for %s", p.key, was, r.ID)
	}
	j.keys[key] = r.ID
}

func (j *judge) stored(id string) {
	a, err := j.s.store.GetEvent(context.Background(), id)
	if err != nil {
		panic(err)
	}
	e, err := event.Decode(a.Body)
	if err != nil {
		panic(err)
	}
	j.events[id] = &fact{id: id, event: a, decoded: e, stored: time.Now()}
	j.s.Counts.Events++
}

func (j *judge) fanOutBegins(id string) {
	f := j.events[id]
	f.last = time.Now()
	if f.first.IsZero() {
		f.first = f.last
	}
}

func (j *judge) fannedOut(id string) {
	if f := j.events[id]; f.done.IsZero() {
		f.done = time.Now()
	}
}

func (j *judge) endpointChanged(tenant, id string) {
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

func (j *judge) claimed(w *worker, d delivery.Delivery) {
	t := j.track(d.Key)
	if d.Attempts < t.claims {
		j.broken(growing, d.Key, "attempt %d was claimed after attempt %d", d.Attempts, t.claims)
	}
	t.claims = max(t.claims, d.Attempts)
	t.claimed[w] = d.ClaimID
}

func (j *judge) replayed(k delivery.Key) {
	j.s.Counts.Replayed++
	t := j.track(k)
	t.delivered, t.round, t.notBefore = false, 0, time.Time{}
	t.replays++
}

// sent is when a worker begins an attempt.
func (j *judge) sent(a *attempt) {
	now := time.Now()
	j.s.Counts.Attempts++
	t := j.track(a.key)
	if t.delivered {
		j.broken(final, a.key, "%s attempts what has been delivered", a.w)
	}
	if len(t.attempts) > 0 {
		before := t.attempts[len(t.attempts)-1]
		if before.ended.IsZero() {
			j.broken(apart, a.key, "%s begins an attempt while that of %s, begun at %s, is under way", a.w, before.w, clock(before.sent.Sub(j.s.start)))
		}
		if before.took && t.round > 0 {
			j.s.Counts.Duplicates++
			if before.acked && len(before.excuses) == 0 {
				j.broken(duplicates, a.key, "the receiver had answered with success, %s lived and its verdict (%q) met with no fault", before.w, before.stored)
			}
		}
	}
	if now.Before(t.notBefore.Add(-j.tolerance())) {
		j.broken(early, a.key, "%s attempts %s before its time, which is %s", a.w, t.notBefore.Sub(now), clock(t.notBefore.Sub(j.s.start)))
	}
	t.attempts = append(t.attempts, a)
	t.round++
	a.claimID = t.claimed[a.w]
	j.start(a)

	most, wanted := 0, false
	for _, v := range j.versions(a.key.EndpointID, now.Add(-dispatch.CacheTime-dispatchTimeout-j.tolerance()), now) {
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
		j.broken(unasked, a.key, "%s attempts a delivery to an endpoint that has been off for longer than the cache keeps it", a.w)
	}
	if t.round > most {
		j.broken(counted, a.key, "%s begins attempt %d; at most %d were ever allowed", a.w, t.round, most)
	}
	f := j.events[a.key.EventID]
	if f == nil || !a.sameBody(f.event.Body) {
		j.broken(truthful, a.key, "%s sends a body that is not what was accepted", a.w)
	}
}

// latestBy is a worker's latest attempt at a delivery; nil if there is none.
func (j *judge) latestBy(w *worker, k delivery.Key) *attempt {
	if t := j.tracks[k]; t != nil {
		for _, a := range slices.Backward(t.attempts) {
			if a.w == w {
				return a
			}
		}
	}
	return nil
}

// completed is when a verdict reached the store.
func (j *judge) completed(a *attempt, d delivery.Delivery, err error) {
	if err != nil {
		return
	}
	t := j.track(d.Key)
	if d.Attempts < t.claims {
		j.broken(growing, d.Key, "a verdict on attempt %d was stored after attempt %d was claimed", d.Attempts, t.claims)
	}
	if a != nil {
		a.stored = d.State
	}
	switch d.State {
	case delivery.Delivered:
		t.delivered = true
		if a == nil || !a.took {
			j.broken(truthful, d.Key, "it is stored as delivered, and the receiver never took it")
		}
	case delivery.Pending:
		if a != nil && !a.ended.IsZero() {
			t.notBefore = j.earliest(a, t.round)
		}
	}
}

// earliest is when the attempt that follows a failed one may begin, computed from
// what the receiver saw and not from what the worker made of it.
func (j *judge) earliest(a *attempt, round int) time.Time {
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

// versions are an endpoint's in a time.
func (j *judge) versions(id string, from, to time.Time) []version {
	var list []version
	for i, v := range j.past[id] {
		if !v.from.After(to) && (i+1 == len(j.past[id]) || !j.past[id][i+1].from.Before(from)) {
			list = append(list, v)
		}
	}
	return list
}

// ---- afterwards ----------------------------------------------------------------------

// unsettled is told when the time was not enough.
func (j *judge) unsettled() {
	c := j.s.cloud
	busy := ""
	for _, w := range c.workers {
		if w.busy != nil {
			busy += " " + w.busy.name
		}
	}
	due, _ := c.earliestDue()
	j.broken(quiet, delivery.Key{}, "%s after the faults ended there is still work: %d messages, %d producers, earliest due %s, busy:%s",
		settleTime, c.queue.size(), c.producing, clock(due.Sub(j.s.start)), busy)
}

// wants says whether a version of an endpoint wants an event.
func (v version) wants(f *fact) bool {
	e := v.endpoint
	if e == nil || e.Status != endpoint.Enabled || e.Tenant != f.event.Tenant || !e.Subscribes(f.decoded.Type) {
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

// finish looks at the whole run.
func (j *judge) finish() {
	if len(j.s.Violations) > 0 {
		return
	}
	ctx := context.Background()
	for _, id := range slices.Sorted(maps.Keys(j.past)) {
		for _, eventID := range slices.Sorted(maps.Keys(j.events)) {
			f, key := j.events[eventID], delivery.Key{EndpointID: id, EventID: eventID}
			d, err := j.s.store.GetDelivery(ctx, key)
			has := err == nil
			must, may := true, false
			for _, v := range j.versions(id, f.first.Add(-dispatch.CacheTime-j.tolerance()), f.done) {
				must = must && v.wants(f)
			}
			if len(j.past[id]) > 0 && j.past[id][0].from.After(f.first.Add(-dispatch.CacheTime-j.tolerance())) {
				must = false
			}
			for _, v := range j.versions(id, f.first.Add(-dispatch.CacheTime-j.tolerance()), f.last.Add(dispatchTimeout)) {
				may = may || v.wants(f)
			}
			switch {
			case must && !has:
				j.broken(settles, key, "there is no delivery of an event that the endpoint wanted all the time")
				continue
			case has && !may:
				j.broken(unasked, key, "there is a delivery of an event that the endpoint never wanted")
			case !has:
				if t := j.tracks[key]; t != nil && len(t.attempts) > 0 {
					j.broken(truthful, key, "it was attempted, and there is no record of it")
				}
				continue
			}
			j.s.Counts.Deliveries++
			j.settled(key, d, must)
		}
	}
}

// settled looks at one delivery's end. wanted says that its endpoint wanted the event
// from the first.
func (j *judge) settled(key delivery.Key, d delivery.Delivery, wanted bool) {
	t := j.track(key)
	switch d.State {
	case delivery.Delivered:
		j.s.Counts.Delivered++
		if !slices.ContainsFunc(t.attempts, func(a *attempt) bool { return a.took }) {
			j.broken(truthful, key, "it is delivered, and the receiver never took it")
		}
	case delivery.Dead:
		j.s.Counts.Dead++
		j.dead(key, d, t, wanted)
	case delivery.Skipped:
		j.s.Counts.Skipped++
		off := false
		f := j.events[key.EventID]
		// Whoever skipped it had looked it up just before: an invocation may have
		// waited in between, but only for what is slow.
		before := time.Second
		if j.s.plan.faults.slow > 0 {
			before = dispatchTimeout
		}
		from := d.UpdatedAt.Add(-before - j.tolerance())
		if from.Before(f.stored) {
			from = f.stored
		}
		for _, v := range j.versions(key.EndpointID, from, d.UpdatedAt.Add(j.tolerance())) {
			off = off || v.endpoint == nil || v.endpoint.Status != endpoint.Enabled
		}
		if !off || d.Reason == "" {
			j.broken(reasons, key, "it is skipped (%q), and the endpoint was never off", d.Reason)
		}
	default:
		j.broken(settles, key, "at the end of the run it is %s, attempts %d, next %s, due %s", d.State, d.Attempts,
			clock(d.NextAttemptAt.Sub(j.s.start)), clock(d.DueAt.Sub(j.s.start)))
	}
	if len(t.attempts) > d.Attempts {
		j.broken(growing, key, "the receiver saw %d attempts and the record knows of %d", len(t.attempts), d.Attempts)
	}
}

// wellTime is for how long a receiver has to have been well until nothing may die
// of its age any more: the longest backoff, and the longest that a circuit stays
// open, and some.
const wellTime = 8 * time.Hour

func (j *judge) dead(key delivery.Key, d delivery.Delivery, t *track, wanted bool) {
	if d.Reason == "" {
		j.broken(reasons, key, "it is dead without a reason")
	}
	least, youngest := 30, retry.DefaultMaxAge
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
	case d.CountedAttempts() >= least:
	default:
		// Of old age, then.
		age := d.UpdatedAt.Sub(d.Since)
		soon := 6*time.Hour + 2*j.tolerance() // the wait that would have been too long
		if age < youngest-soon {
			j.broken(reasons, key, "it is dead (%s) after %d attempts and %s; the policy allowed at least %d attempts and %s", d.Reason, d.Attempts, age, least, youngest)
		}
		// What was not wanted at first may be made hours later by a batch that is
		// replayed, and is too old at once.
		if since, well := j.s.network.receivers[key.EndpointID].upSince(d.UpdatedAt); wanted && well && d.UpdatedAt.Sub(since) > wellTime && d.UpdatedAt.Sub(d.Since) > wellTime {
			j.broken(reasons, key, "it is dead of old age (%s), and its receiver had been well for %s", d.Reason, d.UpdatedAt.Sub(since))
		}
	}
}
