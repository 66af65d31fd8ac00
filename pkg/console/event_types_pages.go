package console

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"mime/multipart"
	"net/http"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/event/catalog"
	"github.com/tidings-dev/tidings/pkg/event/deployed"
)

// typesPage is the data of the page on which event types are changed.
type typesPage struct {
	Tenant string // whose own types are changed; empty for those of the deployment
	Set    deployed.Set
	Search string
	Types  []catalog.Type // that match, in their newest version
	More   int            // that match beyond those listed
	Off    []string       // shipped types that are switched off
	One    *oneType       // that is shown
	Text   string         // in the form
	// Change and Plan are a change that was checked, or refused. Problems are why one is wrong.
	Change   typesForm
	Plan     *EventTypesPlan
	Problems []FieldError
	Unread   bool // the stored types could not be read: they are not shown

	known *catalog.Catalog
}

// Versions are the versions of a type.
func (p typesPage) Versions(name string) []TypeVersion { return typeVersions(p.known, name) }

// oneType is the version of a type that is shown.
type oneType struct {
	catalog.Type
	Several bool // versions
	Today   string
}

// Last reports whether it is the newest or the oldest version: only those can be removed.
func (p typesPage) Last() bool {
	list := p.known.Versions(p.One.Name)
	return p.One.Version == list[0].Version || p.One.Version == list[len(list)-1].Version
}

// typesForm are the fields of a change.
type typesForm struct {
	Tenant  string // whose own types change; empty for those of the deployment
	What    string // define, deprecate, undo, remove or restore
	Text    string // the definitions, for define
	Type    string // for the others
	Version int    // 0: all, or the newest
	Since   string
	Instead string
}

// Label says what a button does that makes the change.
func (f typesForm) Label() string {
	switch f.What {
	case "remove":
		return "Remove"
	case "restore":
		return "Switch on"
	case "deprecate":
		return "Deprecate"
	case "undo":
		return "Take the mark away"
	}
	return "Apply"
}

// showTypes shows the list, and the definition that the parameters name in the form.
func (c *Console) showTypes(r *http.Request, who Session) (page, error) {
	q := r.URL.Query()
	data, err := c.typesPage(r.Context(), who, q.Get("tenant"), q.Get("q"))
	if err != nil {
		return page{}, err
	}
	version, _ := strconv.Atoi(q.Get("version"))
	if name := q.Get("type"); name != "" {
		if !data.show(c, name, version) {
			return page{}, errorf(NotFound, "there is no event type %q, or not in this version", name)
		}
		data.Text = string(data.One.Schema)
	}
	return page{Template: "types", Title: "Change event types", Nav: "catalog", Data: data}, nil
}

// typesPage returns the page without a change.
func (c *Console) typesPage(ctx context.Context, who Session, tenant, search string) (typesPage, error) {
	p := typesPage{Tenant: strings.TrimSpace(tenant), Search: strings.TrimSpace(search)}
	if err := operatesTypes(who); err != nil {
		return p, err
	}
	set, err := deployed.Read(ctx, c.Operations.Types.Store, -1) // not those of a minute ago
	if err == nil && p.Tenant != "" {
		p.known, err = c.ownTypes(ctx, set, p.Tenant)
	} else if err == nil {
		p.known, err = set.Catalog()
		p.Off = set.Without
	}
	if err != nil {
		return p, err
	}
	p.Set = set
	p.Types, p.More = matching(p.known, p.Search)
	return p, nil
}

// ownTypes returns the types of a tenant's own, without those of the deployment.
func (c *Console) ownTypes(ctx context.Context, set deployed.Set, tenant string) (*catalog.Catalog, error) {
	if err := event.CheckTenant(tenant); err != nil {
		return nil, errorf(Invalid, "tenant: %s", err)
	}
	list, err := deployed.ReadTenant(ctx, c.Operations.Types.Store, set, tenant)
	if err != nil {
		return nil, explainTypes(err, nil)
	}
	own, err := catalog.New(list)
	if err != nil {
		return nil, err
	}
	none, err := catalog.New(nil)
	return catalog.Over(none, own), err
}

// show shows a version of a type, or the newest one if it is 0.
func (p *typesPage) show(c *Console, name string, version int) bool {
	t, ok := p.known.Type(name)
	if ok && version > 0 {
		t, ok = p.known.Version(name, version)
	}
	if ok {
		p.One = &oneType{Type: t, Several: len(p.known.Versions(name)) > 1, Today: c.Operations.Now().UTC().Format("2006-01-02")}
	}
	return ok
}

// changeTypes handles the forms. Each change is checked first, and shown with what it would
// do; then it is applied, if nothing was changed since.
func (c *Console) changeTypes(r *http.Request, who Session) (page, error) {
	ctx, form := r.Context(), r.PostForm
	if err := operatesTypes(who); err != nil {
		return page{}, err
	}
	if form.Get("what") == "undefined" {
		_, err := c.Operations.SetUndefinedTypes(ctx, who, UndefinedTypes{Allowed: form.Get("allowed") == "true"})
		return page{Redirect: "/event-types?did=typed"}, err
	}
	version, _ := strconv.Atoi(form.Get("version"))
	f := typesForm{
		Tenant: strings.TrimSpace(form.Get("tenant")),
		What:   form.Get("what"), Type: form.Get("type"), Version: version, Since: strings.TrimSpace(form.Get("since")), Instead: strings.TrimSpace(form.Get("instead")),
		Text: strings.ReplaceAll(form.Get("text"), "\r\n", "\n"),
	}
	var files []*multipart.FileHeader
	if r.MultipartForm != nil {
		files = r.MultipartForm.File["files"]
	}
	uploaded, err := readFiles(files)
	if err != nil {
		return c.typesAgain(ctx, who, f, EventTypesPlan{}, err)
	}
	if f.Text == "" {
		uploaded = strings.TrimPrefix(uploaded, "\n")
	}
	f.Text += uploaded

	change, begin, err := f.change()
	var plan EventTypesPlan
	apply := form.Get("do") == "apply"
	if err == nil {
		change.Tenant, change.DryRun, change.Force = f.Tenant, !apply, form.Get("force") != ""
		if revision, err := strconv.Atoi(form.Get("revision")); err == nil {
			change.Revision = &revision
		}
		plan, err = c.Operations.changeTypes(ctx, who, change, begin)
	}
	if err == nil && apply {
		return page{Redirect: "/event-types" + query("did", "typed", "tenant", f.Tenant, "type", shownAfter(f, plan))}, nil
	}
	return c.typesAgain(ctx, who, f, plan, err)
}

