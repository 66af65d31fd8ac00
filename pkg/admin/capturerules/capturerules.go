// Package capturerules changes the capture rules of a deployment: it adds, replaces and
// removes files of rules, and switches the shipped ones off and on. It promises that rules
// that cannot be compiled, or publish an event type that the deployment neither has nor
// allows without a definition, are refused with file, line and column; and that all changes
// of one call take effect together or not at all. It does not compile rules itself, so that
// a function that changes them does not link a compiler: see package compile.
package capturerules

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/aymanbagabas/go-udiff"

	"github.com/tidings-dev/tidings/pkg/event/catalog"
	"github.com/tidings-dev/tidings/pkg/event/deployed"
)

// Shipped is the name of the rules that come with Tidings.
const Shipped = "shipped"

// Manager changes the capture rules of a deployment.
type Manager struct {
	Store deployed.Store
	Check Check
	Now   func() time.Time
}

// Check compiles files and returns the rules of each. Its error lists all that is wrong, with
// file, line and column, and is ErrWrong if that is the files.
type Check func(ctx context.Context, files []File) ([][]Rule, error)

// Checked is the answer of a function that checks files for another one.
type Checked struct {
	Rules    [][]Rule `json:"rules,omitempty"`    // of each file
	Problems string   `json:"problems,omitempty"` // what is wrong; without rules
}

// Remote returns a Check that asks the emit function. An error of the function is not
// ErrWrong.
func Remote(invoke func(ctx context.Context, command, answer any) error) Check {
	return func(ctx context.Context, files []File) ([][]Rule, error) {
		command := struct {
			Action string `json:"action"`
			Files  []File `json:"files"`
		}{"check_rules", files}
		var answer Checked
		if err := invoke(ctx, command, &answer); err != nil {
			return nil, fmt.Errorf("check the capture rules: %w", err)
		}
		switch {
		case answer.Problems != "":
			return nil, Wrong{errors.New(answer.Problems)}
		case len(answer.Rules) != len(files):
			return nil, fmt.Errorf("check the capture rules: %d answers for %d files", len(answer.Rules), len(files))
		}
		return answer.Rules, nil
	}
}

// ErrWrong is the error of files that cannot be compiled or used.
var ErrWrong = errors.New("the capture rules are wrong")

// Wrong says what is wrong with files. It is ErrWrong.
type Wrong struct{ Problems error }

func (e Wrong) Error() string { return e.Problems.Error() }

// Is makes it ErrWrong.
func (e Wrong) Is(target error) bool { return target == ErrWrong }

// Rule is a rule of a file.
type Rule struct {
	Event string `json:"event"`
	// Line and Column are where the file names the event.
	Line   int `json:"line"`
	Column int `json:"column"`
}

// File is a file of rules.
type File struct {
	Path string `json:"path"` // for errors; its base without the extension is the name under which it is stored
	Text string `json:"text"`
}

// Name returns the name under which the file is stored.
func (f File) Name() string {
	name := filepath.Base(f.Path)
	return strings.TrimSuffix(strings.TrimSuffix(name, ".yaml"), ".yml")
}

// Request is what to change.
type Request struct {
	Files  []File   // to add, or to replace those of the same name
	Remove []string // names; Shipped switches the shipped rules off
	// Shipped switches the shipped rules on.
	Shipped bool
}

// Action is what a request does to a file.
type Action string

// The actions.
const (
	Add    Action = "add"
	Change Action = "change"
	Remove Action = "remove"
	Keep   Action = "keep" // the stored file is the same
)

// Item is what a request does to one file.
type Item struct {
	File   string   `json:"file"`
	Action Action   `json:"action"`
	Events []string `json:"events,omitempty"` // types of the events that its rules publish; not of the shipped ones
	Diff   string   `json:"diff,omitempty"`   // unified; of a file that is changed
}

// Plan is what a request does.
type Plan struct {
	Items []Item `json:"files"` // ordered by name

	set deployed.Set // with the changes
}

// Empty reports whether the request changes nothing.
func (p Plan) Empty() bool {
	return !slices.ContainsFunc(p.Items, func(i Item) bool { return i.Action != Keep })
}

