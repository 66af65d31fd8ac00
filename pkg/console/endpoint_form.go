package console

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/event/catalog"
)

// form is the endpoint form: the values as entered, valid or not.
type form struct {
	ID     string // empty for a new endpoint
	Values url.Values
	Groups []typeGroup
	Others []string // subscriptions that no group offers: of types that were removed, or have no definition
	Open   bool     // types without a definition are allowed
	Errors map[string]string
}

// typeGroup is the event types of a family.
type typeGroup struct {
	Family string // user.*, discussion.*
	Types  []catalog.Type
}

// Value returns the value of a field.
func (f form) Value(field string) string { return f.Values.Get(field) }

// Has reports whether a checkbox is checked.
func (f form) Has(field, value string) bool { return slices.Contains(f.Values[field], value) }

// Formats and Methods are the choices of the form besides the default.
func (f form) Formats() []string {
	return []string{string(endpoint.FormatCloudEvents), string(endpoint.FormatCloudEventsBinary)}
}
func (f form) Methods() []string { return []string{http.MethodPut, http.MethodPatch} }

// Spans are how far a backfill may go back.
func (f form) Spans() []string { return []string{"24h", "7d", "14d", "30d"} }

// message is the error message of a field. With Swap, htmx replaces the previous
// message (out-of-band swap).
type message struct {
	Field, Text string
	Swap        bool
}

// Message returns the message of a field.
func (f form) Message(field string) message { return message{field, f.Errors[field], false} }

// Messages returns the messages of all fields.
func (f form) Messages() []message {
	var out []message
	for _, field := range settingFields {
		if field != "ordered" && field != "traceparent" && field != "old_names" && field != "thin" {
			out = append(out, message{field, f.Errors[field], true})
		}
	}
	return out
}

// Advanced reports whether an advanced setting is set or invalid.
func (f form) Advanced() bool {
	for _, field := range settingFields[4:] {
		if f.Values.Get(field) != "" || f.Errors[field] != "" {
			return true
		}
	}
	return false
}

func (c *Console) form(ctx context.Context, who Session, id string, values url.Values, problems []FieldError) (form, error) {
	known, err := c.Operations.Endpoints.Catalog.Of(ctx, who.Tenant)
	if err != nil {
		return form{}, err
	}
	f := form{ID: id, Values: values, Open: known.IsOpen(), Errors: map[string]string{}}
	offered := map[string]bool{"*": true}
	for _, t := range types(known) { // sorted by name
		family, _, _ := strings.Cut(t.Name, ".")
		if family += ".*"; len(f.Groups) == 0 || f.Groups[len(f.Groups)-1].Family != family {
			f.Groups = append(f.Groups, typeGroup{Family: family})
		}
		group := &f.Groups[len(f.Groups)-1]
		group.Types = append(group.Types, t)
		offered[family], offered[t.Name] = true, true
	}
	for _, name := range values["event_types"] {
		if !offered[name] {
			f.Others = append(f.Others, name)
		}
	}
	for _, p := range problems {
		f.Errors[p.Field] = p.Message
	}
	return f, nil
}

