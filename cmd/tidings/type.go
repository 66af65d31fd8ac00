package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tidings-dev/tidings/pkg/admin/eventtypes"
	"github.com/tidings-dev/tidings/pkg/admin/eventtypes/compile"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/event/catalog"
	"github.com/tidings-dev/tidings/pkg/event/deployed"
	"github.com/tidings-dev/tidings/pkg/event/validate"
	"github.com/tidings-dev/tidings/pkg/event/versions"
	"github.com/tidings-dev/tidings/pkg/ops/stats"
)

// types is the source of the target's event types.
func (t *target) types() *deployed.Live {
	return &deployed.Live{Source: t.store, Now: time.Now, Log: slog.New(slog.DiscardHandler)}
}

// storedTypes returns the names under which events of types are stored. A type that was
// removed still has events, so a name that no type has is only reported.
func (a *app) storedTypes(ctx context.Context, t *target, types []string) ([]string, error) {
	if len(types) == 0 {
		return nil, nil
	}
	known, err := t.types().Of(ctx, a.tenant)
	if err != nil {
		return nil, unreachable(err)
	}
	names, unknown, err := known.Stored(types)
	if err != nil {
		return nil, usagef("%w", err)
	}
	for _, name := range unknown {
		fmt.Fprintf(a.err, "there is no event type %s: its events are found if it was removed\n", name)
	}
	return names, nil
}

func (a *app) typeCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "type", Short: "List, show, check and change the event types",
		Long: `List, show, check and change the event types. With --tenant, "list", "show" and "test"
use the types of that tenant: those of the deployment and its own; "apply", "diff",
"deprecate" and "remove" change its own.`,
	}
	c.AddCommand(a.typeList(), a.typeShow(), a.typeTest(), a.typeApply(), a.typeDiff(), a.typeDeprecate(), a.typeRemove(), a.typeTenants(), a.typeUndefined())
	return c
}

// typesOf returns the tenant whose types a command is about: that of --tenant, and "", which
// stands for the deployment, without the flag.
func typesOf(c *cobra.Command) string {
	if f := c.Flag("tenant"); f.Changed {
		return f.Value.String()
	}
	return ""
}

// known returns the event types that a command is about, or the shipped ones.
func (a *app) known(c *cobra.Command, shipped bool) (*catalog.Catalog, error) {
	tenant := typesOf(c)
	if shipped && tenant != "" {
		return nil, usagef("--shipped takes no --tenant: the shipped types are the deployment's")
	}
	if shipped {
		return catalog.Default(), nil
	}
	if tenant != "" {
		if err := event.CheckTenant(tenant); err != nil {
			return nil, usagef("--tenant: %w", err)
		}
	}
	t, err := a.connect(c.Context())
	if err != nil {
		return nil, err
	}
	known, err := t.types().Of(c.Context(), tenant)
	return known, unreachable(err)
}

// undefined returns the types without a definition of the last 24 hours' events, if the
// deployment allows them.
func (t *target) undefined(ctx context.Context, known *catalog.Catalog) ([]stats.Type, error) {
	if !known.IsOpen() {
		return []stats.Type{}, nil
	}
	summary, err := (&stats.Reader{Source: t.store, Now: time.Now}).Summary(ctx)
	return summary.Types(known.Allows), unreachable(err)
}

// printUndefined prints the types without a definition, if there are any.
func (a *app) printUndefined(list []stats.Type) error {
	if len(list) == 0 {
		return nil
	}
	fmt.Fprintln(a.out, "\nSeen without a definition in the last 24 hours:")
	return a.table("TYPE\tEVENTS\tLAST SEEN", func(row func(...any)) {
		for _, t := range list {
			row(t.Type, t.Events, t.Last.Format(time.RFC3339))
		}
	})
}

func shippedFlag(c *cobra.Command, shipped *bool) {
	c.Flags().BoolVar(shipped, "shipped", false, "the types that come with Tidings; needs no deployment")
}

