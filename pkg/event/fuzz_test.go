package event_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/tidings-dev/tidings/pkg/event"
)

// wire is a body for encoding/json, with its fields in the order that receivers see.
type wire struct {
	ID             string          `json:"id"`
	Event          string          `json:"event"`
	Timestamp      string          `json:"timestamp"`
	ActorUserID    string          `json:"actor_user_id,omitempty"`
	Data           json.RawMessage `json:"data"`
	RequestID      string          `json:"request_id,omitempty"`
	TraceID        string          `json:"trace_id,omitempty"`
	IdempotencyKey string          `json:"idempotency_key"`
}

// FuzzEncode checks that Decode reads what Encode returns, that encoding the result
// gives the same bytes, that encoding/json would write the same, that the data keeps
// its spelling, and that the limit holds.
func FuzzEncode(f *testing.F) {
	f.Add("user.posted_comment", "u_1", "key", []byte(`{"a": [1e21, 1.0, "<&>\u2028", "Grüße"], "a": null}`), int64(1_769_690_096_789))
	f.Add("", "", "", []byte(`null`), int64(0))
	f.Add("\ufffd", "\u2028", "\x00", []byte(" {\n} "), int64(-1))
	f.Add("t", "", "", []byte(`{}`), int64(253402300800000))
	f.Add("t", "", "", []byte(`{"a":"`+"\u2029"+`"}`), int64(253402300799999))
	f.Fuzz(func(t *testing.T, eventType, actor, key string, data []byte, at int64) {
		when := time.UnixMilli(at).UTC()
		if !utf8.ValidString(eventType + "." + actor + "." + key) {
			return // they come out of JSON, which has no such strings
		}
		e := event.Event{ID: event.DerivedID(time.UnixMilli(1), key), Type: eventType, Timestamp: when, ActorUserID: actor, Data: data, IdempotencyKey: key}
		body, err := e.Encode()
		if when.Year() < 0 || when.Year() > 9999 {
			if err == nil {
				t.Errorf("a year that RFC 3339 has not became %s", body)
			}
			return
		}
		if err != nil {
			if json.Valid(data) && utf8.Valid(data) && len(data) < event.MaxBodyBytes/8 && len(eventType)+len(actor)+len(key) < event.MaxBodyBytes/8 {
				t.Errorf("refused %q: %v", data, err)
			}
			return
		}
		if len(body) > event.MaxBodyBytes || !utf8.Valid(body) {
			t.Fatalf("a body of %d bytes", len(body))
		}
		back, err := event.Decode(body)
		if err != nil {
			if eventType == "" {
				return // no catalog has such a type
			}
			t.Fatalf("Decode(%q): %v", body, err)
		}
		var want bytes.Buffer
		if err := json.Compact(&want, data); err != nil || !bytes.Equal(back.Data, want.Bytes()) {
			t.Errorf("data %q became %q (%v)", data, back.Data, err)
		}
		var w wire
		strict := json.NewDecoder(bytes.NewReader(body))
		strict.DisallowUnknownFields()
		if err := strict.Decode(&w); err != nil {
			t.Fatalf("%q is not a body: %v", body, err)
		}
		var line bytes.Buffer
		standard := json.NewEncoder(&line)
		standard.SetEscapeHTML(false)
		if err := standard.Encode(w); err != nil {
			t.Fatal(err)
		}
		// It alone escapes these two outside of data.
		spelt := strings.NewReplacer("\u2028", `\u2028`, "\u2029", `\u2029`)
		if got := spelt.Replace(string(body)) + "\n"; got != spelt.Replace(line.String()) || w.Event != eventType || w.ActorUserID != actor {
			t.Errorf("%q is written, by encoding/json %q", got, &line)
		}
		if !back.Timestamp.Equal(when) || back.ID != e.ID {
			t.Errorf("%+v became %+v", e, back)
		}
		if again, err := back.Encode(); err != nil || !bytes.Equal(again, body) {
			t.Errorf("%q encodes again as %q (%v)", body, again, err)
		}
	})
}