// parseSettings reads a submitted form. It returns an error for each field that must
// be a number and is not.
func parseSettings(v url.Values) (Settings, []FieldError) {
	var problems []FieldError
	number := func(field string) float64 {
		text := strings.TrimSpace(v.Get(field))
		if text == "" {
			return 0
		}
		n, err := strconv.ParseFloat(text, 64)
		if err != nil {
			problems = append(problems, FieldError{field, fmt.Sprintf("%q is not a number", text)})
		}
		return n
	}
	text := func(field string) string { return strings.TrimSpace(v.Get(field)) }
	words := func(field string) (list []string) {
		for word := range strings.FieldsFuncSeq(v.Get(field), func(r rune) bool { return r == ',' || unicode.IsSpace(r) }) {
			list = append(list, word)
		}
		return list
	}
	pinned, err := parseVersions(text("type_versions"))
	if err != nil {
		problems = append(problems, FieldError{"type_versions", err.Error()})
	}
	s := Settings{
		Options: Options{TypeVersions: pinned,
			URL: v.Get("url"), Description: text("description"), RoleARN: text("role_arn"), Credentials: text("credentials"),
			Filter: json.RawMessage(text("filter")), Ordered: v.Get("ordered") != "", Traceparent: v.Get("traceparent") != "", OldNames: v.Get("old_names") != "",
			ShapeSettings: ShapeSettings{
				Format: endpoint.Format(text("format")), Thin: v.Get("thin") != "", Method: text("method"), ContentType: text("content_type"),
				Include: words("include_fields"), Exclude: words("exclude_fields"),
			},
			MaxAttempts: int(number("max_attempts")), MaxAge: text("max_age"), MaxDelay: text("max_delay"),
			PerMinute: int(number("rate_per_minute")), Burst: int(number("burst")),
			Breaker: BreakerSettings{
				int(number("breaker.failures")), text("breaker.failing_for"), text("breaker.open_for"), text("breaker.max_open_for"), text("breaker.disable_after"),
			},
		},
		Auth:       parseAuth(v),
		EventTypes: append(append([]string{}, v["event_types"]...), words("other_types")...), Timeout: number("timeout_seconds"), Ed25519: v.Get("ed25519") != "", Version: int(number("version")),
	}
	return s, problems
}

// parseVersions reads versions of event types, such as "order.paid=1 order.sent=2".
func parseVersions(text string) (map[string]int, error) {
	var pinned map[string]int
	for one := range strings.FieldsFuncSeq(text, func(r rune) bool { return r == ',' || unicode.IsSpace(r) }) {
		name, number, _ := strings.Cut(one, "=")
		version, err := strconv.Atoi(number)
		if err != nil || version < 1 {
			return nil, fmt.Errorf("%q is not a type and its version, such as order.paid=1", one)
		}
		if pinned == nil {
			pinned = map[string]int{}
		}
		pinned[name] = version
	}
	return pinned, nil
}

// Pinned formats the versions of event types as the form has them.
func (o Options) Pinned() string {
	var list []string
	for _, name := range slices.Sorted(maps.Keys(o.TypeVersions)) {
		list = append(list, fmt.Sprintf("%s=%d", name, o.TypeVersions[name]))
	}
	return strings.Join(list, " ")
}

// values returns an endpoint's settings as form values.
func (e Endpoint) values() url.Values {
	v := url.Values{
		"url": {e.URL}, "description": {e.Description}, "event_types": e.EventTypes, "filter": {""},
		"type_versions": {e.Pinned()},
		"role_arn":      {e.RoleARN}, "credentials": {e.Credentials}, "max_age": {e.MaxAge}, "max_delay": {e.MaxDelay},
		"breaker.failing_for": {e.Breaker.FailingFor}, "breaker.open_for": {e.Breaker.OpenFor}, "breaker.max_open_for": {e.Breaker.MaxOpenFor}, "breaker.disable_after": {e.Breaker.DisableAfter},
		"version": {strconv.Itoa(e.Version)},
		"format":  {string(e.Format)}, "method": {e.Method}, "content_type": {e.ContentType},
		"include_fields": {strings.Join(e.Include, " ")}, "exclude_fields": {strings.Join(e.Exclude, " ")},
	}
	maps.Copy(v, authValues(e.Auth))
	if len(e.Filter) > 0 {
		v.Set("filter", pretty(e.Filter))
	}
	if e.Timeout != 10 {
		v.Set("timeout_seconds", strconv.FormatFloat(e.Timeout, 'f', -1, 64))
	}
	for field, n := range map[string]int{"max_attempts": e.MaxAttempts, "rate_per_minute": e.PerMinute, "burst": e.Burst, "breaker.failures": e.Breaker.Failures} {
		if n > 0 {
			v.Set(field, strconv.Itoa(n))
		}
	}
	if e.Ordered {
		v.Set("ordered", "yes")
	}
	if e.Traceparent {
		v.Set("traceparent", "yes")
	}
	if e.Thin {
		v.Set("thin", "yes")
	}
	if e.OldNames {
		v.Set("old_names", "yes")
	}
	return v
}

