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
	// batchRows and batchBytes bound what one call of emit brings: it takes 500
	// events, and Lambda 6 MB.
	batchRows  = 100
	batchBytes = 4 << 20
	// idle is how long the relay waits where nothing is notified: rows may have
	// been written while it was not listening.
	idle = 5 * time.Second
	// firstPause and maxPause bound the wait after a failure.
	firstPause = time.Second
	maxPause   = time.Minute
)

// Event is a row as emit takes it.
type Event struct {
	Event          string          `json:"event"`
	Tenant         string          `json:"tenant,omitempty"`
	Timestamp      string          `json:"timestamp"`
	ActorUserID    string          `json:"actor_user_id,omitempty"`
	Data           json.RawMessage `json:"data"`
	IdempotencyKey string          `json:"idempotency_key"`
}

// Result is emit's answer for one event.
type Result struct {
	ID        string `json:"id"`
	Duplicate bool   `json:"duplicate"`
	Error     *struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	} `json:"error"`
}

// Relay moves rows from the outbox to emit.
type Relay struct {
	Database string // URL
	Source   string // stands in the idempotency keys
	Emit     func(context.Context, []Event) ([]Result, error)
	Log      *slog.Logger
}

// Run relays until ctx ends. What fails is tried again: nothing is lost while
// the database or emit is away.
func (r *Relay) Run(ctx context.Context) error {
	for pause := firstPause; ; pause = min(2*pause, maxPause) {
		began := time.Now()
		err := r.follow(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		r.Log.Error("relay.failed", "error", err.Error(), "again_in", pause.String())
		if time.Since(began) > maxPause {
			pause = firstPause // it had worked for a while
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// follow relays on one connection, until that or emit fails.
func (r *Relay) follow(ctx context.Context) error {
	db, err := pgx.Connect(ctx, r.Database)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer db.Close(context.WithoutCancel(ctx))
	// Listening comes before the first look: what is committed in between is
	// either seen or notified.
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
		wait, cancel := context.WithTimeout(ctx, idle)
		_, err = db.WaitForNotification(wait)
		cancel()
		if err != nil && !errors.Is(wait.Err(), context.DeadlineExceeded) {
			return fmt.Errorf("wait for a notification: %w", err)
		}
	}
}

// Batch relays one batch and returns how many rows it has dealt with. The rows
// are locked until they are marked; another relay takes others meanwhile. If this
// one dies after emit has answered, the rows are free again and sent again, under
// the same keys.
func (r *Relay) Batch(ctx context.Context, db *pgx.Conn) (int, error) {
	tx, err := db.Begin(ctx)
	if err != nil {
		return 0, fmt.Errorf("begin: %w", err)
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }() // after a commit it does nothing
	ids, list, err := r.waiting(ctx, tx)
	if err != nil || len(list) == 0 {
		return 0, err
	}
	results, err := r.Emit(ctx, list)
	if err != nil {
		return 0, fmt.Errorf("emit %d events: %w", len(list), err)
	}
	if len(results) != len(list) {
		return 0, fmt.Errorf("emit answered %d of %d events", len(results), len(list))
	}
	done := 0
	for i, result := range results {
		switch {
		case result.Error == nil:
			_, err = tx.Exec(ctx, "UPDATE outbox SET sent_at = now(), event_id = $2 WHERE id = $1", ids[i], result.ID)
		case result.Error.Code == "unavailable":
			continue // it stays where it is
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
		return 0, errors.New("emit could store none of the events just now")
	}
	r.Log.Info("relay.sent", "rows", done)
	return done, nil
}

// waiting locks and returns the next rows, the oldest first.
func (r *Relay) waiting(ctx context.Context, tx pgx.Tx) (ids []int64, list []Event, err error) {
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
			continue // the next batch's
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
