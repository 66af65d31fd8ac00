package rules_test

import (
	"testing"
	"time"

	"github.com/tidings-dev/tidings/pkg/emit/capture/rules"
	"github.com/tidings-dev/tidings/pkg/platform"
	"github.com/tidings-dev/tidings/pkg/store/dynamoitem"
)

// What a record proves is what its insertion was captured as.
func TestARecordProvesTheEventOfItsInsertion(t *testing.T) {
	created := time.UnixMilli(1769690096789).UTC()
	common := platform.Common{Tenant: "acme", CreatedAt: created}
	for want, record := range map[string]platform.Record{
		"user.joined_platform":  platform.User{Common: common, ID: "u_1"},
		"user.joined_community": platform.Membership{Common: common, UserID: "u_1", CommunityID: "c_1"},
		"user.registered_event": platform.Registration{Common: common, ID: "r_1", EventID: "e_1", UserID: "u_1", Status: platform.Success},
		"user.posted_comment":   platform.Comment{Common: common, ID: "m_1", DiscussionID: "d_1", UserID: "u_1", Text: "hello"},
		"user.flagged_comment":  platform.Flag{Common: common, CommentID: "m_1", UserID: "u_1", FlaggedUserID: "u_2"},
		"user.referred_user":    platform.Referral{Common: common, ReferrerID: "u_1", ReferredUserID: "u_2"},
	} {
		image := dynamoitem.PlatformImage(dynamoitem.EncodeRecord(record))
		expected, ok, err := rules.Expect(image)
		if err != nil || !ok || expected.Type != want || expected.Tenant != "acme" || !expected.At.Equal(created) {
			t.Errorf("%s: %+v, %v, %v", want, expected, ok, err)
		}
		list, err := rules.Shipped().Events(platform.Change{Operation: platform.Insert, New: image, At: created, SequenceNumber: "1"})
		if err != nil || len(list) != 1 || rules.Identity(list[0].Event) != expected.Identity {
			t.Errorf("%s is captured as %+v (%v), and expected as %q", want, list, err, expected.Identity)
		}
	}
}

func TestWhatRecordsProve(t *testing.T) {
	at := time.UnixMilli(1769690096789).UTC()
	registration := func(s platform.RegistrationStatus) platform.Record {
		return platform.Registration{Common: platform.Common{CreatedAt: at}, ID: "r_1", EventID: "e_1", UserID: "u_1", Status: s}
	}
	discussion := func(s platform.Status, r platform.Reason) platform.Record {
		return platform.Discussion{ID: "d_1", Status: s, Reason: r, ClosedAt: at}
	}
	for name, c := range map[string]struct {
		record platform.Record
		want   string
	}{
		"a payment that succeeded":    {registration(platform.Success), "user.registered_event\x00r_1\x00success"},
		"a payment in progress":       {registration(platform.Pending), "user.registered_event\x00r_1\x00pending"},
		"a cancelled registration":    {registration(platform.Cancelled), ""},
		"an expired discussion":       {discussion(platform.Closed, platform.Expired), "discussion.auto_closed\x00d_1"},
		"one that was closed by hand": {discussion(platform.Closed, platform.ByHand), ""},
		"an open discussion":          {discussion(platform.Open, ""), ""},
		"a comment without a time":    {platform.Comment{ID: "m_1", DiscussionID: "d_1", UserID: "u_1"}, "user.posted_comment\x00d_1\x00m_1"},
	} {
		got, ok, err := rules.Expect(dynamoitem.PlatformImage(dynamoitem.EncodeRecord(c.record)))
		if err != nil || got.Identity != c.want || ok != (c.want != "") {
			t.Errorf("%s: %+v, %v, %v", name, got, ok, err)
		}
	}
	unknown := dynamoitem.EncodeRecord(registration(platform.Success))
	unknown["kind"] = dynamoitem.S("invoice")
	if _, ok, err := rules.Expect(dynamoitem.PlatformImage(unknown)); ok || err != nil {
		t.Errorf("an unknown kind: %v, %v", ok, err)
	}
	broken := dynamoitem.EncodeRecord(registration(platform.Success))
	delete(broken, "registration_id")
	if got, ok, err := rules.Expect(dynamoitem.PlatformImage(broken)); ok || err == nil || !got.At.Equal(at) {
		t.Errorf("a registration without an id: %+v, %v, %v", got, ok, err)
	}
}
