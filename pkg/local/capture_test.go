package local_test

import (
	"testing"

	"github.com/tidings-dev/tidings/pkg/local"
	"github.com/tidings-dev/tidings/pkg/local/receiver"
	"github.com/tidings-dev/tidings/pkg/platform"
)

// Changes of the platform table become events on both stores, through the template's
// triggers.
func TestPlatformTableChangesArriveAsEvents(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]local.Options{"on DynamoDB": {}, "in memory": {Memory: true}} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, o, receiver.Behaviour{})
			w.endpoint(w.url)
			paid := platform.Registration{ID: "r_1", EventID: "e_1", UserID: "u_1", PaymentID: "p_1", Status: platform.Pending}
			settled := paid
			settled.Status = platform.Success
			for _, r := range []platform.Registration{paid, paid, settled} {
				if err := w.Store.PutRecord(t.Context(), r); err != nil {
					t.Fatal(err)
				}
			}
			if err := w.Store.DeleteRecord(t.Context(), paid.Key()); err != nil {
				t.Fatal(err)
			}
			got := map[string]int{}
			for range 3 {
				arrived := w.next()
				got[arrived.Type]++
				if !arrived.Verified {
					t.Errorf("arrived %+v", arrived)
				}
			}
			if got["user.registered_event"] != 2 || got["user.cancelled_registration"] != 1 {
				t.Errorf("arrived: %v", got)
			}
		})
	}
}
