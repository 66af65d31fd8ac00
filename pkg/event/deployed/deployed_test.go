package deployed_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidings-dev/tidings/pkg/event/catalog"
	"github.com/tidings-dev/tidings/pkg/event/deployed"
	"github.com/tidings-dev/tidings/pkg/event/validate"
	"github.com/tidings-dev/tidings/pkg/store/memory"
)

// kind returns a type whose description has random-looking text, so that it compresses
// about as well as real ones.
func kind(t *testing.T, name, description string) catalog.Type {
	t.Helper()
	parsed, err := catalog.Parse(fmt.Appendf(nil, `{"title":%q,"description":%q,"x-subject":"id","type":"object",
		"properties":{"id":{"type":"string"},"total":{"type":"number"}},"required":["id"],"additionalProperties":false,"examples":[{"id":"o_1","total":5}]}`, name, description))
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

func write(t *testing.T, s deployed.Store, set deployed.Set, writer string) deployed.Set {
	t.Helper()
	written, err := deployed.Write(t.Context(), s, set, "op", writer, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return written
}

func TestASetIsTheShippedTypesAndTheChanges(t *testing.T) {
	shipped := len(catalog.Default().Types())
	for name, c := range map[string]struct {
		set  deployed.Set
		want int
		has  string
		not  string
	}{
		"no change":        {deployed.Set{}, shipped, "user.posted_comment", "order.paid"},
		"one more":         {deployed.Set{Types: []catalog.Type{kind(t, "order.paid", "x")}}, shipped + 1, "order.paid", ""},
		"one of one's own": {deployed.Set{Types: []catalog.Type{kind(t, "user.posted_comment", "x")}}, shipped, "user.posted_comment", ""},
		"one less":         {deployed.Set{Without: []string{"user.posted_comment"}}, shipped - 1, "", "user.posted_comment"},
		"none":             {deployed.Set{Without: catalog.Default().Types()}, 0, "", "user.posted_comment"},
	} {
		known, err := c.set.Catalog()
		if err != nil {
			t.Fatal(err)
		}
		_, has := known.Type(c.has)
		_, not := known.Type(c.not)
		if len(known.Types()) != c.want || has != (c.has != "") || not {
			t.Errorf("%s: %v", name, known.Types())
		}
	}
}

func TestASetIsReadAsItWasWritten(t *testing.T) {
	s := memory.New(time.Now)
	empty, err := deployed.Read(t.Context(), s, -1)
	if err != nil || empty.Revision != 0 || len(empty.Types) != 0 {
		t.Fatalf("%+v, %v", empty, err)
	}
	first := write(t, s, deployed.Set{Types: []catalog.Type{kind(t, "order.paid", "Paid"), kind(t, "order.shipped", "Shipped")}, Without: []string{"user.posted_comment"}, Open: true}, "a")
	got, err := deployed.Read(t.Context(), s, -1)
	if err != nil || got.Revision != 1 || got.ChangedBy != "op" || len(got.Types) != 2 || !slices.Equal(got.Without, first.Without) || !got.Open {
		t.Fatalf("%+v, %v", got, err)
	}
	if string(got.Types[1].Schema) != string(first.Types[1].Schema) || got.Types[0].Subject != "id" || len(got.Types[0].Samples) != 1 {
		t.Errorf("%+v", got.Types)
	}
	if known, err := deployed.Read(t.Context(), s, 1); err != nil || known.Revision != 1 || known.Types != nil {
		t.Errorf("the known revision is read: %+v, %v", known, err)
	}
	if _, err := deployed.Write(t.Context(), s, deployed.Set{}, "late", "b", time.Now()); !errors.Is(err, deployed.ErrConflict) {
		t.Errorf("a write over an older revision: %v", err)
	}
}

func TestAnUnusableSetIsNotWritten(t *testing.T) {
	s := memory.New(time.Now)
	twice := []catalog.Type{kind(t, "order.paid", "x"), kind(t, "order.paid", "y")}
	large := kind(t, "order.paid", "x")
	large.Schema = bytes.Repeat([]byte("[]"), deployed.MaxBytes/2+1)
	escaped := kind(t, "order.paid", "x")
	escaped.Schema = bytes.Repeat([]byte("<"), deployed.MaxBytes/2) // six bytes each within JSON
	for _, set := range []deployed.Set{{Types: twice}, {Types: []catalog.Type{large}}, {Types: []catalog.Type{escaped}}, {Types: make([]catalog.Type, deployed.MaxTypes+1)}} {
		if _, err := deployed.Write(t.Context(), s, set, "op", "a", time.Now()); err == nil {
			t.Error("it is written")
		}
	}
	if set, err := deployed.Read(t.Context(), s, -1); err != nil || set.Revision != 0 {
		t.Errorf("%+v, %v", set, err)
	}
}

// Ten thousand types do not fit into one item.
func TestManyTypesAreReadAtOnce(t *testing.T) {
	s := memory.New(time.Now)
	var set deployed.Set
	for i := range deployed.MaxTypes - len(catalog.Default().Types()) {
		// Digits that do not repeat compress badly, as real texts do.
		set.Types = append(set.Types, kind(t, fmt.Sprintf("shop.type_%d", i), strings.Repeat(fmt.Sprint(i*7919), 20)))
	}
	write(t, s, set, "a")
	live := &deployed.Live{Source: s, Now: time.Now, Log: slog.New(slog.DiscardHandler)}
	began := time.Now()
	known, err := live.Current(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.New(known).Validate("shop.type_77", []byte(`{"id":"x"}`)); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("the first event waits %s", took)
	}
	t.Logf("%d types read and one validated in %s", len(known.Types()), time.Since(began))
}

// A reader sees one revision or the next, also while parts are replaced.
func TestReadersNeverSeeHalfOfAChange(t *testing.T) {
	s := memory.New(time.Now)
	set := write(t, s, deployed.Set{Types: []catalog.Type{kind(t, "a.x", "0"), kind(t, "a.y", "0")}}, "w0")
	var readers sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	for range 4 {
		readers.Go(func() {
			for ctx.Err() == nil {
				got, err := deployed.Read(t.Context(), s, -1)
				if err != nil {
					continue // it changed during each attempt, and said so
				}
				if len(got.Types) != 2 || got.Types[0].Description != got.Types[1].Description {
					t.Errorf("half of a change: %+v", got)
					return
				}
			}
		})
	}
	for i := range 200 {
		text := fmt.Sprint(i + 1)
		set.Types = []catalog.Type{kind(t, "a.x", text), kind(t, "a.y", text)}
		set = write(t, s, set, "w"+text)
	}
	cancel()
	readers.Wait()
}

// failing fails reads while it is set.
type failing struct {
	deployed.Source
	err   error
	reads int
}

func (f *failing) ReadDocument(ctx context.Context, name string) ([]byte, int, error) {
	f.reads++
	if f.err != nil {
		return nil, 0, f.err
	}
	return f.Source.ReadDocument(ctx, name)
}

func TestTypesAreReadAgainAfterAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memory.New(time.Now)
		source := &failing{Source: s, err: errors.New("the table is away")}
		live := &deployed.Live{Source: source, CacheTime: deployed.CacheTime, Now: time.Now, Log: slog.New(slog.DiscardHandler)}
		if _, err := live.Current(t.Context()); err == nil {
			t.Error("there are types although none could be read")
		}
		source.err = nil
		has := func(name string, want bool) {
			t.Helper()
			known, err := live.Current(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if _, ok := known.Type(name); ok != want {
				t.Errorf("%s is known: %t", name, ok)
			}
		}
		has("order.paid", false)
		set := write(t, s, deployed.Set{Types: []catalog.Type{kind(t, "order.paid", "x")}}, "a")
		reads := source.reads
		time.Sleep(deployed.CacheTime - time.Second)
		has("order.paid", false)
		if source.reads != reads {
			t.Error("the types are read although they are young")
		}
		time.Sleep(time.Second)
		has("order.paid", true)
		// What cannot be read again stays as it was.
		set.Types = nil
		write(t, s, set, "b")
		source.err = errors.New("the table is away")
		time.Sleep(2 * deployed.CacheTime)
		has("order.paid", true)
		source.err = nil
		time.Sleep(deployed.CacheTime)
		has("order.paid", false)
	})
}

