package reference_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tidings-dev/tidings/pkg/event/catalog"
	"github.com/tidings-dev/tidings/pkg/event/catalog/reference"
)

func parse(t *testing.T, text string) catalog.Type {
	t.Helper()
	parsed, err := catalog.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

const order = `{
	"$schema": "https://json-schema.org/draft/2020-12/schema",
	"title": "order.placed", "description": "An order was placed", "type": "object",
	"properties": {
		"order_id": {"type": "string", "description": "The order"},
		"placed_at": {"type": "string", "format": "date-time"},
		"total": {"$ref": "#/$defs/money", "description": "With taxes"},
		"lines": {"type": "array", "items": {"type": "object", "properties": {"sku": {"type": "string"}, "price": {"$ref": "#/$defs/money"}}, "required": ["sku"]}},
		"status": {"enum": ["open", "paid"]},
		"note": {"type": ["string", "null"]},
		"extra": true
	},
	"required": ["order_id", "lines"],
	"$defs": {"money": {"type": "object", "description": "An amount", "properties": {"amount": {"type": "integer"}, "currency": {"const": "EUR"}}, "required": ["amount"]}},
	"examples": [{"order_id": "o_1", "lines": [{"sku": "$ref"}]}]
}`

// secondOrder is version 2 of order.
var secondOrder = strings.Replace(order, `"title": "order.placed", "description": "An order was placed"`, `"title": "order.placed", "x-version": 2, "x-downgrade": {}, "description": "Placed, in version 2"`, 1)

func TestFields(t *testing.T) {
	got, err := reference.Fields(parse(t, order))
	if err != nil {
		t.Fatal(err)
	}
	want := []reference.Field{
		{Path: "order_id", Type: "string", Required: true, Description: "The order"},
		{Path: "placed_at", Type: "string (date-time)"},
		{Path: "total", Type: "object", Description: "With taxes"},
		{Path: "total.amount", Type: "integer", Required: true},
		{Path: "total.currency", Type: "string", Values: []string{`"EUR"`}},
		{Path: "lines", Type: "array", Required: true},
		{Path: "lines[]", Type: "object", Required: true},
		{Path: "lines[].sku", Type: "string", Required: true},
		{Path: "lines[].price", Type: "object", Description: "An amount"},
		{Path: "lines[].price.amount", Type: "integer", Required: true},
		{Path: "lines[].price.currency", Type: "string", Values: []string{`"EUR"`}},
		{Path: "status", Type: "string", Values: []string{`"open"`, `"paid"`}},
		{Path: "note", Type: "string or null"},
		{Path: "extra", Type: "any"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// The official parser checks the document in make verify-receiving; this is its exact text.
func TestAsyncAPI(t *testing.T) {
	text, err := reference.AsyncAPI([]catalog.Type{parse(t, order)}, 30, func(name string) string { return "/catalog/schemas/" + name + ".json" })
	if err != nil {
		t.Fatal(err)
	}
	const golden = "testdata/asyncapi.json"
	var got, want any
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	if os.Getenv("UPDATE") != "" {
		pretty, err := json.MarshalIndent(got, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(golden, append(pretty, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	file, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(file, &want); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("run the test with UPDATE=1 to accept it:\n%s", diff)
	}
	if strings.Contains(string(text), `"#/$defs`) || !strings.Contains(string(text), `"$ref":"#/components/schemas/order.placed/$defs/money"`) {
		t.Error("a reference of the schema leads elsewhere in the document")
	}
}

func TestADeprecatedTypeSaysSo(t *testing.T) {
	text, err := reference.AsyncAPI([]catalog.Type{parse(t, strings.Replace(order, "{", `{"x-deprecated": {"since": "2026-11-30", "instead": "order.settled"},`, 1))}, 30, func(string) string { return "" })
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{`"description":"Deprecated since 2026-11-30: use order.settled."`, `"deprecated":true`} {
		if !strings.Contains(string(text), part) {
			t.Errorf("the document does not have %s", part)
		}
	}
}

func TestADocumentThatLambdaCannotReturnIsRefused(t *testing.T) {
	var many []catalog.Type
	for i := range 100 {
		many = append(many, parse(t, strings.NewReplacer("order.placed", fmt.Sprintf("order.placed_%d", i), "An order was placed", strings.Repeat("x", 20_000)).Replace(order)))
	}
	_, err := reference.AsyncAPI(many, 30, func(string) string { return "" })
	var large *reference.TooLargeError
	if !errors.As(err, &large) || !strings.Contains(err.Error(), "the maximum is 4000000") {
		t.Errorf("error %v", err)
	}
}

func TestTheVersionChangesWithTheTypes(t *testing.T) {
	of := func(days int, list ...catalog.Type) string {
		text, err := reference.AsyncAPI(list, days, func(string) string { return "" })
		if err != nil {
			t.Fatal(err)
		}
		var document struct{ Info struct{ Version string } }
		if err := json.Unmarshal(text, &document); err != nil {
			t.Fatal(err)
		}
		return document.Info.Version
	}
	version := func(list ...catalog.Type) string { return of(30, list...) }
	one, other := parse(t, order), parse(t, strings.Replace(order, "With taxes", "Without taxes", 1))
	if a, b := version(one), version(other); a == b || a != version(one) {
		t.Errorf("versions %s and %s", a, b)
	}
	if of(30, one) == of(90, one) {
		t.Error("the version is the same with another retention")
	}
}

func TestEachMessageSaysHowLongItsEventsAreKept(t *testing.T) {
	long := parse(t, strings.NewReplacer("order.placed", "order.archived", "{\n\t\"$schema\"", `{"x-retention-days": 365, "$schema"`).Replace(order))
	text, err := reference.AsyncAPI([]catalog.Type{parse(t, order), long}, 90, func(string) string { return "" })
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Components struct {
			Messages map[string]struct {
				Days int `json:"x-retention-days"`
			}
		}
	}
	if err := json.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	if m := doc.Components.Messages; m["order.placed"].Days != 90 || m["order.archived"].Days != 365 {
		t.Errorf("days %+v", m)
	}
}

// Each version is a message of its type's channel, under its label.
func TestEachVersionIsAMessage(t *testing.T) {
	second := parse(t, secondOrder)
	text, err := reference.AsyncAPI([]catalog.Type{parse(t, order), second}, 30, func(label string) string { return "https://x.example/" + label })
	if err != nil {
		t.Fatal(err)
	}
	type payload struct {
		Required   []string
		Properties map[string]struct {
			Const any
			Ref   string `json:"$ref"`
		}
	}
	var doc struct {
		Channels   map[string]struct{ Messages map[string]any }
		Operations map[string]struct {
			Summary  string
			Messages []any
		}
		Components struct {
			Messages map[string]struct {
				Payload      payload
				ExternalDocs struct{ URL string }
				Examples     []struct{ Payload map[string]any }
			}
			Schemas map[string]any
		}
	}
	if err := json.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	if len(doc.Channels) != 1 || len(doc.Channels["order.placed"].Messages) != 2 || len(doc.Operations["send-order.placed"].Messages) != 2 || doc.Operations["send-order.placed"].Summary != "Placed, in version 2" {
		t.Errorf("channels %+v, operations %+v", doc.Channels, doc.Operations)
	}
	for label, version := range map[string]any{"order.placed": nil, "order.placed.v2": 2.0} {
		m := doc.Components.Messages[label]
		if m.Payload.Properties["version"].Const != version || m.Payload.Properties["event"].Const != "order.placed" || m.Payload.Properties["data"].Ref != "#/components/schemas/"+label ||
			doc.Components.Schemas[label] == nil || m.ExternalDocs.URL != "https://x.example/"+label || m.Examples[0].Payload["version"] != version {
			t.Errorf("%s: %+v", label, m)
		}
	}
}
