package eventtypes_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/pkg/admin/eventtypes"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/event/catalog"
)

// Each kind of change, with endpoints that care in different ways: a breaking change is
// refused for endpoints that get the type, a change of the field f for those whose filter names it,
// and everything is allowed if nobody gets the type, or only a disabled endpoint does.
func TestEachKindOfChangeWithEndpointsThatCareAndThatDoNot(t *testing.T) {
	definition := func(field, rest string) string {
		return `{"title":"order.paid","description":"d","type":"object","properties":{"id":{"type":"string"},"f":` + field + `}` + rest + `,"examples":[{"id":"o_1","f":` + valueFor(field) + `}]}`
	}
	d := definition
	shapes := map[string]endpoint.Shape{"a body with f": {Include: []string{"data.f"}}, "a body without f": {Exclude: []string{"data.f.x"}}}
	for name, c := range map[string]struct {
		before, after   string
		breaks, touches bool // receivers; the field f
	}{
		"a text":                        {d(`{"type":"string"}`, ``), d(`{"type":"string","description":"x"}`, ``), false, false},
		"the type's text":               {d(`{}`, ``), strings.Replace(d(`{}`, ``), `"d"`, `"other"`, 1), false, false},
		"a comment":                     {d(`{}`, ``), d(`{"$comment":"x"}`, ``), false, false},
		"another field":                 {d(`{}`, ``), strings.Replace(d(`{}`, ``), `"f":`, `"g":{},"f":`, 1), false, false},
		"a nested field":                {d(`{"type":"object","properties":{}}`, ``), d(`{"type":"object","properties":{"x":{}}}`, ``), false, true},
		"f is removed":                  {d(`{"type":"string"}`, ``), strings.Replace(d(`{"type":"string"}`, ``), `,"f":{"type":"string"}`, ``, 1), true, true},
		"another field is removed":      {strings.Replace(d(`{}`, ``), `"f":`, `"g":{},"f":`, 1), d(`{}`, ``), true, false},
		"f becomes required":            {d(`{}`, ``), d(`{}`, `,"required":["f"]`), false, true},
		"another becomes required":      {d(`{}`, ``), d(`{}`, `,"required":["id"]`), false, false},
		"f becomes optional":            {d(`{}`, `,"required":["f"]`), d(`{}`, ``), true, true},
		"another type":                  {d(`{"type":"string"}`, ``), d(`{"type":"number"}`, ``), true, true},
		"one type more":                 {d(`{"type":"string"}`, ``), d(`{"type":["string","null"]}`, ``), true, true},
		"one type less":                 {d(`{"type":["string","null"]}`, ``), d(`{"type":"string"}`, ``), false, true},
		"number to integer":             {d(`{"type":"number"}`, ``), d(`{"type":"integer"}`, ``), false, true},
		"integer to number":             {d(`{"type":"integer"}`, ``), d(`{"type":"number"}`, ``), true, true},
		"a type appears":                {d(`{}`, ``), d(`{"type":"string"}`, ``), false, true},
		"a type disappears":             {d(`{"type":"string"}`, ``), d(`{}`, ``), true, true},
		"an enum's value more":          {d(`{"enum":["a"]}`, ``), d(`{"enum":["a","b"]}`, ``), true, true},
		"an enum's value less":          {d(`{"enum":["a","b"]}`, ``), d(`{"enum":["a"]}`, ``), false, true},
		"an enum's value is renamed":    {d(`{"enum":["a","b"]}`, ``), d(`{"enum":["a","c"]}`, ``), true, true},
		"an enum is reordered":          {d(`{"enum":["a","b"]}`, ``), d(`{"enum":["b","a"]}`, ``), false, false},
		"an enum disappears":            {d(`{"enum":["a"]}`, ``), d(`{}`, ``), true, true},
		"a longer text":                 {d(`{"maxLength":10}`, ``), d(`{"maxLength":20}`, ``), true, true},
		"a shorter text":                {d(`{"maxLength":20}`, ``), d(`{"maxLength":10}`, ``), false, true},
		"a lower minimum":               {d(`{"minimum":1}`, ``), d(`{"minimum":0}`, ``), true, true},
		"a higher minimum":              {d(`{"minimum":0}`, ``), d(`{"minimum":1}`, ``), false, true},
		"a pattern appears":             {d(`{}`, ``), d(`{"pattern":"^a"}`, ``), false, true},
		"a pattern disappears":          {d(`{"pattern":"^a"}`, ``), d(`{}`, ``), true, true},
		"another pattern":               {d(`{"pattern":"^a"}`, ``), d(`{"pattern":"^[a]"}`, ``), true, true},
		"items get a type":              {d(`{"type":"array","items":{}}`, ``), d(`{"type":"array","items":{"type":"string"}}`, ``), false, true},
		"items get another type":        {d(`{"type":"array","items":{"type":"string"}}`, ``), d(`{"type":"array","items":{"type":"number"}}`, ``), true, true},
		"items can repeat":              {d(`{"type":"array","uniqueItems":true}`, ``), d(`{"type":"array"}`, ``), true, true},
		"the type is opened":            {d(`{}`, `,"additionalProperties":false`), d(`{}`, ``), false, false},
		"the type is closed":            {d(`{}`, ``), d(`{}`, `,"additionalProperties":false`), false, false},
		"a subject":                     {d(`{}`, ``), d(`{}`, `,"x-subject":"id"`), false, false},
		"another subject":               {d(`{}`, `,"x-subject":"id"`), d(`{}`, `,"x-subject":"f"`), true, false},
		"another old name":              {d(`{}`, `,"x-replaces":"order.old"`), d(`{}`, `,"x-replaces":"order.older"`), true, false},
		"deprecated":                    {d(`{}`, ``), d(`{}`, `,"x-deprecated":{"since":"2026-11-30"}`), false, false},
		"f becomes personal":            {d(`{"type":"string"}`, ``), d(`{"type":"string","x-personal":true}`, ``), false, false},
		"a combination changes":         {d(`{"anyOf":[{"type":"string"}]}`, ``), d(`{"anyOf":[{"type":"string"},{"type":"null"}]}`, ``), true, true},
		"a definition that f refers to": {d(`{"$ref":"#/$defs/x"}`, `,"$defs":{"x":{"type":"string"}}`), d(`{"$ref":"#/$defs/x"}`, `,"$defs":{"x":{"type":["string","null"]}}`), true, true},
	} {
		for who, e := range map[string]struct {
			types, filter string
			status        endpoint.Status
			refused       bool
		}{
			"nobody":               {"user.*", ``, endpoint.Enabled, false},
			"a subscriber":         {"order.paid", ``, endpoint.Enabled, c.breaks},
			"a subscriber to all":  {"*", ``, endpoint.Enabled, c.breaks},
			"a filter of f":        {"order.*", `{"data":{"f":[{"exists":true}]}}`, endpoint.Enabled, c.breaks || c.touches},
			"a paused filter of f": {"order.*", `{"data":{"f":[{"exists":true}]}}`, endpoint.Paused, c.breaks || c.touches},
			"a filter of another":  {"order.*", `{"data":{"id":["o_1"]}}`, endpoint.Enabled, c.breaks || name == "another becomes required"},
			"a body with f":        {"order.*", ``, endpoint.Enabled, c.breaks || c.touches},
			"a body without f":     {"*", ``, endpoint.Enabled, c.breaks || c.touches},
			"a disabled one":       {"order.paid", `{"data":{"f":[1]}}`, endpoint.Disabled, false},
		} {
			w := newWorld(t)
			w.apply(eventtypes.Request{Types: []catalog.Type{parse(t, c.before)}}, true, nil)
			w.endpoint(e.types, e.filter, e.status, shapes[who])
			p, err := w.Plan(t.Context(), eventtypes.Request{Types: []catalog.Type{parse(t, c.after)}})
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if p.Refused() != e.refused || e.refused != (len(p.Items[0].Endpoints) == 1) {
				t.Errorf("%s, %s: refused %v, want %v: %+v", name, who, p.Refused(), e.refused, p.Items[0])
			}
			want := error(nil)
			if e.refused {
				want = eventtypes.ErrRefused
			}
			if err := w.Apply(t.Context(), p, false, "op", fmt.Sprint(name, who, time.Now())); err != want {
				t.Errorf("%s, %s: apply: %v, want %v", name, who, err, want)
			}
		}
	}
}

// valueFor returns a value for a definition's example.
func valueFor(field string) string {
	var schema struct {
		Type json.RawMessage
		Enum []json.RawMessage
	}
	if err := json.Unmarshal([]byte(field), &schema); err != nil {
		panic(err)
	}
	switch {
	case len(schema.Enum) > 0:
		return string(schema.Enum[0])
	case string(schema.Type) == `"number"` || string(schema.Type) == `"integer"`:
		return "7"
	case string(schema.Type) == `"array"`:
		return "[]"
	case string(schema.Type) == `"object"`:
		return "{}"
	}
	return `"a"`
}