func TestRulesAreStoredAndReadWithTheTypes(t *testing.T) {
	s := memory.New(time.Now)
	orders := deployed.RuleFile{Name: "orders", Text: strings.Repeat("# a rule\n", 1000), Events: []string{"order.paid"}}
	first := write(t, s, deployed.Set{Types: []catalog.Type{kind(t, "order.paid", "Paid")}, Rules: deployed.Rules{Files: []deployed.RuleFile{orders}, WithoutShipped: true}}, "a")
	live := &deployed.Live{Source: s, Now: time.Now, Log: slog.New(slog.DiscardHandler)}
	both := func() deployed.Both {
		t.Helper()
		now, err := live.Both(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return now
	}
	before := both()
	if len(before.Rules.Files) != 1 || before.Rules.Files[0].Text != orders.Text || !before.Rules.WithoutShipped {
		t.Errorf("read %+v", before.Rules)
	}
	if file, ok := before.Rules.Publishes("order.paid"); file != "orders" || !ok {
		t.Errorf("order.paid is published by %q, %t", file, ok)
	}
	if _, ok := before.Rules.Publishes("order.shipped"); ok {
		t.Error("order.shipped is published")
	}
	if again := both(); again.Types != before.Types {
		t.Error("an unchanged set is read as a new one")
	}
	first.Rules = deployed.Rules{}
	write(t, s, first, "b")
	if after := both(); len(after.Rules.Files) != 0 || after.Rules.WithoutShipped || after.Types == before.Types {
		t.Errorf("after the removal: %+v", after.Rules)
	}
	first.Revision++
	first.Rules.Files = make([]deployed.RuleFile, deployed.MaxRuleFiles+1)
	if _, err := deployed.Write(t.Context(), s, first, "op", "c", time.Now()); err == nil {
		t.Error("too many files are stored")
	}
	half := strings.Repeat("#", deployed.MaxRuleBytes/2+1)
	first.Rules.Files = []deployed.RuleFile{{Name: "a", Text: half}, {Name: "b", Text: half}}
	if _, err := deployed.Write(t.Context(), s, first, "op", "d", time.Now()); err == nil || !strings.Contains(err.Error(), "262146 bytes together") {
		t.Errorf("files that are too large together: %v", err)
	}
}
