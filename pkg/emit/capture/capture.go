// Package capture derives events from changes to the platform's table: usually one
// event per record of the table's stream, or none. It is pure: no I/O, no clock, no
// randomness. It promises that a record always gives the same events with the same
// IDs; that deletions by DynamoDB's TTL and writes that change nothing give none; and
// that its errors contain no user data.
package capture

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/platform"
)

// Captured is an event and its tenant.
type Captured struct {
	Tenant string
	Event  event.Event
}

// The data of each event, in the order of the catalog's schemas.
type (
	joinedPlatform struct {
		UserID string `json:"user_id"`
		Email  string `json:"email"`
		Name   string `json:"name"`
	}
	joinedCommunity struct {
		CommunityID   string `json:"community_id"`
		CommunityName string `json:"community_name"`
		CommunityCity string `json:"community_city,omitempty"`
	}
	registered struct {
		EventID        string                      `json:"event_id"`
		RegistrationID string                      `json:"registration_id"`
		PaymentID      string                      `json:"payment_id,omitempty"`
		Status         platform.RegistrationStatus `json:"status"`
	}
	cancelled struct {
		EventID        string `json:"event_id"`
		RegistrationID string `json:"registration_id"`
	}
	commented struct {
		DiscussionID string `json:"discussion_id"`
		CommentID    string `json:"comment_id"`
		CommentText  string `json:"comment_text"`
	}
	flagged struct {
		CommentID     string `json:"comment_id"`
		FlaggedUserID string `json:"flagged_user_id"`
		Reason        string `json:"reason"`
	}
	referred struct {
		ReferredUserID string `json:"referred_user_id"`
		ReferrerID     string `json:"referrer_id"`
		ReferralCode   string `json:"referral_code"`
	}
	autoClosed struct {
		DiscussionID string `json:"discussion_id"`
		ClosedAt     string `json:"closed_at"`
	}
	extended struct {
		DiscussionID string `json:"discussion_id"`
		NewExpiresAt string `json:"new_expires_at"`
	}
)

// fact is the content of an event, without its ID.
type fact struct {
	eventType string
	common    platform.Common
	actor     string
	at        time.Time // zero if the record does not contain it
	data      any
}

// Events returns the events of a stream record. It fails if the record should give an
// event and cannot be read; retrying does not help.
func Events(c platform.Change) ([]Captured, error) {
	f, err := factOf(c)
	if err != nil || f == nil {
		return nil, err
	}
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false) // receivers get the text as it was written
	if err := enc.Encode(f.data); err != nil {
		return nil, fmt.Errorf("%s: %w", f.eventType, err)
	}
	recorded := c.At.UTC()
	if !plausible(recorded) {
		return nil, fmt.Errorf("%s: the stream record has no time", f.eventType)
	}
	e := event.Event{
		// Sequence numbers are unique within a stream; a recreated table has a new one.
		ID:        event.DerivedID(recorded, strings.Join([]string{c.Stream, c.ID, c.SequenceNumber, f.eventType}, "\n")),
		Type:      f.eventType,
		Timestamp: f.at, ActorUserID: f.actor, RequestID: f.common.RequestID,
		Data: bytes.TrimRight(buf.Bytes(), "\n"),
	}
	if !plausible(f.at) {
		e.Timestamp = recorded
	}
	return []Captured{{Tenant: f.common.Tenant, Event: e}}, nil
}

// plausible reports whether a time can be an event's timestamp.
func plausible(t time.Time) bool { return t.Year() >= 1970 && t.Year() <= 9999 }

// factOf returns the fact that a record states, or nil.
func factOf(c platform.Change) (*fact, error) {
	switch c.Operation {
	case platform.Insert:
		return inserted(c.New)
	case platform.Modify:
		return modified(c.Old, c.New)
	case platform.Remove:
		if c.ByTTL {
			return nil, nil
		}
		return removed(c.Old)
	}
	return nil, nil
}

func kindOf(i platform.Image) platform.Kind {
	if i == nil {
		return ""
	}
	return i.Kind()
}

