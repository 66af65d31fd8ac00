package console

import (
	"cmp"
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/tidings-dev/tidings/pkg/platform"
)

// ExpiringWithin is the remaining time from which a discussion is listed as expiring.
const ExpiringWithin = 24 * time.Hour

// DiscussionPage is a page of discussions.
type DiscussionPage struct {
	Discussions []platform.Discussion `json:"discussions" nullable:"false"`
	Next        string                `json:"next,omitempty"`
}

// ListDiscussions returns a page of the tenant's discussions: open, expiring
// within ExpiringWithin, or closed.
func (o *Operations) ListDiscussions(ctx context.Context, who Session, view, cursor string, limit int) (DiscussionPage, error) {
	of := list{tenant: who.Tenant, name: "discussions", filter: []string{view}}
	place, err := o.openCursor(ctx, of, cursor)
	if err != nil {
		return DiscussionPage{}, err
	}
	q := platform.Query{Tenant: who.Tenant, View: platform.View(view), Cursor: place, Limit: min(limit, platform.MaxPage)}
	if q.View == platform.ViewExpiring {
		q.Until = o.Now().Add(ExpiringWithin)
	}
	if err := q.Check(); err != nil {
		return DiscussionPage{}, errorf(Invalid, "%s", err)
	}
	found, err := o.Discussions.ListDiscussions(ctx, q)
	if err != nil {
		return DiscussionPage{}, err
	}
	next, err := o.sealCursor(ctx, of, found.Next)
	return DiscussionPage{append([]platform.Discussion{}, found.Discussions...), next}, err
}

// GetDiscussion returns a discussion of the tenant.
func (o *Operations) GetDiscussion(ctx context.Context, who Session, id string) (platform.Discussion, error) {
	d, err := o.Discussions.GetDiscussion(ctx, who.Tenant, id)
	return d, explain(id, err)
}

// MaxExtension is the latest end of a discussion, counted from now.
const MaxExtension = 366 * 24 * time.Hour

// ExtendDiscussion moves the end of an open discussion later. If seen is not zero, it
// fails if the discussion has another end: of two operators who extend a discussion at
// the same time, one gets a conflict. Emit captures the change from the table's stream
// as discussion.extended.
func (o *Operations) ExtendDiscussion(ctx context.Context, who Session, id string, to, seen time.Time) (platform.Discussion, error) {
	return change(ctx, o, who, "discussion.extend", &id, "to "+to.UTC().Format(time.RFC3339), func() (platform.Discussion, error) {
		now := o.Now()
		if !to.After(now) || to.After(now.Add(MaxExtension)) {
			return platform.Discussion{}, errorf(Invalid, "the new end must be between now and one year from now")
		}
		return o.Discussions.ExtendDiscussion(ctx, platform.Extension{
			Tenant: who.Tenant, ID: id, To: to.UTC().Truncate(time.Millisecond), Seen: seen, Login: loginOf(who), At: now,
		})
	})
}

// CloseDiscussion closes an open discussion before it expires.
func (o *Operations) CloseDiscussion(ctx context.Context, who Session, id string) (platform.Discussion, error) {
	return change(ctx, o, who, "discussion.close", &id, "", func() (platform.Discussion, error) {
		return o.Discussions.CloseDiscussion(ctx, platform.Closing{Tenant: who.Tenant, ID: id, Reason: platform.ByHand, Login: loginOf(who), At: o.Now()})
	})
}

// loginOf names an operator in the platform's records. An operator is not a user of the
// platform, so the name is kept apart from user ids.
func loginOf(who Session) string { return "console:" + who.Name }

// extensionEnd returns the end of an extension by days, counted from the current end
// or, if that is past, from now.
func extensionEnd(from time.Time, days int, now time.Time) (time.Time, error) {
	if days < 1 || days > 365 {
		return time.Time{}, errorf(Invalid, "a discussion can be extended by 1 to 365 days")
	}
	if from.Before(now) {
		from = now
	}
	return from.Add(time.Duration(days) * 24 * time.Hour), nil
}

// scheduleDelay is how late EventBridge Scheduler can invoke a function.
const scheduleDelay = time.Minute

func (c *Console) listDiscussions(r *http.Request, who Session) (page, error) {
	view := cmp.Or(r.URL.Query().Get("view"), "open")
	found, err := c.Operations.ListDiscussions(r.Context(), who, view, r.URL.Query().Get("cursor"), defaultPage)
	closesWithin := ""
	if c.CloseEvery > 0 {
		closesWithin = ago(c.CloseEvery + scheduleDelay)
	}
	return page{Template: "discussions", Title: "Discussions", Nav: "discussions", Data: struct {
		DiscussionPage
		View         string
		ClosesWithin string // after the end; empty if nothing closes expired discussions
	}{found, view, closesWithin}}, err
}

// extendDiscussion extends from the end that the page showed, not from the current one:
// otherwise two operators would extend twice as long as either of them meant.
func (c *Console) extendDiscussion(r *http.Request, who Session) (page, error) {
	millis, err := strconv.ParseInt(r.PostFormValue("seen"), 10, 64)
	if err != nil {
		return page{}, errorf(Invalid, "the form has no valid end of the discussion (seen); reload the page and extend again")
	}
	seen := time.UnixMilli(millis).UTC()
	days, _ := strconv.Atoi(r.PostFormValue("days")) // 0 is refused
	to, err := extensionEnd(seen, days, c.Operations.Now())
	if err != nil {
		return page{}, err
	}
	_, err = c.Operations.ExtendDiscussion(r.Context(), who, r.PathValue("id"), to, seen)
	return page{Redirect: "/discussions?did=extended"}, err
}
