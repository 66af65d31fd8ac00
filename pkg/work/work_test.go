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
