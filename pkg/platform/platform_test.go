package platform_test

import (
	"errors"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/pkg/platform"
)

var now = time.Date(2026, 1, 29, 12, 0, 0, 0, time.UTC)

func TestMembershipKeyDependsOnWhoAddedTheUser(t *testing.T) {
	own := platform.Membership{UserID: "u", CommunityID: "c"}
	added := own
	added.AddedBy = "organiser"
	if own.Key() != (platform.Key{PK: "USER#u", SK: "MEMBER#c"}) || added.Key() != (platform.Key{PK: "COMMUNITY#c", SK: "MEMBER#u"}) {
		t.Errorf("keys %v and %v", own.Key(), added.Key())
	}
}

func TestDiscussionWithoutEndCannotExpireOrBeExtended(t *testing.T) {
	d := platform.Discussion{ID: "d", Status: platform.Open}
	if _, err := (platform.Extension{ID: "d", To: now.Add(time.Hour), At: now}).Apply(&d); !errors.Is(err, platform.ErrNotLater) {
		t.Errorf("extended: %v", err)
	}
	if _, err := (platform.Closing{ID: "d", Reason: platform.Expired, At: now}).Apply(&d); !errors.Is(err, platform.ErrNotExpired) {
		t.Errorf("expired: %v", err)
	}
	if got, err := (platform.Closing{ID: "d", Reason: platform.ByHand, By: "a", At: now}).Apply(&d); err != nil || got.Status != platform.Closed {
		t.Errorf("closed by hand: %+v, %v", got, err)
	}
}

func TestDiscussionsAreSpreadOverAllShards(t *testing.T) {
	used := map[int]int{}
	for i := range 1000 {
		used[platform.Shard(string(rune('a'+i%26))+string(rune('0'+i/26)))]++
	}
	for shard := range platform.Shards {
		if used[shard] < 100 {
			t.Errorf("shard %d has %d of 1000 discussions", shard, used[shard])
		}
	}
}

func TestOnlyKnownStatusesEndAMembership(t *testing.T) {
	for status, want := range map[platform.MembershipStatus]struct{ active, former bool }{
		"": {true, false}, "active": {true, false}, "moderator": {true, false},
		"left": {false, true}, "removed": {false, true}, "inactive": {false, true}, "banned": {false, true}, "canceled": {false, true}, "deleted": {false, true},
		"invited": {false, false}, "requested": {false, false}, "pending": {false, false}, "waitlisted": {false, false}, "rejected": {false, false},
	} {
		if status.IsActive() != want.active || status.IsFormer() != want.former {
			t.Errorf("%q: active %t, former %t", status, status.IsActive(), status.IsFormer())
		}
	}
}
