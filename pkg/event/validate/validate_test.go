package validate_test

import (
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/tidings-dev/tidings/pkg/event/catalog"
	"github.com/tidings-dev/tidings/pkg/event/validate"
)

// Each schema is tested with its own samples: unchanged, without each field, with each
// field of a wrong type, and with one additional field.
func TestEachSchemaAcceptsItsSamplesAndRefusesChangedOnes(t *testing.T) {
	c := validate.Default()
	for _, name := range c.Types() {
		t.Run(name, func(t *testing.T) {
			kind, _ := c.Type(name)
			if len(kind.Samples) == 0 || kind.Description == "" || kind.CapturedFrom == "" {
				t.Fatal("the type lacks a sample, a description or x-captured-from")
			}
			var schema struct {
				Required   []string                                `json:"required"`
				Properties map[string]struct{ Description string } `json:"properties"`
			}
			if err := json.Unmarshal(kind.Schema, &schema); err != nil {
				t.Fatal(err)
			}
			for _, sample := range kind.Samples {
				if err := c.Validate(name, sample); err != nil {
					t.Errorf("a sample is refused: %v", err)
				}
				if c.Subject(name, sample) == "" {
					t.Errorf("a sample has no subject (%s)", kind.Subject)
				}
				var fields map[string]any
				if err := json.Unmarshal(sample, &fields); err != nil {
					t.Fatal(err)
				}
				for field, about := range schema.Properties {
					if about.Description == "" && field != "status" {
						t.Errorf("field %s has no description", field)
					}
					without := maps.Clone(fields)
					delete(without, field)
					refuses(t, c, name, without, "data."+field, slices.Contains(schema.Required, field))
					wrong := maps.Clone(fields)
					wrong[field] = []any{7}
					refuses(t, c, name, wrong, "data."+field, true)
					wrong[field] = nil
					refuses(t, c, name, wrong, "data."+field, true)
				}
				additional := maps.Clone(fields)
				additional["surprise"] = true
				refuses(t, c, name, additional, "data.surprise", true)
			}
		})
	}
}

func refuses(t *testing.T, c *validate.Catalog, name string, fields map[string]any, field string, want bool) {
	t.Helper()
	data, err := json.Marshal(fields)
	if err != nil {
		t.Fatal(err)
	}
	err = c.Validate(name, data)
	if (err != nil) != want {
		t.Errorf("Validate(%s) = %v, want an error: %v", data, err, want)
	}
	var invalid *validate.InvalidDataError
	if err != nil && (!errors.As(err, &invalid) || invalid.Problems[0].Field != field) {
		t.Errorf("Validate(%s) = %v, want it to name %s", data, err, field)
	}
}

func TestErrorsNameEachWrongField(t *testing.T) {
	c := validate.Default()
	for name, want := range map[string]struct{ data, says string }{
		"empty":                           {``, "data: is missing"},
		"invalid JSON":                    {`{"a":`, "data: is not JSON"},
		"two values":                      {`{} {}`, "data: is not JSON"},
		"a list":                          {`[]`, "data: must be object, not array"},
		"null":                            {`null`, "data: must be object, not null"},
		"a value outside the enumeration": {`{"event_id":"e","registration_id":"r","status":"paid"}`, "data.status: must be one of success, failed, pending"},
		"a duplicate key":                 {`{"event_id":"e","event_id":"f","registration_id":"r","status":"success"}`, "data.event_id: is a duplicate key"},
		"a duplicate key, escaped":        {`{"event_id":"e","\u0065vent_id":"f","registration_id":"r","status":"success"}`, "data.event_id: is a duplicate key"},
		"an empty string":                 {`{"event_id":"","registration_id":"r","status":"success"}`, "data.event_id: has 0 characters"},
		"two problems":                    {`{"status":"success"}`, "data.event_id: is missing; data.registration_id: is missing"},
	} {
		err := c.Validate("user.registered_event", json.RawMessage(want.data))
		if err == nil || !strings.Contains(err.Error(), want.says) {
			t.Errorf("%s: %v, want it to say %q", name, err, want.says)
		}
	}
	err := c.Validate("discussion.extended", json.RawMessage(`{"discussion_id":"d","new_expires_at":"next week, my-private-plan"}`))
	if err == nil || !strings.Contains(err.Error(), "data.new_expires_at: must be a valid date-time") || strings.Contains(err.Error(), "private") {
		t.Errorf("an invalid date: %v", err)
	}
	var unknown *validate.UnknownTypeError
	if err := c.Validate("user.exploded", json.RawMessage(`{}`)); !errors.As(err, &unknown) || len(unknown.Known) != 9 {
		t.Errorf("an unknown type: %v", err)
	}
}

