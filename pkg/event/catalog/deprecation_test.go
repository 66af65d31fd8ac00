package catalog_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tidings-dev/tidings/pkg/event/catalog"
)

func TestDeprecateChangesNothingElse(t *testing.T) {
	was, _ := catalog.Default().Type("user.registered_event")
	d := &catalog.Deprecation{Since: "2026-11-30", Instead: "user.booked_event"}
	text, err := catalog.Deprecate(was.Schema, d)
	if err != nil {
		t.Fatal(err)
	}
	is, err := catalog.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(d, is.Deprecated); diff != "" {
		t.Error(diff)
	}
	// Twice is once, and without it the definition is the old one.
	again, err := catalog.Deprecate(text, d)
	if err != nil || string(again) != string(text) {
		t.Errorf("%v: deprecated twice, it is\n%s", err, again)
	}
	back, err := catalog.Deprecate(text, nil)
	if err != nil || string(back) != strings.TrimSpace(string(was.Schema)) {
		t.Errorf("%v: %s", err, cmp.Diff(strings.TrimSpace(string(was.Schema)), string(back)))
	}
}

func TestDeprecateRefusesWhatIsNoDefinition(t *testing.T) {
	for _, text := range []string{"", "[]", `{"a"`, `{"a":1,}`, `{"a":1`} {
		if out, err := catalog.Deprecate([]byte(text), &catalog.Deprecation{Since: "2026-11-30"}); err == nil {
			t.Errorf("%q: %s", text, out)
		}
	}
}

func TestADeprecationIsChecked(t *testing.T) {
	was, _ := catalog.Default().Type("user.registered_event")
	for _, c := range []struct{ keyword, says string }{
		{`{"since":"2026-11-30"}`, ""},
		{`{"since":"2026-11-30","instead":"user.booked_event"}`, ""},
		{`{"since":"30.11.2026"}`, `since "30.11.2026" is not a date`},
		{`{}`, `since "" is not a date`},
		{`{"since":"2026-11-30","instead":"booked"}`, `instead "booked" is not the name of another event type`},
		{`{"since":"2026-11-30","instead":"user.registered_event"}`, "is not the name of another event type"},
		{`{"since":"2026-11-30","in_place":"a.b"}`, "must be an object with since"},
		{`true`, "must be an object with since"},
		{`null`, "must be an object with since"},
	} {
		text := strings.Replace(string(was.Schema), "{", `{"x-deprecated": `+c.keyword+`,`, 1)
		_, err := catalog.Parse([]byte(text))
		if c.says == "" && err != nil || c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), "line 1,")) {
			t.Errorf("%s: %v, want %q", c.keyword, err, c.says)
		}
	}
}
