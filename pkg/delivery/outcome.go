package delivery

import "time"

// Class says what became of an attempt, in one word that logs, tables and
// screens share. Classes come from error types, never from an error's text.
type Class string

const (
	Success   Class = "success"    // the receiver took it: 2xx, or the broker's acknowledgement
	Answered  Class = "answered"   // the receiver answered, and not with success
	Redirect  Class = "redirect"   // 3xx: not followed, because a followed redirect can turn a POST into an empty GET
	Throttled Class = "throttled"  // the receiver asked for less: HTTP 429, or a broker's throttling
	Timeout   Class = "timeout"    // the attempt's time was over before a verdict
	DNS       Class = "dns"        // the host's name has no address
	Connect   Class = "connect"    // nobody listens, no route, connection reset
	TLS       Class = "tls"        // handshake or certificate
	Protocol  Class = "protocol"   // the answer is not what the protocol allows, or it broke off
	Blocked   Class = "blocked"    // the address is not one that webhooks may reach
	Missing   Class = "missing"    // queue or topic does not exist
	Denied    Class = "denied"     // credentials are missing, wrong or not allowed to write
	TooLarge  Class = "too_large"  // the destination refuses messages of this size
	Invalid   Class = "invalid"    // the endpoint's settings cannot work: a malformed URL, an unreadable credential
	Gone      Class = "gone"       // HTTP 410: the receiver wants no more, ever
	CalledOff Class = "called_off" // nothing was sent: its slot under the rate limit had passed
	Lost      Class = "lost"       // the worker died before it stored a verdict; the receiver may have got it
)

// Limits on what an attempt keeps of a failure, in bytes.
const (
	MaxErrorBytes   = 256
	MaxSnippetBytes = 256
)

// Outcome is what an adapter reports of one attempt.
type Outcome struct {
	Class Class
	// Permanent says that no further attempt can succeed before somebody
	// changes something: the delivery is dead at once.
	Permanent bool
	// Status is the HTTP status, or 0.
	Status int
	// Error is one sentence for whoever runs the receiver: what was wrong and
	// what to do. No secret, no credential, no internal address. Empty on success.
	Error string
	// Snippet is the beginning of a failed answer's body, printable, at most
	// MaxSnippetBytes. Empty on success.
	Snippet string
	// RetryAfter is the receiver's own wish for how long to wait; 0 where it has none.
	RetryAfter time.Duration
	Timings    Timings
}

// Timings are the phases of an attempt. A phase that did not happen (a reused
// connection needs no DNS, connect or TLS) is 0.
type Timings struct {
	DNS       time.Duration
	Connect   time.Duration
	TLS       time.Duration
	FirstByte time.Duration // from the request's last byte to the answer's first
	Total     time.Duration
}

// Attempt is one try, as a delivery remembers it.
type Attempt struct {
	Number  int
	At      time.Time
	Class   Class
	Status  int
	Timings Timings
}
