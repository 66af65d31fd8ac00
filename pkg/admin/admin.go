// Package admin manages endpoints: it adds, changes, enables, disables and deletes
// them and rotates their signing secrets, for the CLI and the console alike. It
// stores only endpoints that pass validation, and no change overwrites another
// one that was made at the same time.
package admin

import (
	"context"
	"errors"
	"time"

	"github.com/tidings-dev/tidings/pkg/destination"
	"github.com/tidings-dev/tidings/pkg/endpoint"
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

// Endpoints manages the endpoints of a store.
type Endpoints struct {
	Store Store
	Types []string                       // the catalog's event types
	Check func(destination.Target) error // rejects targets that no adapter supports
	Now   func() time.Time
}

// Add stores a new endpoint. It sets the id, status, version and times, and
// generates a signing secret if e has none. The returned endpoint holds the secret:
// show it now, it is not shown again.
func (m *Endpoints) Add(ctx context.Context, e endpoint.Endpoint) (endpoint.Endpoint, error) {
	now := m.now()
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
	if err := m.Validate(e); err != nil {
		return e, err
	}
	return e, m.Store.AddEndpoint(ctx, e)
}

// Validate returns everything that is wrong with an endpoint's settings, joined.
// It does not require a secret, because Add generates a missing one.
func (m *Endpoints) Validate(e endpoint.Endpoint) error {
	if len(e.Secrets) == 0 {
		e.Secrets = []endpoint.SigningSecret{{Secret: signature.NewSecret()}}
	}
	return errors.Join(m.Check(destination.TargetOf(e)), e.Validate(m.Types))
}

// Replace stores an endpoint that was read at e.Version and edited since. It
// returns endpoint.ErrConflict if the stored endpoint changed in the meantime.
func (m *Endpoints) Replace(ctx context.Context, e endpoint.Endpoint) (endpoint.Endpoint, error) {
	e.UpdatedAt = m.now()
	if err := m.Validate(e); err != nil {
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
	for try := 1; ; try++ {
		e, err := m.Store.GetEndpoint(ctx, tenant, id)
		if err != nil {
			return e, err
		}
		do(&e)
		stored, err := m.Replace(ctx, e)
		if !errors.Is(err, endpoint.ErrConflict) || try == maxTries {
			return stored, err
		}
	}
}

// Disable disables an endpoint; its pending deliveries are marked skipped.
func (m *Endpoints) Disable(ctx context.Context, tenant, id, reason string) (endpoint.Endpoint, error) {
	return m.Change(ctx, tenant, id, func(e *endpoint.Endpoint) { e.Status, e.StatusReason = endpoint.Disabled, reason })
}

// Enable enables an endpoint.
func (m *Endpoints) Enable(ctx context.Context, tenant, id string) (endpoint.Endpoint, error) {
	return m.Change(ctx, tenant, id, func(e *endpoint.Endpoint) { e.Status, e.StatusReason = endpoint.Enabled, "" })
}

// RotateSecret adds a new signing secret of the same kind. The old one continues to
// sign beside it for the overlap. Secrets[0] of the result is the new secret, to be
// shown once.
func (m *Endpoints) RotateSecret(ctx context.Context, tenant, id string, overlap time.Duration) (endpoint.Endpoint, error) {
	return m.Change(ctx, tenant, id, func(e *endpoint.Endpoint) {
		secret := signature.NewSecret()
		if len(e.Secrets) > 0 && e.Secrets[0].Secret.Public() != "" {
			secret = signature.NewEd25519()
		}
		*e = e.Rotate(secret, m.Now(), overlap)
	})
}

// Remove deletes an endpoint; its pending deliveries are marked skipped.
func (m *Endpoints) Remove(ctx context.Context, tenant, id string) error {
	return m.Store.RemoveEndpoint(ctx, tenant, id)
}

// now returns the time at the resolution that stores keep.
func (m *Endpoints) now() time.Time { return m.Now().UTC().Truncate(time.Millisecond) }
