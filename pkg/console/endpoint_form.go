package console

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// form is an endpoint's settings as a form shows them: in the words that were
// typed, right or wrong.
type form struct {
	ID       string // empty for a new one
	Values   url.Values
	Types    []string // what can be subscribed to
	Families []string // user.*, discussion.*
	Errors   map[string]string
}

// Value is what a field holds.
func (f form) Value(field string) string { return f.Values.Get(field) }

// Has reports whether a box is ticked.
func (f form) Has(field, value string) bool { return slices.Contains(f.Values[field], value) }

// message is what is wrong with a field; Swap lets htmx put it in the place of the
// one before.
type message struct {
	Field, Text string
	Swap        bool
}

// Message is what is wrong with a field.
func (f form) Message(field string) message { return message{field, f.Errors[field], false} }

// Messages are those of all fields.
func (f form) Messages() []message {
	var out []message
	for _, field := range settingFields {
		if field != "ordered" && field != "traceparent" {
			out = append(out, message{field, f.Errors[field], true})
		}
	}
	return out
}

// Advanced reports whether something beyond the first fields is set or wrong.
func (f form) Advanced() bool {
	for _, field := range settingFields[4:] {
		if f.Values.Get(field) != "" || f.Errors[field] != "" {
			return true
		}
	}
	return false
}

func (c *Console) form(id string, values url.Values, problems []FieldError) form {
	f := form{ID: id, Values: values, Types: c.Operations.Catalog.Types(), Errors: map[string]string{}}
	for _, t := range f.Types {
		family, _, _ := strings.Cut(t, ".")
		if family += ".*"; !slices.Contains(f.Families, family) {
			f.Families = append(f.Families, family)
		}
	}
	for _, p := range problems {
		f.Errors[p.Field] = p.Message
	}
	return f
}

// settings reads a form. Its second result is what is no number where one must be.
func parseSettings(v url.Values) (Settings, []FieldError) {
	var problems []FieldError
	number := func(field string) float64 {
		text := strings.TrimSpace(v.Get(field))
		if text == "" {
			return 0
		}
		n, err := strconv.ParseFloat(text, 64)
		if err != nil {
			problems = append(problems, FieldError{field, fmt.Sprintf("%q is no number", text)})
		}
		return n
	}
	s := Settings{
		URL: v.Get("url"), Description: strings.TrimSpace(v.Get("description")), EventTypes: v["event_types"],
		RoleARN: strings.TrimSpace(v.Get("role_arn")), Credentials: strings.TrimSpace(v.Get("credentials")),
		Ordered: v.Get("ordered") != "", Traceparent: v.Get("traceparent") != "", Ed25519: v.Get("ed25519") != "",
		Timeout: number("timeout_seconds"), MaxAttempts: int(number("max_attempts")),
		MaxAge: strings.TrimSpace(v.Get("max_age")), MaxDelay: strings.TrimSpace(v.Get("max_delay")), Version: int(number("version")),
		PerMinute: int(number("rate_per_minute")), Burst: int(number("burst")),
		Breaker: BreakerSettings{
			Failures: int(number("breaker.failures")), OpenFor: strings.TrimSpace(v.Get("breaker.open_for")),
			MaxOpenFor: strings.TrimSpace(v.Get("breaker.max_open_for")), DisableAfter: strings.TrimSpace(v.Get("breaker.disable_after")),
		},
	}
	if text := strings.TrimSpace(v.Get("filter")); text != "" {
		s.Filter = json.RawMessage(text)
	}
	return s, problems
}

// values are an endpoint's settings as its form shows them first.
func (e Endpoint) values() url.Values {
	v := url.Values{
		"url": {e.URL}, "description": {e.Description}, "event_types": e.EventTypes, "filter": {""},
		"role_arn": {e.RoleARN}, "credentials": {e.Credentials}, "max_age": {e.MaxAge}, "max_delay": {e.MaxDelay},
		"breaker.open_for": {e.Breaker.OpenFor}, "breaker.max_open_for": {e.Breaker.MaxOpenFor}, "breaker.disable_after": {e.Breaker.DisableAfter},
		"version": {strconv.Itoa(e.Version)},
	}
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
	return v
}

