package compat_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tidings-dev/tidings/pkg/event/catalog"
	"github.com/tidings-dev/tidings/pkg/event/catalog/compat"
)

// schema returns a type's schema with one field; rest is appended to the type's keywords.
func schema(field, rest string) json.RawMessage {
	return json.RawMessage(`{"title":"order.paid","x-subject":"id","type":"object","properties":{"id":{"type":"string"},"f":` + field + `}` + rest + `}`)
}

func TestEachKindOfChange(t *testing.T) {
	for name, c := range map[string]struct {
		before, after json.RawMessage
		want          string // path kind breaking, per change
	}{
		"nothing":                        {schema(`{"type":"string"}`, ``), schema(`{"type":"string"}`, ``), ``},
		"a field's text":                 {schema(`{"type":"string"}`, ``), schema(`{"type":"string","description":"x"}`, ``), `data.f documentation`},
		"the type's texts":               {schema(`{}`, ``), schema(`{}`, `,"description":"x","examples":[{}],"x-group":"g"`), ` documentation`},
		"deprecation":                    {schema(`{}`, ``), schema(`{}`, `,"deprecated":true`), ` documentation`},
		"a field is added":               {schema(`{}`, ``), json.RawMessage(strings.Replace(string(schema(`{}`, ``)), `"f":`, `"g":{},"f":`, 1)), `data.g added`},
		"a field is removed":             {schema(`{}`, ``), json.RawMessage(`{"title":"order.paid","x-subject":"id","type":"object","properties":{"id":{"type":"string"}}}`), `data.f removed breaking`},
		"a field becomes required":       {schema(`{}`, ``), schema(`{}`, `,"required":["f"]`), `data.f required`},
		"a field becomes optional":       {schema(`{}`, `,"required":["f"]`), schema(`{}`, ``), `data.f optional breaking`},
		"string to number":               {schema(`{"type":"string"}`, ``), schema(`{"type":"number"}`, ``), `data.f retyped breaking`},
		"number to integer":              {schema(`{"type":"number"}`, ``), schema(`{"type":"integer"}`, ``), `data.f narrowed`},
		"integer to number":              {schema(`{"type":"integer"}`, ``), schema(`{"type":"number"}`, ``), `data.f retyped breaking`},
		"string to string or null":       {schema(`{"type":"string"}`, ``), schema(`{"type":["string","null"]}`, ``), `data.f retyped breaking`},
		"string or null to string":       {schema(`{"type":["null","string"]}`, ``), schema(`{"type":"string"}`, ``), `data.f narrowed`},
		"the same types reordered":       {schema(`{"type":["null","string"]}`, ``), schema(`{"type":["string","null"]}`, ``), ``},
		"any type to string":             {schema(`{}`, ``), schema(`{"type":"string"}`, ``), `data.f narrowed`},
		"string to any type":             {schema(`{"type":"string"}`, ``), schema(`{}`, ``), `data.f retyped breaking`},
		"an enum's value more":           {schema(`{"enum":["a"]}`, ``), schema(`{"enum":["a","b"]}`, ``), `data.f widened breaking`},
		"an enum's value less":           {schema(`{"enum":["a","b"]}`, ``), schema(`{"enum":["a"]}`, ``), `data.f narrowed`},
		"an enum's value renamed":        {schema(`{"enum":["a","b"]}`, ``), schema(`{"enum":["a","c"]}`, ``), `data.f renamed breaking`},
		"an enum is reordered":           {schema(`{"enum":["a","b"]}`, ``), schema(`{"enum":["b","a"]}`, ``), ``},
		"an enum appears":                {schema(`{}`, ``), schema(`{"enum":["a"]}`, ``), `data.f narrowed`},
		"an enum disappears":             {schema(`{"enum":["a"]}`, ``), schema(`{}`, ``), `data.f widened breaking`},
		"a constant changes":             {schema(`{"const":1}`, ``), schema(`{"const":2}`, ``), `data.f renamed breaking`},
		"a longer text":                  {schema(`{"maxLength":10}`, ``), schema(`{"maxLength":20}`, ``), `data.f widened breaking`},
		"a shorter text":                 {schema(`{"maxLength":20}`, ``), schema(`{"maxLength":10}`, ``), `data.f narrowed`},
		"a limit appears":                {schema(`{}`, ``), schema(`{"maxItems":10}`, ``), `data.f narrowed`},
		"a limit of 0 appears":           {schema(`{}`, ``), schema(`{"maximum":0}`, ``), `data.f narrowed`},
		"a limit disappears":             {schema(`{"minLength":1}`, ``), schema(`{}`, ``), `data.f widened breaking`},
		"a lower minimum":                {schema(`{"minimum":1}`, ``), schema(`{"minimum":0}`, ``), `data.f widened breaking`},
		"a higher minimum":               {schema(`{"exclusiveMinimum":0}`, ``), schema(`{"exclusiveMinimum":1}`, ``), `data.f narrowed`},
		"a format appears":               {schema(`{}`, ``), schema(`{"format":"uuid"}`, ``), `data.f narrowed`},
		"a format disappears":            {schema(`{"format":"uuid"}`, ``), schema(`{}`, ``), `data.f widened breaking`},
		"another pattern":                {schema(`{"pattern":"^a"}`, ``), schema(`{"pattern":"^b"}`, ``), `data.f changed breaking`},
		"items can repeat":               {schema(`{"uniqueItems":true}`, ``), schema(`{}`, ``), `data.f widened breaking`},
		"items cannot repeat":            {schema(`{}`, ``), schema(`{"uniqueItems":true}`, ``), `data.f narrowed`},
		"an item's type":                 {schema(`{"items":{"type":"string"}}`, ``), schema(`{"items":{"type":"number"}}`, ``), `data.f[] retyped breaking`},
		"items get a schema":             {schema(`{}`, ``), schema(`{"items":{}}`, ``), `data.f[] narrowed`},
		"items lose their schema":        {schema(`{"items":{}}`, ``), schema(`{}`, ``), `data.f[] widened breaking`},
		"a nested field":                 {schema(`{"properties":{"x":{"type":"string"}}}`, ``), schema(`{"properties":{}}`, ``), `data.f.x removed breaking`},
		"the type is opened":             {schema(`{}`, `,"additionalProperties":false`), schema(`{}`, ``), `data added`},
		"the type is closed":             {schema(`{}`, ``), schema(`{}`, `,"additionalProperties":false`), `data narrowed`},
		"unnamed fields get a schema":    {schema(`{}`, ``), schema(`{}`, `,"additionalProperties":{"type":"string"}`), `data changed breaking`},
		"another subject":                {schema(`{}`, ``), json.RawMessage(strings.Replace(string(schema(`{}`, ``)), `"x-subject":"id"`, `"x-subject":"f"`, 1)), ` changed breaking`},
		"another old name":               {schema(`{}`, `,"x-replaces":"a.b"`), schema(`{}`, `,"x-replaces":"a.c"`), ` changed breaking`},
		"an old name":                    {schema(`{}`, ``), schema(`{}`, `,"x-replaces":"a.b"`), ` documentation`},
		"a combination":                  {schema(`{"anyOf":[{"type":"string"}]}`, ``), schema(`{"anyOf":[{"type":"number"}]}`, ``), `data.f changed breaking`},
		"a definition changes":           {schema(`{"$ref":"#/$defs/d"}`, `,"$defs":{"d":{"type":"string"}}`), schema(`{"$ref":"#/$defs/d"}`, `,"$defs":{"d":{"type":"number"}}`), `data.f retyped breaking`},
		"a definition moves":             {schema(`{"$ref":"#/$defs/d"}`, `,"$defs":{"d":{"type":"string"}}`), schema(`{"type":"string"}`, ``), ``},
		"a reference to itself":          {schema(`{"$ref":"#/properties/f"}`, ``), schema(`{"$ref":"#/properties/f"}`, ``), ``},
		"a reference to nothing changes": {schema(`{"$ref":"#/$defs/a"}`, ``), schema(`{"$ref":"#/$defs/b"}`, ``), `data.f changed breaking`},
		"nothing is possible":            {schema(`true`, ``), schema(`false`, ``), `data.f changed breaking`},
	} {
		t.Run(name, func(t *testing.T) {
			changes, err := compat.Compare(c.before, c.after)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, change := range changes {
				text := fmt.Sprint(change.Path, " ", change.Kind)
				if change.Breaking {
					text += " breaking"
				}
				got = append(got, text)
				if change.Text == "" || strings.Contains(change.String(), "%!") {
					t.Errorf("text %q", change.String())
				}
			}
			if diff := cmp.Diff(c.want, strings.Join(got, "; ")); diff != "" {
				t.Errorf("changes (-want +got):\n%s%v", diff, changes)
			}
		})
	}
}

func TestATypeIsEqualToItself(t *testing.T) {
	known := catalog.Default()
	for _, name := range known.Types() {
		kind, _ := known.Type(name)
		if changes, err := compat.Compare(kind.Schema, kind.Schema); err != nil || len(changes) > 0 {
			t.Errorf("%s: %v, %v", name, changes, err)
		}
	}
}

func TestWhatIsNotASchemaIsNotCompared(t *testing.T) {
	for _, text := range []string{``, `[]`, `7`, `{`} {
		if _, err := compat.Compare(json.RawMessage(text), json.RawMessage(`{}`)); err == nil {
			t.Errorf("%q is compared", text)
		}
	}
}
