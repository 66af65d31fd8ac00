package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/platform"
)

// Discussions is what the console needs of the platform's discussions, and the platform's
// own writes.
type Discussions interface {
	PutRecord(ctx context.Context, record platform.Record) error
	DeleteRecord(ctx context.Context, k platform.Key) error
	GetDiscussion(ctx context.Context, tenant, id string) (platform.Discussion, error)
	ListDiscussions(ctx context.Context, q platform.Query) (platform.Page, error)
	ExtendDiscussion(ctx context.Context, x platform.Extension) (platform.Discussion, error)
	CloseDiscussion(ctx context.Context, c platform.Closing) (platform.Discussion, error)
}

// RunDiscussions runs the part of the suite for discussions. open returns an empty store.
func RunDiscussions(t *testing.T, open func(t *testing.T) Discussions) {
	t.Run("discussions", func(t *testing.T) { discussions(t, open(t)) })
	t.Run("lists of discussions", func(t *testing.T) { discussionLists(t, open(t)) })
	t.Run("concurrent extension and closing", func(t *testing.T) { extendAgainstClose(t, open(t)) })
	t.Run("random discussion changes agree with the pure transitions", func(t *testing.T) { discussionModel(t, open(t)) })
}

// Platform is the part of a store that keeps the platform's records.
type Platform interface {
	Discussions
	ExpiredDiscussions(ctx context.Context, shard int, at time.Time, cursor string, limit int) ([]platform.Ending, string, error)
}

func openDiscussion(id string, expires time.Time) platform.Discussion {
	return platform.Discussion{
		Common: platform.Common{Tenant: event.DefaultTenant, CreatedAt: start, UpdatedAt: start},
		ID:     id, CommunityID: "c_1", Title: "Who brings the projector?", Status: platform.Open, ExpiresAt: expires,
	}
}

