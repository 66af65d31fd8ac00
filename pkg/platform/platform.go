// Package platform defines the records of the community platform's table that Tidings
// knows, their keys, and the rules for closing and extending a discussion. A
// discussion is closed once. It can be extended only while it is open, and only to a
// later end. If it is extended before it is closed as expired, it stays open. The
// package does no I/O and reads no clock.
package platform

import (
	"cmp"
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"time"
)

// Kind is the type of a record. Each item has it in the attribute "kind", so that
// readers of the table's stream do not need to parse keys.
type Kind string

const (
	KindUser         Kind = "user"
	KindMembership   Kind = "membership"
	KindRegistration Kind = "registration"
	KindComment      Kind = "comment"
	KindFlag         Kind = "flag"
	KindReferral     Kind = "referral"
	KindDiscussion   Kind = "discussion"
)

// Key is a record's primary key in the table.
type Key struct{ PK, SK string }

// Record is one of this package's records.
type Record interface {
	Kind() Kind
	Key() Key
	// Shared returns the fields that every record has.
	Shared() Common
}

// Common holds the fields that every record has.
type Common struct {
	Tenant    string    // the default tenant if empty
	RequestID string    // id of the platform's request that wrote the record
	CreatedAt time.Time // when the user's action happened
	UpdatedAt time.Time
	TTL       time.Time // when DynamoDB deletes the record; never if zero
}

// Shared implements Record.
func (c Common) Shared() Common { return c }

// The records hold what the platform's items have. Ids and a registration's status are
// always there; every other field can be empty.

// User is a user of the platform.
type User struct {
	Common
	ID, Email, Name string
}

// MembershipStatus is the status of a membership. A platform that deletes memberships
// needs none: without a status, a membership is active.
type MembershipStatus string

const (
	Active MembershipStatus = "active"
	Left   MembershipStatus = "left"
)

// formerStatuses are those of a user who was a member and is none now, notYetStatuses
// those of a user who is not a member yet.
var (
	formerStatuses = []MembershipStatus{Left, "removed", "inactive", "banned", "kicked", "expired", "cancelled", "canceled", "deleted"}
	notYetStatuses = []MembershipStatus{"invited", "requested", "pending", "waitlisted", "declined", "rejected"}
)

// IsFormer reports whether the user was a member and is none now.
func (s MembershipStatus) IsFormer() bool { return slices.Contains(formerStatuses, s) }

// IsActive reports whether the user is a member. Any status that is not known to be
// another's is a member's: "moderator", for example.
func (s MembershipStatus) IsActive() bool {
	return !s.IsFormer() && !slices.Contains(notYetStatuses, s)
}

// Membership is a user's membership in a community. Its partition is the user's if the
// user joined, and the community's if an organiser added the user. It can be written in
// both.
type Membership struct {
	Common
	UserID        string
	CommunityID   string
	CommunityName string
	CommunityCity string
	AddedBy       string // the organiser; empty if the user joined
	Status        MembershipStatus
	Rejoined      bool      // the user had left before
	LeftAt        time.Time // when the user left before, or left
}

// RegistrationStatus is the status of a registration. Tidings ignores other values.
type RegistrationStatus string

const (
	Pending    RegistrationStatus = "pending" // the payment is in progress
	Success    RegistrationStatus = "success"
	Failed     RegistrationStatus = "failed"
	Waitlisted RegistrationStatus = "waitlisted"
	Cancelled  RegistrationStatus = "cancelled" // "canceled" is read as this
)

// Registration is a user's registration for an event of the platform. Free ones are
// created with Success, paid ones are Pending until the payment settles.
type Registration struct {
	Common
	ID            string
	EventID       string
	EventName     string
	CommunityID   string
	CommunityName string
	UserID        string
	PaymentID     string // empty if the event is free
	Price         string // a decimal number, in the platform's unit
	Currency      string
	Status        RegistrationStatus
	SucceededAt   time.Time // when its status was success first; set by platforms that change it after that
	CancelledAt   time.Time
	CancelledBy   string // who cancelled it; the user if empty
	CancelReason  string
}