func (a *app) typeList() *cobra.Command {
	var shipped bool
	c := &cobra.Command{
		Use: "list", Short: "List the event types", Args: args(0, "no arguments"),
		RunE: func(c *cobra.Command, _ []string) error {
			known, err := a.known(c, shipped)
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(known.Types())
			}
			if typesOf(c) == "" {
				return a.listTypes(c.Context(), known, shipped)
			}
			return a.table("TYPE\tVERSIONS\tOF\tDESCRIPTION", func(row func(...any)) {
				for _, name := range known.Types() {
					t, _ := known.Type(name)
					of := "deployment"
					if known.Adds(name) {
						of = "own"
					}
					row(name, numbers(known.Versions(name)), of, described(t))
				}
			})
		},
	}
	shippedFlag(c, &shipped)
	return c
}

// listTypes prints the deployment's types, and what was seen without a definition.
func (a *app) listTypes(ctx context.Context, known *catalog.Catalog, shipped bool) error {
	err := a.table("TYPE\tVERSIONS\tDESCRIPTION", func(row func(...any)) {
		for _, name := range known.Types() {
			t, _ := known.Type(name)
			row(name, numbers(known.Versions(name)), described(t))
		}
	})
	if err != nil || shipped || !known.IsOpen() {
		return err
	}
	t, err := a.connect(ctx)
	if err != nil {
		return err
	}
	seen, err := t.undefined(ctx, known)
	if err != nil {
		return err
	}
	return a.printUndefined(seen)
}

// numbers formats the numbers of a type's versions.
func numbers(versions []catalog.Type) string {
	oldest, newest := versions[0].Version, versions[len(versions)-1].Version
	if oldest == newest {
		return strconv.Itoa(newest)
	}
	return fmt.Sprintf("%d-%d", oldest, newest)
}

// typeVersion returns a version of a type, or the newest if the number is 0.
func typeVersion(known *catalog.Catalog, name string, number int) (catalog.Type, error) {
	newest, ok := known.Type(name)
	if !ok {
		return newest, usagef("%s", known.Unknown(name))
	}
	if number == 0 {
		return newest, nil
	}
	t, ok := known.Version(name, number)
	if !ok {
		return t, usagef("%s has no version %d; it has %s", name, number, numbers(known.Versions(name)))
	}
	return t, nil
}

func versionFlag(c *cobra.Command, number *int, what string) {
	c.Flags().IntVar(number, "version", 0, what)
}

// described returns a type's description, with its deprecation.
func described(t catalog.Type) string {
	if t.Deprecated == nil {
		return t.Description
	}
	return t.Deprecated.String() + ". " + t.Description
}

func (a *app) typeShow() *cobra.Command {
	var shipped bool
	var number int
	c := &cobra.Command{
		Use: "show TYPE", Short: "Print an event type's JSON Schema, with examples", Args: args(1, "an event type"),
		RunE: func(c *cobra.Command, given []string) error {
			known, err := a.known(c, shipped)
			if err != nil {
				return err
			}
			t, err := typeVersion(known, given[0], number)
			if err != nil {
				return err
			}
			_, err = a.out.Write(append(slices.Clip(t.Schema), '\n'))
			return err
		},
	}
	shippedFlag(c, &shipped)
	versionFlag(c, &number, "the version to show (default: the newest)")
	return c
}

func (a *app) typeTest() *cobra.Command {
	var shipped bool
	var number int
	c := &cobra.Command{
		Use: "test TYPE [FILE]", Short: "Check an event's data against a type's schema",
		Long: `Check an event's data against a type's schema, as emit does, and whether the other
versions of the type can be made of it. The data is the JSON object of FILE, or of
the standard input. Nothing is published.`,
		Example: `  echo '{"user_id":"u_1042"}' | tidings type test user.joined_platform`,
		Args: func(c *cobra.Command, given []string) error {
			if len(given) < 1 || len(given) > 2 {
				return usagef("%s takes an event type, and a file or - for the standard input", c.CommandPath())
			}
			return nil
		},
		RunE: func(c *cobra.Command, given []string) error {
			known, err := a.known(c, shipped)
			if err != nil {
				return err
			}
			if _, err := typeVersion(known, given[0], number); err != nil {
				return err
			}
			path := "-"
			if len(given) == 2 {
				path = given[1]
			}
			data, err := a.readInput(path, event.MaxBodyBytes+1)
			if err != nil {
				return err
			}
			made, err := versions.Make(validate.New(known), given[0], number, data)
			if err != nil {
				return err
			}
			fmt.Fprintln(a.out, "conforms to", given[0])
			if made.Stored != nil {
				fmt.Fprintf(a.out, "endpoints get it in the versions %s\n", numbers(known.Versions(given[0])))
			}
			return nil
		},
	}
	shippedFlag(c, &shipped)
	versionFlag(c, &number, "the version that the data is of (default: as emit finds it)")
	return c
}

