package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/tidings-dev/tidings/test/simulation"
)

// mutant is a deliberate defect: in one file, one text instead of another.
type mutant struct {
	name     string
	file     string
	old, new string
}

// overlay writes a copy of the file with the defect, and the overlay that puts it
// in its place. It fails loudly where the text to be replaced is not there, or
// there twice: the mutant would be another one than its name says.
func (m mutant) overlay(dir string) (string, error) {
	text, err := os.ReadFile(m.file)
	if err != nil {
		return "", err
	}
	if n := strings.Count(string(text), m.old); n != 1 {
		return "", fmt.Errorf("mutant %q: its text stands %d times in %s, and not once: adapt it in test/simulate/mutants.go\n%s", m.name, n, m.file, m.old)
	}
	mutated := filepath.Join(dir, "mutated.go")
	if err := os.WriteFile(mutated, []byte(strings.Replace(string(text), m.old, m.new, 1)), 0o600); err != nil {
		return "", err
	}
	original, err := filepath.Abs(m.file)
	if err != nil {
		return "", err
	}
	overlay, err := json.Marshal(map[string]map[string]string{"Replace": {original: mutated}})
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "overlay.json")
	return path, os.WriteFile(path, overlay, 0o600)
}

// found is what became of a mutant.
type found struct {
	mutant
	*finding
	runs int
	took time.Duration
	err  error
}