// Plan says what a request does, without doing it. It fails if a file cannot be used or a
// file to be removed does not exist.
func (m *Manager) Plan(ctx context.Context, r Request) (Plan, error) {
	set, err := deployed.Read(ctx, m.Store, -1)
	if err != nil {
		return Plan{}, err
	}
	known, err := set.Catalog()
	if err != nil {
		return Plan{}, err
	}
	p := Plan{set: set}
	now := &p.set.Rules
	now.Files = slices.Clone(now.Files)
	var problems []error
	var compiled [][]Rule
	if len(r.Files) > 0 {
		if compiled, err = m.Check(ctx, r.Files); err != nil {
			return Plan{}, err
		}
	}
	for i, f := range r.Files {
		item, err := put(now, f, compiled[i], known)
		switch {
		case err != nil:
			problems = append(problems, err)
		case slices.ContainsFunc(p.Items, func(i Item) bool { return i.File == item.File }):
			problems = append(problems, fmt.Errorf("%s: there is another file %s in this call; give each its own name", f.Path, item.File))
		}
		p.Items = append(p.Items, item)
	}
	for _, name := range r.Remove {
		item, err := remove(now, name)
		switch {
		case err != nil:
			problems = append(problems, err)
		case slices.ContainsFunc(p.Items, func(i Item) bool { return i.File == name }):
			problems = append(problems, fmt.Errorf("the rules %s cannot be named twice", name))
		}
		p.Items = append(p.Items, item)
	}
	if r.Shipped {
		if slices.Contains(r.Remove, Shipped) {
			problems = append(problems, errors.New("the shipped rules cannot be switched off and on at once"))
		}
		item := Item{File: Shipped, Action: Keep}
		if now.WithoutShipped {
			item.Action, now.WithoutShipped = Add, false
		}
		p.Items = append(p.Items, item)
	}
	slices.SortFunc(p.Items, func(a, b Item) int { return strings.Compare(a.File, b.File) })
	if err := errors.Join(problems...); err != nil {
		return p, Wrong{err}
	}
	return p, nil
}

// Apply stores a plan. It returns deployed.ErrConflict if the rules or the event types
// changed since the plan was made. by is who applies it; writer must be unique. The rules
// take effect within deployed.CacheTime.
func (m *Manager) Apply(ctx context.Context, p Plan, by, writer string) error {
	if p.Empty() {
		return nil
	}
	_, err := deployed.Write(ctx, m.Store, p.set, by, writer, m.Now())
	return err
}

// names are the names that a file can have.
var names = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

// put adds a file to the rules, or replaces the one of its name.
func put(now *deployed.Rules, f File, list []Rule, known *catalog.Catalog) (Item, error) {
	name := f.Name()
	if !names.MatchString(name) || name == Shipped {
		return Item{File: name}, fmt.Errorf("%s: the file's name, without .yaml, must be 1 to 64 letters, digits, dots, hyphens and underscores, and not %s", f.Path, Shipped)
	}
	var problems []error
	stored := deployed.RuleFile{Name: name, Text: f.Text, Events: []string{}}
	for _, r := range list {
		if _, ok := known.Type(r.Event); !ok && !known.Allows(r.Event) {
			problems = append(problems, fmt.Errorf("%s:%d:%d: %s", f.Path, r.Line, r.Column, known.Unknown(r.Event)))
		}
		stored.Events = append(stored.Events, r.Event)
	}
	if err := errors.Join(problems...); err != nil {
		return Item{File: name}, err
	}
	slices.Sort(stored.Events)
	stored.Events = slices.Compact(stored.Events)
	item := Item{File: name, Action: Add, Events: stored.Events}
	at, there := slices.BinarySearchFunc(now.Files, name, byName)
	switch {
	case !there:
		now.Files = slices.Insert(now.Files, at, stored)
	case now.Files[at].Text == f.Text:
		item.Action = Keep
	default:
		item.Action, item.Diff = Change, udiff.Unified("stored", f.Path, now.Files[at].Text, f.Text)
		now.Files[at] = stored
	}
	return item, nil
}

// remove takes a file out of the rules.
func remove(now *deployed.Rules, name string) (Item, error) {
	item := Item{File: name, Action: Remove}
	if name == Shipped {
		if now.WithoutShipped {
			item.Action = Keep
		}
		now.WithoutShipped = true
		return item, nil
	}
	at, ok := slices.BinarySearchFunc(now.Files, name, byName)
	if !ok {
		return item, fmt.Errorf("there are no capture rules %q", name)
	}
	item.Events = now.Files[at].Events
	now.Files = slices.Delete(now.Files, at, at+1)
	return item, nil
}

func byName(f deployed.RuleFile, name string) int { return strings.Compare(f.Name, name) }
