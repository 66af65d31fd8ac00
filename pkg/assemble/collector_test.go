package assemble_test

import (
	"math"
	"runtime/debug"
	"testing"

	"github.com/tidings-dev/tidings/pkg/assemble"
)

func TestTheCollectorIsSparedUnlessSomebodySaysOtherwise(t *testing.T) {
	percent, limit := debug.SetGCPercent(100), debug.SetMemoryLimit(-1)
	defer func() {
		debug.SetGCPercent(percent)
		debug.SetMemoryLimit(limit)
	}()
	for name, c := range map[string]struct {
		environment map[string]string
		percent     int
		limit       int64
	}{
		"nobody says anything": {nil, 400, 384 << 20},
		"GOGC is set":          {map[string]string{"GOGC": "50"}, 100, 384 << 20},
		"GOMEMLIMIT is set":    {map[string]string{"GOMEMLIMIT": "1GiB"}, 400, math.MaxInt64},
	} {
		debug.SetGCPercent(100)
		debug.SetMemoryLimit(math.MaxInt64)
		assemble.SpareCollector(512, c.environment)
		if got := debug.SetGCPercent(100); got != c.percent {
			t.Errorf("%s: GOGC is %d, want %d", name, got, c.percent)
		}
		if got := debug.SetMemoryLimit(-1); got != c.limit {
			t.Errorf("%s: GOMEMLIMIT is %d, want %d", name, got, c.limit)
		}
	}
}
