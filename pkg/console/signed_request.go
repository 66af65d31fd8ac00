package console

import (
	"cmp"
	"context"
	"net/http"
	"strings"

	"github.com/tidings-dev/tidings/pkg/destination"
	"github.com/tidings-dev/tidings/pkg/event"
)

// SignedRequest is a delivery's request with a current signature, to be sent by hand.
type SignedRequest struct {
	Method  string              `json:"method"`
	URL     string              `json:"url"`
	Headers []destination.Field `json:"headers" nullable:"false"`
	Body    string              `json:"body"`
	Curl    string              `json:"curl,omitempty" doc:"The request as a curl command; absent if the protocol is not HTTP"`
}

// SignRequest returns a delivery's request with a current signature. It requires the
// admin role, because the receiver accepts the signature for five minutes.
func (o *Operations) SignRequest(ctx context.Context, who Session, endpointID, eventID string) (SignedRequest, error) {
	if !who.Role.changes() {
		return SignedRequest{}, errorf(Forbidden, "the signed request requires the admin role, because it can be sent to the receiver")
	}
	e, err := o.loadEndpoint(ctx, who, endpointID)
	if err != nil {
		return SignedRequest{}, err
	}
	accepted, decoded, err := o.loadEvent(ctx, who, eventID)
	if err != nil {
		return SignedRequest{}, err
	}
	if !accepted.ErasedAt.IsZero() {
		return SignedRequest{}, errorf(Conflict, "%s: it is not sent any more", erasedAt(accepted))
	}
	if accepted, err = destination.InVersion(e, accepted, decoded.Type); err != nil {
		return SignedRequest{}, err
	}
	if decoded, err = event.Decode(accepted.Body); err != nil {
		return SignedRequest{}, err
	}
	m, err := destination.Compose(e, decoded, accepted, "", o.Now())
	if err != nil {
		return SignedRequest{}, err
	}
	r := SignedRequest{
		Method: cmp.Or(e.Shape.Method, http.MethodPost), URL: e.URL, Body: string(m.Body),
		Headers: []destination.Field{{Name: "content-type", Value: m.ContentType}},
	}
	for _, headers := range []map[string]string{m.Headers, m.CloudEventHeaders()} {
		r.Headers = append(r.Headers, destination.Fields(headers)...)
	}
	if strings.HasPrefix(strings.ToLower(e.URL), "http") {
		r.Curl = r.curlCommand()
	}
	return r, nil
}

// curlCommand returns the request as a POSIX shell command. --globoff keeps curl from reading
// brackets in the URL, and -- keeps it from reading the URL as an option.
func (r SignedRequest) curlCommand() string {
	var b strings.Builder
	b.WriteString("curl --globoff -i -X " + r.Method)
	for _, h := range r.Headers {
		b.WriteString(" \\\n  -H " + shellQuote(h.Name+": "+h.Value))
	}
	b.WriteString(" \\\n  --data-binary " + shellQuote(r.Body))
	b.WriteString(" \\\n  -- " + shellQuote(r.URL))
	return b.String()
}

// shellQuote quotes any text as one word. curl reads a body that begins with @ from a
// file; ours begins with a brace.
func shellQuote(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }
