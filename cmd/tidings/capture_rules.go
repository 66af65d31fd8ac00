package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tidings-dev/tidings/pkg/admin/capturerules"
	"github.com/tidings-dev/tidings/pkg/admin/capturerules/compile"
	"github.com/tidings-dev/tidings/pkg/emit"
	"github.com/tidings-dev/tidings/pkg/emit/capture/rules"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/event/deployed"
	"github.com/tidings-dev/tidings/pkg/event/validate"
	"github.com/tidings-dev/tidings/pkg/store/dynamoitem"
)

func (a *app) captureApply() *cobra.Command {
	var shipped, dryRun bool
	c := &cobra.Command{
		Use: "apply FILE|DIR...", Short: "Add or change capture rules",
		Long: `Add or change capture rules. Each file is YAML (docs/capture.md) and is stored under
its name, without .yaml; of a directory, all .yaml and .yml files count.

All changes take effect together, within a minute. A file that is stored already changes
nothing, so the command can be repeated. Rules that cannot be compiled, or that publish an
event type that the deployment does not have, are refused with file, line and column.`,
		Example: `  tidings capture apply rules/ --dry-run
  tidings capture apply rules/orders.yaml
  tidings capture apply --shipped`,
		RunE: func(c *cobra.Command, given []string) error {
			if len(given) == 0 && !shipped {
				return usagef("%s takes files or directories, or --shipped", c.CommandPath())
			}
			files, err := readRules(given)
			if err != nil {
				return err
			}
			return a.changeRules(c.Context(), capturerules.Request{Files: files, Shipped: shipped}, dryRun)
		},
	}
	c.Flags().BoolVar(&dryRun, "dry-run", false, "say what would change, and change nothing")
	c.Flags().BoolVar(&shipped, "shipped", false, "switch the rules that come with Tidings on again")
	return c
}

func (a *app) captureRemoveRules() *cobra.Command {
	var yes bool
	c := &cobra.Command{
		Use: "remove-rules NAME...", Short: "Remove files of capture rules",
		Long: `Remove files of capture rules, by the names that "tidings capture rules" lists. The name
shipped switches off the rules that come with Tidings; "tidings capture apply --shipped"
switches them on again. Changes of the tables then become no events; those that were made
in the meantime never do.`,
		Args: someArgs("names of capture rules"),
		RunE: func(c *cobra.Command, given []string) error {
			return a.changeRules(c.Context(), capturerules.Request{Remove: given}, !yes)
		},
	}
	c.Flags().BoolVar(&yes, "yes", false, "remove them; without it, the command only says what it would do")
	return c
}

// changeRules plans a request, prints the plan, and applies it unless it is a dry run.
func (a *app) changeRules(ctx context.Context, r capturerules.Request, dryRun bool) error {
	t, err := a.connect(ctx)
	if err != nil {
		return err
	}
	m := &capturerules.Manager{Store: t.store, Check: compile.Check, Now: time.Now}
	plan, err := m.Plan(ctx, r)
	if err == nil && !dryRun {
		err = m.Apply(ctx, plan, "cli", event.NewID(time.Now()))
	}
	if err != nil {
		return unreachable(err)
	}
	if a.json {
		return a.printJSON(struct {
			capturerules.Plan
			Applied bool `json:"applied"`
		}{plan, !dryRun})
	}
	for _, item := range plan.Items {
		fmt.Fprintf(a.out, "%-6s  %s  %s\n", item.Action, item.File, strings.Join(item.Events, ", "))
		for line := range strings.Lines(item.Diff) {
			fmt.Fprintf(a.out, "        %s\n", strings.TrimRight(line, "\n"))
		}
	}
	switch {
	case dryRun:
		fmt.Fprintln(a.out, "nothing was changed yet")
	case !plan.Empty():
		fmt.Fprintln(a.out, "stored; in effect within a minute")
	}
	return nil
}

// readRules reads files, and the .yaml and .yml files of directories.
func readRules(paths []string) ([]capturerules.File, error) {
	var list []capturerules.File
	read := func(path string) error {
		text, err := os.ReadFile(path)
		list = append(list, capturerules.File{Path: path, Text: string(text)})
		return err
	}
	for _, path := range paths {
		info, err := os.Stat(path)
		if err != nil {
			return nil, err
		}
		if !info.IsDir() {
			if err := read(path); err != nil {
				return nil, err
			}
			continue
		}
		before := len(list)
		err = filepath.WalkDir(path, func(name string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || filepath.Ext(name) != ".yaml" && filepath.Ext(name) != ".yml" {
				return err
			}
			return read(name)
		})
		if err != nil {
			return nil, err
		}
		if len(list) == before {
			return nil, fmt.Errorf("%s: there is no .yaml file in it", path)
		}
	}
	return list, nil
}

