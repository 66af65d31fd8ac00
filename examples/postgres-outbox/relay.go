package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	// batchRows and batchBytes limit one call of emit, which accepts 500 events and 6 MB.
	batchRows  = 100
	batchBytes = 4 << 20
	// pollInterval is the longest wait for a notification, in case one was missed.
	pollInterval = 5 * time.Second
	// minBackoff and maxBackoff limit the wait after a failure.
	minBackoff = time.Second
	maxBackoff = time.Minute
)

// Event is a row as input for emit.
type Event struct {
	Event          string          `json:"event"`
	Tenant         string          `json:"tenant,omitempty"`
	Timestamp      string          `json:"timestamp"`
	ActorUserID    string          `json:"actor_user_id,omitempty"`
	Data           json.RawMessage `json:"data"`
	IdempotencyKey string          `json:"idempotency_key"`
}

// Result is emit's result for one event.
type Result struct {
	ID        string `json:"id"`
	Duplicate bool   `json:"duplicate"`
	Error     *struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	} `json:"error"`
}

// Relay sends rows of the outbox to emit.
type Relay struct {
	Database string // URL
	Source   string // prefix of the idempotency keys
	Emit     func(context.Context, []Event) ([]Result, error)
	Log      *slog.Logger
}

// Run relays until ctx is done. It retries failures of the database and of emit with
// backoff.
func (r *Relay) Run(ctx context.Context) error {
	for backoff := minBackoff; ; backoff = min(2*backoff, maxBackoff) {
		began := time.Now()
		err := r.follow(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		r.Log.Error("relay.failed", "error", err.Error(), "retry_in", backoff.String())
		if time.Since(began) > maxBackoff {
			backoff = minBackoff // the failure is a new one
		}
		select {
		case <-time.After(backoff):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// follow relays on one connection until the database or emit fails.
func (r *Relay) follow(ctx context.Context) error {
	db, err := pgx.Connect(ctx, r.Database)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer db.Close(context.WithoutCancel(ctx))
	// Listen before the first query, so that no commit is missed in between.
	if _, err := db.Exec(ctx, "LISTEN outbox"); err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	for {
		n, err := r.Batch(ctx, db)
		if err != nil {
			return err
		}
		if n > 0 {
			continue
		}
		wait, cancel := context.WithTimeout(ctx, pollInterval)
		_, err = db.WaitForNotification(wait)
		cancel()
		if err != nil && !errors.Is(wait.Err(), context.DeadlineExceeded) {
			return fmt.Errorf("wait for a notification: %w", err)
		}
	}
}

// Batch relays one batch and returns the number of rows that it marked as sent or
// refused. It locks the rows until they are marked; other relays skip them. If the relay
// dies after emit has responded, the rows are sent again with the same keys.
func (r *Relay) Batch(ctx context.Context, db *pgx.Conn) (int, error) {
	tx, err := db.Begin(ctx)
	if err != nil {
		return 0, fmt.Errorf("begin: %w", err)
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }() // no effect after a commit
	ids, list, err := r.nextRows(ctx, tx)
	if err != nil || len(list) == 0 {
		return 0, err
	}
	results, err := r.Emit(ctx, list)
	if err != nil {
		return 0, fmt.Errorf("emit %d events: %w", len(list), err)
	}
	if len(results) != len(list) {
		return 0, fmt.Errorf("emit returned %d results for %d events", len(results), len(list))
	}
	done := 0
	for i, result := range results {
		switch {
		case result.Error == nil:
			_, err = tx.Exec(ctx, "UPDATE outbox SET sent_at = now(), event_id = $2 WHERE id = $1", ids[i], result.ID)
		case result.Error.Code == "unavailable":
			continue // retried with the next batch
		default:
			r.Log.Error("relay.refused", "row", ids[i], "code", result.Error.Code, "error", result.Error.Message)
			_, err = tx.Exec(ctx, "UPDATE outbox SET refused = $2 WHERE id = $1", ids[i], result.Error.Message)
		}
		if err != nil {
			return 0, fmt.Errorf("mark row %d: %w", ids[i], err)
		}
		done++
	}
	if err := tx.Commit(ctx); err != nil {
		return 0, fmt.Errorf("commit: %w", err)
	}
	if done == 0 {
		return 0, errors.New("emit is unavailable: it stored none of the events")
	}
	r.Log.Info("relay.sent", "rows", done)
	return done, nil
}

// nextRows locks and returns the oldest unsent rows.
func (r *Relay) nextRows(ctx context.Context, tx pgx.Tx) (ids []int64, list []Event, err error) {
	rows, err := tx.Query(ctx, `
		SELECT id, event, tenant, coalesce(actor_user_id, ''), data::text, happened_at
		FROM outbox WHERE sent_at IS NULL AND refused IS NULL
		ORDER BY id LIMIT $1 FOR UPDATE SKIP LOCKED`, batchRows)
	if err != nil {
		return nil, nil, fmt.Errorf("read the outbox: %w", err)
	}
	defer rows.Close()
	size := 0
	for rows.Next() {
		var id int64
		var e Event
		var data string
		var at time.Time
		if err := rows.Scan(&id, &e.Event, &e.Tenant, &e.ActorUserID, &data, &at); err != nil {
			return nil, nil, fmt.Errorf("read a row: %w", err)
		}
		size += len(data)
		if size > batchBytes && len(list) > 0 {
			continue // left for the next batch
		}
		e.Data = json.RawMessage(data)
		e.Timestamp = at.UTC().Format(time.RFC3339Nano)
		e.IdempotencyKey = fmt.Sprintf("%s-%d", r.Source, id)
		ids, list = append(ids, id), append(list, e)
	}
	if err := rows.Err(); err != nil {
		return nil, nil, fmt.Errorf("read the outbox: %w", err)
	}
	return ids, list, nil
}
