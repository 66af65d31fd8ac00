package admin_test

import (
	"errors"
	"testing"

	"github.com/tidings-dev/tidings/pkg/admin"
	"github.com/tidings-dev/tidings/pkg/endpoint"
)

// Otherwise pause and resume would enable an endpoint that somebody disabled.
func TestADisabledEndpointIsNeitherPausedNorResumed(t *testing.T) {
	r := open()
	e := add(t, r)
	if _, err := r.Disable(t.Context(), "t", e.ID, "gone"); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Pause(t.Context(), "t", e.ID, "maintenance"); !errors.Is(err, admin.ErrDisabled) {
		t.Errorf("paused: %v, want ErrDisabled", err)
	}
	if _, err := r.Resume(t.Context(), "t", e.ID); !errors.Is(err, admin.ErrDisabled) {
		t.Errorf("resumed: %v, want ErrDisabled", err)
	}
	if got, err := r.Store.GetEndpoint(t.Context(), "t", e.ID); err != nil || got.Status != endpoint.Disabled || got.StatusReason != "gone" {
		t.Errorf("afterwards it is %s (%s), %v", got.Status, got.StatusReason, err)
	}
	if _, err := r.Enable(t.Context(), "t", e.ID); err != nil {
		t.Fatal(err)
	}
	if got, err := r.Pause(t.Context(), "t", e.ID, "maintenance"); err != nil || got.Status != endpoint.Paused || got.StatusReason != "maintenance" {
		t.Errorf("an enabled endpoint, paused: %s (%s), %v", got.Status, got.StatusReason, err)
	}
	if got, err := r.Resume(t.Context(), "t", e.ID); err != nil || got.Status != endpoint.Enabled || got.StatusReason != "" {
		t.Errorf("resumed: %s (%s), %v", got.Status, got.StatusReason, err)
	}
}