// readInput reads a file, or the standard input if path is -, up to a number of bytes.
func (a *app) readInput(path string, limit int64) ([]byte, error) {
	if path == "-" {
		return io.ReadAll(io.LimitReader(a.in, limit))
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }() // it was only read
	return io.ReadAll(io.LimitReader(file, limit))
}

func (a *app) typeApply() *cobra.Command {
	var dryRun, force bool
	c := &cobra.Command{
		Use: "apply FILE|DIR...", Short: "Add or change event types",
		Long: `Add or change event types. Each file defines one type by a JSON Schema (draft
2020-12) whose title is the type's name; of a directory, all .json files count.

All changes take effect together, within a minute. A definition that is stored already
changes nothing, so the command can be repeated. A change that can break an endpoint
(a field is removed, retyped or no longer required, an enum has new values, …) is
refused, and so is one that touches a field that an endpoint's filter names; --force
applies it nevertheless.`,
		Example: `  tidings type apply types/ --dry-run
  tidings type apply types/order.paid.json
  tidings type apply acme/ --tenant acme`,
		Args: someArgs("files or directories"),
		RunE: func(c *cobra.Command, given []string) error { return a.applyTypes(c, given, dryRun, force) },
	}
	c.Flags().BoolVar(&dryRun, "dry-run", false, "the same as tidings type diff")
	c.Flags().BoolVar(&force, "force", false, "apply changes that can break endpoints")
	return c
}

func (a *app) typeDiff() *cobra.Command {
	return &cobra.Command{
		Use: "diff FILE|DIR...", Short: "Say what apply would change, and which endpoints it concerns",
		Long: `Say what "tidings type apply" would change, field by field, and which endpoints a
change concerns. The exit code is 1 if a change would be refused.`,
		Args: someArgs("files or directories"),
		RunE: func(c *cobra.Command, given []string) error { return a.applyTypes(c, given, true, false) },
	}
}

func (a *app) applyTypes(c *cobra.Command, paths []string, dryRun, force bool) error {
	list, err := readDefinitions(paths)
	if err != nil {
		return err
	}
	return a.changeTypes(c, eventtypes.Request{Types: list}, dryRun, force)
}

func (a *app) typeDeprecate() *cobra.Command {
	var since, instead string
	var number int
	var undo bool
	c := &cobra.Command{
		Use: "deprecate TYPE", Short: "Mark an event type as deprecated",
		Long: `Mark an event type as deprecated: the catalog says since when, and what to use
instead. Its events are still published and delivered. --undo takes the mark away.`,
		Example: `  tidings type deprecate order.paid --instead order.settled`,
		Args:    args(1, "an event type"),
		RunE: func(c *cobra.Command, given []string) error {
			if undo && (since != "" || instead != "") {
				return usagef("--undo takes neither --since nor --instead")
			}
			known, err := a.known(c, false)
			if err != nil {
				return err
			}
			if _, err := typeVersion(known, given[0], number); err != nil {
				return err
			}
			m := eventtypes.Mark{Type: given[0], Version: number}
			if !undo {
				m.Deprecation = &catalog.Deprecation{Since: cmp.Or(since, time.Now().UTC().Format(time.DateOnly)), Instead: instead}
				if _, err := time.Parse(time.DateOnly, m.Deprecation.Since); err != nil {
					return usagef("--since %q is not a date such as 2026-11-30", since)
				}
			}
			return a.changeTypes(c, eventtypes.Request{Deprecate: []eventtypes.Mark{m}}, false, false)
		},
	}
	c.Flags().StringVar(&instead, "instead", "", "the type to use instead")
	c.Flags().StringVar(&since, "since", "", "date since which it is deprecated, such as 2026-11-30 (default today)")
	c.Flags().BoolVar(&undo, "undo", false, "the type is no longer deprecated")
	versionFlag(c, &number, "the version to mark (default: the newest)")
	return c
}

