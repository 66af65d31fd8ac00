package alert

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/tidings-dev/tidings/pkg/ops/health"
)

const (
	// maxLines is the maximum number of subjects listed in one message.
	maxLines = 10
	// maxOutbox is the maximum number of unsent notices; the oldest are dropped.
	maxOutbox = 50
	// noticeRetention is how long an unsent notice is retried.
	noticeRetention = 24 * time.Hour
)

// Kind is the kind of a notice.
type Kind string

const (
	Fired    Kind = "fired"
	Reminder Kind = "still"
	Resolved Kind = "resolved"
)

// State is the state that evaluators share: one document, written conditionally.
// Times come from the evaluators' clocks.
type State struct {
	Incidents map[string]Incident `json:"incidents"`
	// Outbox are the notices that at least one channel has not accepted yet.
	Outbox []Notice `json:"outbox,omitempty"`
	// ClaimedUntil is when the claim of the evaluator that sends the outbox expires.
	ClaimedUntil time.Time `json:"claimed_until,omitzero"`
}

// Incident is an open incident: a rule fired for a subject.
type Incident struct {
	Rule    Rule      `json:"rule"`
	Subject string    `json:"subject,omitempty"`
	Since   time.Time `json:"since"`
	// Said is the time of the last message about it.
	Said time.Time `json:"said"`
	// ClearSince is when the rule first found nothing; zero while it finds something.
	ClearSince time.Time `json:"clear_since,omitzero"`
}

// Notice is one message: all subjects of one rule that changed in the same evaluation.
type Notice struct {
	ID    string    `json:"id"`
	Kind  Kind      `json:"kind"`
	Rule  Rule      `json:"rule"`
	Lines []string  `json:"lines"`
	At    time.Time `json:"at"`
	// Channels are the channels that have not accepted it yet.
	Channels []string `json:"channels"`
}

// Title returns the title of the message.
func (n Notice) Title() string { return titles[n.Rule] }

// Advice returns what to do, with commands for the deployment; empty once the
// incident is resolved.
func (m Message) Advice() string {
	if m.Kind == Resolved {
		return ""
	}
	return strings.ReplaceAll(advice[m.Rule], "$STACK", m.Stack)
}

// Evaluate applies a report to the state: it opens and resolves incidents, and adds
// notices, including reminders, to the outbox for the given channels. changed is
// false if the state does not need to be written.
func Evaluate(r health.Report, s State, t Thresholds, channels []string, now time.Time) (next State, changed bool) {
	next = State{Incidents: maps.Clone(s.Incidents), Outbox: slices.Clone(s.Outbox), ClaimedUntil: s.ClaimedUntil}
	if next.Incidents == nil {
		next.Incidents = map[string]Incident{}
	}
	type group struct {
		kind Kind
		rule Rule
	}
	texts := map[group][]string{}
	found := map[string]bool{}
	for _, f := range Find(r, t) {
		key := string(f.Rule) + " " + f.Subject
		found[key] = true
		i, known := next.Incidents[key]
		before := i
		switch {
		case !known:
			i = Incident{Rule: f.Rule, Subject: f.Subject, Since: now, Said: now}
			texts[group{Fired, f.Rule}] = append(texts[group{Fired, f.Rule}], f.Text)
		case now.Sub(i.Said) >= time.Duration(t.RemindMinutes)*time.Minute:
			i.Said = now
			texts[group{Reminder, f.Rule}] = append(texts[group{Reminder, f.Rule}], fmt.Sprintf("%s Open for %s.", f.Text, ago(now.Sub(i.Since))))
		}
		i.ClearSince = time.Time{}
		if i != before {
			next.Incidents[key], changed = i, true
		}
	}
	for _, key := range slices.Sorted(maps.Keys(next.Incidents)) {
		i := next.Incidents[key]
		switch {
		case found[key]:
		case i.ClearSince.IsZero():
			i.ClearSince = now
			next.Incidents[key], changed = i, true
		case now.Sub(i.ClearSince) >= time.Duration(t.ResolveAfter)*time.Minute:
			delete(next.Incidents, key)
			changed = true
			text := fmt.Sprintf("Resolved after %s.", ago(i.ClearSince.Sub(i.Since)))
			if i.Subject != "" {
				text = fmt.Sprintf("%s: resolved after %s.", i.Subject, ago(i.ClearSince.Sub(i.Since)))
			}
			texts[group{Resolved, i.Rule}] = append(texts[group{Resolved, i.Rule}], text)
		}
	}
	for g, lines := range texts {
		if len(channels) == 0 {
			break
		}
		slices.Sort(lines)
		if more := len(lines) - maxLines; more > 0 {
			lines = append(lines[:maxLines:maxLines], fmt.Sprintf("And %d more.", more))
		}
		next.Outbox = append(next.Outbox, Notice{
			ID:   fmt.Sprintf("%s/%s/%d", g.rule, g.kind, now.UnixMilli()),
			Kind: g.kind, Rule: g.rule, Lines: lines, At: now, Channels: slices.Clone(channels),
		})
	}
	slices.SortStableFunc(next.Outbox, func(a, b Notice) int {
		return cmp.Or(a.At.Compare(b.At), cmp.Compare(a.ID, b.ID))
	})
	next.Outbox = slices.DeleteFunc(next.Outbox, func(n Notice) bool { return now.Sub(n.At) > noticeRetention })
	if over := len(next.Outbox) - maxOutbox; over > 0 {
		next.Outbox = next.Outbox[over:]
	}
	return next, changed
}

// Sent returns the state without the notices that every channel has accepted. sent
// maps notice IDs to the channels that accepted them.
func (s State) Sent(sent map[string][]string) State {
	next := State{Incidents: s.Incidents}
	for _, n := range s.Outbox {
		n.Channels = slices.DeleteFunc(slices.Clone(n.Channels), func(c string) bool { return slices.Contains(sent[n.ID], c) })
		if len(n.Channels) > 0 {
			next.Outbox = append(next.Outbox, n)
		}
	}
	return next
}
