package admin_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/pkg/admin"
	"github.com/tidings-dev/tidings/pkg/destination"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/signature"
	"github.com/tidings-dev/tidings/pkg/store/memory"
)

func open() *admin.Endpoints {
	return &admin.Endpoints{Store: memory.New(time.Now), Types: []string{"user.joined_community"}, Now: time.Now, Check: func(t destination.Target) error {
		if !strings.HasPrefix(t.URL, "https://") {
			return errors.New("url has no known scheme")
		}
		return nil
	}}
}

func add(t *testing.T, r *admin.Endpoints) endpoint.Endpoint {
	t.Helper()
	e, err := r.Add(t.Context(), endpoint.Endpoint{Tenant: "t", URL: "https://example.com"})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestAddSetsDefaultsAndStores(t *testing.T) {
	r := open()
	e := add(t, r)
	if !strings.HasPrefix(e.ID, "ep_") || e.Status != endpoint.Enabled || len(e.Secrets) != 1 || e.EventTypes[0] != "*" {
		t.Errorf("added %+v", e)
	}
	if _, err := r.Store.GetEndpoint(t.Context(), "t", e.ID); err != nil {
		t.Error(err)
	}
}

func TestAddReportsAllProblemsAndStoresNothing(t *testing.T) {
	r := open()
	_, err := r.Add(t.Context(), endpoint.Endpoint{Tenant: "t", URL: "gopher://x", EventTypes: []string{"user.exploded"}, Timeout: time.Hour})
	for _, part := range []string{"scheme", "user.exploded", "timeout_seconds"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("error = %v, want it to name %s", err, part)
		}
	}
	if list, _ := r.Store.ListEndpoints(t.Context(), "t"); len(list) != 0 {
		t.Errorf("stored %v", list)
	}
}

func TestRotationKeepsTheSecretKind(t *testing.T) {
	r := open()
	for _, first := range []signature.Secret{signature.NewSecret(), signature.NewEd25519()} {
		e, err := r.Add(t.Context(), endpoint.Endpoint{Tenant: "t", URL: "https://example.com", Secrets: []endpoint.SigningSecret{{Secret: first}}})
		if err != nil {
			t.Fatal(err)
		}
		e, err = r.RotateSecret(t.Context(), "t", e.ID, time.Hour)
		if err != nil || len(e.Secrets) != 2 || e.Secrets[0].Secret.Reveal() == first.Reveal() || e.Secrets[1].ExpiresAt.IsZero() {
			t.Errorf("rotated %+v, %v", e.Secrets, err)
		}
		if (e.Secrets[0].Secret.Public() == "") != (first.Public() == "") {
			t.Error("the rotation changed the kind of secret")
		}
	}
}

// contended makes the first updates conflict: it changes the endpoint before each
// of them.
type contended struct {
	admin.Store
	times int
}

func (c *contended) UpdateEndpoint(ctx context.Context, e endpoint.Endpoint) (endpoint.Endpoint, error) {
	if c.times > 0 {
		c.times--
		other, err := c.GetEndpoint(ctx, e.Tenant, e.ID)
		if err != nil {
			return e, err
		}
		other.Description = "changed concurrently"
		if _, err := c.Store.UpdateEndpoint(ctx, other); err != nil {
			return e, err
		}
	}
	return c.Store.UpdateEndpoint(ctx, e)
}

func TestChangeRetriesAfterConflictsAndKeepsOtherChanges(t *testing.T) {
	r := open()
	r.Store = &contended{Store: r.Store, times: 2}
	e := add(t, r)
	got, err := r.Disable(t.Context(), "t", e.ID, "maintenance")
	if err != nil || got.Status != endpoint.Disabled || got.Description != "changed concurrently" {
		t.Errorf("disabled %+v, %v", got, err)
	}
	got, err = r.Enable(t.Context(), "t", e.ID)
	if err != nil || got.Status != endpoint.Enabled || got.StatusReason != "" {
		t.Errorf("enabled %+v, %v", got, err)
	}
	r.Store.(*contended).times = 100
	if _, err := r.Disable(t.Context(), "t", e.ID, "x"); !errors.Is(err, endpoint.ErrConflict) {
		t.Errorf("with a conflict on every try: %v, want ErrConflict", err)
	}
}

func TestConcurrentRotationsAreAllStored(t *testing.T) {
	r := open()
	e := add(t, r)
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			if _, err := r.RotateSecret(t.Context(), "t", e.ID, time.Hour); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	got, err := r.Store.GetEndpoint(t.Context(), "t", e.ID)
	if err != nil || got.Version != 5 || len(got.Secrets) != endpoint.MaxSecrets {
		t.Errorf("version %d, %d secrets, %v", got.Version, len(got.Secrets), err)
	}
}

func TestRemoveDeletesAnEndpointOnce(t *testing.T) {
	r := open()
	e := add(t, r)
	if err := r.Remove(t.Context(), "t", e.ID); err != nil {
		t.Fatal(err)
	}
	if err := r.Remove(t.Context(), "t", e.ID); !errors.Is(err, endpoint.ErrNotFound) {
		t.Errorf("second removal: %v, want ErrNotFound", err)
	}
}
