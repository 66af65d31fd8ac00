package emit

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"strings"
)

// maxPayload is Lambda's limit for the payload of an invocation, in bytes.
const maxPayload = 6 << 20

// Invoke handles a direct invocation. The payload is one event, a list of events, or
// {"events":[…]}. For one event it returns its Result, or an *Error; for a list it
// returns {"results":[…]}.
func (em *Emitter) Invoke(ctx context.Context, payload []byte) (any, error) {
	requests, list, refused := parse(payload)
	if refused != nil {
		return nil, refused
	}
	if list {
		return map[string][]Result{"results": em.EmitAll(ctx, requests)}, nil
	}
	result := em.Emit(ctx, requests[0])
	if result.Error != nil {
		return nil, result.Error
	}
	return result, nil
}

// ServeHTTP handles POST requests with the same body as Invoke's payload. It answers
// 202 for an accepted event, 200 for a duplicate, and 207 if some events of a list were
// rejected.
func (em *Emitter) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		respond(w, http.StatusMethodNotAllowed, Result{Error: &Error{Code: InvalidField, Message: "send events with POST"}})
		return
	}
	var body bytes.Buffer
	body.Grow(int(min(max(r.ContentLength, 0), maxPayload)) + bytes.MinRead)
	if _, err := body.ReadFrom(r.Body); err != nil {
		refuse(w, &Error{Code: MalformedJSON, Message: "the request body could not be read: " + err.Error()})
		return
	}
	requests, list, refused := parse(body.Bytes())
	if refused == nil {
		refused = applyKey(r.Header.Values("Idempotency-Key"), requests, list)
	}
	if refused != nil {
		refuse(w, refused)
		return
	}
	if list {
		results := em.EmitAll(r.Context(), requests)
		status := http.StatusAccepted
		for _, one := range results {
			if one.Error != nil {
				status = http.StatusMultiStatus
			}
		}
		respond(w, status, map[string][]Result{"results": results})
		return
	}
	result := em.Emit(r.Context(), requests[0])
	switch {
	case result.Error != nil:
		refuse(w, result.Error)
	case result.Duplicate:
		respond(w, http.StatusOK, result)
	default:
		respond(w, http.StatusAccepted, result)
	}
}

// applyKey gives the key of the Idempotency-Key header to a request that has none. It
// refuses a header that would be ignored.
func applyKey(header []string, requests []Request, list bool) *Error {
	key := strings.Join(header, ", ")
	if key == "" {
		return nil
	}
	refused := func(why string) *Error {
		return &Error{Code: InvalidField, Field: "idempotency_key", Message: "idempotency_key: " + why}
	}
	switch {
	case list:
		return refused("the header Idempotency-Key applies to one event: give each event of a list its own idempotency_key")
	case requests[0].IdempotencyKey == "":
		requests[0].IdempotencyKey = key
	case requests[0].IdempotencyKey != key:
		return refused("differs from the header Idempotency-Key: send one of the two")
	}
	return nil
}

func refuse(w http.ResponseWriter, refused *Error) {
	status := map[Code]int{
		TooLarge:    http.StatusRequestEntityTooLarge,
		TooMany:     http.StatusRequestEntityTooLarge,
		KeyConflict: http.StatusConflict,
		UnknownType: http.StatusUnprocessableEntity,
		InvalidData: http.StatusUnprocessableEntity,
		InvalidText: http.StatusUnprocessableEntity,
		Unavailable: http.StatusServiceUnavailable,
	}[refused.Code]
	if status == 0 {
		status = http.StatusBadRequest
	}
	if status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "5")
	}
	respond(w, status, Result{Error: refused})
}

func respond(w http.ResponseWriter, status int, answer any) {
	body, err := json.Marshal(answer)
	if err != nil {
		panic(err) // a Result contains only strings and a bool
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n')) // the client may have disconnected
}