func discussions(t *testing.T, s Discussions) {
	ctx := t.Context()
	put := func(d platform.Discussion) platform.Discussion {
		t.Helper()
		if err := s.PutRecord(ctx, d); err != nil {
			t.Fatal(err)
		}
		return d
	}
	get := func(id string) platform.Discussion {
		t.Helper()
		return must[platform.Discussion](t)(s.GetDiscussion(ctx, event.DefaultTenant, id))
	}
	fails := func(what string, _ platform.Discussion, err, want error) {
		t.Helper()
		if !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", what, err, want)
		}
	}
	end := start.Add(time.Hour)
	d := put(openDiscussion("d_1", end))
	same(t, get("d_1"), d)

	// Extending: an open discussion, to a later time, by its owner.
	x := platform.Extension{Tenant: event.DefaultTenant, ID: "d_1", To: end.Add(time.Hour), By: "admin", At: start.Add(time.Minute)}
	got := must[platform.Discussion](t)(s.ExtendDiscussion(ctx, x))
	want := d
	want.ExpiresAt, want.ExtendedBy, want.UpdatedAt = x.To, "admin", x.At
	same(t, got, want)
	same(t, get("d_1"), want)
	same(t, must[platform.Discussion](t)(s.ExtendDiscussion(ctx, x)), want) // repeated after a lost response
	again := x
	again.At = x.At.Add(time.Second)
	got, err := s.ExtendDiscussion(ctx, again)
	fails("to the same end", got, err, platform.ErrNotLater)
	again.To = end
	got, err = s.ExtendDiscussion(ctx, again)
	fails("to an earlier end", got, err, platform.ErrNotLater)
	if text := fmt.Sprint(err); !strings.Contains(text, end.Format(time.RFC3339)) || !strings.Contains(text, x.To.Format(time.RFC3339)) {
		t.Errorf("to an earlier end: %s; want both ends in the error", text)
	}
	again.To, again.Seen = x.To.Add(time.Hour), end
	got, err = s.ExtendDiscussion(ctx, again)
	fails("by somebody who saw the end before the extension", got, err, platform.ErrChanged)
	if text := fmt.Sprint(err); !strings.Contains(text, end.Format(time.RFC3339)) || !strings.Contains(text, x.To.Format(time.RFC3339)) {
		t.Errorf("by somebody who saw the end before the extension: %s; want both ends in the error", text)
	}
	again.Seen, again.At = x.To, x.To.Add(2*time.Hour)
	got, err = s.ExtendDiscussion(ctx, again)
	fails("to a later end that is past", got, err, platform.ErrPast)
	same(t, get("d_1"), want)
	stranger := x
	stranger.Tenant, stranger.To = "other", end.Add(5*time.Hour)
	got, err = s.ExtendDiscussion(ctx, stranger)
	fails("another tenant's", got, err, platform.ErrNotFound)
	stranger.Tenant, stranger.ID = event.DefaultTenant, "nobody's"
	got, err = s.ExtendDiscussion(ctx, stranger)
	fails("one that is not there", got, err, platform.ErrNotFound)
	_, err = s.GetDiscussion(ctx, "other", "d_1")
	fails("get another tenant's", got, err, platform.ErrNotFound)
	_, err = s.GetDiscussion(ctx, event.DefaultTenant, "nobody's")
	fails("get one that is not there", got, err, platform.ErrNotFound)

	// Closing at expiry: not earlier, only once, and no extension afterwards.
	expire := platform.Closing{Tenant: event.DefaultTenant, ID: "d_1", Reason: platform.Expired, At: x.To.Add(-time.Millisecond)}
	got, err = s.CloseDiscussion(ctx, expire)
	fails("a millisecond early", got, err, platform.ErrNotExpired)
	same(t, get("d_1"), want)
	expire.At = x.To
	want.Status, want.ClosedAt, want.Reason, want.UpdatedAt = platform.Closed, x.To, platform.Expired, x.To
	same(t, must[platform.Discussion](t)(s.CloseDiscussion(ctx, expire)), want)
	got, err = s.CloseDiscussion(ctx, expire)
	fails("for expiry, twice", got, err, platform.ErrClosed)
	x.To = x.To.Add(24 * time.Hour)
	got, err = s.ExtendDiscussion(ctx, x)
	fails("extend a closed one", got, err, platform.ErrClosed)
	same(t, get("d_1"), want)
	got, err = s.CloseDiscussion(ctx, platform.Closing{Tenant: event.DefaultTenant, ID: "nobody's", Reason: platform.Expired, At: x.To})
	fails("close one that is not there", got, err, platform.ErrNotFound)

	// Closing by hand: at any time, by the owner, and repeatable.
	d = put(openDiscussion("d_2", end))
	hand := platform.Closing{Tenant: "other", ID: "d_2", Reason: platform.ByHand, Login: "console:ada", At: start.Add(time.Second)}
	got, err = s.CloseDiscussion(ctx, hand)
	fails("close another tenant's", got, err, platform.ErrNotFound)
	hand.Tenant = event.DefaultTenant
	want = d
	want.Status, want.ClosedAt, want.ClosedByLogin, want.Reason, want.UpdatedAt = platform.Closed, hand.At, "console:ada", platform.ByHand, hand.At
	same(t, must[platform.Discussion](t)(s.CloseDiscussion(ctx, hand)), want)
	same(t, must[platform.Discussion](t)(s.CloseDiscussion(ctx, hand)), want)
	hand.At = hand.At.Add(time.Second)
	got, err = s.CloseDiscussion(ctx, hand)
	fails("by hand, at another time", got, err, platform.ErrClosed)

	// Without a tenant it belongs to the default tenant.
	d = openDiscussion("d_3", end)
	d.Tenant = ""
	put(d)
	x = platform.Extension{Tenant: event.DefaultTenant, ID: "d_3", To: end.Add(time.Hour), Seen: end, Login: "console:ada", At: start}
	if got := must[platform.Discussion](t)(s.ExtendDiscussion(ctx, x)); !got.ExpiresAt.Equal(x.To) || got.Tenant != event.DefaultTenant || got.ExtendedByLogin != x.Login || got.ExtendedBy != "" {
		t.Errorf("extended %+v", got)
	}
	if err := s.DeleteRecord(ctx, d.Key()); err != nil {
		t.Fatal(err)
	}
	_, err = s.GetDiscussion(ctx, event.DefaultTenant, "d_3")
	fails("get a deleted one", got, err, platform.ErrNotFound)
	if err := s.DeleteRecord(ctx, d.Key()); err != nil {
		t.Errorf("delete again: %v", err)
	}
}

