package lambdamain_test

import (
	"math"
	"runtime/debug"
	"testing"

	"github.com/tidings-dev/tidings/pkg/aws/lambdamain"
)

func TestSpareCollectorSetsOnlyWhatTheEnvironmentDoesNot(t *testing.T) {
	percent, limit := debug.SetGCPercent(100), debug.SetMemoryLimit(-1)
	defer func() {
		debug.SetGCPercent(percent)
		debug.SetMemoryLimit(limit)
	}()
	for name, c := range map[string]struct {
		gogc, gomemlimit string
		percent          int
		limit            int64
	}{
		"nothing is set":    {"", "", 400, 384 << 20},
		"GOGC is set":       {"50", "", 100, 384 << 20},
		"GOMEMLIMIT is set": {"", "1GiB", 400, math.MaxInt64},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("GOGC", c.gogc)
			t.Setenv("GOMEMLIMIT", c.gomemlimit)
			debug.SetGCPercent(100)
			debug.SetMemoryLimit(math.MaxInt64)
			lambdamain.SpareCollector(512)
			if got := debug.SetGCPercent(100); got != c.percent {
				t.Errorf("GOGC is %d, want %d", got, c.percent)
			}
			if got := debug.SetMemoryLimit(-1); got != c.limit {
				t.Errorf("GOMEMLIMIT is %d, want %d", got, c.limit)
			}
		})
	}
}
