// Package discussions closes discussions whose time is over. It promises that
// each is closed once, however many run at the same time, that an extension which
// came first keeps its discussion open, and that any number is closed: what one
// invocation has no time for, the next one does. Nothing is emitted here; the
// table's stream tells of what was closed.
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
	// pageSize is how many expired discussions are read at a time.
	pageSize = 200
	// writers bounds the closings under way in one shard.
	writers = 8
	// reserve is what an invocation leaves of its time.
	reserve = 10 * time.Second
)

// Store is where discussions are.
type Store interface {
	// ExpiredDiscussions returns up to limit open discussions of a shard whose
	// time was over at a moment, and the cursor of those that follow.
	ExpiredDiscussions(ctx context.Context, shard int, at time.Time, cursor string, limit int) ([]platform.Ending, string, error)
	// CloseDiscussion closes one, unless it is closed or has been extended.
	CloseDiscussion(ctx context.Context, c platform.Closing) (platform.Discussion, error)
}

// Closer is the close-discussions function.
type Closer struct {
	Store Store
	Log   *slog.Logger
	Now   func() time.Time
}

// Closed says what one invocation did.
type Closed struct {
	Closed int  `json:"closed"` // discussions that this one closed
	Spared int  `json:"spared"` // extended, or closed by another, in the same moment
	Failed int  `json:"failed"` // not closed just now; the next one tries again
	Done   bool `json:"done"`   // false if any is left; the next one goes on
}

// Command is a direct invocation, the schedule's too.
type Command struct {
	Action string `json:"action,omitempty"` // "close", also where it is empty
}

// Handle is the Lambda function.
func (c *Closer) Handle(ctx context.Context, payload json.RawMessage) (any, error) {
	var command Command
	if len(payload) > 0 {
		if err := json.Unmarshal(payload, &command); err != nil {
			return nil, fmt.Errorf("command: %w", err)
		}
	}
	if command.Action != "" && command.Action != "close" {
		return nil, fmt.Errorf("action %q is unknown; the action is close", command.Action)
	}
	return c.Close(ctx)
}

// Close closes what is open and past its time, as far as the invocation's time
// reaches.
func (c *Closer) Close(ctx context.Context) (Closed, error) {
	began := c.now()
	var closed, spared, failed atomic.Int64
	var cut atomic.Bool
	// A shard that fails does not keep the others from being closed.
	var group errgroup.Group
	for shard := range platform.Shards {
		group.Go(func() error {
			for cursor := ""; ; {
				if c.late(ctx) {
					cut.Store(true)
					return nil
				}
				page, next, err := c.Store.ExpiredDiscussions(ctx, shard, began, cursor, pageSize)
				if err != nil {
					return fmt.Errorf("expired discussions, shard %d: %w", shard, err)
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
				_ = closing.Wait() // each has said its own
				if next == "" || cut.Load() {
					return nil
				}
				cursor = next
			}
		})
	}
	err := group.Wait()
	done := Closed{Closed: int(closed.Load()), Spared: int(spared.Load()), Failed: int(failed.Load())}
	done.Done = err == nil && !cut.Load() && done.Failed == 0
	c.Log.InfoContext(ctx, "discussions.closed", "closed", done.Closed, "spared", done.Spared, "failed", done.Failed, "done", done.Done,
		"ms", c.now().Sub(began).Milliseconds())
	return done, err
}

// late tells whether the invocation's time is nearly over.
func (c *Closer) late(ctx context.Context) bool {
	deadline, ok := ctx.Deadline()
	return ok && deadline.Sub(c.now()) < reserve
}

func (c *Closer) close(ctx context.Context, e platform.Ending) error {
	_, err := c.Store.CloseDiscussion(ctx, platform.Closing{ID: e.ID, Reason: platform.Expired, At: c.now()})
	return err
}

// now is the time as stores keep it.
func (c *Closer) now() time.Time { return c.Now().Truncate(time.Millisecond) }
