// Package capture turns changes of the platform's data into events: one record
// of the table's stream into the events that it means, which is mostly one and
// often none. It is pure: no I/O, no clock, no randomness. It promises that the
// same record gives the same events with the same ids, however often it is read;
// that what DynamoDB removes by itself, and what changes nothing, means nothing;
// and that its errors hold nobody's data.
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

// Captured is an event with the tenant that it belongs to.
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

// fact is what a change means, before it has an id.
type fact struct {
	eventType string
	common    platform.Common
	actor     string
	at        time.Time // zero where the record does not say
	data      any
}

// Events returns the events that a stream record means. It fails where the
// record ought to mean one and can't be read; no later attempt would do better.
func Events(c platform.Change) ([]Captured, error) {
	f, err := meaning(c)
	if err != nil || f == nil {
		return nil, err
	}
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false) // the text goes out as it was written
	if err := enc.Encode(f.data); err != nil {
		return nil, fmt.Errorf("%s: %w", f.eventType, err)
	}
	recorded := c.At.UTC()
	if !plausible(recorded) {
		return nil, fmt.Errorf("%s: the stream's record has no time", f.eventType)
	}
	e := event.Event{
		// A stream numbers its records; a table made anew has another stream.
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

// plausible tells whether an event may have happened at a time.
func plausible(t time.Time) bool { return t.Year() >= 1970 && t.Year() <= 9999 }

// meaning returns what a record means, or nil.
func meaning(c platform.Change) (*fact, error) {
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
		// Whoever wrote it, the member is who joined.
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
	if !mayMean(before, after) {
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
		return settled(was.(platform.Registration), r), nil
	case platform.Discussion:
		return moved(was.(platform.Discussion), r), nil
	}
	return nil, nil
}

// mayMean tells whether any attribute changed on which a meaning hangs. A write
// that changes nothing, or only something else, is not even read.
func mayMean(before, after platform.Image) bool {
	for _, name := range []string{"status", "expires_at"} {
		if !reflect.DeepEqual(before.Attribute(name), after.Attribute(name)) {
			return true
		}
	}
	return false
}

// settled is a registration whose payment has come to an end.
func settled(was, is platform.Registration) *fact {
	if is.Status == was.Status || is.Status != platform.Success && is.Status != platform.Failed {
		return nil
	}
	return registration(is, changedAt(was.Common, is.Common))
}

// moved is a discussion that was open, and is closed because its time was over,
// or has more time.
func moved(was, is platform.Discussion) *fact {
	if was.Status != platform.Open {
		return nil
	}
	switch {
	case is.Status == platform.Closed && is.Reason == platform.Expired:
		return &fact{"discussion.auto_closed", is.Common, "", is.ClosedAt, autoClosed{is.ID, written(is.ClosedAt)}}
	case is.Status == platform.Open && !was.ExpiresAt.IsZero() && was.ExpiresAt.Before(is.ExpiresAt):
		return &fact{"discussion.extended", is.Common, is.ExtendedBy, changedAt(was.Common, is.Common), extended{is.ID, written(is.ExpiresAt)}}
	}
	return nil
}

// changedAt is when a change says it was made; zero where it does not say.
func changedAt(was, is platform.Common) time.Time {
	if is.UpdatedAt.Equal(was.UpdatedAt) {
		return time.Time{}
	}
	return is.UpdatedAt
}

// written is a time as events say it, "" where there is none: the catalog then
// refuses the event.
func written(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02T15:04:05.000Z07:00")
}

// removed is a registration that somebody cancelled.
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
