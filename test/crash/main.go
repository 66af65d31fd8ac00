// Command crash kills what Tidings runs on, with kill -9 and under load: the
// runner, its DynamoDB, the receiver, all of them processes of their own. After
// each kill it waits until nothing is under way and asks producer, store and
// receiver what became of every event. It prints a table and fails unless
// accepted = delivered + dead + skipped each time, with duplicates only of
// attempts that were in flight at the kill.
package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"text/tabwriter"
	"time"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == receiveCommand {
		if err := receive(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, "crash: receiver:", err)
			os.Exit(1)
		}
		return
	}
	binary := flag.String("tidings", "bin/tidings", "the runner that is killed")
	runnerKills := flag.Int("runner", 20, "how often the runner is killed")
	dynamoKills := flag.Int("dynamodb", 4, "how often DynamoDB is killed")
	receiverKills := flag.Int("receiver", 4, "how often the receiver is killed")
	events := flag.Int("events", 25, "how many events are under way at each kill")
	seed := flag.Uint64("seed", 0, "chooses the moments; 0 takes another every time")
	keep := flag.Bool("keep", false, "keep the state folders")
	flag.Parse()
	if *seed == 0 {
		*seed = rand.Uint64N(1_000_000) + 1
	}
	fmt.Printf("seed %d (make crash SEED=%d chooses the same moments)\n", *seed, *seed)

	// Several systems beside each other: after a kill, half a minute passes with
	// waiting for leases to end.
	lanes := []*lane{{name: "DynamoDB", kills: *dynamoKills}, {name: "receiver", kills: *receiverKills}}
	const side = 6
	for i := range side {
		l := &lane{name: "runner", kills: (*runnerKills + i) / side}
		if i%2 == 1 {
			// It takes the DynamoDB along that it has started.
			l.name, l.ownDynamo = "runner and DynamoDB", true
		}
		lanes = append(lanes, l)
	}
	var rows []row
	var failures []error
	var mu sync.Mutex
	var all sync.WaitGroup
	began := time.Now()
	for i, l := range lanes {
		l.binary, l.events, l.random, l.keep = *binary, *events, rand.New(rand.NewPCG(*seed, uint64(i))), *keep
		all.Go(func() {
			// The next lane starts while this one waits.
			time.Sleep(time.Duration(i) * 2 * time.Second)
			err := l.run(context.Background(), func(r row) {
				mu.Lock()
				defer mu.Unlock()
				r.lane = i
				rows = append(rows, r)
				fmt.Fprintf(os.Stderr, "  %3.0f s  %s killed: %s\n", time.Since(began).Seconds(), r.killed, r.verdict())
			})
			if err != nil {
				mu.Lock()
				failures = append(failures, fmt.Errorf("%s: %w", l.name, err))
				mu.Unlock()
			}
		})
	}
	all.Wait()
	slices.SortStableFunc(rows, func(a, b row) int { return cmp.Compare(a.lane, b.lane) })
	code := show(rows)
	if want := *runnerKills + *dynamoKills + *receiverKills; len(rows) != want && len(failures) == 0 {
		failures = append(failures, fmt.Errorf("%d kills, %d wanted", len(rows), want))
	}
	for _, err := range failures {
		fmt.Fprintln(os.Stderr, "crash:", err)
		code = 1
	}
	fmt.Printf("%d kills in %s\n", len(rows), time.Since(began).Round(time.Second))
	os.Exit(code)
}

// row is what one kill came to. All counts but events are of deliveries.
type row struct {
	lane   int
	killed string
	after  time.Duration // since the round began

	events                   int // accepted
	accepted                 int // deliveries of them
	delivered, dead, skipped int
	unsettled                int
	inFlight                 int // attempts that no verdict was stored on
	duplicated, unexcused    int // answered with success more than once
	overlaps                 int
	phantoms                 int // events in the table that nobody was answered for
}

func (r row) holds() bool {
	return r.accepted == r.delivered+r.dead+r.skipped && r.unsettled == 0 && r.unexcused == 0 && r.overlaps == 0 && r.phantoms == 0
}

func (r row) verdict() string {
	if r.holds() {
		return "kept"
	}
	return fmt.Sprintf("BROKEN: %+v", r)
}

func show(rows []row) (code int) {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "KILL\tOF\tAFTER\tEVENTS\tACCEPTED\tDELIVERED\tDEAD\tSKIPPED\tIN FLIGHT\tDUPLICATED\tNOT IN FLIGHT\tOVERLAPS\tVERDICT\t")
	var sum row
	for i, r := range rows {
		verdict := "kept"
		if !r.holds() {
			verdict, code = "BROKEN", 1
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
