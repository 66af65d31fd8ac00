// Package alert evaluates the alert rules every minute and sends messages to Slack
// and by email when an incident begins, while it goes on, and when it is resolved.
// Rules and state are pure; the state is one document in the Control table, written
// conditionally.
//
// It promises one message per incident, however many evaluators run, reminders no
// more often than AlertRemindMinutes, and one message when the incident is resolved.
// Messages survive the death of an evaluator and a channel that is down for hours,
// and a failing channel does not affect the others. A message is sent twice only if
// an evaluator dies after sending it and before recording that.
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
	// claimTime is how long one evaluator owns the outbox. If it dies, another one
	// sends the remaining messages afterwards.
	claimTime = 5 * time.Minute
	// maxWrites is the number of attempts at a conditional write.
	maxWrites = 5
)

// document is the name of the document that holds the state.
const document = "alerts"

// Documents stores documents by name.
type Documents interface {
	// ReadDocument returns a document and its version; version 0 if there is none.
	ReadDocument(ctx context.Context, name string) (document []byte, version int, err error)
	// WriteDocument stores the document as the next version if the stored version is
	// still was, and reports whether it was. writer identifies the write, so that it
	// can be repeated safely if its response was lost. The maximum size is 350 KB.
	WriteDocument(ctx context.Context, name string, document []byte, was int, writer string) (stored bool, err error)
}

// Channel sends messages to people. It retries temporary failures for a few seconds.
// Its errors contain no secret.
type Channel interface {
	Name() string
	Send(ctx context.Context, m Message) error
}

// Message is a notice together with the deployment it comes from.
type Message struct {
	Notice
	Stack   string
	Console string // URL; empty if there is none
}

// Evaluator evaluates the rules against the health report.
type Evaluator struct {
	Report     func(context.Context) (health.Report, error)
	Documents  Documents
	Thresholds Thresholds
	Channels   []Channel
	Heartbeat  *Heartbeat // nil: no heartbeat
	Stack      string
	Console    string
	Log        *slog.Logger
	Now        func() time.Time
	Writer     func() string // returns an ID for a write, unique among all evaluators
}

// Result is the result of one evaluation.
type Result struct {
	Incidents int `json:"incidents"` // open incidents
	Sent      int `json:"sent"`      // messages
	Unsent    int `json:"unsent"`    // messages that a channel did not accept; the next evaluation retries them
}

// Evaluate evaluates the rules once, sends the heartbeat, and sends messages.
func (e *Evaluator) Evaluate(ctx context.Context) (Result, error) {
	report, err := e.Report(ctx)
	if err != nil {
		return Result{}, fmt.Errorf("report: %w", err)
	}
	e.Heartbeat.beat(ctx, report, e.Log)
	state, version, mine, err := e.decide(ctx, report)
	if err != nil {
		return Result{}, err
	}
	done := Result{Incidents: len(state.Incidents)}
	if !mine {
		return done, nil
	}
	sent := e.send(ctx, state.Outbox, &done)
	return done, e.settle(ctx, state, version, sent)
}

// decide applies the report to the stored state. mine reports whether this evaluator
// owns the outbox and has to send it.
func (e *Evaluator) decide(ctx context.Context, report health.Report) (next State, version int, mine bool, err error) {
	var names []string
	for _, c := range e.Channels {
		names = append(names, c.Name())
	}
	for range maxWrites {
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
	// Other evaluators kept writing; they evaluate the same report and send the messages.
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
			e.Log.InfoContext(ctx, "alert.resolved", "rule", string(i.Rule), "subject", i.Subject, "duration_seconds", int(i.ClearSince.Sub(i.Since).Seconds()))
		}
	}
}

// send sends the outbox in order and returns the channels that accepted each notice.
// A channel that fails is not tried again in this evaluation.
func (e *Evaluator) send(ctx context.Context, outbox []Notice, done *Result) map[string][]string {
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
	// Drop messages for channels that are no longer configured.
	for _, n := range outbox {
		for _, name := range n.Channels {
			if !slices.ContainsFunc(e.Channels, func(c Channel) bool { return c.Name() == name }) {
				sent[n.ID] = append(sent[n.ID], name)
			}
		}
	}
	return sent
}

// settle removes the sent messages from the outbox and releases the claim.
func (e *Evaluator) settle(ctx context.Context, state State, version int, sent map[string][]string) error {
	for range maxWrites {
		stored, err := e.write(ctx, state.Sent(sent), version)
		if err != nil || stored {
			return err
		}
		if state, version, err = e.read(ctx); err != nil {
			return err
		}
	}
	return fmt.Errorf("alerts: could not store that messages were sent, because other evaluators kept writing; they are sent again in %s", claimTime)
}

func (e *Evaluator) read(ctx context.Context) (State, int, error) {
	var s State
	text, version, err := e.Documents.ReadDocument(ctx, document)
	if err == nil && version > 0 {
		err = json.Unmarshal(text, &s)
	}
	if err != nil {
		return s, version, fmt.Errorf("read alert state: %w", err)
	}
	return s, version, nil
}

func (e *Evaluator) write(ctx context.Context, s State, was int) (bool, error) {
	text, err := json.Marshal(s)
	if err != nil {
		return false, fmt.Errorf("write alert state: %w", err)
	}
	stored, err := e.Documents.WriteDocument(ctx, document, text, was, e.Writer())
	if err != nil {
		return false, fmt.Errorf("write alert state: %w", err)
	}
	return stored, nil
}
