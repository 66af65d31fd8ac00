package testsend

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"

	"github.com/tidings-dev/tidings/pkg/aws/functionurl"
	"github.com/tidings-dev/tidings/pkg/aws/lambdaevent"
)

// maxRequest is the largest request that is read: an event of full size, and
// what stands around it.
const maxRequest = 512 * 1024

// Handle is the Lambda function: direct invocation, and function URL.
//
// A direct payload is a Request; the answer is its Report, or the invocation
// fails with the Refusal's message. By URL the same Request is POSTed: 200 with
// the Report (whatever its verdict), 400 for a request that cannot be, 404 for an
// endpoint that is not there, 429 for too many tests, 503 for try again.
func (t *Tester) Handle(ctx context.Context, payload json.RawMessage) (any, error) {
	kind, err := lambdaevent.Of(payload)
	if err != nil {
		return nil, err
	}
	if kind == lambdaevent.FunctionURL {
		return functionurl.Handler(http.HandlerFunc(t.serve))(ctx, payload)
	}
	r, err := parse(payload)
	if err != nil {
		return nil, err
	}
	report, err := t.Run(ctx, r)
	if err != nil {
		return nil, err
	}
	return report, nil
}

// parse reads a request. Names it does not know are refused: a misspelt "data"
// would otherwise send the sample in silence.
func parse(text []byte) (Request, error) {
	var r Request
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&r); err != nil {
		return r, &Refusal{Code: Invalid, Message: "the request is not a JSON object with fields of tenant, endpoint_id, url, event, data, role_arn, credentials, ordered, secret, timeout_seconds"}
	}
	if bytes.Equal(bytes.TrimSpace(r.Data), []byte("null")) {
		r.Data = nil
	}
	return r, nil
}

func (t *Tester) serve(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		answer(w, http.StatusMethodNotAllowed, refused(&Refusal{Code: Invalid, Message: `POST a test: {"endpoint_id":"ep_…"}, or {"url":"https://…"}`}))
		return
	}
	text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequest))
	if err != nil {
		answer(w, http.StatusRequestEntityTooLarge, refused(&Refusal{Code: Invalid, Message: "the request is larger than any test can be"}))
		return
	}
	request, err := parse(text)
	if err == nil {
		if c, ok := functionurl.RequestContext(r.Context()); ok && c.Authorizer != nil && c.Authorizer.IAM != nil {
			request.Caller = c.Authorizer.IAM.UserARN
		}
		var report Report
		if report, err = t.Run(r.Context(), request); err == nil {
			answer(w, http.StatusOK, report)
			return
		}
	}
	refusal := &Refusal{Code: Unavailable, Message: "the test could not be made just now: try again"}
	errors.As(err, &refusal)
	status := map[Code]int{
		Invalid: http.StatusBadRequest, NotFound: http.StatusNotFound, TooMany: http.StatusTooManyRequests, Unavailable: http.StatusServiceUnavailable,
	}[refusal.Code]
	if refusal.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(refusal.RetryAfter.Seconds())+1))
	}
	answer(w, status, refused(refusal))
}

func refused(r *Refusal) any { return map[string]*Refusal{"error": r} }

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store") // a report shows URLs and payloads
	w.WriteHeader(status)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(v) // a client that has gone needs no answer
}