func inserted(image platform.Image) (*fact, error) {
	switch kindOf(image) {
	case platform.KindUser, platform.KindMembership, platform.KindRegistration, platform.KindComment, platform.KindFlag, platform.KindReferral:
	default:
		return nil, nil
	}
	record, err := image.Decode()
	if err != nil {
		return nil, err
	}
	switch r := record.(type) {
	case platform.User:
		return &fact{"user.joined_platform", r.Common, r.ID, r.CreatedAt, joinedPlatform{r.ID, r.Email, r.Name}}, nil
	case platform.Membership:
		// The actor is the member, not the user who wrote the record.
		return &fact{"user.joined_community", r.Common, r.UserID, r.CreatedAt, joinedCommunity{r.CommunityID, r.CommunityName, r.CommunityCity}}, nil
	case platform.Registration:
		if r.Status != platform.Pending && r.Status != platform.Success && r.Status != platform.Failed {
			return nil, nil
		}
		return registration(r, r.CreatedAt), nil
	case platform.Comment:
		return &fact{"user.posted_comment", r.Common, r.UserID, r.CreatedAt, commented{r.DiscussionID, r.ID, r.Text}}, nil
	case platform.Flag:
		return &fact{"user.flagged_comment", r.Common, r.UserID, r.CreatedAt, flagged{r.CommentID, r.FlaggedUserID, r.Reason}}, nil
	case platform.Referral:
		return &fact{"user.referred_user", r.Common, r.ReferrerID, r.CreatedAt, referred{r.ReferredUserID, r.ReferrerID, r.Code}}, nil
	}
	return nil, nil
}

func registration(r platform.Registration, at time.Time) *fact {
	return &fact{"user.registered_event", r.Common, r.UserID, at, registered{r.EventID, r.ID, r.PaymentID, r.Status}}
}

func modified(before, after platform.Image) (*fact, error) {
	kind := kindOf(after)
	if kind != kindOf(before) || kind != platform.KindRegistration && kind != platform.KindDiscussion {
		return nil, nil
	}
	if !relevant(before, after) {
		return nil, nil
	}
	was, err := before.Decode()
	if err != nil {
		return nil, fmt.Errorf("the old image: %w", err)
	}
	is, err := after.Decode()
	if err != nil {
		return nil, err
	}
	switch r := is.(type) {
	case platform.Registration:
		return paymentSettled(was.(platform.Registration), r), nil
	case platform.Discussion:
		return discussionChanged(was.(platform.Discussion), r), nil
	}
	return nil, nil
}

// relevant reports whether an attribute changed on which an event depends. Other writes
// are not decoded.
func relevant(before, after platform.Image) bool {
	for _, name := range []string{"status", "expires_at"} {
		if !reflect.DeepEqual(before.Attribute(name), after.Attribute(name)) {
			return true
		}
	}
	return false
}

// paymentSettled is the fact of a registration whose payment succeeded or failed.
func paymentSettled(was, is platform.Registration) *fact {
	if is.Status == was.Status || is.Status != platform.Success && is.Status != platform.Failed {
		return nil
	}
	return registration(is, changedAt(was.Common, is.Common))
}

// discussionChanged is the fact of an open discussion that was closed because it
// expired, or was extended.
func discussionChanged(was, is platform.Discussion) *fact {
	if was.Status != platform.Open {
		return nil
	}
	switch {
	case is.Status == platform.Closed && is.Reason == platform.Expired:
		return &fact{"discussion.auto_closed", is.Common, "", is.ClosedAt, autoClosed{is.ID, formatTime(is.ClosedAt)}}
	case is.Status == platform.Open && !was.ExpiresAt.IsZero() && was.ExpiresAt.Before(is.ExpiresAt):
		return &fact{"discussion.extended", is.Common, is.ExtendedBy, changedAt(was.Common, is.Common), extended{is.ID, formatTime(is.ExpiresAt)}}
	}
	return nil
}

// changedAt is the time of a change, from updated_at; zero if that did not change.
func changedAt(was, is platform.Common) time.Time {
	if is.UpdatedAt.Equal(was.UpdatedAt) {
		return time.Time{}
	}
	return is.UpdatedAt
}

// formatTime formats a time for events' data. It returns "" for the zero time, so that
// the catalog rejects the event.
func formatTime(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02T15:04:05.000Z07:00")
}

// removed is the fact of a deleted record: a registration was cancelled.
func removed(image platform.Image) (*fact, error) {
	if kindOf(image) != platform.KindRegistration {
		return nil, nil
	}
	record, err := image.Decode()
	if err != nil {
		return nil, fmt.Errorf("the old image: %w", err)
	}
	r := record.(platform.Registration)
	return &fact{"user.cancelled_registration", r.Common, r.UserID, time.Time{}, cancelled{r.EventID, r.ID}}, nil
}
