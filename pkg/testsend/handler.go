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

// maxRequest is the maximum size of a request in bytes. The largest event is 256 KiB.
const maxRequest = 512 * 1024

// Handle is the handler of the Lambda function, for direct invocations and for its
// function URL.
//
// A direct invocation takes a Request and returns a Report, or fails with the
// Refusal's message. The function URL takes a Request by POST. It responds with 200
// and the Report for both verdicts, 400 for an invalid request, 404 for an unknown
// endpoint, 429 for too many tests, and 503 for a temporary failure.
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

// parse parses a request. It rejects unknown fields: with a misspelt "data", the
// sample would be sent unnoticed.
func parse(text []byte) (Request, error) {
	var r Request
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&r); err != nil {
		return r, &Refusal{Code: Invalid, Message: "the request must be a JSON object with the fields tenant, endpoint_id, url, event, data, role_arn, credentials, ordered, secret and timeout_seconds"}
	}
	if bytes.Equal(bytes.TrimSpace(r.Data), []byte("null")) {
		r.Data = nil
	}
	return r, nil
}

func (t *Tester) serve(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		writeJSON(w, http.StatusMethodNotAllowed, errorBody(&Refusal{Code: Invalid, Message: `use POST with a JSON body: {"endpoint_id":"ep_…"}, or {"url":"https://…"}`}))
		return
	}
	text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequest))
	if err != nil {
		writeJSON(w, http.StatusRequestEntityTooLarge, errorBody(&Refusal{Code: Invalid, Message: "the request is larger than 512 KiB"}))
		return
	}
	request, err := parse(text)
	if err == nil {
		if c, ok := functionurl.RequestContext(r.Context()); ok && c.Authorizer != nil && c.Authorizer.IAM != nil {
			request.Caller = c.Authorizer.IAM.UserARN
		}
		var report Report
		if report, err = t.Run(r.Context(), request); err == nil {
			writeJSON(w, http.StatusOK, report)
			return
		}
	}
	refusal := &Refusal{Code: Unavailable, Message: "the test could not be made: try again later"}
	errors.As(err, &refusal)
	status := map[Code]int{
		Invalid: http.StatusBadRequest, NotFound: http.StatusNotFound, TooMany: http.StatusTooManyRequests, Unavailable: http.StatusServiceUnavailable,
	}[refusal.Code]
	if refusal.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(refusal.RetryAfter.Seconds())+1))
	}
	writeJSON(w, status, errorBody(refusal))
}

func errorBody(r *Refusal) any { return map[string]*Refusal{"error": r} }

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store") // a report contains URLs and payloads
	w.WriteHeader(status)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(v) // fails only if the client has disconnected
}
