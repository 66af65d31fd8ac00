// Package capture derives events from changes to the platform's table: usually one
// event per record of the table's stream, or none. It is pure: no I/O, no clock, no
// randomness. It promises that a record always gives the same events with the same
// IDs; that every event has a form that the catalog accepts, unless an id is too long;
// that deletions by DynamoDB's TTL and writes that change nothing give none; and that
// its errors contain no user data.
package capture

import (
	"bytes"
	"encoding/json"
	"errors"
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
	// OnceKeys are idempotency keys, for an event that can be captured from two records;
	// empty for the others. They are reserved in order, with Reservation. If another
	// event holds one and IsSame, its ID is the event's.
	OnceKeys []string

	recorded time.Time
}

// New returns the event of a change: e with its ID, and with the time of the change if its
// timestamp is missing or no event can have it. before is how many events of its type the
// change gave already. It fails if the change has no time.
func New(c platform.Change, tenant string, e event.Event, before int) (Captured, error) {
	recorded := c.At.UTC()
	if !plausible(recorded) {
		return Captured{}, errors.New("the stream record has no time")
	}
	// Sequence numbers are unique within a stream; a recreated table has a new one.
	source := strings.Join([]string{c.Stream, c.ID, c.SequenceNumber, e.Type}, "\n")
	if before > 0 {
		source += fmt.Sprint("\n", before)
	}
	e.ID = event.DerivedID(recorded, source)
	if !plausible(e.Timestamp) {
		e.Timestamp = recorded
	}
	return Captured{Tenant: tenant, Event: e, recorded: recorded}, nil
}

