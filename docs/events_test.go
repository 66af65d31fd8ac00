package docs_test

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/tidings-dev/tidings/pkg/event/catalog"
)

// events.md has a section for each event type, with a row for each field of its schema
// and what the schema says of it.
func TestEventsListsEveryFieldOfTheSchemas(t *testing.T) {
	sections := map[string]string{}
	for _, section := range strings.Split(page(t, "events.md"), "\n## ")[1:] {
		title, text, _ := strings.Cut(section, "\n")
		sections[title] = text
	}
	types := catalog.Default().Types()
	if len(sections) != len(types) {
		t.Errorf("%d sections, want one for each of %d types", len(sections), len(types))
	}
	row := regexp.MustCompile("(?m)^\\| `(\\w+)` \\| (required )?\\| ([^|]+) \\| [^|]+ \\|$")
	for _, name := range types {
		kind, _ := catalog.Default().Type(name)
		var schema struct {
			Required   []string `json:"required"`
			Properties map[string]struct {
				Type, Format string
				MaxLength    int
				Enum         []string
			} `json:"properties"`
		}
		if err := json.Unmarshal(kind.Schema, &schema); err != nil {
			t.Fatal(err)
		}
		listed := map[string]bool{}
		for _, m := range row.FindAllStringSubmatch(sections[name], -1) {
			field, required, form := m[1], m[2] != "", m[3]
			listed[field] = true
			p, ok := schema.Properties[field]
			if !ok {
				t.Errorf("%s has no field %s", name, field)
			}
			if required != slices.Contains(schema.Required, field) {
				t.Errorf("%s: the page says required: %t of %s", name, required, field)
			}
			if p.Type == "string" && p.Format == "" && !strings.Contains(strings.ReplaceAll(form, ",", ""), fmt.Sprint("up to ", p.MaxLength, " ")) {
				t.Errorf("%s.%s is %q, the schema allows %d characters", name, field, form, p.MaxLength)
			}
			for _, value := range p.Enum {
				if !strings.Contains(form, "`"+value+"`") {
					t.Errorf("%s.%s is %q, and can be %s", name, field, form, value)
				}
			}
		}
		for field := range schema.Properties {
			if !listed[field] {
				t.Errorf("%s: the page lacks %s", name, field)
			}
		}
	}
}
