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
	"github.com/tidings-dev/tidings/pkg/event/catalog"
	"github.com/tidings-dev/tidings/pkg/signature"
	"github.com/tidings-dev/tidings/pkg/store/memory"
)

func open() *admin.Endpoints {
	return &admin.Endpoints{Store: memory.New(time.Now), Catalog: catalog.Default(), Now: time.Now, Check: func(t destination.Target) error {
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
	for range 3 {
		all.Go(func() {
			if _, err := r.RotateSecret(t.Context(), "t", e.ID, time.Hour); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	got, err := r.Store.GetEndpoint(t.Context(), "t", e.ID)
	if err != nil || got.Version != 4 || len(got.Secrets) != endpoint.MaxSecrets {
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

func TestAnEmptyListOfTypesIsNotEveryType(t *testing.T) {
	r := open()
	for _, types := range [][]string{{}, {""}, {"user.*", ""}} {
		if _, err := r.Add(t.Context(), endpoint.Endpoint{Tenant: "t", URL: "https://example.com", EventTypes: types}); err == nil || !strings.Contains(err.Error(), "event_types") {
			t.Errorf("%q: %v", types, err)
		}
	}
}

// A URL that an earlier release, or an earlier setting of the deployment, allowed is checked
// when it changes, and not when something else does.
func TestAnEndpointWithARefusedURLCanBeChanged(t *testing.T) {
	r := open()
	e := add(t, r)
	r.Check = func(destination.Target) error { return errors.New("url is not accepted any more") }
	if got, err := r.RotateSecret(t.Context(), "t", e.ID, time.Hour); err != nil || len(got.Secrets) != 2 {
		t.Errorf("rotated: %v", err)
	}
	if got, err := r.Disable(t.Context(), "t", e.ID, "wrong url"); err != nil || got.Status != endpoint.Disabled {
		t.Errorf("disabled: %v", err)
	}
	if _, err := r.Enable(t.Context(), "t", e.ID); err != nil {
		t.Errorf("enabled: %v", err)
	}
	before, err := r.Change(t.Context(), "t", e.ID, func(e *endpoint.Endpoint) { e.Timeout = 5 * time.Second })
	if err != nil {
		t.Errorf("changed: %v", err)
	}
	edited := before
	edited.Description = "edited"
	if edited, err = r.Replace(t.Context(), before, edited); err != nil {
		t.Errorf("replaced: %v", err)
	}
	for name, to := range map[string]func(*endpoint.Endpoint){
		"url":         func(e *endpoint.Endpoint) { e.URL = "https://example.com/other" },
		"role":        func(e *endpoint.Endpoint) { e.RoleARN = "arn:aws:iam::123456789012:role/a" },
		"credentials": func(e *endpoint.Endpoint) { e.Credentials = "tidings/t/a" },
	} {
		if _, err := r.Change(t.Context(), "t", e.ID, to); err == nil || !strings.Contains(err.Error(), "not accepted any more") {
			t.Errorf("another %s: %v", name, err)
		}
		changed := edited
		to(&changed)
		if _, err := r.Replace(t.Context(), edited, changed); err == nil {
			t.Errorf("replaced with another %s", name)
		}
	}
}

func TestSecurityATenantHasALimitedNumberOfEndpoints(t *testing.T) {
	r := open()
	for range admin.MaxEndpoints {
		add(t, r)
	}
	if _, err := r.Add(t.Context(), endpoint.Endpoint{Tenant: "t", URL: "https://example.com"}); !errors.Is(err, admin.ErrTooMany) {
		t.Errorf("one more: %v", err)
	}
	if _, err := r.Add(t.Context(), endpoint.Endpoint{Tenant: "other", URL: "https://example.com"}); err != nil {
		t.Errorf("another tenant's: %v", err)
	}
	list, err := r.Store.ListEndpoints(t.Context(), "t")
	if err != nil || len(list) != admin.MaxEndpoints {
		t.Fatalf("%d endpoints, %v", len(list), err)
	}
	if err := r.Remove(t.Context(), "t", list[0].ID); err != nil {
		t.Fatal(err)
	}
	add(t, r)
}
