package emit_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/tidings-dev/tidings/pkg/emit"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/event/validate"
)

// FuzzEnvelope compares emit with a strict reference, which is written with encoding/json
// and regular expressions: both accept the same requests. An accepted request has the same
// idempotency digest however it is spelt, and an item of a list is judged as if alone.
func FuzzEnvelope(f *testing.F) {
	for _, seed := range []string{
		joined, `[]`, `{}`, `null`, `5`, ``, "\u00a0" + joined, "\v" + joined, " \t\r\n" + joined + " \n", joined + joined, joined + `,`,
		`{"event":"user.joined_community","event":"user.joined_community","data":{"community_id":"c"}}`,
		`{"event":"user.joined_community","data":{"community_id":"c"},"d\u0061ta":{"community_id":"c"}}`,
		`{"event":"user.joined_community","data":{"community_id":"c","community_\u006ed":"c"},"tenant":null,"timestamp":null}`,
		`{"event":"user.joined_community","data":{"community_id":"c","community_id":"c"}}`, `{"Event":"user.joined_community","data":{"community_id":"c"}}`,
		`{"event":"user.joined_community","data":{"community_id":"\ud800"}}`, `{"event":"user.joined_community","data":{"community_id":"\ud83c\udf9f"},"request_id":"\udc00"}`,
		"{\"event\":\"user.joined_community\",\"data\":{\"community_id\":\"\xff\"}}", `{"event":"user.joined_community","idempotency_key":"a\nb","data":{"community_id":"c"}}`,
		`{"event":"user.joined_community","idempotency_key":" a","request_id":"\ufffd","actor_user_id":"\u00a0","data":{"community_id":"c"}}`,
		`{"event":"user.posted_comment","data":{"discussion_id":"d","comment_id":"c","comment_text":"\u0000\\ud800","comment_length":1e2}}`,
		`{"event":"user.registered_event","data":{"event_id":"e","registration_id":"r","status":"success","price":1e999}}`,
		`{"event":"user.registered_event","data":{"event_id":"e","registration_id":"r","status":"success","price":-0.0}}`,
		`{"event":"user.joined_community","timestamp":"2026-01-29T12:34:56,7Z","data":{"community_id":"c"}}`, `{"event":"user.joined_community","timestamp":"2026-01-29T1:34:56Z","data":{"community_id":"c"}}`,
		`{"event":"user.joined_community","timestamp":"2026-01-29T12:34:56.123456789+23:59","data":{"community_id":"c"}}`, `{"event":"user.joined_community","timestamp":"2026-01-29t12:34:56z","data":{"community_id":"c"}}`,
		`{"event":"user.joined_community","timestamp":"2026-02-29T12:34:60Z","data":{"community_id":"c"}}`, `{"event":"user.joined_community","tenant":"a b","data":{"community_id":"c"}}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		em, store := newEmitter()
		want := reference(em, payload)
		if errors.Is(want, errNotCompared) {
			return
		}
		_, err := em.Invoke(t.Context(), payload)
		if (err == nil) != (want == nil) {
			t.Fatalf("%q: emit says %v, the reference %v", payload, err, want)
		}
		if n := len(stored(t, store)); (n == 1) != (err == nil) {
			t.Errorf("%d events stored", n)
		}
		if json.Valid(payload) {
			answer, err := em.Invoke(t.Context(), fmt.Appendf(nil, "[%s,%s]", joined, payload))
			if err != nil {
				t.Fatalf("%q in a list: %v", payload, err)
			}
			results := answer.(map[string][]emit.Result)["results"]
			if len(results) != 2 || results[0].Error != nil || (results[1].Error == nil) != (want == nil) {
				t.Errorf("%q in a list: %+v, the reference says %v", payload, results, want)
			}
		}
		if want != nil {
			return
		}
		respelt(t, em, payload)
	})
}

// respelt checks that an accepted request is a duplicate of itself in another spelling.
func respelt(t *testing.T, em *emit.Emitter, payload []byte) {
	t.Helper()
	in := json.NewDecoder(bytes.NewReader(payload))
	in.UseNumber()
	var fields map[string]any
	if err := in.Decode(&fields); err != nil {
		t.Fatal(err)
	}
	fields["idempotency_key"] = "the key"
	if at, err := time.Parse(time.RFC3339Nano, fmt.Sprint(fields["timestamp"])); err == nil {
		fields["timestamp"] = at.UTC().Format("2006-01-02T15:04:05.000000000Z")
	}
	var one bytes.Buffer
	fmt.Fprintf(&one, `{"idempotency_key":"the key",%s`, bytes.TrimLeft(bytes.Trim(payload, " \t\r\n")[1:], " \t\r\n"))
	if bytes.Contains(payload, []byte("key")) || bytes.Contains(payload, []byte(`\u`)) { // perhaps it has one already
		one.Reset()
		text, err := json.Marshal(fields)
		if err != nil {
			t.Fatal(err)
		}
		one.Write(text)
	}
	first, err := em.Invoke(t.Context(), one.Bytes())
	if err != nil {
		t.Fatalf("%s: %v", one.Bytes(), err)
	}
	another, err := json.MarshalIndent(fields, " ", "\t") // sorted, and < and & escaped
	if err != nil {
		t.Fatal(err)
	}
	again, err := em.Invoke(t.Context(), another)
	if err != nil || !again.(emit.Result).Duplicate || again.(emit.Result).ID != first.(emit.Result).ID {
		t.Errorf("%s\nand %s: %+v, %v", one.Bytes(), another, again, err)
	}
}

var (
	errNotCompared = errors.New("a list, or too large")
	errRefused     = errors.New("refused")

	uncarriedText = regexp.MustCompile(`[\p{Cc}\x{FFFD}\x{FFFE}\x{FFFF}]|^\p{Z}|\p{Z}$`)
	tenantForm    = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)
	timeForm      = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]([01]\d|2[0-3]):[0-5]\d)$`)
)

// reference returns nil if a request has to be accepted.
func reference(em *emit.Emitter, payload []byte) error {
	trimmed := bytes.Trim(payload, " \t\r\n")
	if len(payload) > 10_000 || bytes.HasPrefix(trimmed, []byte("[")) {
		return errNotCompared
	}
	if !json.Valid(payload) || !utf8.Valid(payload) || hasLoneSurrogate(string(payload)) {
		return errRefused
	}
	in := json.NewDecoder(bytes.NewReader(payload))
	in.UseNumber()
	value, err := strictly(in)
	if errors.Is(err, errRefused) {
		if bytes.Contains(payload, []byte(`vents"`)) {
			return errNotCompared // the duplicate key may be in an item
		}
		return err
	}
	if _, err := in.Token(); !errors.Is(err, io.EOF) {
		return errRefused
	}
	fields, ok := value.(map[string]any)
	if !ok {
		return errRefused
	}
	if _, ok := fields["events"]; ok {
		return errNotCompared
	}
	texts := map[string]string{}
	for name, v := range fields {
		switch name {
		case "event", "tenant", "timestamp", "actor_user_id", "request_id", "idempotency_key":
			text, isText := v.(string)
			if !isText && v != nil {
				return errRefused
			}
			texts[name] = text
		case "data":
		default:
			return errRefused
		}
	}
	for _, name := range []string{"actor_user_id", "request_id", "idempotency_key"} {
		if len(texts[name]) > 256 || uncarriedText.MatchString(texts[name]) {
			return errRefused
		}
	}
	if at := texts["timestamp"]; at != "" {
		if when, err := time.Parse(time.RFC3339Nano, at); err != nil || !timeForm.MatchString(at) || when.UTC().Year() < 0 || when.UTC().Year() > 9999 {
			return errRefused
		}
	}
	if tenant := texts["tenant"]; tenant != "" && !tenantForm.MatchString(tenant) {
		return errRefused
	}
	data, err := json.Marshal(fields["data"])
	if err != nil || validate.Default().Validate(texts["event"], data) != nil || len(data) > event.MaxBodyBytes {
		return errRefused
	}
	t, _ := validate.Default().Type(texts["event"])
	if about, _ := fields["data"].(map[string]any)[t.Subject].(string); uncarriedText.MatchString(about) {
		return errRefused
	}
	return nil
}

// strictly decodes a value, without duplicate keys and numbers that are no doubles.
func strictly(in *json.Decoder) (any, error) {
	token, err := in.Token()
	if err != nil {
		return nil, err
	}
	switch token := token.(type) {
	case json.Number:
		if _, err := strconv.ParseFloat(token.String(), 64); err != nil {
			return nil, errRefused
		}
		return token, nil
	case json.Delim:
		object, list := map[string]any{}, []any{}
		for in.More() {
			name := ""
			if token == '{' {
				key, err := in.Token()
				if err != nil {
					return nil, err
				}
				name = key.(string)
			}
			value, err := strictly(in)
			if _, twice := object[name]; err != nil || twice {
				return nil, errRefused
			}
			if token == '{' {
				object[name] = value
			} else {
				list = append(list, value)
			}
		}
		if _, err := in.Token(); err != nil {
			return nil, err
		}
		if token == '{' {
			return object, nil
		}
		return list, nil
	}
	return token, nil
}

// hasLoneSurrogate reports whether a valid JSON text has the escape of a surrogate without
// the other half.
func hasLoneSurrogate(text string) bool {
	escape := func(at int) (unit uint64, ok bool) {
		if at+6 > len(text) || text[at] != '\\' || text[at+1] != 'u' {
			return 0, false
		}
		unit, err := strconv.ParseUint(text[at+2:at+6], 16, 16)
		return unit, err == nil
	}
	for at := strings.IndexByte(text, '\\'); at >= 0 && at < len(text); at++ {
		if text[at] != '\\' {
			continue
		}
		unit, ok := escape(at)
		switch {
		case !ok:
			at++
			continue
		case unit >= 0xDC00 && unit <= 0xDFFF:
			return true
		case unit >= 0xD800 && unit <= 0xDBFF:
			low, ok := escape(at + 6)
			if !ok || low < 0xDC00 || low > 0xDFFF {
				return true
			}
			at += 6
		}
		at += 5
	}
	return false
}