// ruleFile is a file of capture rules in a list.
type ruleFile struct {
	File   string   `json:"file"`
	On     bool     `json:"on"`
	Events []string `json:"events"`
}

func (a *app) captureRules() *cobra.Command {
	return &cobra.Command{
		Use: "rules [NAME]", Short: "List the capture rules, or print a file of them",
		Long: `List the files of capture rules with the event types that they publish. With a name,
print the file as it was applied; shipped is the one that comes with Tidings, and needs no
deployment.`,
		Args: func(c *cobra.Command, given []string) error {
			if len(given) > 1 {
				return usagef("%s takes the name of a file of capture rules, or nothing", c.CommandPath())
			}
			return nil
		},
		RunE: func(c *cobra.Command, given []string) error {
			if len(given) == 1 && given[0] == capturerules.Shipped {
				_, err := a.out.Write(rules.ShippedText())
				return err
			}
			t, err := a.connect(c.Context())
			if err != nil {
				return err
			}
			set, err := deployed.Read(c.Context(), t.store, -1)
			if err != nil {
				return unreachable(err)
			}
			if len(given) == 0 {
				return a.listRules(set.Rules)
			}
			at := slices.IndexFunc(set.Rules.Files, func(f deployed.RuleFile) bool { return f.Name == given[0] })
			if at < 0 {
				return usagef("there are no capture rules %q; `tidings capture rules` lists them", given[0])
			}
			_, err = a.out.Write([]byte(set.Rules.Files[at].Text))
			return err
		},
	}
}

func (a *app) listRules(stored deployed.Rules) error {
	shipped := ruleFile{File: capturerules.Shipped, On: !stored.WithoutShipped}
	for _, r := range rules.Shipped().Rules() {
		shipped.Events = append(shipped.Events, r.Event)
	}
	slices.Sort(shipped.Events)
	shipped.Events = slices.Compact(shipped.Events)
	list := []ruleFile{shipped}
	for _, f := range stored.Files {
		list = append(list, ruleFile{f.Name, true, f.Events})
	}
	if a.json {
		return a.printJSON(list)
	}
	return a.table("FILE\tSTATUS\tEVENTS", func(row func(...any)) {
		for _, f := range list {
			status := "on"
			if !f.On {
				status = "off"
			}
			row(f.File, status, strings.Join(f.Events, ", "))
		}
	})
}

// tested is what the rules made of one record.
type tested struct {
	Record int               `json:"record"` // its place, from 1
	Key    json.RawMessage   `json:"key,omitempty"`
	Change string            `json:"change"`
	Table  string            `json:"table"`
	Events []json.RawMessage `json:"events"`
	Rules  []verdict         `json:"rules"`
}

// verdict is what one rule made of a record.
type verdict struct {
	Event   string `json:"event"`
	Place   string `json:"place"` // file:line
	Outcome string `json:"outcome"`
}

// maxRecords is the maximum size of the records to test, in bytes: many times what AWS
// passes to a function at once.
const maxRecords = 64 << 20

func (a *app) captureTest() *cobra.Command {
	var types []string
	c := &cobra.Command{
		Use: "test FILE|DIR|shipped RECORDS", Short: "Say which events rules make of a stream's records",
		Long: `Say which events capture rules make of the records of a DynamoDB stream, and for each
rule why it makes none. RECORDS is a file with what AWS passes to the function:
{"Records": […]}, or one record; - is the standard input. Nothing is published, and no
deployment is needed.

The events are checked as emit checks them, with the types that come with Tidings and
those of --types, in all their versions. Exits with 1 if a rule fails or emit would refuse
an event.`,
		Example: `  tidings capture test rules/orders.yaml records.json --types types/
  tidings capture test shipped events/emit-platform-stream.json`,
		Args: args(2, "rules (a file, a directory or shipped) and a file of records"),
		RunE: func(c *cobra.Command, given []string) error {
			set, err := compileRules(given[0])
			if err != nil {
				return err
			}
			known, err := readTypes(types)
			if err != nil {
				return err
			}
			text, err := a.readInput(given[1], maxRecords)
			if err != nil {
				return err
			}
			return a.testRules(set, known, text)
		},
	}
	c.Flags().StringSliceVar(&types, "types", nil, "files or directories of event types, as for tidings type apply")
	return c
}

