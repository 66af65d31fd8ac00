package catalog_test

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/tidings-dev/tidings/pkg/event/catalog"
)

const signup = `{
  "title": "member.signed_up",
  "description": "A member signed up",
  "type": "object",
  "properties": {
    "member": {"type": "object", "properties": {"id": {"type": ["string", "integer"], "x-personal": true}, "plan": {"type": "string"}}},
    "guests": {"type": "array", "items": {"type": "object", "properties": {"email": {"type": "string", "x-personal": true}}}},
    "contact": {"type": "object", "x-personal": true},
    "properties": {"type": "string", "x-personal": true},
    "x-personal": {"type": "string"},
    "campaign": {"type": "string"}
  },
  "examples": [{"campaign": "u_1042", "x-personal": "x"}]
}`

func TestATypeNamesItsPersonalFields(t *testing.T) {
	kind, err := catalog.Parse([]byte(signup))
	if err != nil {
		t.Fatal(err)
	}
	want := [][]string{{"contact"}, {"guests", "*", "email"}, {"member", "id"}, {"properties"}}
	if got := kind.Personal(); !reflect.DeepEqual(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

func TestAnEventConcernsAPersonByItsPersonalFields(t *testing.T) {
	kind, err := catalog.Parse([]byte(signup))
	if err != nil {
		t.Fatal(err)
	}
	plain, err := catalog.Parse([]byte(order))
	if err != nil {
		t.Fatal(err)
	}
	types, err := catalog.New([]catalog.Type{kind, plain})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		eventType, data string
		want            bool
	}{
		"a field of an object":            {kind.Name, `{"member":{"id":"u_1042"}}`, true},
		"an escaped text":                 {kind.Name, `{"member":{"id":"u\u005f1042"}}`, true},
		"a number":                        {kind.Name, `{"member":{"id":1042}}`, false},
		"an item's field":                 {kind.Name, `{"guests":[{"email":"a"},{"email":"u_1042"}]}`, true},
		"within a personal object":        {kind.Name, `{"contact":{"names":["a",{"other":"u_1042"}]}}`, true},
		"a field with a keyword's name":   {kind.Name, `{"properties":"u_1042"}`, true},
		"a field that is not personal":    {kind.Name, `{"campaign":"u_1042","member":{"plan":"u_1042"},"x-personal":"u_1042"}`, false},
		"a part of a text":                {kind.Name, `{"member":{"id":"u_10421"},"contact":"about u_1042"}`, false},
		"the name of a field":             {kind.Name, `{"contact":{"u_1042":true}}`, false},
		"a type that marks no field":      {plain.Name, `{"buyer":{"id":"u_1042"}}`, true},
		"a type that is unknown":          {"a.removed", `{"buyer":["u_1042"]}`, true},
		"another person":                  {plain.Name, `{"buyer":{"id":"u_1"}}`, false},
		"data that cannot be read, of it": {plain.Name, `{"buyer":"u_1042`, true},
	} {
		if got := types.Concerns(c.eventType, 1, []byte(c.data), "u_1042"); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	if !types.Concerns(kind.Name, 0, []byte(`{"member":{"id":1042}}`), "1042") {
		t.Error("an id that is a number")
	}
}

func TestAWrongMarkOfAPersonalFieldIsRefused(t *testing.T) {
	for name, c := range map[string]struct{ old, new, want string }{
		"not true":          {`"order_id": {`, `"order_id": {"x-personal": false, `, "line 7, column 18: x-personal can only be true"},
		"a text":            {`"order_id": {`, `"order_id": {"x-personal": "yes", `, "line 7, column 18: x-personal can only be true"},
		"in $defs":          {`{"type": "number"}`, `{"x-personal": true, "type": "number"}`, "line 10, column 23: x-personal marks a field"},
		"in a condition":    {`"$defs"`, `"allOf": [{"properties": {"order_id": {"x-personal": true}}}], "$defs"`, "line 10, column 42: x-personal marks a field"},
		"of the whole type": {`"x-subject": "order_id"`, `"x-personal": true`, `line 4, column 3: "x-personal" is not a keyword`},
	} {
		_, err := catalog.Parse([]byte(strings.Replace(order, c.old, c.new, 1)))
		if (c.want == "") != (err == nil) || !strings.Contains(fmt.Sprint(err), c.want) {
			t.Errorf("%s: error %v, want %q", name, err, c.want)
		}
	}
}

// Of the shipped types, those that say who a person is, or what one wrote, mark it.
func TestTheShippedTypesMarkTheirPersonalFields(t *testing.T) {
	for _, name := range catalog.Default().Types() {
		kind, _ := catalog.Default().Type(name)
		marked := map[string]bool{}
		for _, path := range kind.Personal() {
			marked[strings.Join(path, ".")] = true
		}
		for field := range fieldsOf(t, kind) {
			personal := false
			for _, part := range []string{"user_id", "_by", "user_name", "referr", "email", "comment_text", "comment_excerpt", "reason", "_login"} {
				personal = personal || strings.Contains(field, part)
			}
			personal = personal || name == "user.joined_platform" && field == "name"
			if personal != marked[field] {
				t.Errorf("%s: %s is marked: %v, want %v", name, field, marked[field], personal)
			}
		}
	}
}

func fieldsOf(t *testing.T, kind catalog.Type) map[string]json.RawMessage {
	t.Helper()
	var schema struct{ Properties map[string]json.RawMessage }
	if err := json.Unmarshal(kind.Schema, &schema); err != nil {
		t.Fatal(err)
	}
	return schema.Properties
}
