package emit

import (
	"context"
	"fmt"
	"time"

	"github.com/tidings-dev/tidings/pkg/emit/capture"
	"github.com/tidings-dev/tidings/pkg/event"
)

// onceRetention is how long the keys of a captured event are kept: as long as its change
// can be captured again, from the stream (for a day) or as a failed one.
func (em *Emitter) onceRetention() time.Duration {
	return event.Retention(em.RetentionDays) + 24*time.Hour
}

// once gives the event the ID of the one that was captured from the other record of
// the same fact, if there is one. It always gives the same ID to a record that is
// captured again. As with a producer's key, the event itself may not be stored yet.
func (em *Emitter) once(ctx context.Context, c *capture.Captured) (changed bool, err error) {
	for _, key := range c.OnceKeys {
		holds, err := em.Keys.ReserveKey(ctx, c.Tenant, key, c.Reservation(), em.Now().Add(em.onceRetention()))
		if err != nil {
			return false, fmt.Errorf("reserve the key of a captured event: %w", err)
		}
		if holds.EventID != c.Event.ID && c.IsSame(holds) {
			c.Event.ID, changed = holds.EventID, true
		}
	}
	return changed, nil
}