// typesAgain shows the page again after a check or an error, with what was written. It does so
// also if the stored types cannot be read: what was written may exist nowhere else.
func (c *Console) typesAgain(ctx context.Context, who Session, f typesForm, plan EventTypesPlan, failed error) (page, error) {
	p := page{Template: "types", Title: "Change event types", Nav: "catalog"}
	var wrong *Error
	data, err := c.typesPage(ctx, who, f.Tenant, "")
	if data.Unread = err != nil; failed == nil {
		failed = err
	}
	if failed != nil && !errors.As(failed, &wrong) {
		p.Status, p.Problem = http.StatusInternalServerError, c.Operations.shown(ctx, failed)
	}
	data.Change, data.Text = f, f.Text
	if f.What != "define" && !data.Unread && data.show(c, f.Type, f.Version) {
		data.Text = string(data.One.Schema)
	}
	if wrong != nil {
		p.Status, p.Problem = int(wrong.Kind), wrong.Message
		if len(wrong.Fields) > 1 {
			data.Problems = wrong.Fields
		}
	}
	if failed == nil || wrong != nil && len(wrong.Refused) > 0 {
		data.Plan = &plan
	}
	p.Data = data
	return p, nil
}

// shownAfter returns the type that the page shows after a change; "" for none.
func shownAfter(f typesForm, plan EventTypesPlan) string {
	switch {
	case f.What == "remove":
		return ""
	case len(plan.Types) == 1:
		return plan.Types[0].Type
	}
	return f.Type
}

// change returns the change that a form asks for, and for definitions, where in the text they
// begin.
func (f typesForm) change() (c EventTypesChange, begin []place, err error) {
	switch f.What {
	case "define":
		c.Types, begin, err = splitDefinitions(f.Text)
	case "deprecate":
		c.Deprecate = []TypeMark{{Type: f.Type, Version: f.Version, Since: f.Since, Instead: f.Instead}}
	case "undo":
		c.Deprecate = []TypeMark{{Type: f.Type, Version: f.Version, Undo: true}}
	case "remove":
		c.Remove = []TypeRemoval{{Type: f.Type, Version: f.Version}}
	case "restore":
		t, ok := catalog.Default().Type(f.Type)
		if !ok {
			return c, nil, errorf(NotFound, "%q does not come with Tidings", f.Type)
		}
		c.Types = []json.RawMessage{t.Schema}
	default:
		err = errorf(Invalid, "the form does not say what to change")
	}
	return c, begin, err
}

// readFiles returns the texts of uploaded files, one after the other.
func readFiles(files []*multipart.FileHeader) (string, error) {
	var out strings.Builder
	for _, h := range files {
		f, err := h.Open()
		if err != nil {
			return "", errorf(Invalid, "the file %s could not be read", h.Filename)
		}
		text, err := io.ReadAll(f)
		_ = f.Close() // it was only read
		if err != nil {
			return "", errorf(Invalid, "the file %s could not be read", h.Filename)
		}
		out.WriteString("\n")
		out.WriteString(strings.ReplaceAll(strings.TrimSpace(string(text)), "\r\n", "\n"))
	}
	return out.String(), nil
}

// splitDefinitions returns the definitions of a text: JSON objects one after the other, or in
// lists. begin is where each begins.
func splitDefinitions(text string) (list []json.RawMessage, begin []place, err error) {
	in := jsontext.NewDecoder(strings.NewReader(text))
	for {
		switch in.PeekKind() {
		case '[', ']':
			_, err = in.ReadToken()
		default:
			var value jsontext.Value
			if value, err = in.ReadValue(); err == nil {
				at := placeOf(text, int(in.InputOffset())-len(value))
				list, begin = append(list, json.RawMessage(bytes.Clone(value))), append(begin, at)
			}
		}
		if errors.Is(err, io.EOF) && in.StackDepth() == 0 {
			break
		}
		if err != nil {
			return nil, nil, notJSON(text, err)
		}
	}
	if len(list) == 0 {
		return nil, nil, errorf(Invalid, "there is no definition: paste one, or choose a file")
	}
	return list, begin, nil
}

// notJSON says where a text is not JSON.
func notJSON(text string, err error) error {
	at, message := len(text), "it ends within a definition"
	var syntax *jsontext.SyntacticError
	if errors.As(err, &syntax) && !errors.Is(err, io.ErrUnexpectedEOF) {
		at, message = int(syntax.ByteOffset), syntax.Err.Error()
	}
	where := placeOf(text, at)
	return errorf(Invalid, "line %d, column %d: this is not JSON: %s", where.line+1, where.column+1, message)
}

// placeOf returns the place of an offset in a text.
func placeOf(text string, offset int) place {
	before := text[:min(max(offset, 0), len(text))]
	return place{strings.Count(before, "\n"), len(before) - (strings.LastIndexByte(before, '\n') + 1)}
}
