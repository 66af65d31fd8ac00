// Package alert tells the operators what is wrong: it holds the health report
// against rules every minute, and says on Slack and by email what began, what is
// still so, and what is over. Rules and state are pure; the state is one document
// in Control, written on condition that no other evaluator has.
//
// It promises that one incident is one message, however many evaluators run, with
// reminders at most as often as the stack's parameter says, and a message when it
// is over; that what was decided to be said is said, though the evaluator that
// decided it may die and a channel may be away for hours; and that a channel which
// fails hurts nothing else. Only where an evaluator dies between sending and noting
// that it has sent does a message come twice.
package alert

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/tidings-dev/tidings/pkg/ops/health"
)

const (
	// claimTime is how long an evaluator has the outbox for itself; if it dies,
	// another one sends what it left.
	claimTime = 5 * time.Minute
	// writes is how often a write is tried that another evaluator's came before.
	writes = 5
)

// Documents keeps the state.
type Documents interface {
	// ReadAlerts returns the document and its version, 0 where there is none.
	ReadAlerts(ctx context.Context) (document []byte, version int, err error)
	// WriteAlerts stores the document as the next version, on condition that was is
	// the present one, and tells whether it was. writer names the write, so that a
	// write whose answer was lost may be repeated.
	WriteAlerts(ctx context.Context, document []byte, was int, writer string) (stored bool, err error)
}

// Channel carries messages to people. It retries what is worth it, within a few
// seconds, and its errors hold no secret.
type Channel interface {
	Name() string
	Send(ctx context.Context, m Message) error
}

// Message is a notice with what it says of where it comes from.
type Message struct {
	Notice
	Stack   string
	Console string // URL; "" where there is none
}

// Evaluator evaluates the rules.
type Evaluator struct {
	Report     func(context.Context) (health.Report, error)
	Documents  Documents
	Thresholds Thresholds
	Channels   []Channel
	Heartbeat  *Heartbeat // nil for none
	Stack      string
	Console    string
	Log        *slog.Logger
	Now        func() time.Time
	Writer     func() string // a name for a write, unique among all evaluators
}

// Evaluated says what an evaluation came to.
type Evaluated struct {
	Incidents int `json:"incidents"` // that are going on
	Sent      int `json:"sent"`      // messages
	Unsent    int `json:"unsent"`    // messages that a channel did not take; they are tried again
}

// Evaluate looks once, and says what there is to say.
func (e *Evaluator) Evaluate(ctx context.Context) (Evaluated, error) {
	report, err := e.Report(ctx)
	if err != nil {
		return Evaluated{}, fmt.Errorf("report: %w", err)
	}
	e.Heartbeat.beat(ctx, report, e.Log)
	state, version, mine, err := e.decide(ctx, report)
	if err != nil {
		return Evaluated{}, err
	}
	done := Evaluated{Incidents: len(state.Incidents)}
	if !mine {
		return done, nil
	}
	sent := e.send(ctx, state.Outbox, &done)
	return done, e.settle(ctx, state, version, sent)
}

// decide writes what the report makes of the state. mine tells whether the outbox
// is this evaluator's to send.
func (e *Evaluator) decide(ctx context.Context, report health.Report) (next State, version int, mine bool, err error) {
	var names []string
	for _, c := range e.Channels {
		names = append(names, c.Name())
	}
	for range writes {
		state, was, err := e.read(ctx)
		if err != nil {
			return State{}, 0, false, err
		}
		now := e.Now()
		next, changed := Evaluate(report, state, e.Thresholds, names, now)
		mine := len(next.Outbox) > 0 && !now.Before(state.ClaimedUntil)
		if mine {
			next.ClaimedUntil = now.Add(claimTime)
		}
		if !changed && !mine {
			return next, was, false, nil
		}
		stored, err := e.write(ctx, next, was)
		if err != nil {
			return State{}, 0, false, err
		}
		if stored {
			e.logChanges(ctx, state, next)
			return next, was + 1, mine, nil
		}
	}
	// Others evaluate the same: what there is to say, they say.
	return State{}, 0, false, nil
}

func (e *Evaluator) logChanges(ctx context.Context, before, after State) {
	for key, i := range after.Incidents {
		if _, known := before.Incidents[key]; !known {
			e.Log.WarnContext(ctx, "alert.fired", "rule", string(i.Rule), "subject", i.Subject)
		}
	}
	for key, i := range before.Incidents {
		if _, still := after.Incidents[key]; !still {
			e.Log.InfoContext(ctx, "alert.resolved", "rule", string(i.Rule), "subject", i.Subject, "seconds", int(i.ClearSince.Sub(i.Since).Seconds()))
		}
	}
}

// send sends what is in the outbox, in order, and returns which channels have taken
// which notice. A channel that fails is not asked again in this evaluation.
func (e *Evaluator) send(ctx context.Context, outbox []Notice, done *Evaluated) map[string][]string {
	sent := map[string][]string{}
	for _, c := range e.Channels {
		failed := false
		for _, n := range outbox {
			if !slices.Contains(n.Channels, c.Name()) {
				continue
			}
			if failed {
				done.Unsent++
				continue
			}
			if err := c.Send(ctx, Message{Notice: n, Stack: e.Stack, Console: e.Console}); err != nil {
				e.Log.ErrorContext(ctx, "alert.not_sent", "channel", c.Name(), "rule", string(n.Rule), "kind", string(n.Kind), "error", err.Error())
				failed = true
				done.Unsent++
				continue
			}
			e.Log.InfoContext(ctx, "alert.sent", "channel", c.Name(), "rule", string(n.Rule), "kind", string(n.Kind))
			sent[n.ID] = append(sent[n.ID], c.Name())
			done.Sent++
		}
	}
	// A channel that is configured no more is owed nothing.
	for _, n := range outbox {
		for _, name := range n.Channels {
			if !slices.ContainsFunc(e.Channels, func(c Channel) bool { return c.Name() == name }) {
				sent[n.ID] = append(sent[n.ID], name)
			}
		}
	}
	return sent
}

// settle takes what was sent out of the outbox, and gives the claim back.
func (e *Evaluator) settle(ctx context.Context, state State, version int, sent map[string][]string) error {
	for range writes {
		stored, err := e.write(ctx, state.Sent(sent), version)
		if err != nil || stored {
			return err
		}
		if state, version, err = e.read(ctx); err != nil {
			return err
		}
	}
	return fmt.Errorf("alerts: the state could not be written, because others keep writing it: what was sent is sent again in %s", claimTime)
}

func (e *Evaluator) read(ctx context.Context) (State, int, error) {
	var s State
	document, version, err := e.Documents.ReadAlerts(ctx)
	if err == nil && version > 0 {
		err = json.Unmarshal(document, &s)
	}
	if err != nil {
		return s, version, fmt.Errorf("alerts: %w", err)
	}
	return s, version, nil
}

func (e *Evaluator) write(ctx context.Context, s State, was int) (bool, error) {
	document, err := json.Marshal(s)
	if err != nil {
		return false, fmt.Errorf("alerts: %w", err)
	}
	stored, err := e.Documents.WriteAlerts(ctx, document, was, e.Writer())
	if err != nil {
		return false, fmt.Errorf("alerts: %w", err)
	}
	return stored, nil
}