// IsHeld reports whether the user is registered, as far as the record tells, so that its
// deletion is a cancellation. A failed, pending or waitlisted registration is held only
// if it says that it had succeeded; one with another status, such as "attended" or
// "refunded", unless it was cancelled before.
func (r Registration) IsHeld() bool {
	switch r.Status {
	case Success:
		return true
	case Pending, Failed, Waitlisted:
		return !r.SucceededAt.IsZero()
	case Cancelled:
		return false
	}
	return r.CancelledAt.IsZero()
}

// Comment is a user's comment in a discussion.
type Comment struct {
	Common
	ID              string
	DiscussionID    string
	DiscussionTitle string
	CommunityID     string
	CommunityName   string
	UserID          string
	UserName        string
	Text            string
}

// Flag is a user's report of another user's comment.
type Flag struct {
	Common
	CommentID       string
	CommentText     string // the comment, or an excerpt of it
	DiscussionID    string
	DiscussionTitle string
	CommunityID     string
	CommunityName   string
	UserID          string // the user who flagged
	FlaggedUserID   string // the comment's author
	FlaggedUserName string
	Reason          string
}

// Referral records which user referred another one to the platform.
type Referral struct {
	Common
	ReferrerID       string
	ReferrerName     string
	ReferredUserID   string
	ReferredUserName string
	Code             string
}

// Status is the status of a discussion.
type Status string

const (
	Open   Status = "open"
	Closed Status = "closed"
)

// Reason is why a discussion was closed.
type Reason string

const (
	Expired Reason = "expired" // its end passed
	ByHand  Reason = "by_hand" // an administrator closed it
)

// Discussion is a thread of comments. The console's API shows it with these names.
type Discussion struct {
	Common          `json:"-"`
	ID              string    `json:"id"`
	CommunityID     string    `json:"community_id,omitempty"`
	CommunityName   string    `json:"community_name,omitempty"`
	Title           string    `json:"title,omitempty"`
	Status          Status    `json:"status" enum:"open,closed"`
	ExpiresAt       time.Time `json:"expires_at,omitzero"` // if zero, the discussion never expires
	ExtendedBy      string    `json:"extended_by,omitempty" doc:"Id of the platform's user who extended it last"`
	ExtendedByLogin string    `json:"extended_by_login,omitempty" doc:"console:NAME if it was extended last in the console"`
	ClosedAt        time.Time `json:"closed_at,omitzero"`
	ClosedBy        string    `json:"closed_by,omitempty" doc:"Id of the platform's user who closed it; absent if it expired"`
	ClosedByLogin   string    `json:"closed_by_login,omitempty" doc:"console:NAME if it was closed in the console"`
	Reason          Reason    `json:"reason,omitempty" doc:"Why it was closed: expired or by_hand"`
}

// Errors of changes to discussions.
var (
	ErrNotFound   = errors.New("discussion not found")
	ErrClosed     = errors.New("the discussion is already closed")
	ErrNotLater   = errors.New("the new end must be later than the current one; a discussion without an end cannot be extended")
	ErrPast       = errors.New("the new end must be in the future")
	ErrChanged    = errors.New("the discussion's end was changed in the meantime")
	ErrNotExpired = errors.New("the discussion has not expired")
)

func (User) Kind() Kind         { return KindUser }
func (Membership) Kind() Kind   { return KindMembership }
func (Registration) Kind() Kind { return KindRegistration }
func (Comment) Kind() Kind      { return KindComment }
func (Flag) Kind() Kind         { return KindFlag }
func (Referral) Kind() Kind     { return KindReferral }
func (Discussion) Kind() Kind   { return KindDiscussion }

// Key is USER#id, PROFILE.
func (u User) Key() Key { return Key{"USER#" + u.ID, "PROFILE"} }

