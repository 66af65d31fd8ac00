// Command simulate runs the simulation of the delivery system (test/simulation) with many
// seeds, on all cores, and prints the totals. With -mutants it does so for each of a list of
// deliberate defects, in a copy of the source, and prints the seed that found it: a test
// that cannot fail shows nothing.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"text/tabwriter"
	"time"

	"github.com/tidings-dev/tidings/test/simulation"
)

func main() {
	seeds := flag.Int("seeds", 500, "how many seeds")
	first := flag.Uint64("first", 1, "the first seed")
	seed := flag.Uint64("seed", 0, "run this seed alone and print its trace")
	mutants := flag.Bool("mutants", false, "check that deliberate defects are found")
	only := flag.String("only", "", "with -mutants: those whose name matches this expression")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	err := func() error {
		work, err := os.MkdirTemp("", "tidings-simulate-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(work)
		switch {
		case *mutants:
			return checkMutants(ctx, work, *seeds, *only)
		case *seed != 0:
			return one(ctx, work, *seed)
		}
		return many(ctx, work, *first, *seeds)
	}()
	if err != nil {
		fmt.Fprintf(os.Stderr, "simulate: %v\n", err)
		os.Exit(1)
	}
}

// build compiles the simulation; overlay, if not empty, replaces files of the source.
func build(ctx context.Context, binary, overlay string) error {
	args := []string{"test", "-c", "-vet=off", "-ldflags=-w", "-o", binary}
	if overlay != "" {
		args = append(args, "-overlay", overlay)
	}
	out, err := exec.CommandContext(ctx, "go", append(args, "./test/simulation")...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("the simulation does not compile: %w\n%s", err, out)
	}
	return nil
}

// batch is seeds that one process runs.
type batch struct {
	first, step uint64
	seeds       int
	twice       int // every nth seed is run again and compared
	patience    time.Duration
}

// finding is a violation that a process found.
type finding struct {
	seed uint64
	said string // the violation and its trace
	what string // the invariant
}

func (f *finding) Error() string { return f.said }

// play runs a batch and calls tell with each result. It returns a *finding if a seed
// violated an invariant or ended the process.
func play(ctx context.Context, binary string, b batch, tell func(simulation.Result)) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	command := exec.CommandContext(ctx, binary, "-test.run", "^TestSeeds$", "-test.timeout", "0", "-report",
		"-first", strconv.FormatUint(b.first, 10), "-step", strconv.FormatUint(b.step, 10), "-seeds", strconv.Itoa(b.seeds), "-twice", strconv.Itoa(b.twice))
	out, err := command.StdoutPipe()
	if err != nil {
		return err
	}
	var complaints bytes.Buffer
	command.Stderr = &complaints
	if err := command.Start(); err != nil {
		return err
	}
	// A seed that never ends is a finding too.
	var stuck bool
	watch := time.AfterFunc(b.patience, func() { stuck = true; cancel() })
	defer watch.Stop()
	var rest strings.Builder
	current, what := b.first, ""
	lines := bufio.NewReader(out)
	for {
		line, err := lines.ReadString('\n')
		text := strings.TrimSpace(line)
		if begun, ok := strings.CutPrefix(text, "begin "); ok {
			watch.Reset(b.patience)
			if current, err = strconv.ParseUint(begun, 10, 64); err != nil {
				return fmt.Errorf("the simulation said %q: %w", text, err)
			}
		} else if result, ok := strings.CutPrefix(text, "result "); ok {
			var r simulation.Result
			if err := json.Unmarshal([]byte(result), &r); err != nil {
				return fmt.Errorf("the simulation said %q: %w", text, err)
			}
			if len(r.Violations) > 0 {
				what = r.Violations[0].Invariant
			}
			tell(r)
		} else {
			rest.WriteString(line)
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			break
		}
	}
	err = command.Wait()
	if state := command.ProcessState; state != nil {
		processor.Add(int64(state.UserTime() + state.SystemTime()))
	}
	switch {
	case err == nil:
		return nil
	case stuck:
		return &finding{seed: current, what: "the run ends", said: fmt.Sprintf("seed %d does not end", current)}
	case ctx.Err() != nil:
		return ctx.Err()
	case what == "":
		what = "the process lives"
	}
	return &finding{seed: current, what: what, said: rest.String() + complaints.String()}
}

