// Package compile compiles definitions of event types for package eventtypes, where the
// compilers of JSON Schema and CEL may be linked: in the CLI and in emit.
package compile

import (
	"context"

	"github.com/tidings-dev/tidings/pkg/admin/eventtypes"
	"github.com/tidings-dev/tidings/pkg/event/catalog"
	"github.com/tidings-dev/tidings/pkg/event/validate"
	"github.com/tidings-dev/tidings/pkg/event/versions"
)

// Check implements eventtypes.Check. It lists one problem of each definition.
func Check(_ context.Context, list []eventtypes.Definition) error {
	var problems []eventtypes.Problem
	for i, d := range list {
		if t, err := check(d); err != nil {
			problems = append(problems, eventtypes.Wrong(i, t.Label(), err))
		}
	}
	if len(problems) > 0 {
		return &eventtypes.WrongError{Problems: problems}
	}
	return nil
}

func check(d eventtypes.Definition) (catalog.Type, error) {
	read := catalog.Parse
	if d.Stored {
		read = catalog.FromStored
	}
	t, err := read([]byte(d.Text))
	if err == nil && !d.Stored {
		err = validate.Check(t)
	}
	if err != nil {
		return t, err
	}
	if d.Before == "" {
		return t, versions.Check(nil, t)
	}
	before, err := catalog.FromStored([]byte(d.Before))
	if err == nil {
		err = versions.Check(&before, t)
	}
	return t, err
}
