package console

import (
	"context"
	"strconv"
	"strings"

	"github.com/tidings-dev/tidings/pkg/destination"
	"github.com/tidings-dev/tidings/pkg/signature"
)

// SignedRequest is what an endpoint gets, signed now: to be sent by hand.
type SignedRequest struct {
	Method  string   `json:"method"`
	URL     string   `json:"url"`
	Headers []Header `json:"headers" nullable:"false"`
	Body    string   `json:"body"`
	// Curl is for HTTP endpoints only.
	Curl string `json:"curl,omitempty" doc:"The request as a command; absent where the protocol is not HTTP"`
}

// Header is one of a request's headers; on brokers, an attribute.
type Header struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Request returns what a delivery sends, signed now. It is for admins: whoever has
// it can make the receiver believe in this event for five minutes.
func (o *Operations) SignRequest(ctx context.Context, who Session, endpointID, eventID string) (SignedRequest, error) {
	if who.Role != Admin {
		return SignedRequest{}, errorf(Forbidden, "the signed request is for admins: with it, the event can be sent in our name")
	}
	e, err := o.loadEndpoint(ctx, who, endpointID)
	if err != nil {
		return SignedRequest{}, err
	}
	accepted, what, err := o.loadEvent(ctx, who, eventID)
	if err != nil {
		return SignedRequest{}, err
	}
	now := o.Now()
	key := what.IdempotencyKey
	if key == "" {
		key = what.ID
	}
	r := SignedRequest{
		Method: "POST", URL: e.URL, Body: string(accepted.Body),
		Headers: []Header{
			{"content-type", destination.ContentType},
			{signature.HeaderID, accepted.ID},
			{signature.HeaderTimestamp, strconv.FormatInt(now.Unix(), 10)},
			{signature.HeaderSignature, signature.Sign(e.SigningSecrets(now), accepted.ID, now, accepted.Body)},
			{"idempotency-key", key},
		},
	}
	if strings.HasPrefix(strings.ToLower(e.URL), "http") {
		r.Curl = r.curlCommand()
	}
	return r, nil
}

// command is the request for a POSIX shell. --globoff keeps curl from reading
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

// quote makes one word of a text, whatever it holds. A body that begins with @
// would name a file to curl; ours begins with a brace.
func shellQuote(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }
