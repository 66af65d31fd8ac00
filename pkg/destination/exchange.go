package destination

import (
	"context"
	"maps"
	"slices"
	"time"
)

// Phase is where in an attempt something happened.
type Phase string

// The phases of an attempt, in their order. Brokers' clients show no phases:
// theirs is PhaseExchange.
const (
	PhaseDNS      Phase = "dns"      // looking the host's name up
	PhaseConnect  Phase = "connect"  // connecting
	PhaseTLS      Phase = "tls"      // the handshake
	PhaseSend     Phase = "send"     // writing the request
	PhaseResponse Phase = "answer"   // waiting for the answer's first byte
	PhaseBody     Phase = "body"     // reading the answer
	PhaseExchange Phase = "exchange" // all of it
)

// MaxExchangeBodyBytes is how much of a response body an Exchange keeps.
const MaxExchangeBodyBytes = 4096

// Field is one header, attribute or setting.
type Field struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Exchange is one attempt as it looked from inside: what was sent, what came
// back, and the error beneath a failure. It shows URLs, answers and addresses to
// whoever asked for this one attempt; it is never stored and never logged.
type Exchange struct {
	Method string // POST; on brokers the operation: SendMessage, Publish, Produce
	To     string // the URL, queue or topic that it went to
	Proto  string // HTTP/1.1 or HTTP/2.0 as answered; "" on brokers
	// Sent are the headers as they went over the wire (or would have, where no
	// connection came about), or the attributes and keys of a broker's message.
	RequestHeaders []Field
	// Got are the answer's headers, or a broker's receipt.
	ResponseHeaders []Field
	// Body is the beginning of the answer's body; Cut says that more followed.
	Body      []byte
	Truncated bool

	// Ended is the phase in which the attempt ended, and EndedAfter how long
	// that phase had gone on.
	Ended      Phase
	EndedAfter time.Duration

	// Code is the protocol's own word for a failure: an API's or a broker's
	// error code. "" where there is none.
	Code string
	// Cause is the error beneath a failure, for errors.As; nil on success.
	Cause error
}

// An Exchange's codes that are no protocol's own: what logs in to the destination
// cannot be had, or is malformed.
const (
	CodeNoCredentials  = "NoCredentials"
	CodeBadCredentials = "BadCredentials"
)

type exchangeKey struct{}

// Observe returns a context whose next Deliver fills the exchange. One exchange
// is for one attempt.
func Observe(ctx context.Context) (context.Context, *Exchange) {
	x := &Exchange{}
	return context.WithValue(ctx, exchangeKey{}, x), x
}

// Observed returns the exchange that the context's attempt is to fill, or nil
// where nobody looks. Adapters fill it before Deliver returns, not later.
func Observed(ctx context.Context) *Exchange {
	x, _ := ctx.Value(exchangeKey{}).(*Exchange)
	return x
}

// Fields returns a map's entries in the order of their names.
func Fields(m map[string]string) []Field {
	fields := make([]Field, 0, len(m))
	for _, name := range slices.Sorted(maps.Keys(m)) {
		fields = append(fields, Field{name, m[name]})
	}
	return fields
}
