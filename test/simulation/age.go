package simulation

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/delivery/breaker"
	"github.com/tidings-dev/tidings/pkg/delivery/retry"
	"github.com/tidings-dev/tidings/pkg/endpoint"
)

// The invariants of age.
const (
	kept    = "nothing is deleted while it is pending"          // by TTL
	overdue = "nothing is pending long after its age limit"     // by more than ageGrace
	used    = "nothing dies of age while it could be attempted" // but for a receiver that is down or saturated
)

// ageGrace is how long after its age limit a delivery may still be pending.
const ageGrace = 10 * time.Minute

// faultGrace is how much longer faults may delay that.
const faultGrace = 2 * time.Hour

// reachable returns the longest time within a delivery's life in which its receiver was
// healthy, and how much of its rate limit, if it has one, was used then.
func (j *checker) reachable(key delivery.Key, from, to time.Time) (longest time.Duration, share float64) {
	r := j.s.network.receivers[key.EndpointID]
	for i, p := range r.behaviours {
		end := to
		if i+1 < len(r.behaviours) && r.behaviours[i+1].from.Before(to) {
			end = r.behaviours[i+1].from
		}
		begin := p.from
		if begin.Before(from) {
			begin = from
		}
		if p.behaviour != up || end.Sub(begin) <= longest {
			continue
		}
		longest, share = end.Sub(begin), 0
		if limit := j.slowest(key.EndpointID); limit > 0 {
			n := 0
			for _, at := range j.endpointLog(key.EndpointID).all {
				if !at.Before(begin) && at.Before(end) {
					n++
				}
			}
			share = float64(n) / (longest.Minutes() * float64(limit))
		}
	}
	return longest, share
}

// slowest is the lowest rate limit per minute that an endpoint has had, or 0.
func (j *checker) slowest(endpointID string) (limit int) {
	for _, v := range j.past[endpointID] {
		if v.endpoint != nil && v.endpoint.Limit.Enabled() && (limit == 0 || v.endpoint.Limit.PerMinute < limit) {
			limit = v.endpoint.Limit.PerMinute
		}
	}
	return limit
}

// longestPause is how long a healthy receiver can be without an attempt: the time for which
// operators had paused it, its circuit's longest wait, the delivery's longest backoff if it was attempted, and a reserve.
func (j *checker) longestPause(endpointID string, attempted bool) time.Duration {
	pause, paused := time.Duration(0), time.Duration(0)
	for i, v := range j.past[endpointID] {
		if v.endpoint != nil && v.endpoint.Status == endpoint.Paused {
			until := time.Now()
			if i+1 < len(j.past[endpointID]) {
				until = j.past[endpointID][i+1].from
			}
			paused += until.Sub(v.from) + 2*time.Minute // until the next sweep
		}
		if v.endpoint != nil {
			p := v.endpoint.Breaker
			pause = max(pause, cmp.Or(p.MaxOpenFor, max(breaker.DefaultMaxOpenFor, p.OpenFor)))
		}
	}
	pause += paused
	if attempted {
		pause += retry.DefaultMaxDelay
	}
	if j.s.plan.faults != (faults{}) {
		return pause + time.Hour
	}
	return pause + 15*time.Minute
}

// wrote follows a delivery that a worker has written.
func (j *checker) wrote(d delivery.Delivery) {
	if d.State.Settled() {
		delete(j.open, d.Key)
		return
	}
	j.open[d.Key] = d
	if limit := d.Since.Add(j.ageLimit(d.EndpointID) + ageGrace); d.ExpiresAt.Before(limit) {
		j.violated(kept, d.Key, "its TTL ends at %s, before its age limit plus %s, which is %s", clock(d.ExpiresAt.Sub(j.s.start)), ageGrace, clock(limit.Sub(j.s.start)))
	}
}

// ageLimit is the longest that an endpoint has had.
func (j *checker) ageLimit(endpointID string) (limit time.Duration) {
	for _, v := range j.past[endpointID] {
		if v.endpoint != nil {
			limit = max(limit, v.endpoint.Retry.AgeLimit())
		}
	}
	return cmp.Or(limit, retry.DefaultMaxAge)
}

// expire deletes what DynamoDB's TTL would, and checks the deliveries that are unsettled.
func (j *checker) expire() {
	now := time.Now()
	if now.Sub(j.expired) >= time.Hour {
		j.expired = now
		for _, d := range j.s.store.DeleteExpired() {
			if !d.State.Settled() {
				j.violated(kept, d.Key, "TTL deletes it while it is %s", d.State)
			}
			j.deleted[d.Key] = true
		}
	}
	grace := ageGrace
	if !j.s.calm || now.Sub(j.s.start.Add(j.s.plan.busy)) < faultGrace {
		if j.s.plan.faults != (faults{}) {
			grace += faultGrace
		}
	}
	for _, key := range slices.SortedFunc(maps.Keys(j.open), func(a, b delivery.Key) int {
		return cmp.Or(cmp.Compare(a.EndpointID, b.EndpointID), cmp.Compare(a.EventID, b.EventID))
	}) {
		if d := j.open[key]; d.State == delivery.Pending && now.Sub(d.Since) > j.ageLimit(key.EndpointID)+grace {
			j.violated(overdue, key, "it is %s old and still pending; its age limit is %s; due %s", now.Sub(d.Since), j.ageLimit(key.EndpointID), clock(d.DueAt.Sub(j.s.start)))
			delete(j.open, key)
		}
	}
}

// read follows a delivery that somebody has written.
func (j *checker) read(k delivery.Key) {
	if d, err := j.s.store.GetDelivery(context.Background(), k); err == nil {
		j.wrote(d)
	}
}
