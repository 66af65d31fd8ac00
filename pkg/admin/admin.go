// Package admin manages endpoints: it adds, changes, enables, disables and deletes
// them and rotates their signing secrets, for the CLI and the console alike. It
// stores only endpoints that pass validation, and no change overwrites another
// one that was made at the same time.
package admin

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tidings-dev/tidings/pkg/destination"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/event/catalog"
	"github.com/tidings-dev/tidings/pkg/signature"
)

// Store stores endpoints.
type Store interface {
	// AddEndpoint returns endpoint.ErrConflict if the id is taken.
	AddEndpoint(ctx context.Context, e endpoint.Endpoint) error
	// UpdateEndpoint stores e if the stored version equals e.Version, and returns
	// it with the next version. Otherwise it returns endpoint.ErrConflict or
	// endpoint.ErrNotFound.
	UpdateEndpoint(ctx context.Context, e endpoint.Endpoint) (endpoint.Endpoint, error)
	// RemoveEndpoint returns endpoint.ErrNotFound if there is no such endpoint.
	RemoveEndpoint(ctx context.Context, tenant, id string) error
	GetEndpoint(ctx context.Context, tenant, id string) (endpoint.Endpoint, error)
	ListEndpoints(ctx context.Context, tenant string) ([]endpoint.Endpoint, error)
}

// Catalog is the source of the event types.
type Catalog interface {
	// Of returns the types of a tenant: those of the deployment and its own. Those of no
	// tenant ("") are the deployment's.
	Of(ctx context.Context, tenant string) (*catalog.Catalog, error)
}

// Endpoints manages the endpoints of a store.
type Endpoints struct {
	Store   Store
	Catalog Catalog                        // the event types
	Check   func(destination.Target) error // rejects targets that no adapter supports
	Now     func() time.Time
}

// MaxEndpoints is the maximum number of a tenant's endpoints: fan-out reads all of them.
// Of endpoints that are added at the same time, a few more can be stored.
const MaxEndpoints = 1000

// ErrTooMany is the error of an endpoint above MaxEndpoints.
var ErrTooMany = fmt.Errorf("a tenant can have %d endpoints: delete one first", MaxEndpoints)

// ErrDisabled is the error of pausing or resuming an endpoint that is disabled: its events
// are skipped, and nobody may expect them in its backlog, or enable it by mistake.
var ErrDisabled = errors.New("the endpoint is disabled: enable it first")

// Add stores a new endpoint. It sets the id, status, version and times, and
// generates a signing secret if e has none. Nil EventTypes mean all types; an empty list is
// an error. The returned endpoint holds the secret:
// show it now, it is not shown again.
func (m *Endpoints) Add(ctx context.Context, e endpoint.Endpoint) (endpoint.Endpoint, error) {
	now := m.now()
	e.ID = endpoint.NewID(now)
	e.Status, e.StatusReason = endpoint.Enabled, ""
	e.Version = 1
	e.CreatedAt, e.UpdatedAt = now, now
	if e.EventTypes == nil {
		e.EventTypes = []string{"*"}
	}
	if len(e.Secrets) == 0 {
		e.Secrets = []endpoint.SigningSecret{{Secret: signature.NewSecret()}}
	}
	if err := m.Validate(ctx, e); err != nil {
		return e, err
	}
	list, err := m.Store.ListEndpoints(ctx, e.Tenant)
	if err != nil {
		return e, err
	}
	if len(list) >= MaxEndpoints {
		return e, fmt.Errorf("%w: tenant %s has %d", ErrTooMany, e.Tenant, len(list))
	}
	return e, m.Store.AddEndpoint(ctx, e)
}

// Validate returns everything that is wrong with an endpoint's settings, joined.
// It does not require a secret, because Add generates a missing one.
func (m *Endpoints) Validate(ctx context.Context, e endpoint.Endpoint) error {
	if len(e.Secrets) == 0 {
		e.Secrets = []endpoint.SigningSecret{{Secret: signature.NewSecret()}}
	}
	known, err := m.Catalog.Of(ctx, e.Tenant)
	if err != nil {
		return err
	}
	return errors.Join(m.Check(destination.TargetOf(e)), e.Validate(known))
}

// ValidateChange is Validate for an endpoint that was stored as before. A destination that
// does not change is not checked: the deployment may have allowed it earlier, every
// attempt checks it again, and the other settings of its endpoint can still be changed.
func (m *Endpoints) ValidateChange(ctx context.Context, before, e endpoint.Endpoint) error {
	if destination.TargetOf(before) == destination.TargetOf(e) {
		known, err := m.Catalog.Of(ctx, e.Tenant)
		if err != nil {
			return err
		}
		return e.Validate(known)
	}
	return m.Validate(ctx, e)
}

