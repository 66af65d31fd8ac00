package httpadapter

import (
	"context"
	"crypto/tls"
	"errors"
	"slices"
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/destination"
)

const (
	// certificateTime is how long a client certificate is used before its secret is read
	// again: the old one can be valid for long after it was replaced.
	certificateTime = time.Hour
	// secretTime bounds reading a secret; the attempt's deadline does too.
	secretTime = 3 * time.Second
	// keepTime is how long a certificate whose secret cannot be read is used until the next
	// try.
	keepTime = 5 * time.Minute
)

// newCertificate returns the client certificate of an endpoint. Its errors contain nothing of
// the secret. None of its failures is permanent: a secret and a policy can be corrected
// without a change to the endpoint.
func newCertificate(o Options, name string) *shared[*tls.Certificate] {
	now := o.clock()
	why := "no client certificate: the secret " + name + " "
	denied := func(text string) *delivery.Outcome {
		return &delivery.Outcome{Class: delivery.Denied, Error: why + text}
	}
	// It is no fault of the endpoint's, and does not count for its circuit breaker.
	unavailable := delivery.Outcome{Class: delivery.Invalid, Error: why + "cannot be read now; it is tried again"}
	s := &shared[*tls.Certificate]{now: now, late: unavailable}
	s.get = func(ctx context.Context) (*tls.Certificate, time.Time, *delivery.Outcome) {
		if o.Secrets == nil {
			return nil, time.Time{}, denied("cannot be read: this program has no secret store")
		}
		reading, cancel := context.WithTimeout(ctx, secretTime)
		defer cancel()
		text, err := o.Secrets.Secret(reading, name)
		if err != nil {
			if held := s.peek(); held != nil && now().Before(held.Leaf.NotAfter) {
				return held, earlier(now().Add(keepTime), held.Leaf.NotAfter), nil
			}
			if ownersFault(err) {
				return nil, time.Time{}, denied("cannot be read: check that it exists, and that the dispatch function is allowed to read it")
			}
			return nil, time.Time{}, &unavailable
		}
		certificate, err := tls.X509KeyPair([]byte(text), []byte(text))
		if err != nil {
			return nil, time.Time{}, denied("must have a certificate and its unencrypted private key, both in PEM")
		}
		ends := certificate.Leaf.NotAfter
		if !now().Before(ends) {
			return nil, time.Time{}, denied("has a certificate that expired on " + ends.UTC().Format(time.DateOnly))
		}
		return &certificate, earlier(now().Add(certificateTime), ends), nil
	}
	return s
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// ownersFault reports whether a secret cannot be read because of how it is set up, by the
// codes of Secrets Manager.
func ownersFault(err error) bool {
	var coded interface{ ErrorCode() string }
	return errors.As(err, &coded) && slices.Contains([]string{"ResourceNotFoundException", "AccessDeniedException", "InvalidRequestException"}, coded.ErrorCode())
}

// authenticated makes an attempt with a client certificate, a token, or both.
func (p *poster) authenticated(ctx context.Context, m destination.Message) delivery.Outcome {
	if p.certificate == nil {
		return p.withToken(ctx, m)
	}
	if _, failed := p.certificate.take(ctx); failed != nil {
		p.notSent(ctx, m, destination.CodeNoCredentials, failed)
		return *failed
	}
	if p.tokens == nil {
		return p.request(ctx, m, p.auth)
	}
	return p.withToken(ctx, m)
}

// mayBeRefused completes the outcome of an attempt without a response, if the receiver may
// have refused the client certificate: by an alert, or by ending a new connection, when the
// alert can be lost on the way. The certificate may have been replaced: unless it was just
// read, the next attempt reads the secret again.
func (p *poster) mayBeRefused(o *delivery.Outcome, err error, watch *stopwatch) {
	alert, alerted := destination.TLSAlert(err)
	switch {
	case alerted:
		o.Error = "the receiver refused the client certificate or the TLS handshake (" + tls.AlertError(alert).Error() + ")"
	case watch.timings().TLS > 0 && (o.Class == delivery.Connect || o.Class == delivery.Protocol):
		o.Error += "; it may have refused the client certificate"
	default:
		return
	}
	p.certificate.drop(p.certificate.peek())
}

// notSent records an attempt that ended before the request.
func (p *poster) notSent(ctx context.Context, m destination.Message, code string, failed *delivery.Outcome) {
	x := destination.Observed(ctx)
	if x == nil {
		return
	}
	x.Method, x.To, x.Code, x.Cause = p.method, p.url.String(), code, errors.New(failed.Error)
	if x.RequestHeaders == nil {
		x.RequestHeaders = destination.Fields(m.Headers)
	}
}
