package simulation

import (
	"cmp"
	"slices"
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/delivery/breaker"
)

// maxLag is the maximum lag of an index or of an eventually consistent read.
const maxLag = 3 * time.Second

// indexes simulates the lag of global secondary indexes and of reads that are not asked to
// be consistent, which the memory store does not have. For maxLag after a write, such a read
// may show the item as it was before, or that it was not there.
type indexes struct {
	s          *sim
	deliveries formers[delivery.Key, *delivery.Delivery] // nil: there was none
	breakers   formers[string, breaker.State]
}

// formers are the former states of items that were written lately, oldest write first.
type formers[K comparable, V any] struct{ list []former[K, V] }

type former[K comparable, V any] struct {
	key   K
	state V
	until time.Time // time of the overwrite
}

// wrote notes an item's state before a write.
func (f *formers[K, V]) wrote(key K, before V) {
	f.list = append(slices.Clip(f.recent()), former[K, V]{key, before, time.Now()})
}

// recent are the writes that a read may not show yet.
func (f *formers[K, V]) recent() []former[K, V] {
	for len(f.list) > 0 && time.Since(f.list[0].until) >= maxLag {
		f.list = f.list[1:]
	}
	return f.list
}

// chosen are the former states that a read shows, one for each item.
func (f *formers[K, V]) chosen(s *sim) (list []former[K, V]) {
	for _, one := range f.recent() {
		if s.faulty(s.plan.faults.stale) && !slices.ContainsFunc(list, func(o former[K, V]) bool { return o.key == one.key }) {
			list = append(list, one)
		}
	}
	return list
}

func newIndexes(s *sim) *indexes { return &indexes{s: s} }

// waiting is what the index of the backlog shows.
func (x *indexes) waiting(endpointID, after string, page delivery.Backlog, limit int) delivery.Backlog {
	for _, was := range x.deliveries.chosen(x.s) {
		if was.key.EndpointID != endpointID || was.key.EventID <= after {
			continue
		}
		page.Deliveries = slices.DeleteFunc(page.Deliveries, func(d delivery.Delivery) bool { return d.Key == was.key })
		if was.state != nil && was.state.InBacklog {
			page.Deliveries = append(page.Deliveries, *was.state)
		}
	}
	slices.SortFunc(page.Deliveries, func(a, b delivery.Delivery) int { return cmp.Compare(a.EventID, b.EventID) })
	if len(page.Deliveries) > limit {
		page.Deliveries, page.More = page.Deliveries[:limit], true
	}
	if n := len(page.Deliveries); n > 0 && (page.More || page.Deliveries[n-1].EventID > page.Last) {
		page.Last = page.Deliveries[n-1].EventID
	}
	return page
}

// due is what the due index shows of a shard, up to a time.
func (x *indexes) due(shard int, before time.Time, page []delivery.Due) []delivery.Due {
	for _, was := range x.deliveries.chosen(x.s) {
		if was.key.DueShard() != shard {
			continue
		}
		page = slices.DeleteFunc(page, func(d delivery.Due) bool { return d.Key == was.key })
		if was.state != nil && !was.state.DueAt.IsZero() && !was.state.DueAt.After(before) {
			page = append(page, delivery.Due{Key: was.key, DueAt: was.state.DueAt})
		}
	}
	slices.SortStableFunc(page, func(a, b delivery.Due) int { return a.DueAt.Compare(b.DueAt) })
	return page
}

// page is what a query of an endpoint's deliveries shows. It may show an older state, but
// leaves out nothing: the caller would be told that there is nothing.
func (x *indexes) page(list []delivery.Delivery) []delivery.Delivery {
	for _, was := range x.deliveries.chosen(x.s) {
		for i := range list {
			if list[i].Key == was.key && was.state != nil {
				list[i] = *was.state
			}
		}
	}
	return list
}

// circuits is what the index of wake-up times shows, up to a time, or all if it is zero.
func (x *indexes) circuits(by time.Time, list []breaker.State) []breaker.State {
	for _, was := range x.breakers.chosen(x.s) {
		list = slices.DeleteFunc(list, func(b breaker.State) bool { return b.EndpointID == was.key })
		if !was.state.WakeAt.IsZero() && (by.IsZero() || !was.state.WakeAt.After(by)) {
			list = append(list, was.state)
		}
	}
	slices.SortFunc(list, breaker.CompareWakeAt)
	return list
}

// breaker is what an eventually consistent read shows.
func (x *indexes) breaker(now breaker.State) breaker.State {
	for _, was := range x.breakers.chosen(x.s) {
		if was.key == now.EndpointID {
			return was.state
		}
	}
	return now
}
