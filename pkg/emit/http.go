package emit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
)

// maxPayload is Lambda's limit for the payload of an invocation, in bytes.
const maxPayload = 6 << 20

// Invoke handles a direct invocation. The payload is one event, a list of events, or
// {"events":[…]}. For one event it returns its Result, or an *Error; for a list it
// returns {"results":[…]}.
func (em *Emitter) Invoke(ctx context.Context, payload []byte) (any, error) {
	requests, list, err := parse(payload)
	if err != nil {
		return nil, err
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
	requests, list, err := parse(body.Bytes())
	if err != nil {
		refuse(w, err)
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
	request := requests[0]
	if key := r.Header.Get("Idempotency-Key"); key != "" && request.IdempotencyKey == "" {
		request.IdempotencyKey = key
	}
	result := em.Emit(r.Context(), request)
	switch {
	case result.Error != nil:
		refuse(w, result.Error)
	case result.Duplicate:
		respond(w, http.StatusOK, result)
	default:
		respond(w, http.StatusAccepted, result)
	}
}

func refuse(w http.ResponseWriter, err error) {
	var refused *Error
	if !errors.As(err, &refused) {
		refused = &Error{Code: MalformedJSON, Message: err.Error()}
	}
	status := map[Code]int{
		TooLarge:    http.StatusRequestEntityTooLarge,
		TooMany:     http.StatusRequestEntityTooLarge,
		KeyConflict: http.StatusConflict,
		UnknownType: http.StatusUnprocessableEntity,
		InvalidData: http.StatusUnprocessableEntity,
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
