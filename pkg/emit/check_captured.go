package emit

import (
	"github.com/tidings-dev/tidings/pkg/emit/capture"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/event/validate"
)

// CheckCaptured returns a captured event as Capture would store it, or the *Error with which
// Capture would keep its change as a failed one. It stores nothing.
func CheckCaptured(types *validate.Catalog, c capture.Captured) (event.Event, error) {
	checked, err := checkCaptured(types, c)
	if err != nil {
		return c.Event, err
	}
	c.Event.Version, c.Event.Data = checked.event.Version, checked.event.Data
	if _, err := c.Event.Encode(); err != nil {
		return c.Event, asRefusal(err)
	}
	return c.Event, nil
}
