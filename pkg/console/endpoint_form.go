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

// form is the endpoint form: the values as entered, valid or not.
type form struct {
	ID       string // empty for a new endpoint
	Values   url.Values
	Types    []string // event types of the catalog
	Families []string // user.*, discussion.*
	Errors   map[string]string
}

// Value returns the value of a field.
func (f form) Value(field string) string { return f.Values.Get(field) }

// Has reports whether a checkbox is checked.
func (f form) Has(field, value string) bool { return slices.Contains(f.Values[field], value) }

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
		if field != "ordered" && field != "traceparent" {
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

// values returns an endpoint's settings as form values.
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
	c.render(w, r, http.StatusOK, "form", page{Title: "Add endpoint", Nav: "endpoints", Data: c.form("", url.Values{"event_types": {"*"}}, nil)})
	return nil
}

func (c *Console) addEndpoint(w http.ResponseWriter, r *http.Request) error {
	if err := r.ParseForm(); err != nil {
		return errorf(Invalid, "the form could not be parsed")
	}
	const title = "Add endpoint"
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
	c.render(w, r, http.StatusOK, "form", page{Title: "Edit endpoint", Nav: "endpoints", Data: c.form(e.ID, e.values(), nil)})
	return nil
}

func (c *Console) changeEndpoint(w http.ResponseWriter, r *http.Request) error {
	if err := r.ParseForm(); err != nil {
		return errorf(Invalid, "the form could not be parsed")
	}
	const title = "Edit endpoint"
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

// rerenderForm renders a rejected form with its messages. It returns errors that are
// not about the form's values.
func (c *Console) rerenderForm(w http.ResponseWriter, r *http.Request, title, id string, problems []FieldError, err error) error {
	var known *Error
	problem := "Not saved. Correct the marked fields."
	if err != nil {
		if !errors.As(err, &known) || known.Kind != Invalid && known.Kind != Conflict {
			return err
		}
		problems = append(problems, known.Fields...)
		if len(known.Fields) == 0 {
			problem = "Not saved: " + known.Message
		}
	}
	c.render(w, r, http.StatusUnprocessableEntity, "form", page{Title: title, Nav: "endpoints", Problem: problem, Data: c.form(id, r.PostForm, problems)})
	return nil
}

// checkEndpoint validates a form while it is being filled in. htmx shows the returned
// messages beside their fields.
func (c *Console) checkEndpoint(w http.ResponseWriter, r *http.Request) error {
	if err := r.ParseForm(); err != nil {
		return errorf(Invalid, "the form could not be parsed")
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
