// Package compile compiles files of capture rules for package capturerules, where the
// compiler may be linked: in the CLI and in emit.
package compile

import (
	"context"
	"errors"

	"github.com/tidings-dev/tidings/pkg/admin/capturerules"
	"github.com/tidings-dev/tidings/pkg/emit/capture/rules"
)

// Check implements capturerules.Check.
func Check(_ context.Context, files []capturerules.File) ([][]capturerules.Rule, error) {
	list := make([][]capturerules.Rule, len(files))
	var problems []error
	for i, f := range files {
		set, err := rules.Parse(f.Path, []byte(f.Text))
		if err != nil {
			problems = append(problems, err)
			continue
		}
		for _, r := range set.Rules() {
			list[i] = append(list[i], capturerules.Rule{Event: r.Event, Line: r.Line, Column: r.Column})
		}
	}
	if err := errors.Join(problems...); err != nil {
		return nil, capturerules.Wrong{Problems: err}
	}
	return list, nil
}