// The data of each event, as in the catalog's schemas. An empty optional field is left
// out.
type (
	joinedPlatform struct {
		UserID string `json:"user_id"`
		Email  string `json:"email,omitempty"`
		Name   string `json:"name,omitempty"`
	}
	joinedCommunity struct {
		CommunityID   string `json:"community_id"`
		CommunityName string `json:"community_name,omitempty"`
		CommunityCity string `json:"community_city,omitempty"`
		AddedBy       string `json:"added_by,omitempty"`
		Rejoined      bool   `json:"rejoined,omitempty"`
	}
	registered struct {
		EventID        string                      `json:"event_id"`
		RegistrationID string                      `json:"registration_id"`
		PaymentID      string                      `json:"payment_id,omitempty"`
		Status         platform.RegistrationStatus `json:"status"`
		about
	}
	cancelled struct {
		EventID        string `json:"event_id"`
		RegistrationID string `json:"registration_id"`
		UserID         string `json:"user_id"`
		CancelledBy    string `json:"cancelled_by,omitempty"`
		Reason         string `json:"reason,omitempty"`
		PreviousStatus string `json:"previous_status,omitempty"`
		PaymentID      string `json:"payment_id,omitempty"`
		about
	}
	// about describes the platform's event of a registration.
	about struct {
		EventName     string      `json:"event_name,omitempty"`
		Price         json.Number `json:"price,omitempty"`
		Currency      string      `json:"currency,omitempty"`
		CommunityID   string      `json:"community_id,omitempty"`
		CommunityName string      `json:"community_name,omitempty"`
	}
	commented struct {
		DiscussionID     string `json:"discussion_id"`
		CommentID        string `json:"comment_id"`
		CommentText      string `json:"comment_text"`
		CommentTruncated bool   `json:"comment_truncated,omitempty"`
		CommentLength    int    `json:"comment_length,omitempty"`
		UserName         string `json:"user_name,omitempty"`
		DiscussionTitle  string `json:"discussion_title,omitempty"`
		CommunityID      string `json:"community_id,omitempty"`
		CommunityName    string `json:"community_name,omitempty"`
	}
	flagged struct {
		CommentID       string `json:"comment_id"`
		FlaggedUserID   string `json:"flagged_user_id"`
		Reason          string `json:"reason,omitempty"`
		FlaggedUserName string `json:"flagged_user_name,omitempty"`
		CommentExcerpt  string `json:"comment_excerpt,omitempty"`
		DiscussionID    string `json:"discussion_id,omitempty"`
		DiscussionTitle string `json:"discussion_title,omitempty"`
		CommunityID     string `json:"community_id,omitempty"`
		CommunityName   string `json:"community_name,omitempty"`
	}
	referred struct {
		ReferredUserID   string `json:"referred_user_id"`
		ReferrerID       string `json:"referrer_id"`
		ReferralCode     string `json:"referral_code,omitempty"`
		ReferredUserName string `json:"referred_user_name,omitempty"`
		ReferrerName     string `json:"referrer_name,omitempty"`
	}
	autoClosed struct {
		DiscussionID  string `json:"discussion_id"`
		ClosedAt      string `json:"closed_at"`
		Title         string `json:"title,omitempty"`
		CommunityID   string `json:"community_id,omitempty"`
		CommunityName string `json:"community_name,omitempty"`
	}
	extended struct {
		DiscussionID      string `json:"discussion_id"`
		NewExpiresAt      string `json:"new_expires_at"`
		PreviousExpiresAt string `json:"previous_expires_at,omitempty"`
		ExtendedByLogin   string `json:"extended_by_login,omitempty"`
		Title             string `json:"title,omitempty"`
		CommunityID       string `json:"community_id,omitempty"`
		CommunityName     string `json:"community_name,omitempty"`
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
	if comment, ok := f.data.(commented); ok {
		f.data = fitted(comment)
	}
	data, err := encode(f.data)
	if err != nil {
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
		Timestamp: f.at, ActorUserID: f.actor, RequestID: requestID(f.common.RequestID),
		Data: data,
	}
	if !plausible(f.at) {
		e.Timestamp = recorded
	}
	captured := Captured{Tenant: f.common.Tenant, Event: e, recorded: recorded}
	if join, ok := f.data.(joinedCommunity); ok {
		captured.OnceKeys = onceKeys(f.eventType, recorded, f.actor, join.CommunityID)
	}
	return []Captured{captured}, nil
}

// encode builds an event's data. Receivers get the text as it was written, without
// escapes for HTML.
func encode(data any) ([]byte, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(data); err != nil {
		return nil, err
	}
	return bytes.TrimRight(buf.Bytes(), "\n"), nil
}

// plausible reports whether a time can be an event's timestamp.
func plausible(t time.Time) bool { return t.Year() >= 1970 && t.Year() <= 9999 }

// factOf returns the fact that a record states, or nil.
func factOf(c platform.Change) (*fact, error) {
	switch c.Operation {
	case platform.Insert:
		return inserted(c.New)
	case platform.Modify:
		return modified(c)
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
		return &fact{"user.joined_platform", r.Common, r.ID, r.CreatedAt, joinedPlatform{r.ID, address(r.Email), label(r.Name)}}, nil
	case platform.Membership:
		if !r.Status.IsActive() {
			return nil, nil
		}
		at := r.CreatedAt
		if at.Before(r.LeftAt) {
			at = time.Time{} // it is when the user joined first
		}
		return joined(r, at, r.Rejoined || !r.LeftAt.IsZero()), nil
	case platform.Registration:
		if r.Status != platform.Pending && r.Status != platform.Success && r.Status != platform.Failed {
			return nil, nil
		}
		return registration(r, r.CreatedAt), nil
	case platform.Comment:
		return &fact{"user.posted_comment", r.Common, r.UserID, r.CreatedAt, commented{
			DiscussionID: r.DiscussionID, CommentID: r.ID, CommentText: r.Text, UserName: label(r.UserName),
			DiscussionTitle: label(r.DiscussionTitle), CommunityID: optionalID(r.CommunityID), CommunityName: label(r.CommunityName),
		}}, nil
	case platform.Flag:
		return &fact{"user.flagged_comment", r.Common, r.UserID, r.CreatedAt, flagged{
			CommentID: r.CommentID, FlaggedUserID: r.FlaggedUserID, Reason: cut(r.Reason, maxReason), FlaggedUserName: label(r.FlaggedUserName),
			CommentExcerpt: cut(r.CommentText, maxExcerpt), DiscussionID: optionalID(r.DiscussionID), DiscussionTitle: label(r.DiscussionTitle),
			CommunityID: optionalID(r.CommunityID), CommunityName: label(r.CommunityName),
		}}, nil
	case platform.Referral:
		return &fact{"user.referred_user", r.Common, r.ReferrerID, r.CreatedAt, referred{
			r.ReferredUserID, r.ReferrerID, optionalID(r.Code), label(r.ReferredUserName), label(r.ReferrerName),
		}}, nil
	}
	return nil, nil
}

// joined is the fact of a user who is now a member. The actor is the member, not the
// organiser who added them.
func joined(r platform.Membership, at time.Time, rejoined bool) *fact {
	return &fact{"user.joined_community", r.Common, r.UserID, at, joinedCommunity{
		r.CommunityID, label(r.CommunityName), label(r.CommunityCity), optionalID(r.AddedBy), rejoined,
	}}
}

func registration(r platform.Registration, at time.Time) *fact {
	return &fact{"user.registered_event", r.Common, r.UserID, at, registered{r.EventID, r.ID, optionalID(r.PaymentID), r.Status, aboutOf(r)}}
}

func aboutOf(r platform.Registration) about {
	return about{label(r.EventName), number(r.Price), cut(r.Currency, maxCurrency), optionalID(r.CommunityID), label(r.CommunityName)}
}

// cancellation is the fact of a registration that was cancelled. The actor is who
// cancelled it: the user unless the record names another.
func cancellation(r platform.Registration, before platform.RegistrationStatus, at time.Time) *fact {
	actor := actorID(r.CancelledBy)
	if actor == "" {
		actor = r.UserID
	}
	return &fact{"user.cancelled_registration", r.Common, actor, at, cancelled{
		r.EventID, r.ID, r.UserID, optionalID(r.CancelledBy), cut(r.CancelReason, maxReason), label(string(before)), optionalID(r.PaymentID), aboutOf(r),
	}}
}

func modified(c platform.Change) (*fact, error) {
	kind := kindOf(c.New)
	if kind != kindOf(c.Old) || kind != platform.KindMembership && kind != platform.KindRegistration && kind != platform.KindDiscussion {
		return nil, nil
	}
	if !relevant(c.Old, c.New) {
		return nil, nil
	}
	// Of the old image, the status and the end decide; an id that it lacks does not matter.
	was, _ := c.Old.Decode()
	is, err := c.New.Decode()
	if err != nil {
		return nil, err
	}
	switch r := is.(type) {
	case platform.Membership:
		return membershipChanged(was.(platform.Membership), r), nil
	case platform.Registration:
		return registrationChanged(was.(platform.Registration), r), nil
	case platform.Discussion:
		return discussionChanged(was.(platform.Discussion), r, c.At.UTC()), nil
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

// membershipChanged is the fact of a user who became a member, again or after they had
// been invited or had asked.
func membershipChanged(was, is platform.Membership) *fact {
	if was.Status.IsActive() || !is.Status.IsActive() {
		return nil
	}
	return joined(is, changedAt(was.Common, is.Common), was.Status.IsFormer() || is.Rejoined || !is.LeftAt.IsZero())
}

// registrationChanged is the fact of a registration whose payment succeeded or failed,
// or that was cancelled.
func registrationChanged(was, is platform.Registration) *fact {
	if is.Status == was.Status {
		return nil
	}
	switch is.Status {
	case platform.Success, platform.Failed:
		return registration(is, changedAt(was.Common, is.Common))
	case platform.Cancelled:
		at := is.CancelledAt
		if at.IsZero() || at.Equal(was.CancelledAt) {
			at = changedAt(was.Common, is.Common)
		}
		return cancellation(is, was.Status, at)
	}
	return nil
}

// discussionChanged is the fact of a discussion that was closed because it expired, or
// of an open one that was extended. An extension to a time that is past is none.
func discussionChanged(was, is platform.Discussion, now time.Time) *fact {
	if was.Status != platform.Open {
		return nil
	}
	switch {
	case is.Status == platform.Closed && is.Reason == platform.Expired:
		at := is.ClosedAt
		if at.IsZero() {
			at = now
		}
		return &fact{"discussion.auto_closed", is.Common, "", at, autoClosed{
			is.ID, formatTime(at), label(is.Title), optionalID(is.CommunityID), label(is.CommunityName),
		}}
	case is.Status == platform.Open && !was.ExpiresAt.IsZero() && was.ExpiresAt.Before(is.ExpiresAt) && is.ExpiresAt.After(now):
		actor, login := actorID(is.ExtendedBy), is.ExtendedByLogin
		if strings.HasPrefix(actor, consoleLogin) { // written before there was an attribute for it
			actor, login = "", actor
		}
		if actor != "" {
			login = "" // of an earlier extension: the platform does not clear it
		}
		return &fact{"discussion.extended", is.Common, actor, changedAt(was.Common, is.Common), extended{
			is.ID, formatTime(is.ExpiresAt), formatTime(was.ExpiresAt), optionalID(login),
			label(is.Title), optionalID(is.CommunityID), label(is.CommunityName),
		}}
	}
	return nil
}

// consoleLogin begins the name of an operator who is no user of the platform.
const consoleLogin = "console:"

// changedAt is the time of a change, from updated_at; zero if that did not change.
func changedAt(was, is platform.Common) time.Time {
	if is.UpdatedAt.Equal(was.UpdatedAt) {
		return time.Time{}
	}
	return is.UpdatedAt
}

// formatTime formats a time for events' data, the zero time as "".
func formatTime(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02T15:04:05.000Z07:00")
}

// removed is the fact of a deleted record: a registration was cancelled. The deletion
// of one that was cancelled already is no second cancellation, and that of one that
// never succeeded is a clean-up.
func removed(image platform.Image) (*fact, error) {
	if kindOf(image) != platform.KindRegistration {
		return nil, nil
	}
	record, err := image.Decode()
	if err != nil {
		return nil, fmt.Errorf("the old image: %w", err)
	}
	r := record.(platform.Registration)
	if !r.IsHeld() {
		return nil, nil
	}
	return cancellation(r, r.Status, time.Time{}), nil
}
