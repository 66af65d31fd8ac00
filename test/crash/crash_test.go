//go:build rig

// Package crash_test kills the runner, its DynamoDB and the receiver with kill -9 under
// load; each is a process of its own. After each kill it waits for the last verdict
// and compares producer, store and receiver. The test prints a table and fails unless
// accepted = delivered + dead + skipped after each kill, with duplicates only of
// attempts that were in flight at the kill.
package crash_test

import (
	"cmp"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"testing"
	"text/tabwriter"
	"time"
)

// TestMain runs the receiver in a process of its own where the test started it as such.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == receiveCommand {
		if err := receive(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, "crash: receiver:", err)
			os.Exit(1)
		}
		return
	}
	m.Run()
}

var (
	binary        = flag.String("tidings", "bin/tidings", "path of the tidings binary")
	runnerKills   = flag.Int("runner", 20, "number of kills of the runner")
	dynamoKills   = flag.Int("dynamodb", 4, "number of kills of DynamoDB")
	receiverKills = flag.Int("receiver", 4, "number of kills of the receiver")
	events        = flag.Int("events", 25, "events emitted around each kill")
	seed          = flag.Uint64("seed", 0, "seed of the random times; 0 chooses one")
	keep          = flag.Bool("keep", false, "keep the state folders")
)

func TestCrash(t *testing.T) {
	t.Chdir("../..")
	if *seed == 0 {
		*seed = rand.Uint64N(1_000_000) + 1
	}
	fmt.Printf("seed %d (make crash SEED=%d repeats it)\n", *seed, *seed)

	// Several systems run in parallel, because after a kill each waits half a minute for
	// leases to end.
	systems := []*system{{name: "DynamoDB", kills: *dynamoKills}, {name: "receiver", kills: *receiverKills}}
	const side = 6
	for i := range side {
		s := &system{name: "runner", kills: (*runnerKills + i) / side}
		if i%2 == 1 {
			// Its DynamoDB ends with it.
			s.name, s.ownDynamo = "runner and DynamoDB", true
		}
		systems = append(systems, s)
	}
	var rows []row
	var failures []error
	var mu sync.Mutex
	var all sync.WaitGroup
	began := time.Now()
	for i, s := range systems {
		s.binary, s.events, s.random, s.keep = *binary, *events, rand.New(rand.NewPCG(*seed, uint64(i))), *keep
		all.Go(func() {
			// The starts are spread out.
			time.Sleep(time.Duration(i) * 2 * time.Second)
			err := s.run(t.Context(), func(r row) {
				mu.Lock()
				defer mu.Unlock()
				r.system = i
				rows = append(rows, r)
				fmt.Fprintf(os.Stderr, "  %3.0f s  %s killed: %s\n", time.Since(began).Seconds(), r.killed, r.verdict())
			})
			if err != nil {
				mu.Lock()
				failures = append(failures, fmt.Errorf("%s: %w", s.name, err))
				mu.Unlock()
			}
		})
	}
	all.Wait()
	slices.SortStableFunc(rows, func(a, b row) int { return cmp.Compare(a.system, b.system) })
	if show(rows) != 0 {
		t.Error("a kill FAILED; see the table")
	}
	if want := *runnerKills + *dynamoKills + *receiverKills; len(rows) != want && len(failures) == 0 {
		failures = append(failures, fmt.Errorf("%d kills, want %d", len(rows), want))
	}
	for _, err := range failures {
		t.Error(err)
	}
	fmt.Printf("%d kills in %s\n", len(rows), time.Since(began).Round(time.Second))
}

// row is the result of one kill. All counts but events are of deliveries.
type row struct {
	system int
	killed string
	after  time.Duration // since the round began

	events                   int // accepted
	accepted                 int // deliveries of them
	delivered, dead, skipped int
	unsettled                int
	inFlight                 int // attempts without a stored verdict
	duplicated, unexcused    int // more than one success
	overlaps                 int
	phantoms                 int // events in the table that were never acknowledged
}

func (r row) ok() bool {
	return r.accepted == r.delivered+r.dead+r.skipped && r.unsettled == 0 && r.unexcused == 0 && r.overlaps == 0 && r.phantoms == 0
}

func (r row) verdict() string {
	if r.ok() {
		return "ok"
	}
	return fmt.Sprintf("FAILED: %+v", r)
}

func show(rows []row) (code int) {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "KILL\tOF\tAFTER\tEVENTS\tACCEPTED\tDELIVERED\tDEAD\tSKIPPED\tIN FLIGHT\tDUPLICATED\tNOT IN FLIGHT\tOVERLAPS\tVERDICT\t")
	var sum row
	for i, r := range rows {
		verdict := "ok"
		if !r.ok() {
			verdict, code = "FAILED", 1
		}
		fmt.Fprintf(w, "%d\t%s\t%.2fs\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%s\t\n", i+1, r.killed, r.after.Seconds(), r.events,
			r.accepted, r.delivered, r.dead, r.skipped, r.inFlight, r.duplicated, r.unexcused, r.overlaps, verdict)
		sum.events += r.events
		sum.accepted += r.accepted
		sum.delivered += r.delivered
		sum.dead += r.dead
		sum.skipped += r.skipped
		sum.inFlight += r.inFlight
		sum.duplicated += r.duplicated
		sum.unexcused += r.unexcused
		sum.overlaps += r.overlaps
	}
	fmt.Fprintf(w, "all\t\t\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t\t\n", sum.events, sum.accepted, sum.delivered, sum.dead, sum.skipped, sum.inFlight, sum.duplicated, sum.unexcused, sum.overlaps)
	_ = w.Flush()
	return code
}
