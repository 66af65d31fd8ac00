// Command mutation changes the code of the delivery path by operators (a condition negated, a
// bound moved, a statement dropped, two statements swapped, an error swallowed) and counts how
// many of the changes the tests notice. All mutants are compiled in at once, each behind a
// switch that the environment turns on, so that one of them costs only a run of the tests.
package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"go/build"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// packages are those whose code is changed, with the tests that are to notice: in this
// order, until one does. "simulation" runs seeds of the whole system.
var packages = []struct {
	dir   string
	tests []string
}{
	{"pkg/delivery", []string{"pkg/delivery", "pkg/store/memory", "pkg/dispatch", "simulation"}},
	{"pkg/delivery/breaker", []string{"pkg/delivery/breaker", "pkg/dispatch", "simulation"}},
	{"pkg/delivery/ratelimit", []string{"pkg/delivery/ratelimit", "pkg/dispatch", "simulation"}},
	{"pkg/delivery/retry", []string{"pkg/delivery/retry", "pkg/dispatch", "simulation"}},
	{"pkg/delivery/work", []string{"pkg/delivery/work", "pkg/dispatch", "simulation"}},
	{"pkg/dispatch", []string{"pkg/dispatch", "simulation"}},
	{"pkg/emit", []string{"pkg/emit", "simulation"}},
	{"pkg/store/dynamo", []string{"pkg/store/dynamo"}},
	{"pkg/store/memory", []string{"pkg/store/memory", "simulation"}},
	{"pkg/aws/sqsqueue", []string{"pkg/aws/sqsqueue", "simulation"}},
}

// onlyFiles are the files of a store that the delivery path uses; the others have their own tests.
var onlyFiles = map[string][]string{
	"pkg/store/dynamo": {"deliveries.go", "due.go", "control.go", "events.go", "endpoints.go", "update.go"},
	"pkg/store/memory": {"deliveries.go", "due.go", "control.go", "events.go", "endpoints.go"},
}

// reports are files that log, trace and count; a delivery does not depend on them.
var reports = []string{"observe.go", "statistics.go", "tally.go"}

// suites are the tests of a package whose subtests run alone, because all together they take
// too long for one mutant. They are left out of quick runs of the tests (-short).
var suites = map[string]string{"pkg/store/dynamo": "TestConformance"}

// seeds is how many seeds of the simulation a mutant runs that no other test notices.
const seeds = 120

// quick is the CPU time up to which a test, with the start of its process, belongs to the
// first run: together they take less than a single slow one.
const quick = 150 * time.Millisecond

// patience is how long a run of tests may take: one that waits for ever counts as noticed.
const patience = 3 * time.Minute

func main() {
	sample := flag.Int("sample", 0, "test so many mutants, chosen at random; 0 is all")
	seed := flag.Uint64("seed", 1, "of the choice")
	only := flag.String("only", "", "test mutants whose file, line, operator and source, as printed, match this expression")
	least := flag.Float64("least", 95, "fail below this share of killed mutants, in percent")
	budget := flag.Duration("time", 0, "stop after this time with what was tested; 0 is no limit")
	unit := flag.Bool("unit", false, "run unit tests only, not the simulation")
	flag.Parse()
	match, err := regexp.Compile(*only)
	if err == nil {
		err = run(*sample, *seed, match, *least, *budget, *unit)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "mutation:", err)
		os.Exit(1)
	}
}

