// Package rules derives events from changes of tables by rules that are data: a YAML file
// whose expressions are CEL (docs/capture.md). It is pure: no I/O, no clock, no
// randomness. It promises that a change always gives the same events with the same IDs;
// that an expression has no side effects, ends, and is bounded in cost and in the size of
// its result; that a deletion by DynamoDB's TTL gives no event unless a rule names by_ttl;
// and that its errors contain no values of the change. A Set is compiled once and is safe
// for concurrent use.
package rules

import (
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/tidings-dev/tidings/pkg/emit/capture"
	"github.com/tidings-dev/tidings/pkg/platform"
)

// Set is a number of compiled rules.
type Set struct{ rules []*rule }

// Rule describes a rule.
type Rule struct {
	Event string
	Table string // a pattern of table names, in which * is any text; "" means every table
	When  string // the expression
	File  string
	// Line and Column are where the file names the event, starting at 1.
	Line, Column int
}

// Outcome is what a rule makes of a change.
type Outcome string

const (
	GaveEvent  Outcome = "event"
	NoMatch    Outcome = "no match"
	OtherTable Outcome = "other table"
	Failed     Outcome = "error"
)

// Verdict is what one rule makes of a change.
type Verdict struct {
	Rule    Rule
	Outcome Outcome
	Event   *capture.Captured // if the outcome is GaveEvent
	Err     error             // an *EvaluationError, if the outcome is Failed
}

// EvaluationError says which expression of which rule could not be evaluated. It contains
// no values of the change.
type EvaluationError struct {
	Rule       Rule
	Part       string // "when", "actor", "data.order_id" …
	Expression string
	// Tenant is the tenant of the change, by the rule; empty if that cannot be evaluated
	// either.
	Tenant string
	Err    error
}

func (e *EvaluationError) Error() string {
	return fmt.Sprintf("%s (%s:%d): %s: %s: %s", e.Rule.Event, clip(e.Rule.File), e.Rule.Line, e.Part, clip(e.Expression), e.Err)
}

func (e *EvaluationError) Unwrap() error { return e.Err }

// clip shortens a text for errors.
func clip(text string) string {
	const limit = 100
	return cutBytes(strings.Join(strings.Fields(text), " "), limit)
}

// Join returns the rules of several sets, in order.
func Join(sets ...*Set) *Set {
	all := &Set{}
	for _, s := range sets {
		all.rules = append(all.rules, s.rules...)
	}
	return all
}

// Only returns the rules that keep selects.
func (s *Set) Only(keep func(Rule) bool) *Set {
	some := &Set{}
	for _, r := range s.rules {
		if keep(r.Rule) {
			some.rules = append(some.rules, r)
		}
	}
	return some
}

// ForTable returns the set with its rules that name no table limited to one.
func (s *Set) ForTable(name string) *Set {
	limited := &Set{}
	for _, r := range s.rules {
		if r.Table == "" {
			of := *r
			of.Table = name
			r = &of
		}
		limited.rules = append(limited.rules, r)
	}
	return limited
}

// Rules describes the rules, in order.
func (s *Set) Rules() []Rule {
	all := make([]Rule, len(s.rules))
	for n, r := range s.rules {
		all[n] = r.Rule
	}
	return all
}

// Events returns the events of a change, in the order of the rules. With an error, which is
// an *EvaluationError or joins several, it returns the events of the rules that could be
// evaluated: one wrong rule does not stop the others. A rule that matches or may match could
// then not be evaluated; trying again does not help before the rule or the item is mended.
func (s *Set) Events(c platform.Change) ([]capture.Captured, error) {
	var events []capture.Captured
	var problems []error
	s.each(c, func(r *rule, outcome Outcome, made *capture.Captured, err error) {
		switch outcome {
		case GaveEvent:
			events = append(events, *made)
		case Failed:
			problems = append(problems, err)
		}
	})
	switch len(problems) {
	case 0:
		return events, nil
	case 1:
		return events, problems[0]
	}
	return events, fmt.Errorf("%w; and %d more", problems[0], len(problems)-1)
}

// Explain returns what each rule makes of a change, in order. Events returns the same
// events.
func (s *Set) Explain(c platform.Change) []Verdict {
	verdicts := make([]Verdict, 0, len(s.rules))
	s.each(c, func(r *rule, outcome Outcome, made *capture.Captured, err error) {
		verdicts = append(verdicts, Verdict{r.Rule, outcome, made, err})
	})
	return verdicts
}

func (s *Set) each(c platform.Change, report func(*rule, Outcome, *capture.Captured, error)) {
	on := newEvaluation(c)
	for _, r := range s.rules {
		if !r.isOf(on.table) {
			report(r, OtherTable, nil, nil)
			continue
		}
		if !r.canMatch(on) {
			report(r, NoMatch, nil, nil)
			continue
		}
		on.begin(r)
		matches, err := r.matches(on)
		if err == nil && !matches {
			report(r, NoMatch, nil, nil)
			continue
		}
		var made capture.Captured
		if err == nil {
			made, err = r.event(on)
		}
		if err != nil {
			var at *EvaluationError
			if tenant, unknown := r.tenantOf(on); unknown == nil && errors.As(err, &at) {
				at.Tenant = tenant
			}
			report(r, Failed, nil, err)
			continue
		}
		report(r, GaveEvent, &made, nil)
	}
}

// isOf reports whether the rule is for a table.
func (r *rule) isOf(table string) bool {
	if r.Table == "" || r.Table == table {
		return true
	}
	matches, _ := path.Match(r.Table, table) // the pattern was checked, and table names have no slash
	return matches
}

// Problem is what is wrong with a file of rules, and where.
type Problem struct {
	File         string
	Line, Column int // starting at 1; the column counts characters
	Message      string
}

func (p *Problem) Error() string {
	return fmt.Sprintf("%s:%d:%d: %s", p.File, p.Line, p.Column, p.Message)
}

// Problems returns the problems that an error of Parse lists.
func Problems(err error) []*Problem {
	var all []*Problem
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, one := range joined.Unwrap() {
			all = append(all, Problems(one)...)
		}
		return all
	}
	var p *Problem
	if errors.As(err, &p) {
		all = append(all, p)
	}
	return all
}