// discussionLists stores and changes discussions, and reads all views page by page.
func discussionLists(t *testing.T, s Discussions) {
	ctx := t.Context()
	const n = 57
	all := map[string]platform.Discussion{}
	for i := range n {
		// Several end at the same time.
		d := openDiscussion(fmt.Sprintf("d_%02d", i), start.Add(time.Duration(i/5)*time.Hour))
		if i%10 == 9 {
			d.Tenant = "other"
		}
		if err := s.PutRecord(ctx, d); err != nil {
			t.Fatal(err)
		}
		switch i % 7 {
		case 3:
			d = must[platform.Discussion](t)(s.CloseDiscussion(ctx, platform.Closing{Tenant: d.Tenant, ID: d.ID, Reason: platform.ByHand, By: "admin", At: start.Add(time.Duration(i/14) * time.Minute)}))
		case 4:
			d = must[platform.Discussion](t)(s.ExtendDiscussion(ctx, platform.Extension{Tenant: d.Tenant, ID: d.ID, To: d.ExpiresAt.Add(90 * time.Minute), By: "admin", At: start}))
		}
		all[d.ID] = d
	}
	// Records of other kinds are in no list.
	if err := s.PutRecord(ctx, platform.Comment{ID: "m", DiscussionID: "d_00", UserID: "u", Text: "Me."}); err != nil {
		t.Fatal(err)
	}
	until := start.Add(5 * time.Hour)
	for _, view := range []platform.View{platform.ViewOpen, platform.ViewExpiring, platform.ViewClosed} {
		for _, limit := range []int{0, 1, 7, platform.MaxPage} {
			q := platform.Query{Tenant: event.DefaultTenant, View: view, Limit: limit}
			if view == platform.ViewExpiring {
				q.Until = until
			}
			var got []platform.Discussion
			for {
				page := must[platform.Page](t)(s.ListDiscussions(ctx, q))
				if len(page.Discussions) > q.PageSize() {
					t.Fatalf("%s: a page of %d has %d", view, q.PageSize(), len(page.Discussions))
				}
				got = append(got, page.Discussions...)
				if page.Next == "" {
					break
				}
				q.Cursor = page.Next
			}
			want := 0
			for _, d := range all {
				if q.Shows(d) {
					want++
				}
			}
			seen := map[string]bool{}
			for _, d := range got {
				same(t, d, all[d.ID])
				if seen[d.ID] || !q.Shows(d) {
					t.Errorf("%s, limit %d: %s is shown, or shown twice", view, limit, d.ID)
				}
				seen[d.ID] = true
			}
			if len(got) != want {
				t.Errorf("%s, limit %d: %d discussions, want %d", view, limit, len(got), want)
			}
			if !slices.IsSortedFunc(got, func(a, b platform.Discussion) int {
				if view == platform.ViewClosed {
					return b.ClosedAt.Compare(a.ClosedAt)
				}
				return a.ExpiresAt.Compare(b.ExpiresAt)
			}) {
				t.Errorf("%s, limit %d: not in order", view, limit)
			}
		}
	}
	for _, q := range []platform.Query{{View: "lost"}, {View: platform.ViewExpiring}, {View: platform.ViewOpen, Limit: platform.MaxPage + 1}, {View: platform.ViewOpen, Limit: -1}, {View: platform.ViewClosed, Cursor: "x"}} {
		if _, err := s.ListDiscussions(ctx, q); err == nil {
			t.Errorf("%+v is answered", q)
		}
	}
	if store, ok := s.(Platform); ok {
		expiredDiscussions(t, store, all, until)
	}
}

// expiredDiscussions reads those of all tenants, shard by shard and page by page.
func expiredDiscussions(t *testing.T, s Platform, all map[string]platform.Discussion, until time.Time) {
	ctx := t.Context()
	got := map[string]bool{}
	for shard := range platform.Shards {
		for cursor := ""; ; {
			page, next, err := s.ExpiredDiscussions(ctx, shard, until, cursor, 3)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range page {
				if got[e.ID] || platform.Shard(e.ID) != shard || e.Tenant != all[e.ID].Tenant || !e.At.Equal(all[e.ID].ExpiresAt) {
					t.Errorf("shard %d shows %+v", shard, e)
				}
				got[e.ID] = true
			}
			if cursor = next; next == "" {
				break
			}
		}
		if _, _, err := s.ExpiredDiscussions(ctx, shard, until, "x", 3); err == nil {
			t.Error("a malformed cursor is taken")
		}
	}
	for _, d := range all {
		if want := d.Status == platform.Open && !d.ExpiresAt.After(until); got[d.ID] != want {
			t.Errorf("%s is expired: %v, want %v", d.ID, got[d.ID], want)
		}
	}
}

