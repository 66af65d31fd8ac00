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

func TestAScheduleThatIsHeldStandsStill(t *testing.T) {
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
		s.Hold("sweep")
		s.Hold("sweep") // again
		s.Hold("alerts")
		after(time.Hour, 0)
		s.Release("sweep")
		after(0, 2) // what it was held from, and the tick that fell due meanwhile
		after(3*time.Minute, 3)
		s.Hold("sweep")
		after(time.Hour, 0)
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}
