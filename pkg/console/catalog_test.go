package console_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tidings-dev/tidings/pkg/console"
	"github.com/tidings-dev/tidings/pkg/event/catalog"
	"github.com/tidings-dev/tidings/pkg/ops/stats"
)

func TestTheCatalogShowsTypesFieldsAndSamples(t *testing.T) {
	w := newWorld(t)
	b := w.login(console.Viewer, "default")
	list := b.get(console.CatalogPath).Body.String()
	for _, name := range catalog.Default().Types() {
		if !strings.Contains(list, `href="/catalog/types/`+name+`"`) {
			t.Errorf("the list has no link to %s", name)
		}
		kind, _ := catalog.Default().Type(name)
		text := b.get("/catalog/types/" + name).Body.String()
		for _, part := range []string{kind.Description, "/catalog/schemas/" + name + ".json", "data." + kind.Subject, "idempotency_key"} {
			if !strings.Contains(text, part) {
				t.Errorf("the page of %s does not have %q", name, part)
			}
		}
	}
	if found := b.get(console.CatalogPath + "?q=FLAGG").Body.String(); !strings.Contains(found, "user.flagged_comment") || strings.Contains(found, "user.joined_platform") {
		t.Error("a search does not select types")
	}
	if found := b.get(console.CatalogPath + "?q=no-such").Body.String(); !strings.Contains(found, "No event type matches.") {
		t.Error("a search that finds nothing does not say so")
	}
}

// Their names are of all tenants, so only an operator sees them.
func TestTheCatalogShowsAnOperatorWhatWasSeenWithoutADefinition(t *testing.T) {
	w := newWorld(t)
	seen := stats.Batch{ID: "1", At: w.now(), UndefinedTypes: map[string]int64{"order.payd": 7}}
	if err := w.store.AddStatistics(t.Context(), seen); err != nil {
		t.Fatal(err)
	}
	const name = "<code>order.payd</code>"
	operator := w.login(console.Operator, "default")
	if page := operator.get(console.CatalogPath).Body.String(); strings.Contains(page, name) {
		t.Error("it is shown although such types are refused")
	}
	w.ops.Endpoints.Catalog = catalog.Default().Opened()
	if page := operator.get(console.CatalogPath).Body.String(); !strings.Contains(page, name) {
		t.Errorf("an operator does not see it:\n%s", page)
	}
	for _, role := range []console.Role{console.Viewer, console.Admin} {
		if page := w.login(role, "default").get(console.CatalogPath).Body.String(); strings.Contains(page, name) || !strings.Contains(page, "There can be events of other types") {
			t.Errorf("%s sees it", role)
		}
	}
}

// unreadable are statistics that cannot be read.
type unreadable struct{ console.Statistics }

func (unreadable) Summary(context.Context) (stats.Summary, error) {
	return stats.Summary{}, errors.New("the table is unavailable")
}

// What was seen without a definition is an addition: the catalog is there without it.
func TestTheCatalogIsShownWithoutStatistics(t *testing.T) {
	w := newWorld(t)
	w.ops.Endpoints.Catalog = catalog.Default().Opened()
	w.ops.Statistics = unreadable{w.ops.Statistics}
	a := w.login(console.Operator, "default").get(console.CatalogPath)
	page := a.Body.String()
	if a.Code != http.StatusOK || !strings.Contains(page, "user.joined_platform") || !strings.Contains(page, "cannot be read now") || strings.Contains(page, "the table is unavailable") {
		t.Errorf("%d %s", a.Code, page)
	}
}

// How many types more there are is said of their table, not of the one below it.
func TestTheCatalogSaysBelowItsTableThatMoreTypesMatch(t *testing.T) {
	w := newWorld(t)
	var list []catalog.Type
	for n := range 201 {
		parsed, err := catalog.Parse([]byte(strings.Replace(ownType, "order.paid", fmt.Sprintf("order.n%03d", n), 1)))
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, parsed)
	}
	known, err := catalog.New(list)
	if err != nil {
		t.Fatal(err)
	}
	w.ops.Endpoints.Catalog = known.Opened()
	seen := stats.Batch{ID: "1", At: w.now(), UndefinedTypes: map[string]int64{"parcel.lost": 7}}
	if err := w.store.AddStatistics(t.Context(), seen); err != nil {
		t.Fatal(err)
	}
	page := w.login(console.Operator, "default").get(console.CatalogPath).Body.String()
	more, other := strings.Index(page, "1 more match."), strings.Index(page, "Seen without a definition")
	if more < 0 || other < more || other < strings.Index(page, "order.n199") {
		t.Errorf("at %d and %d: %s", more, other, page)
	}
}

// The URLs of schemas are those of the definitions, byte for byte.
func TestTheCatalogServesSchemas(t *testing.T) {
	w := newWorld(t)
	b := w.login(console.Viewer, "default")
	kind, _ := catalog.Default().Type("user.joined_platform")
	a := b.get("/catalog/schemas/user.joined_platform.json")
	if a.Code != http.StatusOK || a.Body.String() != string(kind.Schema) || a.Header().Get("Content-Type") != "application/schema+json" {
		t.Errorf("%d %s %.100s", a.Code, a.Header().Get("Content-Type"), a.Body)
	}
	for _, path := range []string{"/catalog/schemas/user.joined_platform", "/catalog/schemas/no.type.json", "/catalog/schemas/..%2f.json", "/catalog/types/no.type", "/catalog/nothing"} {
		if a := b.get(path); a.Code != http.StatusNotFound {
			t.Errorf("%s answers %d", path, a.Code)
		}
	}
}

func TestTheAsyncAPIDocumentHasEveryType(t *testing.T) {
	w := newWorld(t)
	b := w.login(console.Viewer, "default")
	a := b.get(console.AsyncAPIPath)
	var document struct {
		AsyncAPI   string
		Channels   map[string]struct{ Address *string }
		Components struct {
			Messages map[string]struct {
				ExternalDocs struct{ URL string }
			}
		}
	}
	if err := json.Unmarshal(a.Body.Bytes(), &document); err != nil {
		t.Fatal(err)
	}
	names := []string{}
	for _, name := range catalog.Default().Types() {
		if _, ok := document.Channels[name]; ok {
			names = append(names, name)
		}
	}
	if diff := cmp.Diff(catalog.Default().Types(), names); diff != "" || document.AsyncAPI != "3.0.0" {
		t.Errorf("version %s, channels: %s", document.AsyncAPI, diff)
	}
	if url := document.Components.Messages["user.joined_platform"].ExternalDocs.URL; !strings.HasPrefix(url, "http") || !strings.HasSuffix(url, "/catalog/schemas/user.joined_platform.json") {
		t.Errorf("the schema is said to be at %s", url)
	}
}

// Without a session, the catalog is shown only if it is public, and nothing else is.
func TestAPublicCatalogNeedsNoSession(t *testing.T) {
	w := newWorld(t)
	stranger := &browser{w: w}
	paths := []string{console.CatalogPath, console.AsyncAPIPath, "/catalog/types/user.joined_platform", "/catalog/schemas/user.joined_platform.json"}
	for _, path := range paths {
		if a := stranger.get(path); a.Code != http.StatusSeeOther || a.Header().Get("Location") != "/login" {
			t.Errorf("%s of a private catalog answers %d", path, a.Code)
		}
	}
	w.console.PublicCatalog = true
	w.handler = w.console.Handler()
	for _, path := range paths {
		if a := stranger.get(path); a.Code != http.StatusOK {
			t.Errorf("%s of a public catalog answers %d", path, a.Code)
		}
	}
	if text := stranger.get(console.CatalogPath).Body.String(); strings.Contains(text, "/endpoints") {
		t.Error("a stranger sees the navigation")
	}
	for _, path := range []string{"/", "/endpoints", "/api/event-types", "/catalog/../endpoints", "/catalogs"} {
		if a := stranger.get(path); a.Code == http.StatusOK {
			t.Errorf("%s is public, too", path)
		}
	}
	if text := w.login(console.Viewer, "default").get(console.CatalogPath).Body.String(); !strings.Contains(text, "/endpoints") {
		t.Error("with a session, the navigation is missing")
	}
}