func (c *Console) formPage(r *http.Request, id string, values url.Values, problems []FieldError) (page, error) {
	title := "Add endpoint"
	if id != "" {
		title = "Edit endpoint"
	}
	f, err := c.form(r.Context(), sessionOf(r.Context()), id, values, problems)
	return page{Template: "form", Title: title, Nav: "endpoints", Data: f}, err
}

func (c *Console) newEndpoint(r *http.Request, who Session) (page, error) {
	if !who.Role.changes() {
		return page{}, forbidden()
	}
	return c.formPage(r, "", url.Values{"event_types": {"*"}}, nil)
}

func (c *Console) editEndpoint(r *http.Request, who Session) (page, error) {
	if !who.Role.changes() {
		return page{}, forbidden()
	}
	e, err := c.Operations.GetEndpoint(r.Context(), who, r.PathValue("id"))
	if err != nil {
		return page{}, err
	}
	return c.formPage(r, e.ID, e.values(), nil)
}

// saveEndpoint adds the endpoint, or changes it if the path has an id. If the
// settings are rejected, it renders the form with its messages.
func (c *Console) saveEndpoint(r *http.Request, who Session) (page, error) {
	id := r.PathValue("id")
	s, problems := parseSettings(r.PostForm)
	var added WithSecret
	var err error
	switch {
	case problems != nil:
		err = &Error{Kind: Invalid, Fields: problems}
	case r.PostForm.Get("count") != "":
		var b Backfill
		if b, err = c.Operations.EstimateBackfill(r.Context(), who, NewEndpoint{s, r.PostForm.Get("backfill")}); err == nil {
			shown, again := withoutSecrets(r.PostForm, nil)
			p, err := c.formPage(r, id, shown, again)
			p.Notice = "Nothing was added. " + b.Text() + "."
			return p, err
		}
	case id == "":
		added, err = c.Operations.AddEndpoint(r.Context(), who, NewEndpoint{s, r.PostForm.Get("backfill")})
	default:
		_, err = c.Operations.ChangeEndpoint(r.Context(), who, id, s)
	}
	var known *Error
	switch {
	case errors.As(err, &known) && (known.Kind == Invalid || known.Kind == Conflict):
		var stored url.Values
		if id != "" {
			if e, err := c.Operations.GetEndpoint(r.Context(), who, id); err == nil {
				stored = authValues(e.Auth)
			}
		}
		shown, again := withoutSecrets(r.PostForm, stored)
		p, err := c.formPage(r, id, shown, append(again, known.Fields...))
		p.Status, p.Problem = http.StatusUnprocessableEntity, "Not saved. Correct the marked fields."
		if slices.ContainsFunc(known.Fields, func(f FieldError) bool { return f.Field == "backfill" }) {
			p.Problem = "Not saved: " + known.Message + "."
		}
		if len(known.Fields) == 0 {
			p.Problem = "Not saved: " + known.Message
		}
		return p, err
	case id == "":
		return c.endpointPage(r, who, added, err)
	}
	return page{Redirect: "/endpoints/" + url.PathEscape(id) + "?did=changed"}, err
}

// checkEndpoint validates a form while it is being filled in. htmx shows the returned
// messages beside their fields.
func (c *Console) checkEndpoint(r *http.Request, who Session) (page, error) {
	s, problems := parseSettings(r.PostForm)
	if strings.TrimSpace(s.URL) != "" {
		problems = append(problems, c.Operations.CheckSettings(r.Context(), who, s)...)
	}
	p, err := c.formPage(r, "", r.PostForm, problems)
	p.Block = "messages"
	return p, err
}
