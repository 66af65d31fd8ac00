package work_test

import (
	"bytes"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/tidings-dev/tidings/pkg/delivery/work"
)

// FuzzDecode: a decoded item is valid and survives a round trip. Errors are short and
// do not repeat the message.
func FuzzDecode(f *testing.F) {
	for _, seed := range []string{
		`{"attempts":` + strings.Repeat("1", 5000) + `}`, ``, `{}`, `null`, `[]`, `{"tenant":"t","endpoint_id":"e","event_id":"v","attempts":-1}`, `{"tenant":5}`, `{"tenant":"t","endpoint_id":"e","event_id":"v"}`,
		`{"tenant":"t","endpoint_id":"e","event_id":"v","attempts":1e3}`, `{"tenant":"t","endpoint_id":"e","event_id":"v","attempts":9223372036854775808}`,
		`{"tenant":"t","endpoint_id":"e","wake":true}`, `{"tenant":"t","endpoint_id":"e","event_id":"v","wake":true}`, `{"tenant":"t","endpoint_id":"e"}`,
		`{"tenant":"t","endpoint_id":"e","event_id":"v","since":"0000-01-01T00:00:00+23:59","slot":"9999-12-31T23:59:59.999999999-23:59"}` + "\n{}",
		`{"TENANT":"t","Endpoint_ID":"e","event_id":"v","attempts":3,"trace":"Root=1-x","delay":5}`, work.Item{Tenant: "t", EndpointID: "e", EventID: "v", Attempts: 2, Trace: "<&>\u2028"}.Encode(),
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, body string) {
		i, err := work.Decode(body)
		if err != nil {
			if len(err.Error()) > 512 || len(body) > 40 && strings.Contains(err.Error(), body) {
				t.Errorf("an error of %d bytes: %v", len(err.Error()), err)
			}
			return
		}
		if i.Tenant == "" || i.EndpointID == "" || (i.EventID == "") != i.Wake || i.Attempts < 0 || i.Delay != 0 {
			t.Errorf("Decode(%q) = %+v", body, i)
		}
		text := i.Encode()
		back, err := work.Decode(text)
		if !back.Since.Equal(i.Since) || !back.Slot.Equal(i.Slot) {
			t.Errorf("%+v is decoded as %+v", i, back)
		}
		back.Since, back.Slot = i.Since, i.Slot // equal instants, if not equal structs
		if err != nil || !reflect.DeepEqual(back, i) || utf8.ValidString(body) && !utf8.ValidString(text) {
			t.Errorf("%+v is decoded as %+v (%v)", i, back, err)
		}
	})
}

// FuzzCarries: the message of an item with an event has only characters that SQS
// accepts, ten of them fit into one request, and the event survives a round trip.
func FuzzCarries(f *testing.F) {
	for _, seed := range []string{`{"a":"<&>\u2028 Grüße 🎟"}`, "\uFFFE", "\uFFFF", "\uFFFD", "\x00\x01\x1f\x7f\u0080", "\xff", strings.Repeat("<", work.MaxBody), strings.Repeat("\x01", work.MaxBody), strings.Repeat("x", work.MaxBody+1), "\U0001FFFE", "\U0010FFFF"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		if !work.Carries(body) {
			return
		}
		i := work.Item{Tenant: "default", EndpointID: "ep_01KDJ0000000000000000000AA", EventID: "01KDJ0000000000000000000AA", EventType: "user.posted_comment", Body: body}
		text := i.Encode()
		if 10*len(text) > 256*1024 {
			t.Errorf("ten items of %d bytes exceed 256 KiB", len(text))
		}
		if at := strings.IndexFunc(text, func(r rune) bool {
			return r != '\t' && r != '\n' && r != '\r' && (r < 0x20 || r > 0xD7FF && r < 0xE000 || r == 0xFFFE || r == 0xFFFF)
		}); at >= 0 {
			t.Errorf("SQS does not accept %q", text[at:])
		}
		if back, err := work.Decode(text); err != nil || !bytes.Equal(back.Body, body) {
			t.Errorf("%q is decoded as %q (%v)", body, back.Body, err)
		}
	})
}
