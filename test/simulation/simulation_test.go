package simulation

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"testing"

	"github.com/tidings-dev/tidings/pkg/delivery"
)

var (
	first  = flag.Uint64("first", 1, "first seed")
	step   = flag.Uint64("step", 1, "distance between seeds")
	seeds  = flag.Int("seeds", 25, "number of seeds")
	report = flag.Bool("report", false, "print each run's result as JSON")
	twice  = flag.Int("twice", 0, "run every n-th seed twice and compare; 0 disables")
	traced = flag.Bool("trace", false, "print the whole trace")
)

func TestMain(m *testing.M) {
	flag.Parse()
	// With one processor and without garbage collection, goroutines run in the same
	// order each time.
	runtime.GOMAXPROCS(1)
	debug.SetGCPercent(-1)
	os.Exit(m.Run())
}

// tidy collects garbage between runs.
func tidy() {
	var m runtime.MemStats
	if runtime.ReadMemStats(&m); m.HeapAlloc > 256<<20 {
		runtime.GC()
	}
}

func TestSeeds(t *testing.T) {
	var all Counts
	for i := range *seeds {
		seed := *first + uint64(i)**step
		if *report {
			fmt.Printf("begin %d\n", seed)
		}
		r := Run(t, seed, *traced)
		if *twice > 0 && i%*twice == 0 {
			again := Run(t, seed, false)
			if again.Hash != r.Hash || again.Steps != r.Steps {
				t.Fatalf("the second run of seed %d differs: %s", seed, differ(Run(t, seed, true).Trace, Run(t, seed, true).Trace))
			}
		}
		tidy()
		all.Add(r.Counts)
		if *report {
			line, err := json.Marshal(r)
			if err != nil {
				t.Fatal(err)
			}
			fmt.Printf("result %s\n", line)
		}
		if *traced {
			fmt.Print(Render(r.Trace, delivery.Key{}))
		}
		if len(r.Violations) > 0 {
			v := r.Violations[0]
			again := r
			if !*traced {
				again = Run(t, seed, true)
			}
			t.Errorf("seed %d: what led to it:\n%sseed %d broke %q at %s, delivery %s: %s", seed, Explain(again.Trace, v), seed, v.Invariant, v.At, v.Key, v.Says)
			return
		}
	}
	t.Logf("%+v", all)
}

func TestTheSameSeedIsTheSameRun(t *testing.T) {
	if testing.Short() {
		t.Skip("runs many seeds")
	}
	for seed := range uint64(10) {
		a, b := Run(t, 1000+seed, true), Run(t, 1000+seed, true)
		tidy()
		if a.Hash == b.Hash && a.Steps == b.Steps {
			continue
		}
		t.Fatalf("seed %d: %d and %d steps, %s", 1000+seed, a.Steps, b.Steps, differ(a.Trace, b.Trace))
	}
}

// differ shows the first difference of two traces.
func differ(a, b []Line) string {
	for i := range a {
		if i >= len(b) || a[i] != b[i] {
			return fmt.Sprintf("from line %d:\n%s\nand\n%s", i, Render(a[max(0, i-6):min(i+3, len(a))], delivery.Key{}), Render(b[max(0, i-6):min(i+3, len(b))], delivery.Key{}))
		}
	}
	return "with equal traces"
}
