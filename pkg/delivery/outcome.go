package delivery

import "time"

// Class is the result of an attempt in one word, the same in logs, tables and the
// console. Adapters derive it from error types, never from an error's text.
type Class string

const (
	Success   Class = "success"    // HTTP 2xx, or a broker's acknowledgement
	Answered  Class = "answered"   // any other response
	Redirect  Class = "redirect"   // HTTP 3xx: not followed, because that can turn a POST into an empty GET
	Throttled Class = "throttled"  // HTTP 429, or throttled by a broker
	Timeout   Class = "timeout"    // no response within the endpoint's timeout
	DNS       Class = "dns"        // the host name did not resolve
	Connect   Class = "connect"    // connection refused or reset, or no route to host
	TLS       Class = "tls"        // failed handshake, or invalid certificate
	Protocol  Class = "protocol"   // the response is malformed or incomplete
	Blocked   Class = "blocked"    // webhooks may not be sent to this address
	Missing   Class = "missing"    // the queue or topic does not exist
	Denied    Class = "denied"     // credentials are missing, wrong or not allowed to write
	Auth      Class = "auth"       // the endpoint's token endpoint gave no token: nothing was sent to the receiver, or it answered 401
	TooLarge  Class = "too_large"  // the destination does not accept messages of this size
	Invalid   Class = "invalid"    // our request cannot be made, or the destination's rules refuse the message: wrong settings, or a text that the protocol cannot carry
	Gone      Class = "gone"       // HTTP 410: the receiver is gone for good
	CalledOff Class = "called_off" // nothing was sent: the slot under the rate limit had passed
	Lost      Class = "lost"       // the worker ended before it stored a verdict; a request may have been sent
)

// Limits on the texts about a failed attempt, in bytes.
const (
	MaxErrorBytes   = 256
	MaxSnippetBytes = 256
)

// Outcome is an adapter's report of one attempt.
type Outcome struct {
	Class Class
	// Permanent says that a retry cannot succeed: the delivery is dead at once. Missing and
	// Denied have to last for retry.Persistence.
	Permanent bool
	// Status is the HTTP status, or 0.
	Status int
	// Error tells the receiver's developers in one sentence what was wrong and what to
	// do. It contains no secret and no internal address. On success, it is empty or a
	// note about what followed the status.
	Error string
	// Snippet is the printable beginning of a failed response's body, at most
	// MaxSnippetBytes. Empty on success.
	Snippet string
	// RetryAfter is how long the receiver asked to wait (Retry-After); 0 if it did not.
	RetryAfter time.Duration
	Timings    Timings
}

// Timings are the phases of an attempt. DNS, Connect and TLS are 0 for a reused
// connection.
type Timings struct {
	DNS       time.Duration
	Connect   time.Duration
	TLS       time.Duration
	FirstByte time.Duration // from the last byte of the request to the first of the response
	Total     time.Duration
}

// Attempt is an attempt in a delivery's history.
type Attempt struct {
	Number  int // starting at 1
	At      time.Time
	Class   Class
	Status  int
	Timings Timings
}
