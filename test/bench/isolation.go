package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// neighbour is a receiver that hangs, or is slow, and what it gets. Every event is a
// request of its own: a list would travel in full batches, which hide the workers that a
// receiver takes.
type neighbour struct {
	name      string
	path      string // how the receivers behave
	endpoints int
	rate      int           // events a second, over all of them
	span      time.Duration // how long they are emitted; the others are measured as long
}

// grace is how long the others may feel that a receiver begins to hang.
const grace = 3 * time.Second

var neighbours = []neighbour{
	{"60 deliveries hang, at 20/s", "hang", 1, 20, 3 * time.Second},
	{"300 deliveries hang, at 60/s", "hang", 1, 60, 5 * time.Second},
	{"300 deliveries hang, in 0.2 s", "hang", 1, 1500, 200 * time.Millisecond},
	{"one endpoint hangs, at 20/s, sustained", "hang", 1, 20, 20 * time.Second},
	{"five endpoints hang, at 20/s each, sustained", "hang", 5, 100, 20 * time.Second},
	{"one endpoint answers after 9 s, at 10/s, sustained", "nine", 1, 10, 20 * time.Second},
	{"1,000 deliveries hang, at 200/s", "hang", 1, 200, 5 * time.Second},
}

// measureIsolation measures two healthy endpoints alone, and beside each neighbour.
func measureIsolation(ctx context.Context, r *Report, o options) error {
	t := r.table("isolation", "Isolation: two healthy endpoints at 50 events/s beside one that hangs or is slow; every event is emitted on its own", "beside it",
		"p50 ms, alone", "p95 ms, alone", "longest ms, first 3 s", "p50 ms, after 3 s", "p95 ms, after 3 s", "most requests under way", "deliveries measured")
	t.Notes = []string{"Each row has its own process, on the memory store, with the template's concurrency. \"Alone\" is measured just before. " +
		"The neighbour's events and those of the healthy endpoints begin at the same time; the healthy ones are measured for at least 12 seconds, so that the first timeouts, after 10 s, are among them."}
	for _, n := range neighbours {
		if o.short && n.span > 5*time.Second {
			continue
		}
		alone, first, after, most, err := beside(ctx, o, n)
		if err != nil {
			return fmt.Errorf("%s: %w", n.name, err)
		}
		longest := first[len(first)-1]
		got := spellOf(after)
		t.add(n.name, of(alone.p50), of(alone.p95), of(longest), of(got.p50), of(got.p95), of(float64(most)), of(float64(len(first)+len(after))))
		fmt.Fprintf(os.Stderr, "  %s: alone p50 %s, p95 %s ms; longest of the first %s: %s ms; then p50 %s, p95 %s ms; at most %d under way\n",
			n.name, number(alone.p50), number(alone.p95), grace, number(longest), number(got.p50), number(got.p95), most)
		// Below two milliseconds, the machine's own noise is larger than any ratio.
		r.atMost(2, got.p50/max(alone.p50, 2), "", n.name+": p50 of the others after 3 s, relative to alone (or to 2 ms)")
		r.atMost(3, got.p95/max(alone.p95, 2), "", "… p95")
		r.under(float64(grace.Milliseconds()), longest, "ms", "… longest wait of the others in the first 3 s")
	}
	return nil
}

// beside measures the healthy endpoints alone, and then beside a neighbour: the latencies,
// sorted, of events emitted within the grace and after it.
func beside(ctx context.Context, o options, n neighbour) (alone spell, first, after []float64, most int, err error) {
	comments := []string{"user.posted_comment"}
	s, err := newStage(ctx, o, func(base string) (list []wish) {
		for i := range 2 {
			list = append(list, wish{URL: fmt.Sprintf("%s/ok/%d", base, i), Types: comments, Filter: about("alone")},
				wish{URL: fmt.Sprintf("%s/first/%d", base, i), Types: comments, Filter: about("first")},
				wish{URL: fmt.Sprintf("%s/after/%d", base, i), Types: comments, Filter: about("after")})
		}
		for i := range n.endpoints {
			filter := json.RawMessage(fmt.Sprintf(`{"data":{"comment_id":["c_%d"]}}`, i))
			list = append(list, wish{URL: fmt.Sprintf("%s/%s/%d", base, n.path, i), Types: []string{"user.flagged_comment"}, Filter: filter})
		}
		return list
	})
	if err != nil {
		return alone, nil, nil, 0, err
	}
	defer s.stop()
	healthy := func(n int) int { return 2 * n }
	for range 2 { // the first is for connections and caches
		if alone, err = s.spell(3*time.Second, func(int) string { return "alone" }, healthy); err != nil {
			return alone, nil, nil, 0, err
		}
	}
	var failed atomic.Pointer[error]
	var background sync.WaitGroup
	background.Go(func() {
		if err := s.flag(n); err != nil {
			failed.Store(&err)
		}
	})
	measured := make(chan struct{})
	background.Go(func() {
		for {
			if n, err := s.to.hanging(); err == nil {
				most = max(most, n)
			}
			select {
			case <-time.After(50 * time.Millisecond):
			case <-measured:
				return
			}
		}
	})
	early := int(grace.Seconds()) * dayRate
	sent, err := s.runner.load(dayRate, max(n.span, 12*time.Second), func(n int) string {
		if n < early {
			return "first"
		}
		return "after"
	})
	if err == nil {
		// Two of each alone spell are counted too.
		err = s.to.wait(2*sent+2*int(3*dayRate), time.Minute)
	}
	close(measured)
	background.Wait()
	if err != nil {
		return alone, nil, nil, 0, err
	}
	if err := failed.Load(); err != nil {
		return alone, nil, nil, 0, *err
	}
	report, err := s.to.report()
	if err != nil {
		return alone, nil, nil, 0, err
	}
	first, after = report["first"].First, report["after"].First
	slices.Sort(first)
	slices.Sort(after)
	return alone, first, after, most, nil
}

// flag emits a neighbour's events, each with its own request.
func (s *stage) flag(n neighbour) error {
	total := int(float64(n.rate) * n.span.Seconds())
	began := time.Now()
	var group sync.WaitGroup
	var failed atomic.Pointer[error]
	free := make(chan struct{}, 64)
	for i := range total {
		time.Sleep(time.Until(began.Add(time.Duration(float64(i) / float64(n.rate) * float64(time.Second)))))
		free <- struct{}{}
		group.Go(func() {
			defer func() { <-free }()
			event := fmt.Sprintf(`{"event":"user.flagged_comment","data":{"comment_id":"c_%d","flagged_user_id":"u_1","reason":"spam"}}`, i%n.endpoints)
			if err := s.runner.post([]byte(event)); err != nil {
				failed.Store(&err)
			}
		})
	}
	group.Wait()
	if err := failed.Load(); err != nil {
		return *err
	}
	return nil
}
