// Package destination is the seam between delivering and the protocols. Each
// protocol has a package of its own beside this one and passes the conformance
// suite in adaptertest.
package destination

import (
	"context"

	"github.com/tidings-dev/tidings/pkg/delivery"
)

// Adapter delivers messages to one destination.
type Adapter interface {
	// Deliver makes one attempt and reports what became of it; it never retries
	// on its own. It returns as soon as the context ends, with class Timeout.
	//
	// Success means that the destination has taken responsibility: a 2xx
	// status, the broker's acknowledgement by all its replicas. Whatever a
	// later attempt might cure (timeouts, refused connections, throttling, 5xx)
	// is reported without Permanent; what only a person can cure (a blocked
	// address, a queue that does not exist, access denied, a message that is
	// too large) with it. Classes come from error types, never from texts.
	//
	// It may keep connections and clients between calls, never a message. It is
	// safe for concurrent use.
	Deliver(ctx context.Context, m Message) delivery.Outcome
	// Close ends connections and goroutines. No Deliver may be running or follow.
	Close() error
}
