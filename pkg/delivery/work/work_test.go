package work_test

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery/work"
)

func TestAnItemComesBackAsItWas(t *testing.T) {
	i := work.Item{Tenant: "t", EndpointID: "ep_1", EventID: "01J", Attempts: 3, Trace: "Root=1"}
	if got, err := work.Decode(i.Encode()); err != nil || !reflect.DeepEqual(got, i) {
		t.Errorf("Decode = %+v, %v", got, err)
	}
	i.Delay = time.Minute // is the queue's business, not the message's
	if got, err := work.Decode(i.Encode()); err != nil || got.Delay != 0 {
		t.Errorf("Decode = %+v, %v", got, err)
	}
}

func TestWhichEventsTravelWithTheirItem(t *testing.T) {
	for name, c := range map[string]struct {
		body string
		want bool
	}{
		"small":                        {`{"a":"b"}`, true},
		"beyond ASCII":                 {`{"a":"Grüße 🎟 \u2028"}`, true},
		"as large as may be":           {strings.Repeat("x", work.MaxBody), true},
		"one byte more":                {strings.Repeat("x", work.MaxBody+1), false},
		"not UTF-8":                    {"{\"a\":\"\xff\"}", false},
		"a character SQS refuses":      {"{\"a\":\"\uFFFE\"}", false},
		"the other one that it does":   {"{\"a\":\"\uFFFF\"}", false},
		"what stands for no character": {"{\"a\":\"\uFFFD\"}", true},
	} {
		if got := work.Carries([]byte(c.body)); got != c.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}
