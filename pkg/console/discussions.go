package console

import (
	"context"
	"errors"
	"time"

	"github.com/tidings-dev/tidings/pkg/platform"
)

// ExpiringWithin is the remaining time from which a discussion is listed as expiring.
const ExpiringWithin = 24 * time.Hour

// Discussion is a discussion of the platform.
type Discussion struct {
	ID          string    `json:"id"`
	CommunityID string    `json:"community_id,omitempty"`
	Title       string    `json:"title,omitempty"`
	Status      string    `json:"status" enum:"open,closed"`
	ExpiresAt   time.Time `json:"expires_at,omitzero"`
	ExtendedBy  string    `json:"extended_by,omitempty"`
	ClosedAt    time.Time `json:"closed_at,omitzero"`
	ClosedBy    string    `json:"closed_by,omitempty"`
	Reason      string    `json:"reason,omitempty" doc:"Why it was closed: expired or by_hand"`
}

// ExpiresSoon reports whether it is open and expires within ExpiringWithin.
func (d Discussion) ExpiresSoon() bool {
	return d.Status == "open" && time.Until(d.ExpiresAt) < ExpiringWithin
}

// DiscussionPage is a page of discussions.
type DiscussionPage struct {
	Discussions []Discussion `json:"discussions" nullable:"false"`
	Next        string       `json:"next,omitempty"`
}

func viewDiscussion(d platform.Discussion) Discussion {
	return Discussion{
		ID: d.ID, CommunityID: d.CommunityID, Title: d.Title, Status: string(d.Status), ExpiresAt: d.ExpiresAt,
		ExtendedBy: d.ExtendedBy, ClosedAt: d.ClosedAt, ClosedBy: d.ClosedBy, Reason: string(d.Reason),
	}
}

// ListDiscussions returns a page of the tenant's discussions: open, expiring
// within ExpiringWithin, or closed.
func (o *Operations) ListDiscussions(ctx context.Context, who Session, view, cursor string, limit int) (DiscussionPage, error) {
	q := platform.Query{Tenant: who.Tenant, View: platform.View(view), Cursor: cursor, Limit: min(limit, platform.MaxPage)}
	if q.View == platform.ViewExpiring {
		q.Until = o.Now().Add(ExpiringWithin)
	}
	if err := q.Check(); err != nil {
		return DiscussionPage{}, errorf(Invalid, "%s", err)
	}
	found, err := o.Discussions.ListDiscussions(ctx, q)
	if err != nil {
		if cursor != "" {
			return DiscussionPage{}, errorf(Invalid, "invalid cursor; start at the first page")
		}
		return DiscussionPage{}, err
	}
	page := DiscussionPage{Discussions: []Discussion{}, Next: found.Next}
	for _, d := range found.Discussions {
		page.Discussions = append(page.Discussions, viewDiscussion(d))
	}
	return page, nil
}

// GetDiscussion returns a discussion of the tenant.
func (o *Operations) GetDiscussion(ctx context.Context, who Session, id string) (Discussion, error) {
	d, err := o.Discussions.GetDiscussion(ctx, who.Tenant, id)
	return viewDiscussion(d), discussionError(id, err)
}

func discussionError(id string, err error) error {
	switch {
	case errors.Is(err, platform.ErrNotFound):
		return errorf(NotFound, "discussion %s not found", id)
	case errors.Is(err, platform.ErrClosed), errors.Is(err, platform.ErrNotLater):
		return errorf(Conflict, "%s", err)
	}
	return err
}

// MaxExtension is the latest end of a discussion, counted from now.
const MaxExtension = 366 * 24 * time.Hour

// ExtendDiscussion moves the end of an open discussion later. Emit captures the
// change from the table's stream as discussion.extended.
func (o *Operations) ExtendDiscussion(ctx context.Context, who Session, id string, to time.Time) (Discussion, error) {
	var d platform.Discussion
	err := o.change(ctx, who, "discussion.extend", id, "to "+to.UTC().Format(time.RFC3339), func() (string, error) {
		now := o.Now()
		if !to.After(now) || to.After(now.Add(MaxExtension)) {
			return "", errorf(Invalid, "the new end must be between now and one year from now")
		}
		var err error
		d, err = o.Discussions.ExtendDiscussion(ctx, platform.Extension{Tenant: who.Tenant, ID: id, To: to.UTC().Truncate(time.Millisecond), By: who.Name, At: now})
		return "", discussionError(id, err)
	})
	return viewDiscussion(d), err
}

// CloseDiscussion closes an open discussion before it expires.
func (o *Operations) CloseDiscussion(ctx context.Context, who Session, id string) (Discussion, error) {
	var d platform.Discussion
	err := o.change(ctx, who, "discussion.close", id, "", func() (_ string, err error) {
		d, err = o.Discussions.CloseDiscussion(ctx, platform.Closing{Tenant: who.Tenant, ID: id, Reason: platform.ByHand, By: who.Name, At: o.Now()})
		return "", discussionError(id, err)
	})
	return viewDiscussion(d), err
}

// extensionEnd returns the end of an extension by days, counted from the current end
// or, if that is past, from now.
func extensionEnd(d Discussion, days int, now time.Time) (time.Time, error) {
	if days < 1 || days > 365 {
		return time.Time{}, errorf(Invalid, "a discussion can be extended by 1 to 365 days")
	}
	from := d.ExpiresAt
	if from.Before(now) {
		from = now
	}
	return from.Add(time.Duration(days) * 24 * time.Hour), nil
}
