package catalog_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/tidings-dev/tidings/pkg/event/catalog"
)

func define(t *testing.T, name string, version int, replaces string) catalog.Type {
	t.Helper()
	more := ""
	if version > 1 {
		more += fmt.Sprintf(`"x-version":%d,"x-downgrade":{},`, version)
	}
	if replaces != "" {
		more += fmt.Sprintf(`"x-replaces":%q,`, replaces)
	}
	parsed, err := catalog.Parse(fmt.Appendf(nil, `{"title":%q,%s"description":"x","x-subject":"id","type":"object","properties":{"id":{"type":"string"}},"examples":[{"id":"o_1"}]}`, name, more))
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

func of(t *testing.T, list ...catalog.Type) *catalog.Catalog {
	t.Helper()
	c, err := catalog.New(list)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// A catalog over another answers every question as one that has the types of both.
func TestATenantsCatalogHasTheTypesOfBoth(t *testing.T) {
	base := []catalog.Type{define(t, "order.paid", 1, ""), define(t, "order.paid", 2, ""), define(t, "order.sent", 1, "order.posted")}
	own := []catalog.Type{define(t, "acme.opened", 1, "acme.begun"), define(t, "acme.closed", 1, ""), define(t, "acme.closed", 2, "")}
	for _, open := range []bool{false, true} {
		below, both := of(t, base...), of(t, append(slices.Clone(base), own...)...)
		if open {
			below, both = below.Opened(), both.Opened()
		}
		over := catalog.Over(below, of(t, own...))
		ask := func(c *catalog.Catalog, name string) string {
			newest, ok := c.Type(name)
			second, has := c.Version(name, 2)
			labelled, is := c.Labelled(name)
			renamed, was := c.Renamed(name)
			stored, unknown, err := c.Stored([]string{name})
			return fmt.Sprint(newest.Label(), ok, second.Label(), has, labelled.Label(), is, renamed, was, stored, unknown, err, len(c.Versions(name)), c.OldName(name), c.Allows(name), c.Gone(name), c.Unknown(name), c.Subject(name, []byte(`{"id":"7"}`)))
		}
		for _, name := range []string{"order.paid", "order.paid.v2", "order.sent", "order.posted", "acme.opened", "acme.begun", "acme.closed", "acme.closed.v2", "acme.lost", "x", "tidings.x"} {
			if got, want := ask(over, name), ask(both, name); got != want {
				t.Errorf("of %s, open %t:\n%s, want\n%s", name, open, got, want)
			}
		}
		if !slices.Equal(over.Types(), both.Types()) || over.Summary() != both.Summary() || over.IsOpen() != open {
			t.Errorf("%v, %s", over.Types(), over.Summary())
		}
		if got := over.Own(); len(got) != 3 || got[1].Label() != "acme.closed.v2" {
			t.Errorf("it has %d of its own", len(got))
		}
		for _, name := range below.Types() {
			if strings.HasPrefix(name, "acme.") {
				t.Errorf("%s is in the catalog below", name)
			}
		}
	}
}

// If a release ships a type that a tenant has already, the tenant keeps its own.
func TestATenantKeepsItsTypeBesideAShippedOneOfItsName(t *testing.T) {
	base := of(t, define(t, "a.b", 1, ""), define(t, "order.paid", 1, "order.old"), define(t, "order.paid", 2, ""), define(t, "z.z", 1, ""))
	mine := define(t, "order.paid", 1, "")
	over := catalog.Over(base, of(t, mine))
	got, ok := over.Type("order.paid")
	if !ok || string(got.Schema) != string(mine.Schema) || len(over.Versions("order.paid")) != 1 || !slices.Equal(over.Types(), []string{"a.b", "order.paid", "z.z"}) {
		t.Errorf("%s, %d versions, %v", got.Schema, len(over.Versions("order.paid")), over.Types())
	}
	if !over.Adds("order.paid") || over.Adds("a.b") || base.Adds("a.b") {
		t.Error("it is not said whose the types are")
	}
}

// A collision is found from both sides, and exactly if one catalog could not have both types,
// or if one is the name, old name or version of the other.
func TestTypesThatWouldBeTakenForEachOtherCollide(t *testing.T) {
	for name, c := range map[string]struct {
		a, b catalog.Type
		want string
	}{
		"others":             {define(t, "a.b", 1, ""), define(t, "a.c", 1, ""), ""},
		"one name":           {define(t, "a.b", 1, ""), define(t, "a.b", 1, ""), "is an event type of the deployment"},
		"another version":    {define(t, "a.b", 1, ""), define(t, "a.b", 2, ""), "is an event type of the deployment"},
		"a version's name":   {define(t, "a.b.v2", 1, ""), define(t, "a.b", 2, ""), "is the name of "},
		"no such version":    {define(t, "a.b.v3", 1, ""), define(t, "a.b", 1, ""), ""},
		"an old name":        {define(t, "a.b", 1, "a.old"), define(t, "a.old", 1, ""), "old"},
		"one old name":       {define(t, "a.b", 1, "a.old"), define(t, "a.c", 1, "a.old"), "replaces a.old (x-replaces), which is the old name of a."},
		"different old ones": {define(t, "a.b", 1, "a.x"), define(t, "a.c", 1, "a.y"), ""},
	} {
		for _, pair := range [][2]catalog.Type{{c.a, c.b}, {c.b, c.a}} {
			got := of(t, fill(t, pair[0])...).Collision(pair[1])
			if (got == "") != (c.want == "") || name != "an old name" && !strings.Contains(got, c.want) {
				t.Errorf("%s: %s beside %s %s, want %q", name, pair[1].Label(), pair[0].Label(), got, c.want)
			}
		}
	}
}

// fill returns the versions up to that of a type.
func fill(t *testing.T, last catalog.Type) (list []catalog.Type) {
	t.Helper()
	for version := 1; version < last.Version; version++ {
		list = append(list, define(t, last.Name, version, ""))
	}
	return append(list, last)
}
