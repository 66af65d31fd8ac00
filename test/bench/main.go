// Command bench measures how fast and how cheap Tidings is, and holds each figure
// against what it must reach: what AWS counts for an event, the engine beside a
// bare POST loop, the whole runner under load, bad days, start and growth. It
// prints an aligned table and writes JSON; figures are medians, with their spread.
// The unit counts are exact and compared with what the repository expects.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime"
	"runtime/pprof"
	"slices"
	"strings"
	"time"
)

// options are the command's flags.
type options struct {
	quick, update, short bool
	strict               bool
	receive              bool
	only, binary         string
	json, docs           string
	profile, allocations string
}

func main() {
	var o options
	flag.BoolVar(&o.quick, "quick", false, "only count units, and compare them with "+unitsFile)
	flag.BoolVar(&o.update, "update", false, "write "+unitsFile+" anew instead of comparing")
	flag.StringVar(&o.only, "only", "", "measure these parts only, separated by commas: "+strings.Join(partNames(), ", "))
	flag.StringVar(&o.json, "json", "", "write the figures to this file")
	flag.StringVar(&o.docs, "docs", "", "rewrite the tables in this document, if the run is a whole one")
	flag.BoolVar(&o.strict, "strict", false, "fail where a figure does not reach what it must; without it, that is said")
	flag.BoolVar(&o.short, "short", false, "fewer and shorter rounds: to see that it works, not to quote")
	flag.StringVar(&o.binary, "tidings", "bin/tidings", "the runner that is measured")
	flag.StringVar(&o.profile, "cpuprofile", "", "write a CPU profile of the engine's deliveries, ten batches under way, to this file: neither of the bare loop nor of making payloads")
	flag.StringVar(&o.allocations, "memprofile", "", "write a profile of this process's allocations to this file")
	flag.BoolVar(&o.receive, "receive", false, "be the receiver (the benchmark starts itself so)")
	flag.Parse()
	if o.receive {
		fmt.Fprintln(os.Stderr, "bench:", receive())
		os.Exit(1)
	}
	if flag.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "bench: %q is no flag; `bench -help` lists them\n", flag.Arg(0))
		os.Exit(2)
	}
	// Far beyond what a whole run takes: what hangs shall not hang for ever.
	ctx, cancel := context.WithTimeout(context.Background(), 45*time.Minute)
	defer cancel()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// part is one part of the benchmark.
type part struct {
	name string
	run  func(context.Context, *Report, options) error
}

func parts() []part {
	return []part{
		{"units", func(ctx context.Context, r *Report, o options) error {
			measured, err := measureUnits(ctx, r)
			if err != nil {
				return err
			}
			return checkUnits(measured, o.update)
		}},
		{"engine", measureEngine},
		{"runner", measureRunner},
		{"days", measureDays},
		{"isolation", measureIsolation},
		{"start", measureStart},
		{"growth", measureGrowth},
		{"search", measureSearch},
		{"recover", measureRecover},
		{"cost", measureCost},
	}
}

func partNames() (names []string) {
	for _, p := range parts() {
		names = append(names, p.name)
	}
	return names
}

func run(ctx context.Context, o options) error {
	if o.quick {
		if o.only != "" {
			return errors.New("-quick is -only units, compared; name one of the two")
		}
		o.only = "units"
	}
	if o.docs != "" && o.short {
		return errors.New("-docs with -short: figures of short rounds are not to be quoted")
	}
	wanted := map[string]bool{}
	for _, name := range strings.FieldsFunc(o.only, func(c rune) bool { return c == ',' }) {
		if !slices.Contains(partNames(), name) {
			return fmt.Errorf("-only %s: there is no such part; there are %s", name, strings.Join(partNames(), ", "))
		}
		wanted[name] = true
	}
	if o.only != "" && len(wanted) == 0 {
		return errors.New("-only names no part; there are " + strings.Join(partNames(), ", "))
	}
	if o.json != "" { // not to be found out at the end
		file, err := os.OpenFile(o.json, os.O_CREATE|os.O_WRONLY, 0o644)
		if err != nil {
			return err
		}
		if err := file.Close(); err != nil {
			return err
		}
	}
	if o.allocations != "" {
		runtime.MemProfileRate = 4096
		defer func() {
			if err := writeAllocations(o.allocations); err != nil {
				fmt.Fprintln(os.Stderr, "bench:", err)
			}
		}()
	}
	if o.profile != "" && len(wanted) > 0 && !wanted["engine"] {
		return errors.New("-cpuprofile is of the part engine, which is not among those to measure")
	}
	r := newReport()
	began := time.Now()
	var failed []error
	for _, p := range parts() {
		if len(wanted) > 0 && !wanted[p.name] {
			continue
		}
		fmt.Fprintf(os.Stderr, "%s measuring %s …\n", time.Since(began).Round(time.Second), p.name)
		if err := errors.Join(p.run(ctx, r, o), ctx.Err()); err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", p.name, err)) // the others can be measured all the same
		}
	}
	r.Took = time.Since(began).Round(time.Second).String()
	if o.short {
		r.Took += " (short rounds, and fewer: not to be quoted)"
	}
	r.print(os.Stdout)
	if o.json != "" {
		if err := r.write(o.json); err != nil {
			failed = append(failed, err)
		}
	}
	switch whole := len(wanted) == 0 && len(failed) == 0; {
	case o.docs == "":
	case whole:
		if err := r.rewrite(o.docs); err != nil {
			failed = append(failed, err)
		}
	default:
		fmt.Fprintf(os.Stderr, "bench: %s stays as it is: its figures are those of one whole run\n", o.docs)
	}
	if len(failed) > 0 {
		return errors.Join(failed...)
	}
	return r.verdict(o.quick || o.strict)
}

func writeAllocations(path string) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer file.Close()
	return pprof.Lookup("allocs").WriteTo(file, 0)
}
