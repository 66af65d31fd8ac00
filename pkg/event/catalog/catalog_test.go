package catalog_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/tidings-dev/tidings/pkg/event/catalog"
)

func TestDefaultHasNineTypes(t *testing.T) {
	want := []string{
		"discussion.auto_closed", "discussion.extended", "user.cancelled_registration", "user.flagged_comment", "user.joined_community",
		"user.joined_platform", "user.posted_comment", "user.referred_user", "user.registered_event",
	}
	if got := catalog.Default().Types(); !slices.Equal(got, want) {
		t.Errorf("types = %v, want %v", got, want)
	}
}

func TestARenamedTypeNamesItsReplacement(t *testing.T) {
	c := catalog.Default()
	if name, ok := c.Renamed("user.welcome_email_sent"); name != "user.joined_platform" || !ok {
		t.Errorf("%q, %t", name, ok)
	}
	for _, name := range append(c.Types(), "", "user.exploded") {
		if replacement, ok := c.Renamed(name); ok {
			t.Errorf("%s was replaced by %s", name, replacement)
		}
	}
	if text := c.Unknown("user.welcome_email_sent"); text != `"user.welcome_email_sent" was replaced by "user.joined_platform": use the new name` {
		t.Error(text)
	}
	if text := c.Unknown(strings.Repeat("ü", 1000)); !strings.Contains(text, "is not an event type; the types are discussion.auto_closed, ") || len(text) > 500 {
		t.Error(text)
	}
}

// Events that were accepted before a type was renamed or removed are kept.
func TestStoredNamesIncludeThoseOfRenamedAndRemovedTypes(t *testing.T) {
	for name, c := range map[string]struct{ types, names, unknown []string }{
		"none":         {nil, nil, nil},
		"a type":       {[]string{"user.posted_comment"}, []string{"user.posted_comment"}, nil},
		"renamed":      {[]string{"user.joined_platform"}, []string{"user.joined_platform", "user.welcome_email_sent"}, nil},
		"an old name":  {[]string{"user.welcome_email_sent"}, []string{"user.welcome_email_sent", "user.joined_platform"}, nil},
		"both":         {[]string{"user.welcome_email_sent", "user.joined_platform"}, []string{"user.welcome_email_sent", "user.joined_platform"}, nil},
		"removed":      {[]string{"order.paid", "user.posted_comment"}, []string{"order.paid", "user.posted_comment"}, []string{"order.paid"}},
		"at the limit": {[]string{"a." + strings.Repeat("b", 62)}, []string{"a." + strings.Repeat("b", 62)}, []string{"a." + strings.Repeat("b", 62)}},
	} {
		names, unknown, err := catalog.Default().Stored(c.types)
		if err != nil || !slices.Equal(names, c.names) || !slices.Equal(unknown, c.unknown) {
			t.Errorf("%s: %q, unknown %q, %v", name, names, unknown, err)
		}
	}
	for _, name := range []string{"", "paid", "Order.paid", "order.*", "order.paid ", "a." + strings.Repeat("b", 63)} {
		if names, _, err := catalog.Default().Stored([]string{"user.posted_comment", name}); err == nil {
			t.Errorf("%q is accepted: %q", name, names)
		}
	}
	for name, want := range map[string]string{"user.joined_platform": "", "user.welcome_email_sent": "the type is called user.joined_platform now", "order.paid": "the type was removed; its events are delivered all the same"} {
		if got := catalog.Default().Gone(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

func TestSubjectIsTheFieldThatTheTypeNames(t *testing.T) {
	for name, c := range map[string]struct{ eventType, data, want string }{
		"first field":        {"user.joined_community", `{"community_id":"c_7","x":1}`, "c_7"},
		"after other values": {"user.joined_community", `{"a":{"community_id":"no"},"b":[1,{}],"community_id":"c_\u0037"}`, "c_7"},
		"missing":            {"user.joined_community", `{"a":1}`, ""},
		"not a string":       {"user.joined_community", `{"community_id":7}`, ""},
		"null":               {"user.joined_community", `{"community_id":null}`, ""},
		"not an object":      {"user.joined_community", `["community_id","c_7"]`, ""},
		"invalid JSON":       {"user.joined_community", `{"community_id"`, ""},
		"unknown type":       {"user.exploded", `{"community_id":"c_7"}`, ""},
		"invalid JSON after": {"user.joined_community", `{"community_id":"c_7",`, "c_7"},
	} {
		if got := catalog.Default().Subject(c.eventType, json.RawMessage(c.data)); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func BenchmarkSubject(b *testing.B) {
	kind, _ := catalog.Default().Type("user.registered_event")
	for b.Loop() {
		if catalog.Default().Subject(kind.Name, kind.Samples[0]) == "" {
			b.Fatal("no subject")
		}
	}
}
