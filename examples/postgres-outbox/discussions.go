package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tidings-dev/tidings/pkg/platform"
	"github.com/tidings-dev/tidings/pkg/platform/remote"
)

// Discussions lists and changes the platform's discussions for Tidings' console. It
// connects for each call: operators make few.
type Discussions struct {
	Database string // URL
}

const columns = `id, tenant, coalesce(community_id, ''), title, status, expires_at, coalesce(extended_by, ''), coalesce(extended_by_login, ''),
	closed_at, coalesce(closed_by, ''), coalesce(closed_by_login, ''), coalesce(close_reason, ''), created_at, updated_at`

func scan(row pgx.Row) (platform.Discussion, error) {
	var d platform.Discussion
	var closed *time.Time
	err := row.Scan(&d.ID, &d.Tenant, &d.CommunityID, &d.Title, &d.Status, &d.ExpiresAt, &d.ExtendedBy, &d.ExtendedByLogin,
		&closed, &d.ClosedBy, &d.ClosedByLogin, &d.Reason, &d.CreatedAt, &d.UpdatedAt)
	if closed != nil {
		d.ClosedAt = closed.UTC()
	}
	d.ExpiresAt, d.CreatedAt, d.UpdatedAt = d.ExpiresAt.UTC(), d.CreatedAt.UTC(), d.UpdatedAt.UTC()
	return d, err
}

// with runs something on a connection of its own.
func (s Discussions) with(ctx context.Context, do func(*pgx.Conn) error) error {
	db, err := pgx.Connect(ctx, s.Database)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer db.Close(context.WithoutCancel(ctx))
	return do(db)
}

// GetDiscussion returns a tenant's discussion, or platform.ErrNotFound.
func (s Discussions) GetDiscussion(ctx context.Context, tenant, id string) (d platform.Discussion, err error) {
	err = s.with(ctx, func(db *pgx.Conn) error {
		d, err = scan(db.QueryRow(ctx, "SELECT "+columns+" FROM discussions WHERE id = $1 AND tenant = $2", id, tenant))
		return err
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return d, platform.ErrNotFound
	}
	return d, err
}

// cursor is the last discussion of a page.
type cursor struct {
	At time.Time
	ID string
}

// ListDiscussions returns a page of a tenant's discussions in the order of the view.
func (s Discussions) ListDiscussions(ctx context.Context, q platform.Query) (page platform.Page, err error) {
	if err := q.Check(); err != nil {
		return page, err
	}
	where, order := "status = 'open' AND (expires_at, id) > ($2, $3)", "expires_at, id"
	after := cursor{At: time.Unix(0, 0)}
	until := time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)
	switch q.View {
	case platform.ViewExpiring:
		until = q.Until
	case platform.ViewClosed:
		where, order = "status = 'closed' AND (closed_at, id) < ($2, $3)", "closed_at DESC, id DESC"
		after.At = until
	}
	if q.Cursor != "" {
		text, err := base64.RawURLEncoding.DecodeString(q.Cursor)
		if err == nil {
			err = json.Unmarshal(text, &after)
		}
		if err != nil || after.ID == "" {
			return page, fmt.Errorf("%w: the cursor is not one of this list", remote.ErrInvalid)
		}
	}
	err = s.with(ctx, func(db *pgx.Conn) error {
		rows, err := db.Query(ctx, "SELECT "+columns+" FROM discussions WHERE tenant = $1 AND "+where+
			" AND (status = 'closed' OR expires_at <= $4) ORDER BY "+order+" LIMIT $5", q.Tenant, after.At, after.ID, until, q.PageSize()+1)
		if err != nil {
			return err
		}
		page.Discussions, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (platform.Discussion, error) { return scan(row) })
		return err
	})
	if len(page.Discussions) > q.PageSize() {
		page.Discussions = page.Discussions[:q.PageSize()]
		last := page.Discussions[q.PageSize()-1]
		text, err := json.Marshal(cursor{platform.EndingOf(last).At, last.ID})
		if err != nil {
			return page, err
		}
		page.Next = base64.RawURLEncoding.EncodeToString(text)
	}
	return page, err
}

// change locks a discussion, applies a transition to it and stores the result. The
// trigger publishes the event in the same transaction.
func (s Discussions) change(ctx context.Context, id string, apply func(*platform.Discussion) (platform.Discussion, error)) (after platform.Discussion, err error) {
	err = s.with(ctx, func(db *pgx.Conn) error {
		return pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error {
			before, err := scan(tx.QueryRow(ctx, "SELECT "+columns+" FROM discussions WHERE id = $1 FOR UPDATE", id))
			switch {
			case errors.Is(err, pgx.ErrNoRows):
				_, err = apply(nil)
				return err
			case err != nil:
				return err
			}
			if after, err = apply(&before); err != nil || after == before {
				return err
			}
			_, err = tx.Exec(ctx, `UPDATE discussions SET status = $2, expires_at = $3, extended_by = nullif($4, ''), extended_by_login = nullif($5, ''),
				closed_at = $6, closed_by = nullif($7, ''), closed_by_login = nullif($8, ''), close_reason = nullif($9, ''), updated_at = $10 WHERE id = $1`,
				id, after.Status, after.ExpiresAt, after.ExtendedBy, after.ExtendedByLogin, orNull(after.ClosedAt), after.ClosedBy, after.ClosedByLogin,
				string(after.Reason), after.UpdatedAt)
			return err
		})
	})
	return after, err
}

func orNull(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// ExtendDiscussion moves the end of an open discussion and returns the discussion.
func (s Discussions) ExtendDiscussion(ctx context.Context, x platform.Extension) (platform.Discussion, error) {
	return s.change(ctx, x.ID, x.Apply)
}

// CloseDiscussion closes an open discussion and returns it.
func (s Discussions) CloseDiscussion(ctx context.Context, c platform.Closing) (platform.Discussion, error) {
	return s.change(ctx, c.ID, c.Apply)
}

// CloseExpired closes the discussions whose end has passed, and returns their number.
func (s Discussions) CloseExpired(ctx context.Context) (n int64, err error) {
	err = s.with(ctx, func(db *pgx.Conn) error { return db.QueryRow(ctx, "SELECT close_expired_discussions()").Scan(&n) })
	return n, err
}
