package work_test

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery/work"
)

func TestDecodeReadsWhatEncodeWrites(t *testing.T) {
	i := work.Item{Tenant: "t", EndpointID: "ep_1", EventID: "01J", Slow: true, Attempts: 3, Trace: "Root=1"}
	if got, err := work.Decode(i.Encode()); err != nil || !reflect.DeepEqual(got, i) {
		t.Errorf("Decode = %+v, %v", got, err)
	}
	i.Delay = time.Minute // is not part of the message
	if got, err := work.Decode(i.Encode()); err != nil || got.Delay != 0 {
		t.Errorf("Decode = %+v, %v", got, err)
	}
}

func TestTimesThatJSONCannotExpressAreClamped(t *testing.T) {
	i := work.Item{
		Tenant: "t", EndpointID: "ep_1", EventID: "01J",
		Since: time.Date(10_889, 8, 2, 5, 31, 50, 0, time.UTC), Slot: time.Date(-1, 1, 1, 0, 0, 0, 0, time.FixedZone("", 26*3600)),
	}
	got, err := work.Decode(i.Encode())
	if err != nil || got.Since.Year() != 9999 || got.Slot.Year() != 0 {
		t.Errorf("Decode = %+v, %v", got, err)
	}
}

func TestSmallEventsTravelWithTheirItem(t *testing.T) {
	for name, c := range map[string]struct {
		body string
		want bool
	}{
		"small":                       {`{"a":"b"}`, true},
		"not ASCII":                   {`{"a":"Grüße 🎟 \u2028"}`, true},
		"at the limit":                {strings.Repeat("x", work.MaxBody), true},
		"over the limit":              {strings.Repeat("x", work.MaxBody+1), false},
		"not UTF-8":                   {"{\"a\":\"\xff\"}", false},
		"a byte that is no character": {"\x80", false},
		"U+FFFE, which SQS rejects":   {"{\"a\":\"\uFFFE\"}", false},
		"U+FFFF, which SQS rejects":   {"{\"a\":\"\uFFFF\"}", false},
		"U+FFFD, the replacement":     {"{\"a\":\"\uFFFD\"}", true},
	} {
		if got := work.Carries([]byte(c.body)); got != c.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

// RFC 3339 has zones of less than a day.
func TestAZoneOfADayBecomesUTC(t *testing.T) {
	for _, offset := range []int{24 * 3600, -24 * 3600, 23 * 3600, -23 * 3600} {
		at := time.Date(2026, 1, 29, 12, 0, 0, 0, time.FixedZone("", offset))
		got, err := work.Decode(work.Item{Tenant: "t", EndpointID: "ep_1", EventID: "01J", Slot: at}.Encode())
		if err != nil || !got.Slot.Equal(at) {
			t.Errorf("an offset of %d s: %s, %v", offset, got.Slot, err)
		}
	}
}

func TestAnItemWithoutAnEventIsOneLine(t *testing.T) {
	i := work.Item{Tenant: "t", EndpointID: "ep_1", EventID: "01J"}
	if text := i.Encode(); strings.Contains(text, "\n") {
		t.Errorf("%q", text)
	}
	i.Body = []byte("{}")
	if text := i.Encode(); !strings.HasSuffix(text, "}\n{}") {
		t.Errorf("with an event: %q", text)
	}
}

// An item is either of a job or of an endpoint.
func TestAnItemOfAJobHasNothingElse(t *testing.T) {
	for name, c := range map[string]struct {
		item work.Item
		ok   bool
	}{
		"a job":                  {work.Item{Tenant: "t", JobID: "job_1"}, true},
		"a job without a tenant": {work.Item{JobID: "job_1"}, false},
		"a job of an endpoint":   {work.Item{Tenant: "t", JobID: "job_1", EndpointID: "ep_1"}, false},
		"a job of an event":      {work.Item{Tenant: "t", JobID: "job_1", EventID: "01J"}, false},
	} {
		if got, err := work.Decode(c.item.Encode()); (err == nil) != c.ok || c.ok && got.JobID != c.item.JobID {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

func TestAContextKnowsItsMessage(t *testing.T) {
	if id := work.MessageID(t.Context()); id != "" {
		t.Errorf("without a message: %q", id)
	}
	if id := work.MessageID(work.WithMessage(t.Context(), &work.Message{ID: "m"})); id != "m" {
		t.Errorf("with one: %q", id)
	}
}