func run(sample int, seed uint64, match *regexp.Regexp, least float64, budget time.Duration, unit bool) error {
	work, err := os.MkdirTemp("", "mutation-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	ctx := context.Background()
	all, err := instrumentAll(work)
	if err != nil {
		return err
	}
	reasons, err := readReasons()
	if err != nil {
		return err
	}
	if stale := reasons.without(all.mutants); len(stale) > 0 {
		return fmt.Errorf("test/mutation/survivors.list has reasons for mutants that do not exist any more; delete or correct them:\n  %s", strings.Join(stale, "\n  "))
	}
	chosen := slices.DeleteFunc(slices.Clone(all.mutants), func(m mutant) bool { return !match.MatchString(m.String()) })
	if sample > 0 && sample < len(chosen) {
		random := rand.New(rand.NewPCG(seed, 0))
		random.Shuffle(len(chosen), func(i, j int) { chosen[i], chosen[j] = chosen[j], chosen[i] })
		chosen = chosen[:sample]
		slices.SortFunc(chosen, func(a, b mutant) int { return a.id - b.id })
	}
	fmt.Fprintf(os.Stderr, "%d mutants, %d of them to be tested\n", len(all.mutants), len(chosen))
	suite, err := prepare(ctx, work, all, chosen, unit)
	if err != nil {
		return err
	}
	began := time.Now()
	killers := make([]string, len(chosen))
	tested := make([]bool, len(chosen))
	var running sync.WaitGroup
	slots := make(chan struct{}, runtime.NumCPU())
	for i, m := range chosen {
		slots <- struct{}{}
		if budget > 0 && time.Since(began) > budget {
			<-slots
			continue
		}
		running.Go(func() {
			defer func() { <-slots }()
			killers[i], tested[i] = suite.test(ctx, m), true
			fmt.Fprintf(os.Stderr, "  %s: %s\n", m, cmp.Or(killers[i], "LIVES"))
		})
	}
	running.Wait()
	by, killed, n := map[string]int{}, 0, 0
	var unexplained, explained []string
	for i, m := range chosen {
		switch {
		case !tested[i]:
			continue
		case killers[i] != "":
			killed++
			by[killers[i]]++
		default:
			if reason := reasons.of(m); reason != "" {
				explained = append(explained, m.String()+"\n    "+reason)
			} else {
				unexplained = append(unexplained, m.String())
			}
		}
		n++
	}
	share := 100 * float64(killed) / float64(max(n, 1))
	fmt.Printf("%d mutants tested in %s, %d killed: %.1f %%\n", n, time.Since(began).Round(time.Second), killed, share)
	for _, name := range slices.Sorted(maps.Keys(by)) {
		fmt.Printf("  %d by %s\n", by[name], name)
	}
	if len(explained) > 0 {
		fmt.Printf("%d live for a known reason:\n  %s\n", len(explained), strings.Join(explained, "\n  "))
	}
	if len(unexplained) > 0 {
		fmt.Printf("%d live without one (test/mutation/survivors.list has the reasons):\n  %s\n", len(unexplained), strings.Join(unexplained, "\n  "))
	}
	if share < least {
		return fmt.Errorf("%.1f %% were killed; at least %g %% should be", share, least)
	}
	return nil
}

// mutated is the source of the packages with all mutants in it.
type mutated struct {
	mutants []mutant
	replace map[string]string // files, for the compiler's overlay
}

// instrumentAll puts the mutants into the packages.
func instrumentAll(work string) (mutated, error) {
	all := mutated{replace: map[string]string{}}
	id := 0
	next := func() int { id++; return id }
	put := func(path, text string) error {
		original, err := filepath.Abs(path)
		if err != nil {
			return err
		}
		all.replace[original] = filepath.Join(work, strings.ReplaceAll(path, string(filepath.Separator), "_"))
		return os.WriteFile(all.replace[original], []byte(text), 0o600)
	}
	for _, p := range packages {
		info, err := build.ImportDir(p.dir, 0)
		if err != nil {
			return all, err
		}
		for _, name := range info.GoFiles {
			if chosen := onlyFiles[p.dir]; chosen != nil && !slices.Contains(chosen, name) || slices.Contains(reports, name) {
				continue
			}
			path := filepath.Join(p.dir, name)
			text, err := os.ReadFile(path)
			if err != nil {
				return all, err
			}
			source, mutants, err := instrument(filepath.ToSlash(path), text, next)
			if err != nil {
				return all, err
			}
			all.mutants = append(all.mutants, mutants...)
			if err := put(path, source); err != nil {
				return all, err
			}
		}
		if err := put(filepath.Join(p.dir, "mutant_switch.go"), "package "+info.Name+"\n"+switches); err != nil {
			return all, err
		}
	}
	return all, nil
}

// suite has the test binaries with all mutants in them.
type suite struct {
	binary map[string]string   // by package, or "simulation"
	flags  map[string][]string // of a binary, beside those of every one
	dir    map[string]string   // where its tests run
	tests  map[string][]string // binaries by directory of a mutant's file
	reach  map[string][]reach  // by binary
}

// reach is what one test of a binary runs.
type reach struct {
	test    string
	took    time.Duration // of CPU
	mutants map[int]bool
}

// prepare compiles the tests that the chosen mutants need and runs them once without a
// mutant, to see that they pass and which mutants they reach.
func prepare(ctx context.Context, work string, all mutated, chosen []mutant, unit bool) (*suite, error) {
	s := &suite{binary: map[string]string{}, flags: map[string][]string{}, dir: map[string]string{}, tests: map[string][]string{}, reach: map[string][]reach{}}
	needed := map[string]bool{}
	for _, p := range packages {
		s.tests[p.dir] = p.tests
		if slices.ContainsFunc(chosen, func(m mutant) bool { return filepath.ToSlash(filepath.Dir(m.file)) == p.dir }) {
			for _, test := range p.tests {
				needed[test] = true
			}
		}
	}
	overlay := filepath.Join(work, "overlay.json")
	text, err := json.Marshal(map[string]any{"Replace": all.replace})
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(overlay, text, 0o600); err != nil {
		return nil, err
	}
	for _, p := range packages {
		for _, test := range p.tests {
			if s.binary[test] != "" || !needed[test] || unit && test == "simulation" {
				continue
			}
			dir := test
			if test == "simulation" {
				dir = "test/simulation"
			}
			binary := filepath.Join(work, strings.ReplaceAll(test, "/", "_")+".test")
			command := exec.CommandContext(ctx, "go", "test", "-c", "-vet=off", "-ldflags=-w", "-overlay", overlay, "-o", binary, "./"+dir)
			if out, err := command.CombinedOutput(); err != nil {
				return nil, fmt.Errorf("compile the tests of %s with their mutants: %w\n%s", test, err, out)
			}
			s.binary[test], s.dir[test] = binary, dir
			if s.reach[test], err = s.explore(ctx, test, filepath.Join(work, "reached-"+strings.ReplaceAll(test, "/", "_"))); err != nil {
				return nil, err
			}
		}
	}
	return s, nil
}

// explore runs each test of a binary alone and without a mutant, to see that it passes and
// which mutants it reaches.
func (s *suite) explore(ctx context.Context, binary, seen string) ([]reach, error) {
	names := []string{"TestSeeds"}
	if binary == "simulation" {
		s.flags[binary] = []string{"-seeds", strconv.Itoa(seeds)}
	} else {
		list := func(flags ...string) ([]byte, error) {
			return exec.CommandContext(ctx, s.binary[binary], append(flags, "-test.list", "^(Test|Fuzz|Example)")...).Output()
		}
		const noFile = "-rapid.nofailfile" // otherwise rapid writes what it found into testdata
		out, err := list(noFile)
		if err == nil {
			s.flags[binary] = []string{noFile}
		} else if out, err = list(); err != nil {
			return nil, fmt.Errorf("list the tests of %s: %w", binary, err)
		}
		names = strings.Fields(string(out))
	}
	if suite := suites[binary]; suite != "" {
		parts, err := s.subtests(ctx, binary, suite)
		if err != nil {
			return nil, err
		}
		names = append(slices.DeleteFunc(names, func(name string) bool { return name == suite }), parts...)
	}
	all := make([]reach, len(names))
	var running errgroup.Group
	running.SetLimit(runtime.NumCPU())
	for i, name := range names {
		running.Go(func() error {
			file := fmt.Sprint(seen, i)
			out, took, err := s.play(ctx, binary, []string{name}, 0, file, patience)
			if err != nil {
				return fmt.Errorf("%s of %s fails without a mutant: %w\n%s", name, binary, err, out)
			}
			mutants, err := readReached(file)
			all[i] = reach{name, took, mutants}
			return err
		})
	}
	return all, running.Wait()
}

// subtests returns the names of a test's subtests, with its own.
func (s *suite) subtests(ctx context.Context, binary, name string) (names []string, err error) {
	out, _, err := s.play(ctx, binary, []string{name}, 0, "", patience, "-test.v")
	if err != nil {
		return nil, fmt.Errorf("%s of %s fails without a mutant: %w\n%s", name, binary, err, out)
	}
	for line := range strings.Lines(string(out)) {
		part, ok := strings.CutPrefix(strings.TrimSpace(line), "=== RUN   "+name+"/")
		if ok && !strings.Contains(part, "/") {
			names = append(names, name+"/"+part)
		}
	}
	return names, nil
}

// pattern is the expression for -test.run that selects tests, or subtests of one test.
func pattern(tests []string) string {
	parent := ""
	var names []string
	for _, test := range tests {
		name := test
		if of, part, ok := strings.Cut(test, "/"); ok {
			parent, name = "^"+of+"$/", part
		}
		names = append(names, regexp.QuoteMeta(name))
	}
	return parent + "^(" + strings.Join(names, "|") + ")$"
}

// play runs tests of one binary with a mutant switched on. A run that takes more CPU time
// than the limit is killed. It returns the CPU time, too.
func (s *suite) play(ctx context.Context, binary string, tests []string, id int, reached string, limit time.Duration, flags ...string) (out []byte, took time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	arguments := append(flags, "-test.failfast", "-test.timeout", (patience - 10*time.Second).String(), "-test.run", pattern(tests))
	if suites[binary] == "" {
		arguments = append(arguments, "-test.short")
	}
	arguments = slices.Concat([]string{"-c", fmt.Sprintf(`ulimit -t %d; exec "$0" "$@"`, int(limit.Seconds())), s.binary[binary]}, arguments, s.flags[binary])
	command := exec.CommandContext(ctx, "sh", arguments...)
	command.Dir = s.dir[binary]
	command.Env = append(os.Environ(), fmt.Sprint("TIDINGS_MUTANT=", id), "TIDINGS_REACHED="+reached)
	out, err = command.CombinedOutput()
	if state := command.ProcessState; state != nil {
		took = state.UserTime() + state.SystemTime()
	}
	return out, took, err
}

// test returns what notices a mutant, or "": of each binary, the quick tests that reach it,
// then the others, then subtests.
func (s *suite) test(ctx context.Context, m mutant) string {
	for _, binary := range s.tests[filepath.ToSlash(filepath.Dir(m.file))] {
		var tests [3][]string // the quick ones, the others, subtests
		var took [3]time.Duration
		for _, r := range s.reach[binary] {
			if r.mutants[m.id] {
				kind := 0
				switch {
				case strings.Contains(r.test, "/"):
					kind = 2
				case r.took > quick:
					kind = 1
				}
				tests[kind] = append(tests[kind], r.test)
				took[kind] += r.took
			}
		}
		for i, names := range tests {
			if len(names) == 0 {
				continue
			}
			// A mutant that never ends is noticed, too.
			if _, _, err := s.play(ctx, binary, names, m.id, "", 3*took[i]+2*time.Second); err != nil {
				return binary
			}
		}
	}
	return ""
}

func readReached(path string) (map[int]bool, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	seen := map[int]bool{}
	for line := range strings.Lines(string(text)) {
		id, err := strconv.Atoi(strings.TrimSpace(line))
		if err != nil {
			return nil, err
		}
		seen[id] = true
	}
	return seen, err
}

// switches is the file that each instrumented package gets.
const switches = `
import (
	"fmt"
	"os"
	"strconv"
	"sync/atomic"
)

var mutantID, _ = strconv.Atoi(os.Getenv("TIDINGS_MUTANT"))
var mutantsFile = os.Getenv("TIDINGS_REACHED")
var mutantsReached [20_000]atomic.Bool

// mutantOn allocates nothing, except when a mutant is reached first: some tests count.
func mutantOn(id int) bool {
	if mutantsFile != "" && !mutantsReached[id].Swap(true) {
		f, err := os.OpenFile(mutantsFile, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
		if err != nil {
			panic(err)
		}
		fmt.Fprintln(f, id)
		f.Close()
	}
	return mutantID == id
}

func mutantZero[T any](id int, v T) T {
	if mutantOn(id) {
		var zero T
		return zero
	}
	return v
}

func mutantPick[T any](id int, v, other T) T {
	if mutantOn(id) {
		return other
	}
	return v
}

func mutantNoError(id int, err error) error {
	if mutantOn(id) {
		return nil
	}
	return err
}
`

// reasons say why a mutant lives, by file, operator and line of source.
type reasons map[string]string

func (r reasons) of(m mutant) string { return r[m.name()] }

// without returns those that are about no mutant.
func (r reasons) without(all []mutant) []string {
	left := maps.Clone(r)
	for _, m := range all {
		delete(left, m.name())
	}
	return slices.Sorted(maps.Keys(left))
}

// readReasons reads survivors.list: a line "file: operator: source", and an indented line with
// the reason.
func readReasons() (reasons, error) {
	file, err := os.Open("test/mutation/survivors.list")
	if err != nil {
		return nil, err
	}
	defer file.Close()
	all, last := reasons{}, []string{}
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		text := lines.Text()
		switch {
		case text == "" || strings.HasPrefix(text, "#"):
		case strings.HasPrefix(text, "    "):
			for _, name := range last {
				all[name] = strings.TrimSpace(text)
			}
			last = nil
		default:
			last = append(last, text)
		}
	}
	return all, lines.Err()
}
