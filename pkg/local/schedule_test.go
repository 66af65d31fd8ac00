package local

import (
	"context"
	"encoding/json"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidings-dev/tidings/pkg/local/samtemplate"
)

func TestAPausedScheduleDoesNotFire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calls atomic.Int32
		f := &Function{
			Function: samtemplate.Function{Folder: "f", Timeout: time.Minute}, Log: slog.New(slog.DiscardHandler),
			Handle: func(context.Context, json.RawMessage) (any, error) { calls.Add(1); return nil, nil },
		}
		s := &System{}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() {
			ended <- runSchedule(ctx, f, samtemplate.Schedule{Every: time.Minute, Input: json.RawMessage(`{}`)}, s.gate("sweep"))
		}()
		after := func(d time.Duration, want int32) {
			t.Helper()
			time.Sleep(d)
			synctest.Wait()
			if got := calls.Swap(0); got != want {
				t.Errorf("%d calls in %s, want %d", got, d, want)
			}
		}
		after(4*time.Minute+time.Second, 5)
		s.Pause("sweep")
		s.Pause("sweep") // a second call changes nothing
		s.Pause("alerts")
		after(time.Hour, 0)
		s.Resume("sweep")
		after(0, 2) // the paused call, and the tick that fell due during the pause
		after(3*time.Minute, 3)
		s.Pause("sweep")
		after(time.Hour, 0)
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}