// compileRules compiles the rules of a file or directory.
func compileRules(path string) (*rules.Set, error) {
	if path == capturerules.Shipped {
		return rules.Shipped(), nil
	}
	files, err := readRules([]string{path})
	if err != nil {
		return nil, err
	}
	var sets []*rules.Set
	var problems []error
	for _, f := range files {
		set, err := rules.Parse(f.Path, []byte(f.Text))
		sets, problems = append(sets, set), append(problems, err)
	}
	if err := errors.Join(problems...); err != nil {
		return nil, err
	}
	return rules.Join(sets...), nil
}

// readTypes returns the shipped types with those of files.
func readTypes(paths []string) (*validate.Catalog, error) {
	own, err := readDefinitions(paths)
	if err != nil {
		return nil, err
	}
	known, err := deployed.Set{Types: own}.Catalog()
	if err != nil {
		return nil, err
	}
	return validate.New(known), nil
}

func (a *app) testRules(set *rules.Set, known *validate.Catalog, text []byte) error {
	for _, r := range set.Rules() {
		if _, ok := known.Type(r.Event); !ok {
			return fmt.Errorf("%s:%d:%d: %s; --types names files of other types", r.File, r.Line, r.Column, known.Unknown(r.Event))
		}
	}
	changes, err := dynamoitem.ReadChanges(text)
	if err != nil {
		return err
	}
	if len(changes) == 0 { // one record, without a list around it
		one, err := dynamoitem.ReadChange(text)
		if err != nil || one.Operation == "" {
			return errors.New("there is no record of a DynamoDB stream in it: give what AWS passes to the function, {\"Records\": […]}")
		}
		changes = append(changes, one)
	}
	failed := false
	var list []tested
	for i, change := range changes {
		t := tested{Record: i + 1, Key: json.RawMessage(change.Key), Change: strings.ToLower(string(change.Operation)), Table: tableName(change.Stream), Events: []json.RawMessage{}}
		verdicts := set.Explain(change)
		// As emit does: a rule that fails leaves the change without events, an event that is
		// refused leaves it without the later ones.
		instead := ""
		if slices.ContainsFunc(verdicts, func(v rules.Verdict) bool { return v.Err != nil }) {
			instead = "event, but none is stored: a rule fails"
		}
		for _, v := range verdicts {
			outcome, err := string(v.Outcome), v.Err
			switch {
			case v.Outcome != rules.GaveEvent:
			case instead != "":
				outcome = instead
			default:
				var e event.Event
				var body []byte
				if e, err = emit.CheckCaptured(known, *v.Event); err == nil {
					body, err = e.Encode()
				}
				if err != nil {
					instead = "event, but it is not stored: the one before is refused"
					break
				}
				t.Events = append(t.Events, body)
			}
			if err != nil {
				failed, outcome = true, "fails: "+err.Error()
			}
			t.Rules = append(t.Rules, verdict{v.Rule.Event, fmt.Sprintf("%s:%d", v.Rule.File, v.Rule.Line), outcome})
		}
		list = append(list, t)
	}
	if a.json {
		err = a.printJSON(list)
	} else {
		a.printTested(list)
	}
	if err == nil && failed {
		err = errReported
	}
	return err
}

// tableName returns the table of a stream's ARN.
func tableName(stream string) string {
	_, name, _ := strings.Cut(stream, ":table/")
	name, _, _ = strings.Cut(name, "/")
	return name
}

func (a *app) printTested(list []tested) {
	for _, t := range list {
		fmt.Fprintf(a.out, "record %d: %s of %s in %s\n", t.Record, cell(t.Change), cell(string(t.Key)), cell(cmp.Or(t.Table, "an unknown table")))
		for _, r := range t.Rules {
			fmt.Fprintf(a.out, "  %-28s %s (%s)\n", r.Event, cell(r.Outcome), r.Place)
		}
		for _, e := range t.Events {
			fmt.Fprintf(a.out, "  → %s\n", e)
		}
	}
}