// processor is the CPU time of the processes in nanoseconds.
var processor atomic.Int64

// many runs seeds on all cores.
func many(ctx context.Context, work string, first uint64, seeds int) error {
	binary := filepath.Join(work, "simulation")
	if err := build(ctx, binary, ""); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	cores := min(runtime.NumCPU(), seeds)
	var mu sync.Mutex
	var all simulation.Counts
	var simulated time.Duration
	runs, steps := 0, 0
	began := time.Now()
	var running sync.WaitGroup
	for core := range cores {
		running.Go(func() {
			b := batch{first: first + uint64(core), step: uint64(cores), seeds: (seeds - core + cores - 1) / cores, twice: 20, patience: 2 * time.Minute}
			err := play(ctx, binary, b, func(r simulation.Result) {
				mu.Lock()
				defer mu.Unlock()
				all.Add(r.Counts)
				simulated += r.Simulated
				steps += r.Steps
				runs++
			})
			if err != nil {
				cancel(err)
			}
		})
	}
	running.Wait()
	var found *finding
	switch cause := context.Cause(ctx); {
	case errors.As(cause, &found):
		return fmt.Errorf("%s\nrun it again: make simulate SEED=%d", strings.TrimSpace(found.said), found.seed)
	case cause != nil:
		return cause
	}
	took := time.Since(began)
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	line := func(name, format string, args ...any) { fmt.Fprintf(w, "%s\t%s\n", name, fmt.Sprintf(format, args...)) }
	line("seeds", "%d (%d to %d); every 20th ran twice with the same steps", runs, first, first+uint64(runs)-1)
	line("simulated", "%.0f hours in %s: %.0f hours per minute on %d cores", simulated.Hours(), took.Truncate(100*time.Millisecond), simulated.Hours()/took.Minutes(), cores)
	computed := time.Duration(processor.Load())
	line("", "(%s of CPU time: %.0f hours per minute on two idle cores)", computed.Truncate(100*time.Millisecond), 2*simulated.Hours()/computed.Minutes())
	line("steps", "%d", steps)
	line("events", "%d accepted, %d deliveries: %d delivered, %d dead, %d skipped", all.Events, all.Deliveries, all.Delivered, all.Dead, all.Skipped)
	line("attempts", "%d, of which %d duplicates, each caused by a dead worker or a lost write", all.Attempts, all.Duplicates)
	line("invocations", "%d, of which %d sweeps", all.Invocations, all.Sweeps)
	line("faults", "%d workers killed, %d requests throttled, %d responses lost, %d slow, %d arrived late", all.Killed, all.Throttled, all.LostAnswers, all.Slow, all.Late)
	line("", "%d stream batches replayed, %d messages delivered twice, %d redriven", all.StreamReplays, all.QueueDuplicates, all.Redriven)
	line("circuits", "%d opened, %d probes, %d deliveries parked, %d slots reserved", all.Opened, all.Probes, all.Parked, all.Limited)
	line("operators", "%d actions, %d deliveries replayed", all.Edits, all.Replayed)
	line("broken", "nothing")
	return w.Flush()
}

// one runs a seed and prints everything that happened.
func one(ctx context.Context, work string, seed uint64) error {
	binary := filepath.Join(work, "simulation")
	if err := build(ctx, binary, ""); err != nil {
		return err
	}
	command := exec.CommandContext(ctx, binary, "-test.run", "^TestSeeds$", "-test.timeout", "0", "-trace", "-first", strconv.FormatUint(seed, 10), "-seeds", "1", "-twice", "1")
	command.Stdout, command.Stderr = os.Stdout, os.Stderr
	return command.Run()
}
