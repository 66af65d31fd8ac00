package rules

import (
	"encoding/json"
	"strings"
	"time"

	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/platform"
)

// Expected is an event that the state of a record proves: the record would not be as it
// is without a change that means the event.
type Expected struct {
	Tenant string
	Type   string
	// Identity is the Identity of the event.
	Identity string
	// At is when the change was made, by the record's own time; zero if it has none.
	At time.Time
}

// Expect returns the event that a record of the platform's table proves; false if it
// proves none. These are the event of the record's insertion, for a registration with its
// current status, and discussion.auto_closed for a discussion that was closed because it
// expired. It fails if the record should mean an event and cannot be read; the Expected
// then has what could be read.
func Expect(image platform.Image) (Expected, bool, error) {
	record, err := image.Decode()
	if d, ok := record.(platform.Discussion); ok {
		if err != nil || d.Status != platform.Closed || d.Reason != platform.Expired || d.ClosedAt.IsZero() {
			return Expected{}, false, nil
		}
		return Expected{d.Tenant, "discussion.auto_closed", identity("discussion.auto_closed", d.ID), d.ClosedAt}, true, nil
	}
	var common platform.Common
	if record != nil {
		common = record.Shared()
	}
	proved := Expected{Tenant: common.Tenant, At: common.CreatedAt}
	// Neither the ID nor the time of this event is used: it only has to have one.
	events, err := Shipped().Events(platform.Change{Operation: platform.Insert, New: image, At: time.Unix(0, 0)})
	if err != nil || len(events) == 0 {
		return proved, false, err
	}
	e := events[0]
	proved.Tenant, proved.Type, proved.Identity = e.Tenant, e.Event.Type, Identity(e.Event)
	return proved, true, nil
}

// Identity is the same for an event and for the Expected of the record that proves it. It
// is "" for an event that no record proves.
func Identity(e event.Event) string {
	var data struct {
		UserID         string `json:"user_id"`
		CommunityID    string `json:"community_id"`
		RegistrationID string `json:"registration_id"`
		Status         string `json:"status"`
		DiscussionID   string `json:"discussion_id"`
		CommentID      string `json:"comment_id"`
		ReferrerID     string `json:"referrer_id"`
		ReferredUserID string `json:"referred_user_id"`
	}
	if json.Unmarshal(e.Data, &data) != nil {
		return ""
	}
	switch e.Type {
	case "user.joined_platform":
		return identity(e.Type, data.UserID)
	case "user.joined_community":
		return identity(e.Type, e.ActorUserID, data.CommunityID)
	case "user.registered_event":
		return identity(e.Type, data.RegistrationID, data.Status)
	case "user.posted_comment":
		return identity(e.Type, data.DiscussionID, data.CommentID)
	case "user.flagged_comment":
		return identity(e.Type, e.ActorUserID, data.CommentID)
	case "user.referred_user":
		return identity(e.Type, data.ReferrerID, data.ReferredUserID)
	case "discussion.auto_closed":
		return identity(e.Type, data.DiscussionID)
	}
	return ""
}

func identity(parts ...string) string { return strings.Join(parts, "\x00") }
