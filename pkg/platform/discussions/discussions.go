// Package discussions closes expired discussions. Each is closed once, also if several
// invocations run at the same time. A discussion that is extended before it is closed
// stays open. Discussions that one invocation has no time for are closed by the next
// one. The events are captured from the table's stream, not emitted here.
package discussions

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tidings-dev/tidings/pkg/platform"
)

const (
	// pageSize is the number of expired discussions read per query.
	pageSize = 200
	// writers is the maximum number of concurrent writes per shard.
	writers = 8
	// reserve is the time before its deadline at which an invocation stops.
	reserve = 10 * time.Second
)

// Store finds and closes discussions.
type Store interface {
	// ExpiredDiscussions returns up to limit open discussions of a shard that have
	// expired by at, and the cursor of the next page.
	ExpiredDiscussions(ctx context.Context, shard int, at time.Time, cursor string, limit int) ([]platform.Ending, string, error)
	// CloseDiscussion returns platform.ErrClosed, ErrNotExpired or ErrNotFound if the
	// discussion was closed, extended or deleted in the meantime.
	CloseDiscussion(ctx context.Context, c platform.Closing) (platform.Discussion, error)
	// IndexTable indexes a part of the discussions that were in the platform's table before
	// its stream was captured. It is called until all are.
	IndexTable(ctx context.Context) (platform.Indexed, error)
}

// Closer implements the close-discussions function.
type Closer struct {
	Store Store
	Log   *slog.Logger
	Now   func() time.Time
}

// Closed is the result of one invocation.
type Closed struct {
	Closed int  `json:"closed"`
	Spared int  `json:"spared"` // extended, closed or deleted at the same time
	Failed int  `json:"failed"` // failed to close; the next invocation retries them
	Done   bool `json:"done"`   // whether no expired discussion is left, and all are indexed
}

// Command is the payload of an invocation.
type Command struct {
	Action string `json:"action,omitempty"` // "close" or empty, or "index" to close none
}

// Handle is the Lambda function.
func (c *Closer) Handle(ctx context.Context, payload json.RawMessage) (any, error) {
	var command Command
	if len(payload) > 0 {
		if err := json.Unmarshal(payload, &command); err != nil {
			return nil, fmt.Errorf("invalid command: %w", err)
		}
	}
	switch command.Action {
	case "", "close":
		return c.Close(ctx)
	case "index":
		done, err := c.index(ctx)
		return Closed{Done: done}, err
	}
	return nil, fmt.Errorf("unknown action %q; the actions are close and index", command.Action)
}

// Close closes expired discussions until all are closed or the deadline is near.
func (c *Closer) Close(ctx context.Context) (Closed, error) {
	began := c.now()
	indexed, err := c.index(ctx)
	if err != nil {
		return Closed{}, err
	}
	var closed, spared, failed atomic.Int64
	var cut atomic.Bool
	var group errgroup.Group // without a context: if one shard fails, the others continue
	for shard := range platform.Shards {
		group.Go(func() error {
			for cursor := ""; ; {
				if c.late(ctx) {
					cut.Store(true)
					return nil
				}
				page, next, err := c.Store.ExpiredDiscussions(ctx, shard, began, cursor, pageSize)
				if err != nil {
					return fmt.Errorf("list expired discussions of shard %d: %w", shard, err)
				}
				var closing errgroup.Group
				closing.SetLimit(writers)
				for _, e := range page {
					if c.late(ctx) {
						cut.Store(true)
						break
					}
					closing.Go(func() error {
						switch err := c.close(ctx, e); {
						case err == nil:
							closed.Add(1)
						case errors.Is(err, platform.ErrClosed), errors.Is(err, platform.ErrNotExpired), errors.Is(err, platform.ErrNotFound):
							spared.Add(1)
						default:
							failed.Add(1)
							c.Log.ErrorContext(ctx, "discussion.not_closed", "discussion_id", e.ID, "error", err.Error())
						}
						return nil
					})
				}
				_ = closing.Wait() // the functions return no error
				if next == "" || cut.Load() {
					return nil
				}
				cursor = next
			}
		})
	}
	err = group.Wait()
	done := Closed{Closed: int(closed.Load()), Spared: int(spared.Load()), Failed: int(failed.Load())}
	done.Done = err == nil && indexed && !cut.Load() && done.Failed == 0
	c.Log.InfoContext(ctx, "discussions.closed", "closed", done.Closed, "spared", done.Spared, "failed", done.Failed, "done", done.Done,
		"ms", c.now().Sub(began).Milliseconds())
	return done, err
}

// index indexes the discussions of the table that are not indexed yet, until that or half
// of the time is over. It reports whether all are indexed.
func (c *Closer) index(ctx context.Context) (bool, error) {
	began, total, malformed := c.now(), 0, 0
	defer func() {
		if total+malformed > 0 {
			c.Log.InfoContext(ctx, "discussions.indexed", "indexed", total, "malformed", malformed, "ms", c.now().Sub(began).Milliseconds())
		}
	}()
	for {
		part, err := c.Store.IndexTable(ctx)
		if err != nil {
			return false, fmt.Errorf("index the discussions of the platform's table: %w", err)
		}
		total, malformed = total+part.Discussions, malformed+len(part.Malformed)
		for _, key := range part.Malformed {
			c.Log.ErrorContext(ctx, "discussion.malformed", "keys", key)
		}
		deadline, ok := ctx.Deadline()
		if part.Done || ok && deadline.Sub(c.now()) < c.now().Sub(began) {
			return part.Done, nil
		}
	}
}

// late reports whether the deadline is near.
func (c *Closer) late(ctx context.Context) bool {
	deadline, ok := ctx.Deadline()
	return ok && deadline.Sub(c.now()) < reserve
}

func (c *Closer) close(ctx context.Context, e platform.Ending) error {
	_, err := c.Store.CloseDiscussion(ctx, platform.Closing{Tenant: e.Tenant, ID: e.ID, Reason: platform.Expired, At: c.now()})
	return err
}

// now returns the time at the resolution that stores keep.
func (c *Closer) now() time.Time { return c.Now().Truncate(time.Millisecond) }
