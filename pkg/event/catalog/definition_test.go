package catalog_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/tidings-dev/tidings/pkg/event/catalog"
)

const order = `{
  "title": "order.paid",
  "description": "An order was paid",
  "x-subject": "order_id",
  "type": "object",
  "properties": {
    "order_id": {"type": "string"},
    "total": {"$ref": "#/$defs/money"}
  },
  "$defs": {"money": {"type": "number"}},
  "examples": [{"order_id": "o_1", "total": 5}]
}`

func TestADefinitionIsParsed(t *testing.T) {
	got, err := catalog.Parse([]byte(order))
	if err != nil || got.Name != "order.paid" || got.Subject != "order_id" || len(got.Samples) != 1 || string(got.Schema) != order {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestAWrongDefinitionIsRefusedWithItsPlace(t *testing.T) {
	deep := strings.Repeat(`{"items":`, catalog.MaxDefinitionDepth+1) + `{}` + strings.Repeat(`}`, catalog.MaxDefinitionDepth+1)
	var doubling strings.Builder // each definition refers to the next one twice
	for i := range 12 {
		fmt.Fprintf(&doubling, `"d%d":{"properties":{"a":{"$ref":"#/$defs/d%d"},"b":{"$ref":"#/$defs/d%d"}}},`, i, i+1, i+1)
	}
	for name, c := range map[string]struct{ old, new, want string }{
		"a syntax error":                 {`"type": "object",`, `"type": "object"`, "line 6, column 3: "},
		"a duplicate key":                {`"type": "object",`, `"type": "object", "type": "object",`, "line 5, column 21: "},
		"an array":                       {order, `[]`, "line 1, column 1: the definition must be a JSON object"},
		"nothing":                        {order, ``, "line 1, column 1: "},
		"text after it":                  {order, order + "\n{}", "line 13, column 1: "},
		"too long":                       {order, order + strings.Repeat(" ", catalog.MaxDefinitionBytes), "line 1, column 1: the definition has 65"},
		"no name":                        {`"title": "order.paid",`, ``, "line 1, column 1: title \"\" is not the name"},
		"one word":                       {`order.paid`, `paid`, `line 2, column 3: title "paid" is not the name`},
		"upper case":                     {`order.paid`, `Order.paid`, `line 2, column 3: title "Order.paid" is not the name`},
		"a wildcard":                     {`order.paid`, `order.*`, `line 2, column 3: title "order.*" is not the name`},
		"a long name":                    {`order.paid`, `order.` + strings.Repeat("a", 59), `line 2, column 3: title `},
		"a reserved name":                {`order.paid`, `tidings.test`, `line 2, column 3: title "tidings.test": names that begin with`},
		"a number as title":              {`"order.paid"`, `7`, `line 1, column 1: `},
		"no description":                 {`An order was paid`, ` `, `line 3, column 3: description is missing`},
		"no object":                      {`"type": "object"`, `"type": "array"`, `line 5, column 3: type must be "object"`},
		"no example":                     {`[{"order_id": "o_1", "total": 5}]`, `[]`, `line 11, column 3: examples is missing`},
		"an unknown subject":             {`"x-subject": "order_id"`, `"x-subject": "id"`, `line 4, column 3: x-subject "id" is not a field`},
		"a retention of no days":         {`"x-subject": "order_id"`, `"x-retention-days": 0`, `line 4, column 3: x-retention-days must be a whole number of days from 1 to 365`},
		"a retention beyond a year":      {`"x-subject": "order_id"`, `"x-retention-days": 366`, `line 4, column 3: x-retention-days must be`},
		"a retention as a text":          {`"x-subject": "order_id"`, `"x-retention-days": "30"`, `line 4, column 3: x-retention-days must be`},
		"a retention in parts of days":   {`"x-subject": "order_id"`, `"x-retention-days": 1.5`, `line 4, column 3: x-retention-days must be`},
		"a retention of null":            {`"x-subject": "order_id"`, `"x-retention-days": null`, `line 4, column 3: x-retention-days must be`},
		"a retention in capitals":        {`"x-subject": "order_id"`, `"X-Retention-Days": 4000`, `x-retention-days must be 1 to 365`},
		"an unknown keyword":             {`x-subject`, `x-sbject`, `line 4, column 3: "x-sbject" is not a keyword`},
		"its own old name":               {`"x-subject": "order_id"`, `"x-replaces": "order.paid"`, `line 4, column 3: x-replaces`},
		"an older draft":                 {`"x-subject": "order_id"`, `"$schema": "http://json-schema.org/draft-07/schema#"`, `line 4, column 3: $schema must be`},
		"a reference to the network":     {`#/$defs/money`, `https://example.com/money.json`, `line 8, column 15: $ref "https://example.com/money.json": only references within`},
		"a reference to a file":          {`#/$defs/money`, `file:///etc/passwd`, `line 8, column 15: $ref`},
		"a reference by anchor":          {`#/$defs/money`, `#money`, `line 8, column 15: $ref`},
		"a reference to nothing":         {`#/$defs/money`, `#/$defs/price`, `line 8, column 15: $ref #/$defs/price leads nowhere`},
		"a dynamic reference":            {`"$ref"`, `"$dynamicRef"`, `line 8, column 15: $dynamicRef is not supported`},
		"a schema within itself":         {`#/$defs/money`, `#`, `line 8, column 15: $ref # is recursive`},
		"a schema within itself, by two": {`{"type": "number"}`, `{"properties": {"of": {"$ref": "#/properties/total"}}}`, `recursive`},
		"references that multiply":       {`"$defs": {`, `"$defs": {"d12": {}, ` + doubling.String(), ``},
		"too many levels":                {`{"type": "number"}`, deep, `the definition nests deeper than 32 levels`},
	} {
		t.Run(name, func(t *testing.T) {
			text := strings.Replace(order, c.old, c.new, 1)
			if name == "references that multiply" {
				text = strings.Replace(text, "#/$defs/money", "#/$defs/d0", 1)
				c.want = "the references lead to more than 1000 schemas"
			}
			_, err := catalog.Parse([]byte(text))
			var wrong *catalog.DefinitionError
			if !errors.As(err, &wrong) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
		})
	}
}

func TestFieldsCanHaveTheNamesOfKeywords(t *testing.T) {
	for _, field := range []string{"examples", "default", "$ref", "enum", "x-y", "$dynamicRef"} {
		text := strings.Replace(order, `"total": {"$ref"`, fmt.Sprintf(`%q: {"type": "string"}, "total": {"$ref"`, field), 1)
		text = strings.Replace(text, `"total": 5`, `"total": 5, "$ref": "https://example.com"`, 1)
		if _, err := catalog.Parse([]byte(text)); err != nil {
			t.Errorf("a field %q: %v", field, err)
		}
	}
	hidden := strings.Replace(order, `"total": {"$ref": "#/$defs/money"}`, `"default": {"$ref": "https://example.com"}`, 1)
	if _, err := catalog.Parse([]byte(hidden)); err == nil {
		t.Error("a reference to the network in the schema of a field with the name of a keyword is accepted")
	}
}

func TestTypesThatContradictEachOtherAreNoCatalog(t *testing.T) {
	kind := func(name, replaces string) catalog.Type { return catalog.Type{Name: name, Replaces: replaces} }
	for want, list := range map[string][]catalog.Type{
		"event type a.b is defined twice":                              {kind("a.b", ""), kind("a.b", "")},
		"event type a.b: x-replaces names a.c, which is an event type": {kind("a.b", "a.c"), kind("a.c", "")},
		"event types a.b and a.c both replace a.old":                   {kind("a.b", "a.old"), kind("a.c", "a.old")},
	} {
		if _, err := catalog.New(list); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}

func TestErrorsListFewTypes(t *testing.T) {
	var list []catalog.Type
	for i := range 10_000 {
		list = append(list, catalog.Type{Name: fmt.Sprintf("a.t%d", i)})
	}
	c, err := catalog.New(list)
	if err != nil {
		t.Fatal(err)
	}
	if text := c.Unknown("x"); len(text) > 500 || !strings.Contains(text, "there are 10000 types, such as a.t0, ") {
		t.Error(text)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(order))
	for _, name := range catalog.Default().Types() {
		kind, _ := catalog.Default().Type(name)
		f.Add([]byte(kind.Schema))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		_, err := catalog.Parse(text)
		var wrong *catalog.DefinitionError
		if err != nil && (!errors.As(err, &wrong) || wrong.Line < 1 || wrong.Column < 1) {
			t.Errorf("%q: %v", text, err)
		}
	})
}