// Replace stores an endpoint that was read as before and edited since. It returns
// endpoint.ErrConflict if the stored endpoint changed in the meantime.
func (m *Endpoints) Replace(ctx context.Context, before, e endpoint.Endpoint) (endpoint.Endpoint, error) {
	e.UpdatedAt = m.now()
	if err := m.ValidateChange(ctx, before, e); err != nil {
		return e, err
	}
	return m.Store.UpdateEndpoint(ctx, e)
}

// maxTries limits how often Change retries after a conflict.
const maxTries = 5

// Change reads an endpoint, applies do and stores the result. After a conflict it
// reads and applies do again, so do must be idempotent. An invalid result is not
// stored.
func (m *Endpoints) Change(ctx context.Context, tenant, id string, do func(*endpoint.Endpoint)) (endpoint.Endpoint, error) {
	return m.change(ctx, tenant, id, func(e *endpoint.Endpoint) error {
		before := *e
		do(e)
		return m.ValidateChange(ctx, before, *e)
	})
}

// change is Change without validation. It stores nothing if do returns an error.
func (m *Endpoints) change(ctx context.Context, tenant, id string, do func(*endpoint.Endpoint) error) (endpoint.Endpoint, error) {
	for try := 1; ; try++ {
		e, err := m.Store.GetEndpoint(ctx, tenant, id)
		if err != nil {
			return e, err
		}
		if err := do(&e); err != nil {
			return e, err
		}
		e.UpdatedAt = m.now()
		stored, err := m.Store.UpdateEndpoint(ctx, e)
		if !errors.Is(err, endpoint.ErrConflict) || try == maxTries {
			return stored, err
		}
	}
}

// Disable disables an endpoint; its pending deliveries are marked skipped. It works for an
// endpoint whose settings an earlier release accepted and this one does not.
func (m *Endpoints) Disable(ctx context.Context, tenant, id, reason string) (endpoint.Endpoint, error) {
	return m.change(ctx, tenant, id, func(e *endpoint.Endpoint) error {
		e.Status, e.StatusReason = endpoint.Disabled, reason
		return nil
	})
}

// Pause keeps an endpoint's events in its backlog, up to its age limit, until Enable. Like
// Disable, it works whatever the other settings are. It returns ErrDisabled for an endpoint
// that is disabled.
func (m *Endpoints) Pause(ctx context.Context, tenant, id, reason string) (endpoint.Endpoint, error) {
	return m.change(ctx, tenant, id, func(e *endpoint.Endpoint) error {
		if e.Status == endpoint.Disabled {
			return ErrDisabled
		}
		e.Status, e.StatusReason = endpoint.Paused, reason
		return nil
	})
}

// Resume enables an endpoint that is paused. It returns ErrDisabled for an endpoint that is
// disabled.
func (m *Endpoints) Resume(ctx context.Context, tenant, id string) (endpoint.Endpoint, error) {
	return m.change(ctx, tenant, id, func(e *endpoint.Endpoint) error {
		if e.Status == endpoint.Disabled {
			return ErrDisabled
		}
		before := *e
		e.Status, e.StatusReason = endpoint.Enabled, ""
		return m.ValidateChange(ctx, before, *e)
	})
}

// Enable enables an endpoint that is disabled, or resumes one that is paused.
func (m *Endpoints) Enable(ctx context.Context, tenant, id string) (endpoint.Endpoint, error) {
	return m.Change(ctx, tenant, id, func(e *endpoint.Endpoint) { e.Status, e.StatusReason = endpoint.Enabled, "" })
}

// RotateSecret adds a new signing secret of the same kind. The old one continues to
// sign beside it for the overlap. Secrets[0] of the result is the new secret, to be
// shown once. It returns an *endpoint.RotationError if the rotation is not allowed, and
// works whatever the other settings are, like Disable.
func (m *Endpoints) RotateSecret(ctx context.Context, tenant, id string, overlap time.Duration) (endpoint.Endpoint, error) {
	return m.change(ctx, tenant, id, func(e *endpoint.Endpoint) (err error) {
		secret := signature.NewSecret()
		if len(e.Secrets) > 0 && e.Secrets[0].Secret.Public() != "" {
			secret = signature.NewEd25519()
		}
		*e, err = e.Rotate(secret, m.Now(), overlap)
		return err
	})
}

// Remove deletes an endpoint; its pending deliveries are marked skipped.
func (m *Endpoints) Remove(ctx context.Context, tenant, id string) error {
	return m.Store.RemoveEndpoint(ctx, tenant, id)
}

// now returns the time at the resolution that stores keep.
func (m *Endpoints) now() time.Time { return m.Now().UTC().Truncate(time.Millisecond) }
