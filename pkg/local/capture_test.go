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

// A membership that the platform writes in the user's partition and in the community's is
// one event, on both stores.
func TestAJoinWrittenTwiceArrivesOnce(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]local.Options{"on DynamoDB": {}, "in memory": {Memory: true}} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, o, receiver.Behaviour{})
			w.endpoint(w.url)
			joined := platform.Membership{UserID: "u_1", CommunityID: "c_1", CommunityName: "Gophers"}
			added := joined
			added.AddedBy = "u_9"
			for _, r := range []platform.Record{joined, added, platform.User{ID: "u_2"}} {
				if err := w.Store.PutRecord(t.Context(), r); err != nil {
					t.Fatal(err)
				}
			}
			got := map[string]int{}
			for range 2 {
				got[w.next().Type]++
			}
			if got["user.joined_community"] != 1 || got["user.joined_platform"] != 1 {
				t.Errorf("arrived: %v", got)
			}
		})
	}
}

// An endpoint with old names gets a renamed type under its old name, signed as it is sent.
// The others get the new name.
func TestARenamedTypeArrivesUnderItsOldName(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]local.Options{"on DynamoDB": {}, "in memory": {Memory: true}} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, o, receiver.Behaviour{})
			w.endpoint(w.url)
			e := w.endpoint(w.url)
			e.OldNames = true
			if _, err := w.Store.UpdateEndpoint(t.Context(), e); err != nil {
				t.Fatal(err)
			}
			if err := w.Store.PutRecord(t.Context(), platform.User{ID: "u_1", Email: "Ada <ada@example.org>"}); err != nil {
				t.Fatal(err)
			}
			got := map[string]bool{}
			for range 2 {
				arrived := w.next()
				got[arrived.Type] = arrived.Verified
			}
			if !got["user.joined_platform"] || !got["user.welcome_email_sent"] {
				t.Errorf("arrived and verified: %v", got)
			}
		})
	}
}
