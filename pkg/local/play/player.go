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

// Platform is the platform table.
type Platform interface {
	PutRecord(ctx context.Context, record platform.Record) error
	DeleteRecord(ctx context.Context, k platform.Key) error
	ExtendDiscussion(ctx context.Context, x platform.Extension) (platform.Discussion, error)
}

// Report counts the steps of a simulation.
type Report struct {
	Steps int `json:"steps"`
	// Events counts the events that receivers must get, by type.
	Events map[string]int `json:"events"`
	// Refused counts extensions of discussions that were already closed.
	Refused int `json:"refused"`
	// Behind is the largest delay of a step: the table was too slow for the speed.
	Behind time.Duration `json:"behind_ns"`
}

// Total is the number of events.
func (r Report) Total() (n int) {
	for _, k := range r.Events {
		n += k
	}
	return n
}

// Player writes a plan to the platform table.
type Player struct {
	Platform Platform
	// Close closes expired discussions and returns their number.
	Close func(ctx context.Context) (int, error)
	// Progress is called after each simulated hour; may be nil.
	Progress func(played time.Duration, sofar Report)
}

// maxConcurrency limits concurrent writes.
const maxConcurrency = 8

// Play executes each step at its due time, and the steps of one partition in order. It
// stops at the first failed write or when ctx is done; the report counts only completed
// steps.
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
	var queues [maxConcurrency]chan Step
	for i := range queues {
		queues[i] = make(chan Step, 64)
		group.Go(func() error {
			var failed error
			for s := range queues[i] {
				if failed != nil {
					underWay.Done() // skipped after a failure
					continue
				}
				n, err := p.step(playing, s)
				late := errors.Is(err, platform.ErrClosed) || errors.Is(err, platform.ErrNotLater) || errors.Is(err, platform.ErrPast)
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
					if s.EventType != "" && n > 0 {
						report.Events[s.EventType] += n
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
			queue := 0
			if s.Close {
				// Complete all earlier steps first.
				if err := waitIdle(playing, &underWay); err != nil {
					return err
				}
			} else {
				h := fnv.New32a()
				_, _ = h.Write([]byte(s.partition()))
				queue = int(h.Sum32() % maxConcurrency)
			}
			underWay.Add(1)
			select {
			case queues[queue] <- s:
			case <-playing.Done():
				underWay.Done()
				return playing.Err()
			}
			if s.Close {
				if err := waitIdle(playing, &underWay); err != nil {
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
		err = failed // the cause, not the cancellation
	}
	return snapshot(), err
}

// waitIdle waits until no step is running, or ctx is done.
func waitIdle(ctx context.Context, underWay *sync.WaitGroup) error {
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

// step executes a step and returns the number of events that it causes.
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
