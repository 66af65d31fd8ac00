// Package platform is the vocabulary of the community platform's own data, as far
// as Tidings knows it: the records that the platform's table holds, where each
// stands in it, and what may become of a discussion. It does no I/O and reads no
// clock. It promises that a discussion is closed once, that it is extended only
// while it is open and only to later, and that closing for expiry loses against
// an extension.
package platform

import (
	"errors"
	"fmt"
	"hash/fnv"
	"time"
)

// Kind says what a record is. It stands in each record (attribute "kind"), so
// that whoever follows the table's stream need not know its keys.
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

// Key is where a record stands.
type Key struct{ PK, SK string }

// Record is one of this package's records.
type Record interface {
	Kind() Kind
	Key() Key
}

// Common is what every record may say beside its own.
type Common struct {
	Tenant    string    // whose it is; the default tenant's where it is empty
	RequestID string    // the platform's request that wrote it
	CreatedAt time.Time // when what it says happened
	UpdatedAt time.Time // when it was last changed
	TTL       time.Time // when DynamoDB removes it by itself; never where it is zero
}

// User is somebody on the platform.
type User struct {
	Common
	ID, Email, Name string
}

// Membership is a user's place in a community. It stands in one of two places:
// under the user where they joined by themselves, under the community where an
// organiser added them.
type Membership struct {
	Common
	UserID        string
	CommunityID   string
	CommunityName string
	CommunityCity string // may be empty
	AddedBy       string // the organiser; empty where the user joined
}

// RegistrationStatus is how far a registration has come. A platform may know
// others; they mean nothing here.
type RegistrationStatus string

const (
	Pending RegistrationStatus = "pending" // its payment is under way
	Success RegistrationStatus = "success"
	Failed  RegistrationStatus = "failed"
)

// Registration is a user's for one of the platform's events. A free one is a
// success at once; a paid one is pending until its payment is settled.
type Registration struct {
	Common
	ID        string
	EventID   string
	UserID    string
	PaymentID string // empty where the event is free
	Status    RegistrationStatus
}

// Comment is what a user wrote in a discussion.
type Comment struct {
	Common
	ID           string
	DiscussionID string
	UserID       string
	Text         string
}

// Flag is a user's complaint about another's comment.
type Flag struct {
	Common
	CommentID     string
	UserID        string // who flagged
	FlaggedUserID string // who wrote the comment
	Reason        string
}

// Referral says who brought a user to the platform.
type Referral struct {
	Common
	ReferrerID     string
	ReferredUserID string
	Code           string
}

// Status is whether a discussion is open.
type Status string

const (
	Open   Status = "open"
	Closed Status = "closed"
)

// Reason is why a discussion was closed.
type Reason string

const (
	Expired Reason = "expired" // its time was over
	ByHand  Reason = "by_hand" // somebody closed it
)

// Discussion is a thread of comments with an end.
type Discussion struct {
	Common
	ID          string
	CommunityID string
	Title       string
	Status      Status
	ExpiresAt   time.Time // until when it is open
	ExtendedBy  string    // who last moved ExpiresAt
	ClosedAt    time.Time
	ClosedBy    string // empty where its time was over
	Reason      Reason
}

// Errors of discussions.
var (
	ErrNotFound   = errors.New("there is no such discussion")
	ErrClosed     = errors.New("the discussion is closed already")
	ErrNotLater   = errors.New("the discussion's time ends then already, or later: an extension must move it later")
	ErrNotExpired = errors.New("the discussion's time is not over")
)

// Kind is KindUser.
func (User) Kind() Kind { return KindUser }

// Kind is KindMembership.
func (Membership) Kind() Kind { return KindMembership }

// Kind is KindRegistration.
func (Registration) Kind() Kind { return KindRegistration }

// Kind is KindComment.
func (Comment) Kind() Kind { return KindComment }

// Kind is KindFlag.
func (Flag) Kind() Kind { return KindFlag }

// Kind is KindReferral.
func (Referral) Kind() Kind { return KindReferral }

// Kind is KindDiscussion.
func (Discussion) Kind() Kind { return KindDiscussion }

// Key is USER#id, PROFILE.
func (u User) Key() Key { return Key{"USER#" + u.ID, "PROFILE"} }

// Key is USER#user, MEMBER#community for the user's own join, and
// COMMUNITY#community, MEMBER#user for an organiser's.
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

// Key is COMMENT#comment, FLAG#user: one flag a user and comment.
func (f Flag) Key() Key { return Key{"COMMENT#" + f.CommentID, "FLAG#" + f.UserID} }

