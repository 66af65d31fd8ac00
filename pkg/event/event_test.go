package event_test

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/pkg/event"
)

var at = time.Date(2026, 1, 29, 12, 34, 56, 789_999_999, time.UTC)

func TestEncodePreservesTheDatasSpelling(t *testing.T) {
	for name, c := range map[string]struct{ data, want string }{
		"white space goes":           {"{ \"a\" :\n 1 }", `{"a":1}`},
		"HTML is not escaped":        {`{"t":"<a href='x'>&</a>"}`, `{"t":"<a href='x'>&</a>"}`},
		"line separators stay":       {"{\"t\":\"\u2028\u2029\"}", "{\"t\":\"\u2028\u2029\"}"},
		"escapes stay escapes":       {`{"t":"\u2028\u00e4\/"}`, `{"t":"\u2028\u00e4\/"}`},
		"numbers keep their form":    {`{"n":[1e21,1.0,-0,123456789012345678901]}`, `{"n":[1e21,1.0,-0,123456789012345678901]}`},
		"the order of names is kept": {`{"z":1,"a":2}`, `{"z":1,"a":2}`},
	} {
		e := event.Event{ID: "01J", Type: "x", Timestamp: at, Data: json.RawMessage(c.data)}
		body, err := e.Encode()
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		want := `{"id":"01J","event":"x","timestamp":"2026-01-29T12:34:56.789Z","data":` + c.want + `,"idempotency_key":"01J"}`
		if string(body) != want {
			t.Errorf("%s:\n%s, want\n%s", name, body, want)
		}
		back, err := event.Decode(body)
		if err != nil || back.ID != e.ID || string(back.Data) != c.want || !back.Timestamp.Equal(at.Truncate(time.Millisecond)) {
			t.Errorf("%s: decoded %+v, %v", name, back, err)
		}
	}
}

func TestEncodeRejectsInvalidEvents(t *testing.T) {
	for name, data := range map[string]string{"no JSON": `{`, "nothing": ``, "invalid UTF-8": "{\"t\":\"\xff\"}"} {
		if _, err := (event.Event{ID: "01J", Type: "x", Timestamp: at, Data: json.RawMessage(data)}).Encode(); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}

func TestTheLimitIsExactly256KiB(t *testing.T) {
	e := event.Event{ID: "01J", Type: "x", Timestamp: at, Data: json.RawMessage(`{"t":""}`)}
	empty, err := e.Encode()
	if err != nil {
		t.Fatal(err)
	}
	room := event.MaxBodyBytes - len(empty)
	e.Data = json.RawMessage(`{"t":"` + strings.Repeat("x", room) + `"}`)
	if body, err := e.Encode(); err != nil || len(body) != 256*1024 {
		t.Errorf("a body of exactly 256 KiB: %d bytes, %v", len(body), err)
	}
	e.Data = json.RawMessage(`{"t":"` + strings.Repeat("x", room+1) + `"}`)
	var large *event.TooLargeError
	if _, err := e.Encode(); !errors.As(err, &large) || large.Bytes != 256*1024+1 {
		t.Errorf("one byte more: %v", err)
	}
}

func TestWithTypeChangesOnlyTheType(t *testing.T) {
	e := event.Event{ID: event.NewID(at), Type: "user.joined_platform", Timestamp: at, Data: json.RawMessage(`{"a":"<é\u2028>","event":"user.joined_platform"}`)}
	body, err := e.Encode()
	if err != nil {
		t.Fatal(err)
	}
	renamed := event.WithType(body, "user.joined_platform", "user.welcome_email_sent")
	got, err := event.Decode(renamed)
	want, _ := event.Decode(body)
	want.Type = "user.welcome_email_sent"
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%s, %v", renamed, err)
	}
	if back := event.WithType(renamed, "user.welcome_email_sent", "user.joined_platform"); string(back) != string(body) {
		t.Errorf("renamed back: %s", back)
	}
	e.Type = "user.posted_comment"
	if body, err = e.Encode(); err != nil {
		t.Fatal(err)
	}
	if other := event.WithType(body, "user.joined_platform", "user.welcome_email_sent"); string(other) != string(body) {
		t.Errorf("an event of another type: %s", other)
	}
}

func TestIDs(t *testing.T) {
	a, b := event.NewID(at), event.NewID(at)
	if a >= b {
		t.Errorf("%s and %s, made one after the other, do not sort", a, b)
	}
	if got, err := event.IDTime(a); err != nil || !got.Equal(at.Truncate(time.Millisecond)) {
		t.Errorf("IDTime = %s, %v", got, err)
	}
	if _, err := event.IDTime("no id"); err == nil {
		t.Error("an id that is none has a time")
	}
	if x, y := event.DerivedID(at, "change 1"), event.DerivedID(at, "change 1"); x != y {
		t.Errorf("the same change gives %s and %s", x, y)
	}
	if event.DerivedID(at, "change 1") == event.DerivedID(at, "change 2") || event.DerivedID(at, "c") == event.DerivedID(at.Add(time.Second), "c") {
		t.Error("different changes give one id")
	}
	first, last := event.IDRange(at, at)
	for _, id := range []string{a, b, event.DerivedID(at, "x")} {
		if id < first || id > last {
			t.Errorf("%s lies outside %s … %s", id, first, last)
		}
	}
	if early := event.NewID(at.Add(-time.Millisecond)); early >= first {
		t.Errorf("%s of a millisecond before lies inside", early)
	}
	if before, err := event.IDBefore("01J9Z8Q4X70000000000000000"); err != nil || before != "01J9Z8Q4X6ZZZZZZZZZZZZZZZZ" {
		t.Errorf("IDBefore = %s, %v", before, err)
	}
}
