// Package admin administers endpoints: it adds them, validated, with a secret
// that is shown once; rotates secrets; disables, enables, removes. The tool and
// the pages use the same operations. It promises that no endpoint is stored
// which could not receive by its own settings, and that two administrators can't
// undo each other unseen.
package admin

import (
	"context"
	"errors"
	"time"

	"github.com/tidings-dev/tidings/pkg/destination"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/signature"
)

// Store is where endpoints are kept.
type Store interface {
	// AddEndpoint returns endpoint.ErrConflict for an id that is taken.
	AddEndpoint(ctx context.Context, e endpoint.Endpoint) error
	// UpdateEndpoint stores e if the stored version is e.Version, and returns it
	// with the next one; else endpoint.ErrConflict or endpoint.ErrNotFound.
	UpdateEndpoint(ctx context.Context, e endpoint.Endpoint) (endpoint.Endpoint, error)
	// RemoveEndpoint returns endpoint.ErrNotFound where there is none.
	RemoveEndpoint(ctx context.Context, tenant, id string) error
	GetEndpoint(ctx context.Context, tenant, id string) (endpoint.Endpoint, error)
	ListEndpoints(ctx context.Context, tenant string) ([]endpoint.Endpoint, error)
}

// Registry administers the endpoints of a store.
type Registry struct {
	Store Store
	Types []string                       // the catalog's event types
	Check func(destination.Target) error // refuses what no adapter can serve
	Now   func() time.Time
}

// Add stores a new endpoint: e with its id, status and times set, and a fresh
// secret where it has none. The secret is in the returned endpoint; whoever
// asked for it must be shown it now, for it is not shown again.
func (r *Registry) Add(ctx context.Context, e endpoint.Endpoint) (endpoint.Endpoint, error) {
	now := r.Now().UTC().Truncate(time.Millisecond)
	e.ID = endpoint.NewID(now)
	e.Status, e.StatusReason = endpoint.Enabled, ""
	e.Version = 1
	e.CreatedAt, e.UpdatedAt = now, now
	if len(e.EventTypes) == 0 {
		e.EventTypes = []string{"*"}
	}
	if len(e.Secrets) == 0 {
		e.Secrets = []endpoint.SigningSecret{{Secret: signature.NewSecret()}}
	}
	if err := r.Refuse(e); err != nil {
		return e, err
	}
	return e, r.Store.AddEndpoint(ctx, e)
}

// Refuse says what is wrong with an endpoint as it is set up; nil for nothing.
// One that has no secret yet is taken as if it had one: Add makes it.
func (r *Registry) Refuse(e endpoint.Endpoint) error {
	if len(e.Secrets) == 0 {
		e.Secrets = []endpoint.SigningSecret{{Secret: signature.NewSecret()}}
	}
	return errors.Join(r.Check(destination.TargetOf(e)), e.Validate(r.Types))
}

// Replace stores an endpoint that was read with e.Version and edited by a person;
// endpoint.ErrConflict where somebody else changed it in the meantime.
func (r *Registry) Replace(ctx context.Context, e endpoint.Endpoint) (endpoint.Endpoint, error) {
	e.UpdatedAt = r.Now().UTC().Truncate(time.Millisecond)
	if err := r.Refuse(e); err != nil {
		return e, err
	}
	return r.Store.UpdateEndpoint(ctx, e)
}

// changeTries is how often a change is tried against others' changes.
const changeTries = 5

// Change reads an endpoint, changes it and stores it; where somebody else came in
// between, again, so do must say what should be, whatever was. What could not
// receive is refused, and nothing is changed.
func (r *Registry) Change(ctx context.Context, tenant, id string, do func(*endpoint.Endpoint)) (endpoint.Endpoint, error) {
	for try := 1; ; try++ {
		e, err := r.Store.GetEndpoint(ctx, tenant, id)
		if err != nil {
			return e, err
		}
		do(&e)
		e.UpdatedAt = r.Now().UTC().Truncate(time.Millisecond)
		if err := r.Refuse(e); err != nil {
			return e, err
		}
		stored, err := r.Store.UpdateEndpoint(ctx, e)
		if !errors.Is(err, endpoint.ErrConflict) || try == changeTries {
			return stored, err
		}
	}
}

// Disable takes an endpoint out of service: what waits for it ends as skipped.
func (r *Registry) Disable(ctx context.Context, tenant, id, reason string) (endpoint.Endpoint, error) {
	return r.Change(ctx, tenant, id, func(e *endpoint.Endpoint) { e.Status, e.StatusReason = endpoint.Disabled, reason })
}

// Enable puts an endpoint into service again.
func (r *Registry) Enable(ctx context.Context, tenant, id string) (endpoint.Endpoint, error) {
	return r.Change(ctx, tenant, id, func(e *endpoint.Endpoint) { e.Status, e.StatusReason = endpoint.Enabled, "" })
}

// RotateSecret gives an endpoint a fresh secret of the kind it had and lets the
// old one sign beside it for the overlap. The new secret is in the returned
// endpoint's first place, to be shown once.
func (r *Registry) RotateSecret(ctx context.Context, tenant, id string, overlap time.Duration) (endpoint.Endpoint, error) {
	return r.Change(ctx, tenant, id, func(e *endpoint.Endpoint) {
		fresh := signature.NewSecret()
		if len(e.Secrets) > 0 && e.Secrets[0].Secret.Public() != "" {
			fresh = signature.NewEd25519()
		}
		*e = e.Rotate(fresh, r.Now(), overlap)
	})
}

// Remove forgets an endpoint: what waits for it ends as skipped.
func (r *Registry) Remove(ctx context.Context, tenant, id string) error {
	return r.Store.RemoveEndpoint(ctx, tenant, id)
}