// checkMutants runs every mutant until a seed finds it.
func checkMutants(ctx context.Context, work string, seeds int, only string) error {
	name, err := regexp.Compile(only)
	if err != nil {
		return err
	}
	var chosen []mutant
	for _, m := range mutants {
		if name.MatchString(m.name) {
			chosen = append(chosen, m)
		}
	}
	results := make([]found, len(chosen))
	slots := make(chan struct{}, runtime.NumCPU())
	var running sync.WaitGroup
	for i, m := range chosen {
		slots <- struct{}{}
		running.Go(func() {
			defer func() { <-slots }()
			results[i] = check(ctx, filepath.Join(work, fmt.Sprint(i)), m, seeds)
			r := results[i]
			fmt.Fprintf(os.Stderr, "  %s: %s\n", m.name, r.verdict())
		})
	}
	running.Wait()
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "MUTANT\tFOUND BY SEED\tINVARIANT BROKEN")
	var errs []error
	for _, r := range results {
		switch {
		case r.err != nil:
			errs = append(errs, r.err)
			fmt.Fprintf(w, "%s\t–\t%s\n", r.name, "could not be run")
		case r.finding == nil:
			errs = append(errs, fmt.Errorf("mutant %q lives: %d seeds did not find it", r.name, r.runs))
			fmt.Fprintf(w, "%s\tNOT FOUND\t\n", r.name)
		default:
			fmt.Fprintf(w, "%s\t%d\t%s\n", r.name, r.seed, r.what)
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	return errors.Join(errs...)
}

func (f found) verdict() string {
	switch {
	case f.err != nil:
		return f.err.Error()
	case f.finding == nil:
		return fmt.Sprintf("NOT FOUND in %d seeds", f.runs)
	}
	return fmt.Sprintf("seed %d, %q", f.seed, f.what)
}

func check(ctx context.Context, dir string, m mutant, seeds int) (f found) {
	began := time.Now()
	f.mutant = m
	defer func() { f.took = time.Since(began) }()
	if f.err = os.MkdirAll(dir, 0o700); f.err != nil {
		return f
	}
	overlay, err := m.overlay(dir)
	if err != nil {
		f.err = err
		return f
	}
	binary := filepath.Join(dir, "simulation")
	if f.err = build(ctx, binary, overlay); f.err != nil {
		return f
	}
	defer os.Remove(binary)
	err = play(ctx, binary, batch{first: 1, step: 1, seeds: seeds, patience: time.Minute}, func(simulation.Result) { f.runs++ })
	if !errors.As(err, &f.finding) {
		f.err = err
	}
	return f
}

var mutants = []mutant{
	{
		name: "claim without condition", file: "pkg/delivery/delivery.go",
		old: "	case d.State == InFlight && c.Now.Before(d.LeaseUntil):\n		return d, d.refuse(CauseInFlight, d.LeaseUntil)\n	case d.State == InFlight:",
		new: "	case d.State == InFlight:",
	},
	{
		name: "a settled delivery is claimed", file: "pkg/delivery/delivery.go",
		old: "	case d.State.Settled():\n		return d, d.refuse(CauseSettled, time.Time{})\n	case d.State == InFlight && c.Now",
		new: "	case d.State == InFlight && c.Now",
	},
	{
		name: "an early item is accepted", file: "pkg/delivery/delivery.go",
		old: "	case c.Now.Before(d.NextAttemptAt):\n		return d, d.refuse(CauseEarly, d.NextAttemptAt)\n	}\n	return c.begin(d), nil",
		new: "	}\n	return c.begin(d), nil",
	},
	{
		name: "the lease is not honoured by its own worker", file: "pkg/dispatch/attempt.go",
		old: "if last := claimed.LeaseUntil.Add(-leaseReserve); last.Before(until) {",
		new: "if last := claimed.LeaseUntil.Add(-leaseReserve); false && last.Before(until) {",
	},
	{
		name: "complete without fence", file: "pkg/store/memory/deliveries.go",
		old: "	if before == nil || before.ClaimID != d.ClaimID || before.Attempts != d.Attempts {\n		return delivery.ErrFenced\n	}\n	if before.State != delivery.InFlight {",
		new: "	if before != nil && before.State == delivery.State(d.Key.String()) {",
	},
	{
		name: "a loser forgets the item of a delivery in flight", file: "pkg/dispatch/claim.go",
		old: "	case delivery.CauseSettled, delivery.CauseSuperseded:",
		new: "	case delivery.CauseSettled, delivery.CauseSuperseded, delivery.CauseInFlight:",
	},
	{
		name: "a retry without due time", file: "pkg/dispatch/verdict.go",
		old: "			conclusion.DueAt = conclusion.NextAt.Add(Backstop)",
		new: "			conclusion.DueAt = time.Time{}",
	},
	{
		name: "a sweep that forgets the backstop", file: "pkg/dispatch/sweep.go",
		old: "d.Due.Postpone(ctx, one, to.Add(Backstop))",
		new: "d.Due.Postpone(ctx, one, to.Add(10000*time.Hour))",
	},
	{
		name: "a fan-out that acknowledges what it could not queue", file: "pkg/dispatch/fanout.go",
		old: "			failed = min(failed, owner[i])",
		new: "			_ = owner[i]",
	},
	{
		name: "an item is acknowledged although its claim failed", file: "pkg/dispatch/claim.go",
		old: "		return fmt.Errorf(\"claim %s: %w\", j.key(), err)",
		new: "		return nil",
	},
	{
		name: "skipped as the cache says", file: "pkg/dispatch/admit.go",
		old: "		ep, err = d.endpoints.fresh(ctx, item.Tenant, item.EndpointID)",
		new: "		_ = 0",
	},
	{
		name: "a failed answer is taken for success", file: "pkg/delivery/retry/retry.go",
		old: "	case delivery.Success:\n		return Decision",
		new: "	case delivery.Success, delivery.Connect:\n		return Decision",
	},
	{
		name: "Retry-After is not heard", file: "pkg/delivery/retry/retry.go",
		old: "hint > wait {",
		new: "hint > wait && false {",
	},
	{
		name: "an attempt too few", file: "pkg/delivery/retry/retry.go",
		old: "	case a.Number >= p.MaxAttempts:",
		new: "	case a.Number >= p.MaxAttempts-1 && a.Number > 1:",
	},
	{
		name: "parked before its time", file: "pkg/delivery/delivery.go",
		old: "		case d.State == Pending && p.Now.Before(d.NextAttemptAt):\n			return d, d.refuse(CauseEarly, d.NextAttemptAt)\n",
		new: "",
	},
	{
		name: "let go without a backstop", file: "pkg/dispatch/drain.go",
		old: "DueAt: next.Add(Backstop)",
		new: "DueAt: next.Add(10000 * time.Hour)",
	},
	{
		name: "a failure counts twice", file: "pkg/delivery/breaker/breaker.go",
		old: "	s.Failures++\n",
		new: "	s.Failures += 2\n",
	},
	{
		name: "of failures at one instant one counts", file: "pkg/dispatch/circuit_cache.go",
		old: "next.WriteID = c.newID()",
		new: "next.WriteID = \"\"",
	},
	{
		name: "a circuit that never closes", file: "pkg/delivery/breaker/breaker.go",
		old: "		return s.Close(now), true\n",
		new: "		return s, false\n",
	},
	{
		name: "half-open admits everybody", file: "pkg/delivery/breaker/breaker.go",
		old: "	case s.ProbeID != \"\" && now.Before(s.ProbeUntil):",
		new: "	case s.ProbeID == \"none\":",
	},
	{
		name: "half-open without asking for the probe", file: "pkg/dispatch/claim.go",
		old: "	if j.probe {\n",
		new: "	if j.probe && j.limit.PerMinute < 0 {\n",
	},
	{
		name: "a failed probe waits no longer than before", file: "pkg/delivery/breaker/breaker.go",
		old: "min(2*s.OpenFor, p.MaxOpenFor)",
		new: "min(s.OpenFor, p.MaxOpenFor)",
	},
	{
		name: "a limiter that ignores reservations", file: "pkg/delivery/ratelimit/ratelimit.go",
		old: "	if at.Before(now) {\n		at = now\n	}\n	return at.Add(cost)",
		new: "	return now.Add(cost)",
	},
	{
		name: "a slot that has passed is used", file: "pkg/dispatch/admit.go",
		old: "now.After(j.slot.Add(ratelimit.Grace))",
		new: "j.slot.IsZero()",
	},
	{
		name: "a key that is reserved twice", file: "pkg/store/memory/control.go",
		old: "ok && s.now().Before(holds.expires) {",
		new: "ok && s.now().After(holds.expires) {",
	},
}
