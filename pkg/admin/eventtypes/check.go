package eventtypes

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/tidings-dev/tidings/pkg/event/catalog"
)

// Check compiles definitions. Its error is a *WrongError if that is what is wrong, whose
// problems are At places of the list.
type Check func(ctx context.Context, list []Definition) error

// Definition is a definition to check.
type Definition struct {
	Text string `json:"text"`
	// Before is the definition of the version before; empty for the first one. Each of the two
	// is made of the other.
	Before string `json:"before,omitempty"`
	// Stored says that the definition itself is stored already: only whether it fits Before is
	// checked.
	Stored bool `json:"stored,omitempty"`
}

// Problem says what is wrong with one definition, or with a request.
type Problem struct {
	At   int    `json:"at"`             // the place of the definition in the list, from 0; -1 if it is none of them
	Type string `json:"type,omitempty"` // the type's label
	// Line and Column say where the definition is wrong, from 1; 0 if that is unknown.
	Line    int    `json:"line,omitempty"`
	Column  int    `json:"column,omitempty"`
	Message string `json:"message"`
}

func (p Problem) String() string {
	text := p.Message
	if p.Line > 0 {
		text = (&catalog.DefinitionError{Line: p.Line, Column: p.Column, Message: p.Message}).Error()
	}
	if p.Type == "" {
		return text
	}
	return p.Type + ": " + text
}

// Wrong returns what is wrong with the definition at a place of a list.
func Wrong(at int, label string, err error) Problem {
	p := Problem{At: at, Type: label, Message: err.Error()}
	var place *catalog.DefinitionError
	if errors.As(err, &place) {
		p.Line, p.Column, p.Message = place.Line, place.Column, place.Message
	}
	return p
}

// WrongError is the error of a request that cannot be done.
type WrongError struct{ Problems []Problem }

func (e *WrongError) Error() string {
	var lines []string
	for _, p := range e.Problems {
		lines = append(lines, p.String())
	}
	return strings.Join(lines, "\n")
}

// wrong returns the error of a request that is wrong as a whole.
func wrong(err error) error { return &WrongError{[]Problem{Wrong(-1, "", err)}} }

// maxCheckBytes is the size of the definitions that a function is asked to check at once: a
// request to it has up to 6 MB, and some characters take six bytes as JSON within JSON.
const maxCheckBytes = 900 << 10

// Checked is the answer of a function that checks definitions for another one.
type Checked struct {
	Problems []Problem `json:"problems"`
}

// Remote returns a Check that asks the emit function.
func Remote(invoke func(ctx context.Context, command, answer any) error) Check {
	return func(ctx context.Context, list []Definition) error {
		var problems []Problem
		for from := 0; from < len(list); {
			to, size := from, 0
			for ; to < len(list) && (to == from || size+list[to].size() <= maxCheckBytes); to++ {
				size += list[to].size()
			}
			command := struct {
				Action string       `json:"action"`
				Types  []Definition `json:"types"`
			}{"check_types", list[from:to]}
			var answer Checked
			if err := invoke(ctx, command, &answer); err != nil {
				return fmt.Errorf("check the event types: %w", err)
			}
			if answer.Problems == nil { // such as that of a function of another version
				return errors.New("check the event types: the function's answer has no problems, not even an empty list")
			}
			for _, p := range answer.Problems {
				p.At += from
				problems = append(problems, p)
			}
			from = to
		}
		if len(problems) > 0 {
			return &WrongError{problems}
		}
		return nil
	}
}

func (d Definition) size() int { return len(d.Text) + len(d.Before) }

// check compiles the types of a request, and tries them with the versions before and after
// them. after are the types with the changes.
func (m *Manager) check(ctx context.Context, after *catalog.Catalog, types []catalog.Type) error {
	if len(types) == 0 {
		return nil
	}
	given := map[string]int{}
	for i, t := range types {
		given[t.Label()] = i
	}
	var list []Definition
	var of []int // the type of the request that each is checked for
	for i, t := range types {
		d := Definition{Text: string(t.Schema)}
		if before, ok := after.Version(t.Name, t.Version-1); ok && t.Version > 1 {
			d.Before = string(before.Schema)
		}
		list, of = append(list, d), append(of, i)
		next, ok := after.Version(t.Name, t.Version+1)
		if _, checked := given[next.Label()]; ok && !checked {
			list, of = append(list, Definition{Text: string(next.Schema), Before: string(t.Schema), Stored: true}), append(of, i)
		}
	}
	err := m.Check(ctx, list)
	var failed *WrongError
	if !errors.As(err, &failed) {
		return err
	}
	for i, p := range failed.Problems {
		if p.At < 0 || p.At >= len(list) {
			continue
		}
		if list[p.At].Stored {
			p.Line, p.Column = 0, 0 // of another text
		}
		p.At = of[p.At]
		failed.Problems[i] = p
	}
	return failed
}
