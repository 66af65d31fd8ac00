package destination_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidings-dev/tidings/pkg/destination"
)

func TestPauseComparesWithThePreviousCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p destination.Pause
		p.Exceeds(time.Second)
		for _, c := range []struct {
			after  time.Duration
			paused bool
		}{{0, false}, {time.Second, false}, {time.Second + 1, true}, {time.Second, false}} {
			time.Sleep(c.after)
			if got := p.Exceeds(time.Second); got != c.paused {
				t.Errorf("after %s: %v, want %v", c.after, got, c.paused)
			}
		}
	})
}