// Key is USER#referrer, REFERRAL#referred.
func (r Referral) Key() Key { return Key{"USER#" + r.ReferrerID, "REFERRAL#" + r.ReferredUserID} }

// Key is DISCUSSION#id, META.
func (d Discussion) Key() Key { return DiscussionKey(d.ID) }

// DiscussionKey is where a discussion stands.
func DiscussionKey(id string) Key { return Key{"DISCUSSION#" + id, "META"} }

// Shards is how many parts the indexes of open and of closed discussions have:
// ten thousand that expire together are closed without waiting for one partition.
const Shards = 4

// Shard is the part of the indexes that a discussion stands in.
func Shard(id string) int {
	h := fnv.New32a()
	_, _ = h.Write([]byte(id)) // a hash takes everything
	return int(h.Sum32() % Shards)
}

// Extension gives an open discussion more time.
type Extension struct {
	Tenant, ID string
	To         time.Time // the new end; later than the one it has
	By         string    // who does it
	At         time.Time // now
}

// Apply returns the discussion with its new end: ErrNotFound, ErrClosed or
// ErrNotLater where that can't be. The same extension again changes nothing and
// is no error: its first answer may have been lost.
func (x Extension) Apply(d *Discussion) (Discussion, error) {
	switch {
	case d == nil || d.Tenant != x.Tenant:
		return Discussion{}, ErrNotFound
	case d.Status != Open:
		return *d, ErrClosed
	case d.ExpiresAt.Equal(x.To) && d.ExtendedBy == x.By && d.UpdatedAt.Equal(x.At):
		return *d, nil
	case d.ExpiresAt.IsZero() || !d.ExpiresAt.Before(x.To):
		return *d, ErrNotLater // without an end it is open for ever
	}
	after := *d
	after.ExpiresAt, after.ExtendedBy, after.UpdatedAt = x.To, x.By, x.At
	return after, nil
}

// Closing ends a discussion.
type Closing struct {
	Tenant, ID string
	// Reason is Expired, which closes only what has expired at the time At, or
	// ByHand.
	Reason Reason
	By     string // who closes by hand
	At     time.Time
}

// Apply returns the closed discussion: ErrNotFound, ErrClosed or ErrNotExpired
// where it can't be closed. The same closing by hand again is no error.
func (c Closing) Apply(d *Discussion) (Discussion, error) {
	switch {
	case d == nil || c.Reason != Expired && d.Tenant != c.Tenant:
		return Discussion{}, ErrNotFound
	case d.Status != Open:
		if c.Reason == ByHand && d.Reason == ByHand && d.ClosedBy == c.By && d.ClosedAt.Equal(c.At) {
			return *d, nil
		}
		return *d, ErrClosed
	case c.Reason == Expired && (d.ExpiresAt.IsZero() || d.ExpiresAt.After(c.At)):
		return *d, ErrNotExpired
	}
	after := *d
	after.Status, after.ClosedAt, after.ClosedBy, after.Reason, after.UpdatedAt = Closed, c.At, c.By, c.Reason, c.At
	return after, nil
}

// Ending is a discussion's place in an index: by the end of its time while it is
// open, by when it was closed after that.
type Ending struct {
	ID string
	At time.Time
}

// View is a list of discussions.
type View string

const (
	ViewOpen     View = "open"     // the next to expire first
	ViewExpiring View = "expiring" // of these, those whose time ends until Query.Until
	ViewClosed   View = "closed"   // the latest first
)

// Limits of a page.
const (
	DefaultPage = 50
	MaxPage     = 100
)

// Query asks for a page of a tenant's discussions.
type Query struct {
	Tenant string
	View   View
	Until  time.Time // of ViewExpiring
	Cursor string    // where the page before ended; "" begins
	Limit  int       // DefaultPage where it is 0
}

// Check says what is wrong with the query, or nil.
func (q Query) Check() error {
	switch {
	case q.View != ViewOpen && q.View != ViewExpiring && q.View != ViewClosed:
		return fmt.Errorf("view %q is unknown; the views are open, expiring and closed", q.View)
	case q.View == ViewExpiring && q.Until.IsZero():
		return errors.New("the view of expiring discussions needs a time until which")
	case q.Limit < 0 || q.Limit > MaxPage:
		return fmt.Errorf("limit %d is not between 1 and %d", q.Limit, MaxPage)
	}
	return nil
}

// PageSize is how many discussions the page may have.
func (q Query) PageSize() int {
	if q.Limit == 0 {
		return DefaultPage
	}
	return q.Limit
}

// Shows tells whether the discussion belongs to the query's list.
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

// Page is what a query found.
type Page struct {
	Discussions []Discussion
	Next        string // cursor of the page that follows; "" where none does
}