func (c *Console) newEndpoint(w http.ResponseWriter, r *http.Request) error {
	if sessionOf(r.Context()).Role != Admin {
		return forbidden()
	}
	c.render(w, r, http.StatusOK, "form", page{Title: "Add an endpoint", Nav: "endpoints", Data: c.form("", url.Values{"event_types": {"*"}}, nil)})
	return nil
}

func (c *Console) addEndpoint(w http.ResponseWriter, r *http.Request) error {
	if err := r.ParseForm(); err != nil {
		return errorf(Invalid, "the form could not be read")
	}
	const title = "Add an endpoint"
	s, problems := parseSettings(r.PostForm)
	if problems != nil {
		return c.rerenderForm(w, r, title, "", problems, nil)
	}
	e, err := c.Operations.AddEndpoint(r.Context(), sessionOf(r.Context()), s)
	if err != nil {
		return c.rerenderForm(w, r, title, "", nil, err)
	}
	return c.endpointPage(w, r, e)
}

func (c *Console) editEndpoint(w http.ResponseWriter, r *http.Request) error {
	if sessionOf(r.Context()).Role != Admin {
		return forbidden()
	}
	e, err := c.Operations.GetEndpoint(r.Context(), sessionOf(r.Context()), r.PathValue("id"))
	if err != nil {
		return err
	}
	c.render(w, r, http.StatusOK, "form", page{Title: "Edit an endpoint", Nav: "endpoints", Data: c.form(e.ID, e.values(), nil)})
	return nil
}

func (c *Console) changeEndpoint(w http.ResponseWriter, r *http.Request) error {
	if err := r.ParseForm(); err != nil {
		return errorf(Invalid, "the form could not be read")
	}
	const title = "Edit an endpoint"
	id := r.PathValue("id")
	s, problems := parseSettings(r.PostForm)
	if problems != nil {
		return c.rerenderForm(w, r, title, id, problems, nil)
	}
	e, err := c.Operations.ChangeEndpoint(r.Context(), sessionOf(r.Context()), id, s)
	if err != nil {
		return c.rerenderForm(w, r, title, id, nil, err)
	}
	redirect(w, r, "/endpoints/"+e.ID+"?did=changed")
	return nil
}

// again shows a form that was refused, as it was filled in; it fails with errors
// that are no refusal of it.
func (c *Console) rerenderForm(w http.ResponseWriter, r *http.Request, title, id string, problems []FieldError, err error) error {
	var refused *Error
	problem := "Nothing was saved: see the marked fields."
	if err != nil {
		if !errors.As(err, &refused) || refused.Kind != Invalid && refused.Kind != Conflict {
			return err
		}
		problems = append(problems, refused.Fields...)
		if len(refused.Fields) == 0 {
			problem = "Nothing was saved: " + refused.Message
		}
	}
	c.render(w, r, http.StatusUnprocessableEntity, "form", page{Title: title, Nav: "endpoints", Problem: problem, Data: c.form(id, r.PostForm, problems)})
	return nil
}

// checkEndpoint answers a form that is being filled in with its fields' messages,
// which htmx puts where they belong.
func (c *Console) checkEndpoint(w http.ResponseWriter, r *http.Request) error {
	if err := r.ParseForm(); err != nil {
		return errorf(Invalid, "the form could not be read")
	}
	s, problems := parseSettings(r.PostForm)
	if strings.TrimSpace(s.URL) != "" {
		problems = append(problems, c.Operations.CheckSettings(r.Context(), sessionOf(r.Context()), s)...)
	}
	var out bytes.Buffer
	if err := templates()["form"].ExecuteTemplate(&out, "messages", c.form("", r.PostForm, problems)); err != nil {
		return err
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = out.WriteTo(w)
	return nil
}
