package httpadapter

import (
	"context"
	"crypto/tls"
	"errors"
	"net/http"
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/destination"
)

// certificateTime is how long a client certificate is used before its secret is read again:
// the old one can be valid for long after it was replaced.
const certificateTime = time.Hour

// newCertificate returns the client certificate of an endpoint. Its errors contain nothing of
// the secret. None of its failures is permanent: a secret and a policy can be corrected
// without a change to the endpoint.
func newCertificate(o Options, name string) *shared[*tls.Certificate] {
	now := o.clock()
	denied := func(why string) *delivery.Outcome {
		return &delivery.Outcome{Class: delivery.Denied, Error: "no client certificate: the secret " + name + " " + why}
	}
	late := "no client certificate: the secret " + name + " could not be read in time"
	return &shared[*tls.Certificate]{now: now, late: late, get: func(ctx context.Context) (*tls.Certificate, time.Time, *delivery.Outcome) {
		if o.Secrets == nil {
			return nil, time.Time{}, denied("cannot be read: this program has no secret store")
		}
		text, err := o.Secrets.Secret(ctx, name)
		switch {
		case err != nil && ctx.Err() != nil:
			return nil, time.Time{}, &delivery.Outcome{Class: delivery.Timeout, Error: late}
		case err != nil:
			return nil, time.Time{}, denied("cannot be read: check that it exists, and that the dispatch function is allowed to read it")
		}
		certificate, err := tls.X509KeyPair([]byte(text), []byte(text))
		if err != nil {
			return nil, time.Time{}, denied("must have a certificate and its unencrypted private key, both in PEM")
		}
		ends := certificate.Leaf.NotAfter
		if !now().Before(ends) {
			return nil, time.Time{}, denied("has a certificate that expired on " + ends.UTC().Format(time.DateOnly))
		}
		if again := now().Add(certificateTime); again.Before(ends) {
			ends = again
		}
		return &certificate, ends, nil
	}}
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
// alert can be lost on the way. The certificate may have been replaced: the next attempt
// reads the secret again.
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
	x.Method, x.To, x.Code, x.Cause = http.MethodPost, p.url.String(), code, errors.New(failed.Error)
	if x.RequestHeaders == nil {
		x.RequestHeaders = destination.Fields(m.Headers)
	}
}
