package console

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/tidings-dev/tidings/pkg/event/catalog"
	"github.com/tidings-dev/tidings/pkg/event/catalog/reference"
	"github.com/tidings-dev/tidings/pkg/ops/stats"
)

// The catalog for the developers of receivers: the types of the deployment, and with a
// session those of its tenant's own. With Console.PublicCatalog, these paths need no session.
// The schemas' paths stay the same.
const (
	CatalogPath  = "/catalog"
	AsyncAPIPath = "/catalog/asyncapi.json"
	schemaPath   = "/catalog/schemas/"
)

// maxListedTypes is how many types a page of the catalog lists.
const maxListedTypes = 200

// publishCatalog registers the catalog's pages and documents.
func (c *Console) publishCatalog(mux *http.ServeMux, show func(pattern string, f handler)) {
	show("GET "+CatalogPath, c.listTypes)
	show("GET "+CatalogPath+"/types/{name}", c.showType)
	mux.HandleFunc("GET "+AsyncAPIPath, c.document("application/json", func(r *http.Request, known *catalog.Catalog) ([]byte, error) {
		base := baseURL(r)
		text, err := reference.AsyncAPI(allVersions(known), c.Operations.retentionDays(catalog.Type{}), func(label string) string { return base + schemaPath + url.PathEscape(label) + ".json" })
		var large *reference.TooLargeError
		if errors.As(err, &large) {
			err = errorf(Invalid, "%s", large)
		}
		return text, err
	}))
	mux.HandleFunc("GET "+schemaPath+"{file}", c.document("application/schema+json", func(r *http.Request, known *catalog.Catalog) ([]byte, error) {
		label, ok := strings.CutSuffix(r.PathValue("file"), ".json")
		t, found := known.Labelled(label)
		if !ok || !found {
			return nil, errorf(NotFound, "there is no event type %q in the catalog", label)
		}
		return t.Schema, nil
	}))
}

// document returns a handler for a document that is made from the catalog.
func (c *Console) document(contentType string, text func(r *http.Request, known *catalog.Catalog) ([]byte, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		known, err := c.Operations.Endpoints.Catalog.Of(r.Context(), sessionOf(r.Context()).Tenant)
		var out []byte
		if err == nil {
			out, err = text(r, known)
		}
		if err != nil {
			c.fail(w, r, err)
			return
		}
		w.Header().Set("Content-Type", contentType)
		_, _ = w.Write(out)
	}
}

// baseURL is the console's URL as the caller knows it.
func baseURL(r *http.Request) string {
	if isLoopback(r.Host) {
		return "http://" + r.Host
	}
	return "https://" + r.Host
}

func types(known *catalog.Catalog) (list []catalog.Type) {
	for _, name := range known.Types() {
		t, _ := known.Type(name)
		list = append(list, t)
	}
	return list
}

// allVersions lists all versions of all types.
func allVersions(known *catalog.Catalog) (list []catalog.Type) {
	for _, name := range known.Types() {
		list = append(list, known.Versions(name)...)
	}
	return list
}

// typeList is the data of the catalog's first page.
type typeList struct {
	Search string
	Types  []catalog.Type
	More   int  // types that match beyond those listed
	Open   bool // types without a definition are allowed
	// Undefined are those of the last 24 hours' events, of all tenants: for operators of all
	// of them.
	Undefined []stats.Type
	Unread    bool // Undefined could not be read
}

func (c *Console) listTypes(r *http.Request, who Session) (page, error) {
	known, err := c.Operations.Endpoints.Catalog.Of(r.Context(), who.Tenant)
	if err != nil {
		return page{}, err
	}
	v := typeList{Open: known.IsOpen(), Search: strings.TrimSpace(r.URL.Query().Get("q"))}
	v.Types, v.More = matching(known, v.Search)
	if v.Open && operatesAll(who) {
		deployment, err := c.Operations.Endpoints.Catalog.Of(r.Context(), "") // the events are of other tenants, too
		if err != nil {
			return page{}, err
		}
		summary, err := c.Operations.Statistics.Summary(r.Context())
		if v.Unread = err != nil; v.Unread {
			c.Operations.shown(r.Context(), err) // logs it; the types themselves are there
		} else {
			v.Undefined = summary.Types(deployment.Allows)
		}
	}
	return page{Template: "catalog", Title: "Event types", Nav: "catalog", Data: v}, nil
}

// matching returns the types whose name or description has a text, as many as a page lists,
// and how many there are beyond them.
func matching(known *catalog.Catalog, text string) (list []catalog.Type, more int) {
	text = strings.ToLower(text)
	for _, t := range types(known) {
		switch {
		case !strings.Contains(strings.ToLower(t.Name+" "+t.Description), text):
		case len(list) == maxListedTypes:
			more++
		default:
			list = append(list, t)
		}
	}
	return list, more
}

// typePage is the data of a type's page.
type typePage struct {
	catalog.Type
	Tenant string // if it is a type of the tenant's own
	Kept   int    // days
	Fields []reference.Field
	Sample json.RawMessage // a whole body; nil without a sample
	Schema string          // path of the schema
	Others []catalog.Type  // the other versions
}

func (c *Console) showType(r *http.Request, who Session) (page, error) {
	v, err := c.typePage(r.Context(), who, r.PathValue("name"), r.URL.Query().Get("version"))
	return page{Template: "type", Title: v.Name, Nav: "catalog", Data: v}, err
}

// typePage describes a version of a type: the newest one if the version is empty.
func (c *Console) typePage(ctx context.Context, who Session, name, version string) (typePage, error) {
	known, err := c.Operations.Endpoints.Catalog.Of(ctx, who.Tenant)
	if err != nil {
		return typePage{}, err
	}
	t, ok := known.Type(name)
	if number, err := strconv.Atoi(version); ok && version != "" {
		t, ok = known.Version(name, number)
		ok = ok && err == nil
	}
	if !ok {
		return typePage{}, errorf(NotFound, "there is no event type %q in the catalog, or not in this version", name)
	}
	v := typePage{Type: t, Kept: c.Operations.retentionDays(t), Schema: schemaPath + url.PathEscape(t.Label()) + ".json"}
	if known.Adds(name) {
		v.Tenant = who.Tenant
	}
	for _, other := range known.Versions(name) {
		if other.Version != t.Version {
			v.Others = append(v.Others, other)
		}
	}
	if v.Fields, err = reference.Fields(t); err != nil {
		return v, err
	}
	v.Sample, err = reference.Sample(t)
	return v, err
}
