package catalog_test

import (
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/tidings-dev/tidings/pkg/event/catalog"
)

func TestTheNineTypes(t *testing.T) {
	want := []string{
		"discussion.auto_closed", "discussion.extended", "user.cancelled_registration", "user.flagged_comment", "user.joined_community",
		"user.joined_platform", "user.posted_comment", "user.referred_user", "user.registered_event",
	}
	if got := catalog.Default().Types(); !slices.Equal(got, want) {
		t.Errorf("types = %v, want %v", got, want)
	}
}

// Each schema is held to its own sample: as it is, without each required field,
// with each field of the wrong type, and with one field too many.
func TestSchemas(t *testing.T) {
	c := catalog.Default()
	for _, name := range c.Types() {
		t.Run(name, func(t *testing.T) {
			kind, _ := c.Type(name)
			if len(kind.Samples) == 0 || kind.Description == "" || kind.CapturedFrom == "" {
				t.Fatalf("%s lacks a sample, a description or where it is captured", name)
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
					t.Errorf("its own sample: %v", err)
				}
				if c.Subject(name, sample) == "" {
					t.Errorf("its sample has no subject (%s)", kind.Subject)
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
					wrong[field] = 7
					refuses(t, c, name, wrong, "data."+field, true)
					wrong[field] = nil
					refuses(t, c, name, wrong, "data."+field, true)
				}
				more := maps.Clone(fields)
				more["surprise"] = true
				refuses(t, c, name, more, "data.surprise", true)
			}
		})
	}
}

func refuses(t *testing.T, c *catalog.Catalog, name string, fields map[string]any, field string, want bool) {
	t.Helper()
	data, err := json.Marshal(fields)
	if err != nil {
		t.Fatal(err)
	}
	err = c.Validate(name, data)
	if (err != nil) != want {
		t.Errorf("Validate(%s) = %v, want an error: %v", data, err, want)
	}
	var invalid *catalog.InvalidDataError
	if err != nil && (!errors.As(err, &invalid) || invalid.Problems[0].Field != field) {
		t.Errorf("Validate(%s) = %v, want it to name %s", data, err, field)
	}
}

func TestValidateSaysWhatIsWrong(t *testing.T) {
	c := catalog.Default()
	for name, want := range map[string]struct{ data, says string }{
		"nothing":                         {``, "data: is missing"},
		"no JSON":                         {`{"a":`, "data: is not JSON"},
		"something after it":              {`{} {}`, "data: is not JSON"},
		"a list":                          {`[]`, "data: must be object, not array"},
		"null":                            {`null`, "data: must be object, not null"},
		"a status that does not exist":    {`{"event_id":"e","registration_id":"r","status":"paid"}`, "data.status: must be one of success, failed, pending"},
		"a name twice":                    {`{"event_id":"e","event_id":"f","registration_id":"r","status":"success"}`, "data.event_id: stands twice"},
		"a name twice, written otherwise": {`{"event_id":"e","\u0065vent_id":"f","registration_id":"r","status":"success"}`, "data.event_id: stands twice"},
		"an empty id":                     {`{"event_id":"","registration_id":"r","status":"success"}`, "data.event_id: has 0 characters"},
		"two problems":                    {`{"status":"success"}`, "data.event_id: is missing; data.registration_id: is missing"},
	} {
		err := c.Validate("user.registered_event", json.RawMessage(want.data))
		if err == nil || !strings.Contains(err.Error(), want.says) {
			t.Errorf("%s: %v, want it to say %q", name, err, want.says)
		}
	}
	err := c.Validate("discussion.extended", json.RawMessage(`{"discussion_id":"d","new_expires_at":"next week, my-private-plan"}`))
	if err == nil || !strings.Contains(err.Error(), "data.new_expires_at: must be a valid date-time") || strings.Contains(err.Error(), "private") {
		t.Errorf("a date that is none: %v", err)
	}
	var unknown *catalog.UnknownTypeError
	if err := c.Validate("user.exploded", json.RawMessage(`{}`)); !errors.As(err, &unknown) || len(unknown.Known) != 9 {
		t.Errorf("an unknown type: %v", err)
	}
}

func BenchmarkValidate(b *testing.B) {
	c := catalog.Default()
	kind, _ := c.Type("user.registered_event")
	for b.Loop() {
		if err := c.Validate(kind.Name, kind.Samples[0]); err != nil {
			b.Fatal(err)
		}
	}
}
