package local

import (
	"context"
	"time"

	"github.com/tidings-dev/tidings/pkg/local/samtemplate"
)

// RunSchedule invokes a function immediately and then every period, until ctx is
// done. The immediate call lets a restarted runner catch up. A call that is still
// running at the next tick delays that tick.
func RunSchedule(ctx context.Context, f *Function, s samtemplate.Schedule) error {
	return runSchedule(ctx, f, s, nil)
}

func runSchedule(ctx context.Context, f *Function, s samtemplate.Schedule, g *gate) error {
	tick := time.NewTicker(s.Every)
	defer tick.Stop()
	for {
		_, leave := g.enter(ctx)
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