// extendAgainstClose runs an extension and a closing at expiry concurrently: one
// succeeds, and the discussion has its result.
func extendAgainstClose(t *testing.T, s Discussions) {
	ctx := t.Context()
	for i := range 30 {
		d := openDiscussion(fmt.Sprint("d_", i), start)
		if err := s.PutRecord(ctx, d); err != nil {
			t.Fatal(err)
		}
		var extended, closed error
		var racing sync.WaitGroup
		begin := make(chan struct{})
		racing.Go(func() {
			<-begin
			_, extended = s.ExtendDiscussion(ctx, platform.Extension{Tenant: event.DefaultTenant, ID: d.ID, To: start.Add(time.Hour), By: "admin", At: start})
		})
		racing.Go(func() {
			<-begin
			_, closed = s.CloseDiscussion(ctx, platform.Closing{Tenant: event.DefaultTenant, ID: d.ID, Reason: platform.Expired, At: start})
		})
		close(begin)
		racing.Wait()
		got := must[platform.Discussion](t)(s.GetDiscussion(ctx, event.DefaultTenant, d.ID))
		switch {
		case extended == nil && errors.Is(closed, platform.ErrNotExpired) && got.Status == platform.Open && got.ExpiresAt.After(start):
		case closed == nil && errors.Is(extended, platform.ErrClosed) && got.Status == platform.Closed && got.ExpiresAt.Equal(start):
		default:
			t.Errorf("extended: %v, closed: %v, and it is %+v", extended, closed, got)
		}
	}
}

// discussionModel compares the store with the pure transitions.
func discussionModel(t *testing.T, s Discussions) {
	ctx := t.Context()
	run := 0
	rapid.Check(t, func(r *rapid.T) {
		run++
		id := fmt.Sprintf("d_%d", run)
		model := openDiscussion(id, start.Add(time.Hour))
		if err := s.PutRecord(ctx, model); err != nil {
			r.Fatal(err)
		}
		for step := range rapid.IntRange(1, 8).Draw(r, "moves") {
			at := start.Add(time.Duration(rapid.IntRange(0, 5).Draw(r, "at")) * 30 * time.Minute)
			tenant := rapid.SampledFrom([]string{event.DefaultTenant, "other"}).Draw(r, "tenant")
			var want, got platform.Discussion
			var wantErr, err error
			switch rapid.SampledFrom([]string{"extend", "expire", "close"}).Draw(r, "move") {
			case "extend":
				x := platform.Extension{Tenant: tenant, ID: id, To: at.Add(time.Hour), By: "admin", At: start.Add(time.Duration(step) * time.Second)}
				want, wantErr = x.Apply(&model)
				got, err = s.ExtendDiscussion(ctx, x)
			case "expire":
				c := platform.Closing{Tenant: tenant, ID: id, Reason: platform.Expired, At: at}
				want, wantErr = c.Apply(&model)
				got, err = s.CloseDiscussion(ctx, c)
			default:
				c := platform.Closing{Tenant: tenant, ID: id, Reason: platform.ByHand, By: "admin", At: at}
				want, wantErr = c.Apply(&model)
				got, err = s.CloseDiscussion(ctx, c)
			}
			if fmt.Sprint(err) != fmt.Sprint(wantErr) {
				r.Fatalf("the store says %v, the transition %v", err, wantErr)
			}
			if err == nil {
				if got != want {
					r.Fatalf("the store has %+v, the transition %+v", got, want)
				}
				model = want
			}
		}
		if got, err := s.GetDiscussion(ctx, event.DefaultTenant, id); err != nil || got != model {
			r.Fatalf("the store has %+v, %v; the transitions %+v", got, err, model)
		}
	})
}