func (a *app) typeRemove() *cobra.Command {
	var yes, force bool
	var number int
	c := &cobra.Command{
		Use: "remove TYPE...", Short: "Remove event types",
		Long: `Remove event types. Emit refuses events of a removed type; those that were accepted
are delivered. A type that comes with Tidings is switched off, and comes back with
"tidings type show --shipped TYPE" and "tidings type apply".

A type that enabled endpoints subscribe to, by its name or its group, is removed only
with --force.`,
		Args: someArgs("event types"),
		RunE: func(c *cobra.Command, given []string) error {
			r := eventtypes.Request{Remove: given}
			if number != 0 {
				r = eventtypes.Request{RemoveVersions: map[string]int{}}
				for _, name := range given {
					r.RemoveVersions[name] = number
				}
			}
			return a.changeTypes(c, r, !yes, force)
		},
	}
	c.Flags().BoolVar(&yes, "yes", false, "remove them; without it, the command only says what it would do")
	c.Flags().BoolVar(&force, "force", false, "remove types that endpoints subscribe to")
	versionFlag(c, &number, "remove only this version, the oldest or the newest; endpoints that get it get the nearest one")
	return c
}

func (a *app) typeTenants() *cobra.Command {
	return &cobra.Command{
		Use: "tenants", Short: "List the tenants that have event types of their own", Args: args(0, "no arguments"),
		RunE: func(c *cobra.Command, _ []string) error {
			t, err := a.connect(c.Context())
			if err != nil {
				return err
			}
			set, err := deployed.Read(c.Context(), t.store, -1)
			if err != nil {
				return unreachable(err)
			}
			tenants := set.Tenants()
			if a.json {
				return a.printJSON(append([]string{}, tenants...))
			}
			return a.table("TENANT", func(row func(...any)) {
				for _, tenant := range tenants {
					row(tenant)
				}
			})
		},
	}
}

func (a *app) typeUndefined() *cobra.Command {
	return &cobra.Command{
		Use: "undefined [allow|refuse]", Short: "Say whether events of types without a definition are accepted, or change it",
		Long: `Say whether events of types without a definition are accepted, or change it. By
default, emit refuses them, because a misspelt name would reach nobody. If they are
allowed, emit accepts any JSON object as their data, and endpoints can subscribe to
any name. Types with a definition are checked as before. A change takes effect within
a minute. The command lists the types without a definition of the last 24 hours' events,
so that a misspelt one is found.`,
		Example:   `  tidings type undefined allow`,
		ValidArgs: []string{"allow", "refuse"},
		Args: func(c *cobra.Command, given []string) error {
			if len(given) > 1 || len(given) == 1 && given[0] != "allow" && given[0] != "refuse" {
				return usagef("%s takes allow or refuse, or nothing", c.CommandPath())
			}
			return nil
		},
		RunE: func(c *cobra.Command, given []string) error {
			if typesOf(c) != "" {
				return usagef("%s takes no --tenant: the setting is the deployment's", c.CommandPath())
			}
			t, err := a.connect(c.Context())
			if err != nil {
				return err
			}
			known, err := t.types().Current(c.Context())
			if err != nil {
				return unreachable(err)
			}
			open, changed := known.IsOpen(), false
			if len(given) == 1 {
				open = given[0] == "allow"
				m := &eventtypes.Manager{Store: t.store, Endpoints: t.store, Check: compile.Check, Now: time.Now}
				if changed, err = m.SetOpen(c.Context(), open, "cli", event.NewID(time.Now())); err != nil {
					return unreachable(err)
				}
			}
			seen, err := t.undefined(c.Context(), known)
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(map[string]any{"allowed": open, "changed": changed, "seen": seen})
			}
			text := "refused"
			if open {
				text = "allowed"
			}
			if changed {
				text += "; in effect within a minute"
			}
			fmt.Fprintln(a.out, "types without a definition are", text)
			return a.printUndefined(seen)
		},
	}
}

