package catalog

import (
	"bytes"
	"errors"
	"io"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// deprecationKeyword is the keyword of a deprecated type's definition.
const deprecationKeyword = "x-deprecated"

// Deprecation says that a type is still emitted and delivered, and should no longer be
// subscribed to.
type Deprecation struct {
	Since   string `json:"since"`             // a date, YYYY-MM-DD
	Instead string `json:"instead,omitempty"` // the type to use instead; empty if there is none
}

// String returns the deprecation as one clause.
func (d *Deprecation) String() string {
	if d.Instead == "" {
		return "Deprecated since " + d.Since
	}
	return "Deprecated since " + d.Since + ": use " + d.Instead
}

// checkDeprecation checks the keyword of a definition, strictly.
func (d *definition) checkDeprecation() error {
	if !d.names[deprecationKeyword] {
		return nil
	}
	var form struct {
		Name       string         `json:"title"`
		Deprecated jsontext.Value `json:"x-deprecated"`
	}
	var is *Deprecation
	at := jsontext.Pointer("").AppendToken(deprecationKeyword)
	err := json.Unmarshal(d.text, &form)
	if err == nil {
		err = json.Unmarshal(form.Deprecated, &is, json.RejectUnknownMembers(true))
	}
	if err != nil || is == nil {
		return d.errorAt(at, "%s must be an object with since, a date, and, if there is one, instead, the name of a type", deprecationKeyword)
	}
	if _, err := time.Parse(time.DateOnly, is.Since); err != nil {
		return d.errorAt(at, "%s: since %q is not a date such as 2026-11-30", deprecationKeyword, clip(is.Since))
	}
	if is.Instead != "" && (!nameForm.MatchString(is.Instead) || is.Instead == form.Name) {
		return d.errorAt(at, "%s: instead %q is not the name of another event type", deprecationKeyword, clip(is.Instead))
	}
	return nil
}

// Deprecate returns the definition of a type with a deprecation, or without one if d is
// nil. The rest of it stays as it is, except for white space.
func Deprecate(definition []byte, d *Deprecation) ([]byte, error) {
	in := jsontext.NewDecoder(bytes.NewReader(definition))
	var out bytes.Buffer
	to := jsontext.NewEncoder(&out, jsontext.WithIndent("  "))
	if token, err := in.ReadToken(); err != nil || token.Kind() != '{' {
		return nil, errors.Join(errors.New("the definition is not a JSON object"), err)
	}
	if err := to.WriteToken(jsontext.BeginObject); err != nil {
		return nil, err
	}
	write := func() error {
		text, err := json.Marshal(d)
		return errors.Join(err, to.WriteToken(jsontext.String(deprecationKeyword)), to.WriteValue(text))
	}
	written := d == nil
	for in.PeekKind() == '"' {
		name, err := in.ReadToken()
		if err != nil {
			return nil, err
		}
		key := name.String() // the token is of use until the next read
		value, err := in.ReadValue()
		if err != nil {
			return nil, err
		}
		if key == deprecationKeyword {
			continue
		}
		if err := errors.Join(to.WriteToken(jsontext.String(key)), to.WriteValue(value)); err != nil {
			return nil, err
		}
		if !written && key == "description" {
			if err := write(); err != nil {
				return nil, err
			}
			written = true
		}
	}
	if !written {
		if err := write(); err != nil {
			return nil, err
		}
	}
	if _, err := in.ReadToken(); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if err := to.WriteToken(jsontext.EndObject); err != nil {
		return nil, err
	}
	return bytes.TrimSpace(out.Bytes()), nil
}
