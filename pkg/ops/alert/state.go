package alert

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/tidings-dev/tidings/pkg/ops/health"
)

const (
	// maxLines is how many subjects one message names.
	maxLines = 10
	// maxOutbox bounds what waits to be sent; the oldest gives way.
	maxOutbox = 50
	// keepNotice is how long a notice is tried that a channel does not take.
	keepNotice = 24 * time.Hour
)

// Kind is what a notice says of its incidents.
type Kind string

const (
	Fired    Kind = "fired"
	Still    Kind = "still" // a reminder
	Resolved Kind = "resolved"
)

// State is what evaluators share, one document that is written on condition that
// nobody else has. Times are the evaluators' clocks'.
type State struct {
	Incidents map[string]Incident `json:"incidents"`
	// Outbox is what was decided to say, and has not been said on every channel.
	Outbox []Notice `json:"outbox,omitempty"`
	// ClaimedUntil is until when an evaluator is at the outbox.
	ClaimedUntil time.Time `json:"claimed_until,omitzero"`
}

// Incident is something that has been wrong since it was found.
type Incident struct {
	Rule    Rule      `json:"rule"`
	Subject string    `json:"subject,omitempty"`
	Since   time.Time `json:"since"`
	// Said is when there was last a message about it.
	Said time.Time `json:"said"`
	// ClearSince is since when it has not been found again; zero while it is.
	ClearSince time.Time `json:"clear_since,omitzero"`
}

// Notice is one message: all that became true of one rule at one time.
type Notice struct {
	ID    string    `json:"id"`
	Kind  Kind      `json:"kind"`
	Rule  Rule      `json:"rule"`
	Lines []string  `json:"lines"`
	At    time.Time `json:"at"`
	// Channels have not taken it yet.
	Channels []string `json:"channels"`
}

// Title heads the message.
func (n Notice) Title() string { return titles[n.Rule] }

// Evaluate decides what a report makes of the incidents: which are new, which are
// over, which are worth a reminder, and what is to be said of it on the channels.
// changed is false where the state need not be written.
func Evaluate(r health.Report, s State, t Thresholds, channels []string, now time.Time) (next State, changed bool) {
	next = State{Incidents: maps.Clone(s.Incidents), Outbox: slices.Clone(s.Outbox), ClaimedUntil: s.ClaimedUntil}
	if next.Incidents == nil {
		next.Incidents = map[string]Incident{}
	}
	type group struct {
		kind Kind
		rule Rule
	}
	said := map[group][]string{}
	found := map[string]bool{}
	for _, f := range Find(r, t) {
		key := string(f.Rule) + " " + f.Subject
		found[key] = true
		i, known := next.Incidents[key]
		before := i
		switch {
		case !known:
			i = Incident{Rule: f.Rule, Subject: f.Subject, Since: now, Said: now}
			said[group{Fired, f.Rule}] = append(said[group{Fired, f.Rule}], f.Text)
		case now.Sub(i.Said) >= time.Duration(t.RemindMinutes)*time.Minute:
			i.Said = now
			said[group{Still, f.Rule}] = append(said[group{Still, f.Rule}], fmt.Sprintf("%s This is so for %s.", f.Text, ago(now.Sub(i.Since))))
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
			subject := cmp.Or(i.Subject, "It")
			said[group{Resolved, i.Rule}] = append(said[group{Resolved, i.Rule}], fmt.Sprintf("%s is well again, after %s.", subject, ago(i.ClearSince.Sub(i.Since))))
		}
	}
	for g, lines := range said {
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
	next.Outbox = slices.DeleteFunc(next.Outbox, func(n Notice) bool { return now.Sub(n.At) > keepNotice })
	if over := len(next.Outbox) - maxOutbox; over > 0 {
		next.Outbox = next.Outbox[over:]
	}
	return next, changed
}

// Sent returns the state without what a channel has taken.
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
