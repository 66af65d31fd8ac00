// Package destination defines how events are delivered over a protocol: the
// Adapter interface, the message, and a router that selects the adapter by the
// URL's scheme. Every adapter passes the conformance suite in test/destinationtest.
package destination

import (
	"context"

	"github.com/tidings-dev/tidings/pkg/delivery"
)

// Adapter delivers messages to one destination.
type Adapter interface {
	// Deliver makes one attempt and returns its outcome. It never retries, except that HTTP
	// with OAuth 2.0 repeats a request once whose token was refused. When
	// the context ends, it returns at once with class Timeout.
	//
	// Success means that the destination has accepted the message: a 2xx status,
	// or an acknowledgement by all in-sync replicas. Errors that a retry can fix
	// (timeout, connection refused, throttling, 5xx) are not Permanent. Errors
	// that need a change of settings (blocked address, missing queue, access
	// denied, message too large) are. The class depends on error types and
	// codes, never on error texts.
	//
	// Deliver may keep connections and clients between calls, but no message.
	// It is safe for concurrent use.
	Deliver(ctx context.Context, m Message) delivery.Outcome
	// Close closes connections and stops goroutines. No Deliver is called during or
	// after it, but one that did not end at its deadline may still be under way. Close
	// may be called twice.
	Close() error
}
