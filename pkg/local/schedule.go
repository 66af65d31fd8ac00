package local

import (
	"context"
	"time"

	"github.com/tidings-dev/tidings/pkg/local/samtemplate"
)

// RunSchedule invokes a function at once and then every period, until ctx ends.
// The first call at once lets a restarted runner find what fell due meanwhile. A
// call that is still running when the next is due delays it.
func RunSchedule(ctx context.Context, f *Function, s samtemplate.Schedule) error {
	return runSchedule(ctx, f, s, nil)
}

func runSchedule(ctx context.Context, f *Function, s samtemplate.Schedule, held *gate) error {
	tick := time.NewTicker(s.Every)
	defer tick.Stop()
	for {
		_, leave := held.enter(ctx)
		leave()
		if ctx.Err() != nil {
			return nil
		}
		if _, err := f.Invoke(context.WithoutCancel(ctx), s.Input); err != nil {
			f.Log.Error("scheduled call failed", "function", f.Folder, "schedule", s.Name, "error", err.Error())
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}
