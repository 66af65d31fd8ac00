// Package live has the capture rules of a deployment as they are now, or were a minute ago:
// the shipped ones, unless they are switched off, and its own. It compiles them once for
// each version. It promises that rules that cannot be used after a change do not replace
// those from before.
package live

import (
	"context"
	"fmt"
	"log/slog"
	"sync"

	"github.com/tidings-dev/tidings/pkg/emit/capture/rules"
	"github.com/tidings-dev/tidings/pkg/event/catalog"
	"github.com/tidings-dev/tidings/pkg/event/deployed"
)

// Source is where the rules come from. *deployed.Live is one.
type Source interface {
	Both(ctx context.Context) (deployed.Both, error)
}

// Rules are a deployment's capture rules. They are safe for concurrent use.
type Rules struct {
	Source Source
	Log    *slog.Logger
	// PlatformTable is the name of the table that the shipped rules are for; empty for every
	// captured table.
	PlatformTable string

	mu      sync.Mutex
	types   *catalog.Catalog // of which current was made; a new one comes with each revision
	current *rules.Set
	// compiled are the sets of current by the name and the text of their files, so that a
	// change of one file, or of an event type, does not compile the others again.
	compiled map[[2]string]*rules.Set
}

// Current returns the rules. If they cannot be read or compiled, it returns the last ones;
// it fails only if there are none.
func (r *Rules) Current(ctx context.Context) (*rules.Set, error) {
	now, err := r.Source.Both(ctx)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.current != nil && r.types == now.Types {
		return r.current, nil
	}
	set, err := r.compile(now)
	switch {
	case err == nil:
		r.current = set
	case r.current == nil:
		return nil, err
	default:
		r.Log.ErrorContext(ctx, "capture_rules.stale", "error", err.Error())
	}
	r.types = now.Types
	return r.current, nil
}

// compile returns the rules of a deployment. A shipped rule whose event type is switched off
// is left out.
func (r *Rules) compile(now deployed.Both) (*rules.Set, error) {
	var sets []*rules.Set
	if !now.Rules.WithoutShipped {
		shipped := rules.Shipped().Only(func(r rules.Rule) bool {
			_, ok := now.Types.Type(r.Event)
			return ok
		})
		if r.PlatformTable != "" {
			shipped = shipped.ForTable(r.PlatformTable)
		}
		sets = append(sets, shipped)
	}
	compiled := map[[2]string]*rules.Set{}
	for _, f := range now.Rules.Files {
		file := [2]string{f.Name, f.Text}
		set := r.compiled[file]
		if set == nil {
			var err error
			if set, err = rules.Parse(f.Name, []byte(f.Text)); err != nil {
				return nil, fmt.Errorf("capture rules: %w", err)
			}
		}
		compiled[file] = set
		sets = append(sets, set)
	}
	r.compiled = compiled
	return rules.Join(sets...), nil
}
