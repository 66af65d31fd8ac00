package work_test

import (
	"testing"
	"time"

	"github.com/tidings-dev/tidings/pkg/work"
)

func TestAnItemComesBackAsItWas(t *testing.T) {
	i := work.Item{Tenant: "t", EndpointID: "ep_1", EventID: "01J", Attempts: 3, Trace: "Root=1"}
	if got, err := work.Decode(i.Encode()); err != nil || got != i {
		t.Errorf("Decode = %+v, %v", got, err)
	}
	i.Delay = time.Minute // is the queue's business, not the message's
	if got, err := work.Decode(i.Encode()); err != nil || got.Delay != 0 {
		t.Errorf("Decode = %+v, %v", got, err)
	}
}

func FuzzDecode(f *testing.F) {
	for _, seed := range []string{``, `{}`, `null`, `{"tenant":"t","endpoint_id":"e","event_id":"v","attempts":-1}`, `{"tenant":5}`, `{"tenant":"t","endpoint_id":"e","event_id":"v"}`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, body string) {
		i, err := work.Decode(body)
		if err == nil && (i.Tenant == "" || i.EndpointID == "" || i.EventID == "" || i.Attempts < 0) {
			t.Errorf("Decode(%q) = %+v", body, i)
		}
	})
}