func BenchmarkValidate(b *testing.B) {
	c := validate.Default()
	kind, _ := c.Type("user.registered_event")
	for b.Loop() {
		if err := c.Validate(kind.Name, kind.Samples[0]); err != nil {
			b.Fatal(err)
		}
	}
}

// Strict parsers would refuse the whole event. The error names the field.
func TestWhatStrictParsersRefuseIsRefused(t *testing.T) {
	const form = `{"event_id":"e","registration_id":"r","status":"success","event_name":"NAME","price":PRICE}`
	for _, c := range []struct{ name, price, field string }{
		{`x`, `1e308`, ""}, {`x`, `-0.0`, ""}, {`x`, `123456789012345678901234567890`, ""}, {`x`, `1e-999`, ""},
		{`x`, `1e309`, "data.price"}, {`x`, `-1e999`, "data.price"}, {`x`, `1e9999999999999999999`, "data.price"}, {`x`, `1` + strings.Repeat("0", 400), "data.price"},
		{`\ud83c\udf9f`, `1`, ""}, {`\ufffd`, `1`, ""}, {`\\ud800`, `1`, ""},
		{`\ud800`, `1`, "data.event_name"}, {`\udfff`, `1`, "data.event_name"}, {`\ud800\u0041`, `1`, "data.event_name"}, {"\xc3", `1`, "data.event_name"},
	} {
		data := strings.NewReplacer("NAME", c.name, "PRICE", c.price).Replace(form)
		err := validate.Default().Validate("user.registered_event", json.RawMessage(data))
		var invalid *validate.InvalidDataError
		if (err != nil) != (c.field != "") || err != nil && (!errors.As(err, &invalid) || invalid.Problems[0].Field != c.field) {
			t.Errorf("%s: %v, want it to name %q", data, err, c.field)
		}
	}
}

// Errors are logged and go to publishers of other systems: they name what was wanted.
func TestErrorsDoNotRepeatValues(t *testing.T) {
	for schema, c := range map[string]struct{ value, says string }{
		`{"pattern":"^a+$"}`:                {`"Ann 424242"`, `data.f: does not match the pattern "^a+$"`},
		`{"minimum":1000000}`:               {`424242`, "data.f: must be at least 1000000"},
		`{"maximum":2.5}`:                   {`424242`, "data.f: must be at most 2.5"},
		`{"exclusiveMinimum":1e9}`:          {`424242`, "data.f: must be more than 1000000000"},
		`{"exclusiveMaximum":5}`:            {`424242`, "data.f: must be less than 5"},
		`{"multipleOf":5}`:                  {`424242`, "data.f: must be a multiple of 5"},
		`{"const":"x"}`:                     {`"Ann 424242"`, "data.f: "},
		`{"not":{"type":"string"}}`:         {`"Ann 424242"`, "data.f: "},
		`{"contains":{"const":1}}`:          {`["Ann 424242"]`, "data.f"},
		`{"uniqueItems":true}`:              {`["Ann 424242","Ann 424242"]`, "data.f: "},
		`{"propertyNames":{"maxLength":3}}`: {`{"x":{"Ann":424242},"long":1}`, "data: "},
	} {
		kind, err := catalog.Parse([]byte(`{"title":"order.paid","description":"d","type":"object","properties":{"f":` + schema + `},"examples":[{}]}`))
		if err != nil {
			t.Fatal(err)
		}
		known, err := catalog.New([]catalog.Type{kind})
		if err != nil {
			t.Fatal(err)
		}
		err = validate.New(known).Validate("order.paid", json.RawMessage(`{"f":`+c.value+`}`))
		if err == nil || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "424242") || strings.Contains(err.Error(), "Ann") {
			t.Errorf("%s: %v, want %q", schema, err, c.says)
		}
	}
}
