package dispatch

import (
	"context"
	"fmt"
	"time"

	"github.com/tidings-dev/tidings/pkg/endpoint"
)

// disable disables an endpoint that answered 410 Gone, failed throughout the circuit
// policy's DisableAfter, or has a filter that does not compile.
func (d *Dispatcher) disable(ctx context.Context, ep *endpoint.Endpoint, reason string, now time.Time) error {
	if err := d.Disabler.DisableEndpoint(ctx, ep.Tenant, ep.ID, reason, now); err != nil {
		return fmt.Errorf("disable endpoint %s: %w", ep.ID, err)
	}
	d.endpoints.forget(ep.Tenant, ep.ID)
	d.Log.WarnContext(ctx, "endpoint.disabled", "endpoint_id", ep.ID, "tenant", ep.Tenant, "reason", reason)
	return nil
}