// Key is USER#user, MEMBER#community if the user joined, and COMMUNITY#community,
// MEMBER#user if an organiser added the user.
func (m Membership) Key() Key {
	if m.AddedBy == "" {
		return Key{"USER#" + m.UserID, "MEMBER#" + m.CommunityID}
	}
	return Key{"COMMUNITY#" + m.CommunityID, "MEMBER#" + m.UserID}
}

// Key is EVENT#event, REGISTRATION#id.
func (r Registration) Key() Key { return Key{"EVENT#" + r.EventID, "REGISTRATION#" + r.ID} }

// Key is DISCUSSION#discussion, COMMENT#id.
func (c Comment) Key() Key { return Key{"DISCUSSION#" + c.DiscussionID, "COMMENT#" + c.ID} }

// Key is COMMENT#comment, FLAG#user: one flag per user and comment.
func (f Flag) Key() Key { return Key{"COMMENT#" + f.CommentID, "FLAG#" + f.UserID} }

// Key is USER#referrer, REFERRAL#referred.
func (r Referral) Key() Key { return Key{"USER#" + r.ReferrerID, "REFERRAL#" + r.ReferredUserID} }

// Key is DISCUSSION#id, META.
func (d Discussion) Key() Key { return DiscussionKey(d.ID) }

// DiscussionKey returns the key of a discussion.
func DiscussionKey(id string) Key { return Key{"DISCUSSION#" + id, "META"} }

// Shards is the number of partitions of the indexes of open and closed discussions, so
// that closing many discussions at once is not limited by one partition's throughput.
const Shards = 4

// Shard returns the index partition of a discussion.
func Shard(id string) int {
	h := fnv.New32a()
	_, _ = h.Write([]byte(id)) // never fails
	return int(h.Sum32() % Shards)
}

// Extension moves the end of an open discussion later.
type Extension struct {
	Tenant, ID string
	To         time.Time // the new end
	Seen       time.Time // the current end that the caller knows, in ms; not checked if zero
	By         string    // id of the platform's user who extends it, if there is one
	Login      string    // console:NAME of the operator who extends it, if there is no user
	At         time.Time // the current time
}

// Apply returns the extended discussion, or an error that is ErrNotFound, ErrClosed,
// ErrPast, ErrChanged or ErrNotLater. It is idempotent, so that it can be retried if the
// first response was lost.
func (x Extension) Apply(d *Discussion) (Discussion, error) {
	switch {
	case d == nil || d.Tenant != x.Tenant:
		return Discussion{}, ErrNotFound
	case d.Status != Open:
		return *d, ErrClosed
	case d.ExpiresAt.Equal(x.To) && d.ExtendedBy == x.By && d.ExtendedByLogin == x.Login && d.UpdatedAt.Equal(x.At):
		return *d, nil
	case !x.To.After(x.At):
		return *d, ErrPast
	case d.ExpiresAt.IsZero():
		return *d, ErrNotLater // it never expires
	case !x.Seen.IsZero() && !x.Seen.Equal(d.ExpiresAt.Truncate(time.Millisecond)):
		return *d, fmt.Errorf("%w: you saw %s, it is now %s", ErrChanged, formatEnd(x.Seen), formatEnd(d.ExpiresAt))
	case !d.ExpiresAt.Before(x.To):
		return *d, fmt.Errorf("%w: you asked for %s, it is now %s", ErrNotLater, formatEnd(x.To), formatEnd(d.ExpiresAt))
	}
	after := *d
	after.ExpiresAt, after.ExtendedBy, after.ExtendedByLogin, after.UpdatedAt = x.To, x.By, x.Login, x.At
	return after, nil
}

