package play

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tidings-dev/tidings/pkg/platform"
)

// Platform is where the platform writes.
type Platform interface {
	PutRecord(ctx context.Context, record platform.Record) error
	DeleteRecord(ctx context.Context, k platform.Key) error
	ExtendDiscussion(ctx context.Context, x platform.Extension) (platform.Discussion, error)
}

// Report says what was played.
type Report struct {
	Steps int `json:"steps"`
	// Events are those that must have arrived when all is delivered, by type.
	Events map[string]int `json:"events"`
	// Refused are extensions that came too late: the discussion was closed.
	Refused int `json:"refused"`
	// Behind is how late the latest step was: how much faster the play was than
	// what it was played on.
	Behind time.Duration `json:"behind_ns"`
}

// Total is the number of events.
func (r Report) Total() (n int) {
	for _, k := range r.Events {
		n += k
	}
	return n
}

// Player plays a plan.
type Player struct {
	Platform Platform
	// Close closes the discussions whose time is over, as the platform's schedule
	// does, and returns how many.
	Close func(ctx context.Context) (int, error)
	// Progress is told of each of the play's hours; nil for nobody.
	Progress func(played time.Duration, sofar Report)
}

// lanes is how many writes are under way at most.
const lanes = 8

// Play makes each step when it is due, and what concerns one subject in its
// order. It stops at the first write that fails, or with ctx; what it reports
// has been written.
func (p *Player) Play(ctx context.Context, plan []Step) (Report, error) {
	report := Report{Events: map[string]int{}}
	var mu sync.Mutex
	snapshot := func() Report {
		mu.Lock()
		defer mu.Unlock()
		r := report
		r.Events = maps.Clone(report.Events)
		return r
	}
	playing, stop := context.WithCancel(ctx)
	defer stop()
	var group errgroup.Group
	var underWay sync.WaitGroup
	var queues [lanes]chan Step
	for i := range queues {
		queues[i] = make(chan Step, 64)
		group.Go(func() error {
			var failed error
			for s := range queues[i] {
				if failed != nil {
					underWay.Done() // not played any more
					continue
				}
				n, err := p.step(playing, s)
				late := errors.Is(err, platform.ErrClosed) || errors.Is(err, platform.ErrNotLater)
				mu.Lock()
				switch {
				case late:
					report.Steps++
					report.Refused++
				case err != nil:
					failed = err
					stop()
				default:
					report.Steps++
					if s.Means != "" && n > 0 {
						report.Events[s.Means] += n
					}
				}
				mu.Unlock()
				underWay.Done()
			}
			return failed
		})
	}
	err := func() error {
		for _, s := range plan {
			if wait := time.Until(s.At); wait > 0 {
				select {
				case <-time.After(wait):
				case <-playing.Done():
					return playing.Err()
				}
			} else {
				mu.Lock()
				report.Behind = max(report.Behind, -wait)
				mu.Unlock()
			}
			lane := 0
			if s.Close {
				// Everything that came before it has been written when it runs.
				if err := drained(playing, &underWay); err != nil {
					return err
				}
			} else {
				h := fnv.New32a()
				_, _ = h.Write([]byte(s.subject()))
				lane = int(h.Sum32() % lanes)
			}
			underWay.Add(1)
			select {
			case queues[lane] <- s:
			case <-playing.Done():
				underWay.Done()
				return playing.Err()
			}
			if s.Close {
				if err := drained(playing, &underWay); err != nil {
					return err
				}
				if p.Progress != nil {
					p.Progress(s.Played, snapshot())
				}
			}
		}
		return nil
	}()
	for _, q := range queues {
		close(q)
	}
	if failed := group.Wait(); failed != nil {
		err = failed // the cause, not the cancelling
	}
	return snapshot(), err
}

// drained waits until no step is under way, or ctx ends.
func drained(ctx context.Context, underWay *sync.WaitGroup) error {
	done := make(chan struct{})
	go func() {
		underWay.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// step makes one step and returns how many events it means.
func (p *Player) step(ctx context.Context, s Step) (int, error) {
	switch {
	case s.Put != nil:
		return 1, p.Platform.PutRecord(ctx, s.Put)
	case s.Delete != nil:
		return 1, p.Platform.DeleteRecord(ctx, *s.Delete)
	case s.Extend != nil:
		_, err := p.Platform.ExtendDiscussion(ctx, *s.Extend)
		return 1, err
	case s.Close:
		n, err := p.Close(ctx)
		if err != nil {
			return 0, fmt.Errorf("close discussions: %w", err)
		}
		return n, nil
	}
	return 0, nil
}
