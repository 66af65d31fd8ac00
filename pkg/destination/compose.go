package destination

import (
	"strconv"
	"time"

	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/ops/tracing"
	"github.com/tidings-dev/tidings/pkg/signature"
)

// Compose returns an event as it goes out to an endpoint at the given instant:
// the body's bytes as they are, signed as they are. e is what body says, subject
// what it is about, trace the header of the attempt's trace, for endpoints that
// want to go on with it.
func Compose(ep endpoint.Endpoint, e event.Event, body []byte, subject, trace string, now time.Time) Message {
	m := Message{
		EventID:   e.ID,
		EventType: e.Type,
		Subject:   subject,
		Body:      body,
		Headers: map[string]string{
			signature.HeaderID:        e.ID,
			signature.HeaderTimestamp: strconv.FormatInt(now.Unix(), 10),
			signature.HeaderSignature: signature.Sign(ep.SigningSecrets(now), e.ID, now, body),
			"idempotency-key":         e.IdempotencyKey,
		},
	}
	if ep.Traceparent {
		if parent := tracing.Traceparent(trace, ep.ID+" "+e.ID+" "+now.UTC().Format(time.RFC3339Nano)); parent != "" {
			m.Headers[tracing.HeaderTraceparent] = parent
		}
	}
	return m
}
