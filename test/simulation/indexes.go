package simulation

import (
	"slices"
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/delivery/breaker"
)

// maxLag is the maximum lag of an index or of an eventually consistent read.
const maxLag = 3 * time.Second

// indexes simulates the lag of global secondary indexes and of eventually consistent
// reads, which the memory store does not have.
type indexes struct {
	s        *sim
	parkedAt map[delivery.Key]time.Time
	breakers map[string]former
}

type former struct {
	state breaker.State
	until time.Time // time of the overwrite
}

func newIndexes(s *sim) *indexes {
	return &indexes{s: s, parkedAt: map[delivery.Key]time.Time{}, breakers: map[string]former{}}
}

func (x *indexes) parked(d delivery.Delivery) {
	if d.InBacklog {
		x.parkedAt[d.Key] = time.Now()
	}
}

// waiting leaves out what was parked just now.
func (x *indexes) waiting(list []delivery.BacklogEntry) []delivery.BacklogEntry {
	return slices.DeleteFunc(list, func(w delivery.BacklogEntry) bool {
		return time.Since(x.parkedAt[w.Key]) < maxLag && x.s.faulty(x.s.plan.faults.stale)
	})
}

func (x *indexes) wrote(before breaker.State) {
	x.breakers[before.EndpointID] = former{before, time.Now()}
}

// breaker may return the former state.
func (x *indexes) breaker(now breaker.State) breaker.State {
	if was, ok := x.breakers[now.EndpointID]; ok && time.Since(was.until) < maxLag && was.state.Version > 0 && x.s.faulty(x.s.plan.faults.stale) {
		return was.state
	}
	return now
}