// someArgs requires at least one positional argument; names describes them in the error.
func someArgs(names string) cobra.PositionalArgs {
	return func(c *cobra.Command, given []string) error {
		if len(given) == 0 {
			return usagef("%s takes %s", c.CommandPath(), names)
		}
		return nil
	}
}

// changeTypes plans a request, prints the plan, and applies it unless it is a dry run.
func (a *app) changeTypes(c *cobra.Command, r eventtypes.Request, dryRun, force bool) error {
	ctx := c.Context()
	if r.Tenant = typesOf(c); r.Tenant == "" && c.Flag("tenant").Changed {
		return usagef("--tenant is empty")
	}
	t, err := a.connect(ctx)
	if err != nil {
		return err
	}
	m := &eventtypes.Manager{Store: t.store, Endpoints: t.store, Check: compile.Check, Now: time.Now}
	plan, err := m.Plan(ctx, r)
	if err != nil {
		return unreachable(err)
	}
	refused := plan.Refused() && !force
	if !dryRun && !refused {
		if err := m.Apply(ctx, plan, force, "cli", event.NewID(time.Now())); err != nil {
			return unreachable(err)
		}
	}
	if a.json {
		err = a.printJSON(struct {
			eventtypes.Plan
			Applied bool `json:"applied"`
		}{plan, !dryRun && !refused})
	} else {
		a.printPlan(plan)
	}
	switch {
	case err != nil:
		return err
	case refused:
		return fmt.Errorf("refused: nothing was changed; --force applies it nevertheless")
	case a.json:
	case dryRun:
		fmt.Fprintln(a.out, "nothing was changed yet")
	case !plan.Empty():
		fmt.Fprintln(a.out, "stored; in effect within a minute")
	}
	return nil
}

func (a *app) printPlan(plan eventtypes.Plan) {
	for _, item := range plan.Items {
		name := item.Type
		if item.Version > 0 {
			name = fmt.Sprintf("%s version %d", item.Type, item.Version)
		}
		fmt.Fprintf(a.out, "%-6s  %s\n", item.Action, name)
		for _, change := range item.Changes {
			mark := " "
			if change.Breaking {
				mark = "!"
			}
			fmt.Fprintf(a.out, "      %s %s\n", mark, change)
		}
		if item.Refused != "" {
			fmt.Fprintf(a.out, "      ✗ %s\n", item.Refused)
		}
		for _, e := range item.Endpoints {
			fmt.Fprintf(a.out, "        %s %s: %s\n", e.Tenant, e.ID, e.Why)
		}
	}
}

// readDefinitions reads the definitions of files, and of the .json files of directories.
// Its errors name the file, the line and the column.
func readDefinitions(paths []string) ([]catalog.Type, error) {
	var files []string
	for _, path := range paths {
		info, err := os.Stat(path)
		if err != nil {
			return nil, err
		}
		if !info.IsDir() {
			files = append(files, path)
			continue
		}
		before := len(files)
		err = filepath.WalkDir(path, func(name string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() && strings.HasSuffix(name, ".json") {
				files = append(files, name)
			}
			return err
		})
		if err != nil {
			return nil, err
		}
		if len(files) == before {
			return nil, fmt.Errorf("%s: there is no .json file in it", path)
		}
	}
	var list []catalog.Type
	var problems []error
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		t, err := catalog.Parse(text)
		if err == nil {
			err = validate.Check(t)
		}
		if err == nil {
			err = versions.Check(nil, t)
		}
		if err != nil {
			var at *catalog.DefinitionError
			if errors.As(err, &at) {
				err = fmt.Errorf("%s:%d:%d: %s", name, at.Line, at.Column, at.Message)
			}
			problems = append(problems, err)
		}
		list = append(list, t)
	}
	return list, errors.Join(problems...)
}