func formatEnd(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// Closing closes a discussion.
type Closing struct {
	Tenant, ID string
	Reason     Reason    // with Expired, it is closed only if it has expired by At
	By         string    // for ByHand: id of the platform's user who closes it, if there is one
	Login      string    // for ByHand: console:NAME of the operator who closes it, if there is no user
	At         time.Time // the current time
}

// Apply returns the closed discussion, or ErrNotFound, ErrClosed or ErrNotExpired.
// Closing by hand is idempotent.
func (c Closing) Apply(d *Discussion) (Discussion, error) {
	switch {
	case d == nil || d.Tenant != c.Tenant:
		return Discussion{}, ErrNotFound
	case d.Status != Open:
		if c.Reason == ByHand && d.Reason == ByHand && d.ClosedBy == c.By && d.ClosedByLogin == c.Login && d.ClosedAt.Equal(c.At) {
			return *d, nil
		}
		return *d, ErrClosed
	case c.Reason == Expired && (d.ExpiresAt.IsZero() || d.ExpiresAt.After(c.At)):
		return *d, ErrNotExpired
	}
	after := *d
	after.Status, after.ClosedAt, after.ClosedBy, after.ClosedByLogin, after.Reason, after.UpdatedAt = Closed, c.At, c.By, c.Login, c.Reason, c.At
	return after, nil
}

// Ending is an entry of the discussion indexes. At is the discussion's end while it is
// open, and the time it was closed after that.
type Ending struct {
	Tenant, ID string
	At         time.Time
}

// EndingOf returns a discussion's entry. At is zero, and the discussion is in no list, if
// the record does not say when it ends or was closed.
func EndingOf(d Discussion) Ending {
	e := Ending{Tenant: d.Tenant, ID: d.ID, At: d.ExpiresAt}
	if d.Status != Open {
		if e.At = d.ClosedAt; e.At.IsZero() {
			e.At = d.UpdatedAt
		}
	}
	return e
}

// Indexed is the result of indexing a part of the platform's table.
type Indexed struct {
	Discussions int      // found and indexed
	Malformed   []string // keys of the discussions that cannot be read, as JSON
	Done        bool     // the whole table is indexed
}

// CompareEndings orders by time, then by id.
func CompareEndings(a, b Ending) int { return cmp.Or(a.At.Compare(b.At), cmp.Compare(a.ID, b.ID)) }

// View is a list of discussions.
type View string

const (
	ViewOpen     View = "open"     // earliest end first
	ViewExpiring View = "expiring" // open ones that expire by Query.Until, earliest end first
	ViewClosed   View = "closed"   // last closed first
)

// Page sizes.
const (
	DefaultPage = 50
	MaxPage     = 100
)

// Query selects a page of a tenant's discussions.
type Query struct {
	Tenant string
	View   View
	Until  time.Time // for ViewExpiring
	Cursor string    // the previous page's Next; empty for the first page
	Limit  int       // DefaultPage if 0
}

// Check validates the query.
func (q Query) Check() error {
	switch {
	case q.View != ViewOpen && q.View != ViewExpiring && q.View != ViewClosed:
		return fmt.Errorf("unknown view %q; the views are open, expiring and closed", q.View)
	case q.View == ViewExpiring && q.Until.IsZero():
		return errors.New("the expiring view requires Until")
	case q.Limit < 0 || q.Limit > MaxPage:
		return fmt.Errorf("limit is %d; it must be between 1 and %d", q.Limit, MaxPage)
	}
	return nil
}

// PageSize returns the maximum number of discussions in the page.
func (q Query) PageSize() int {
	if q.Limit == 0 {
		return DefaultPage
	}
	return q.Limit
}

// Shows reports whether the query selects the discussion.
func (q Query) Shows(d Discussion) bool {
	if d.Tenant != q.Tenant {
		return false
	}
	switch q.View {
	case ViewOpen:
		return d.Status == Open
	case ViewExpiring:
		return d.Status == Open && !d.ExpiresAt.After(q.Until)
	}
	return d.Status == Closed
}

// Page is a page of discussions.
type Page struct {
	Discussions []Discussion
	Next        string // cursor of the next page; empty on the last page
}
