package destination

import (
	"context"
	"maps"
	"slices"
	"time"
)

// Phase is a phase of an attempt.
type Phase string

// The phases of an attempt in order. The brokers' client libraries do not expose
// phases: their attempts have PhaseExchange only.
const (
	PhaseDNS      Phase = "dns"
	PhaseConnect  Phase = "connect"
	PhaseTLS      Phase = "tls"
	PhaseSend     Phase = "send"     // writing the request
	PhaseResponse Phase = "answer"   // waiting for the first byte of the response
	PhaseBody     Phase = "body"     // reading the response
	PhaseExchange Phase = "exchange" // the whole attempt
)

// MaxExchangeBodyBytes is the maximum size of the response body in an Exchange.
const MaxExchangeBodyBytes = 4096

// Field is one header or message attribute.
type Field struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Exchange is the full record of one attempt: request, response, and the cause of
// a failure. It contains URLs, addresses and response bodies for the person who
// asked for this attempt. It must not be stored or logged.
type Exchange struct {
	Method string // POST, or the broker operation: SendMessage, Publish, Produce
	To     string // URL, queue or topic
	Proto  string // HTTP/1.1 or HTTP/2.0; empty for brokers
	// RequestHeaders are the headers as sent (or as prepared, if there was no
	// connection), or the attributes and keys of a broker message.
	RequestHeaders []Field
	// ResponseHeaders are the response headers, or the broker's receipt.
	ResponseHeaders []Field
	// Body holds at most MaxExchangeBodyBytes of the response body.
	Body      []byte
	Truncated bool // the response body is longer than Body

	// Ended is the phase in which the attempt ended; EndedAfter is the time that
	// it spent in this phase.
	Ended      Phase
	EndedAfter time.Duration

	// Code is the error code of the API or broker, or one of the codes below.
	Code string
	// Cause is the underlying error of a failure, for errors.As.
	Cause error
}

// NotHTTP is the error of an attempt whose HTTP response is malformed in a way that has no
// error of its own.
const NotHTTP = "the receiver's response is not valid HTTP"

// Values of Exchange.Code for errors that occur before the destination is called:
// its credentials cannot be read, or are malformed, or the token endpoint gave no token.
const (
	CodeNoCredentials  = "NoCredentials"
	CodeBadCredentials = "BadCredentials"
	CodeNoToken        = "NoToken"
)

type exchangeKey struct{}

// Observe returns a context whose next Deliver call fills the exchange. Use one
// exchange per attempt.
func Observe(ctx context.Context) (context.Context, *Exchange) {
	x := &Exchange{}
	return context.WithValue(ctx, exchangeKey{}, x), x
}

// Observed returns the exchange to fill, or nil if there is none. Adapters must
// not write to it after Deliver has returned.
func Observed(ctx context.Context) *Exchange {
	x, _ := ctx.Value(exchangeKey{}).(*Exchange)
	return x
}

// Fields returns the entries of m, sorted by name.
func Fields(m map[string]string) []Field {
	fields := make([]Field, 0, len(m))
	for _, name := range slices.Sorted(maps.Keys(m)) {
		fields = append(fields, Field{name, m[name]})
	}
	return fields
}
