package emit

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/aws/aws-lambda-go/events"

	"github.com/tidings-dev/tidings/pkg/aws/functionurl"
	"github.com/tidings-dev/tidings/pkg/aws/lambdaevent"
	"github.com/tidings-dev/tidings/pkg/onepass"
	"github.com/tidings-dev/tidings/pkg/store/dynamoitem"
)

// Handle is the Lambda function: the platform table's stream, direct invocation
// and function URL.
//
// A direct payload is one event, a list of events, or {"events":[…]}. One event
// is answered with its Result, or fails the invocation with the refusal as its
// message; lists are answered with {"results":[…]}.
func (em *Emitter) Handle(ctx context.Context, payload json.RawMessage) (any, error) {
	kind, err := lambdaevent.Of(payload)
	if err != nil {
		return nil, &Error{Code: MalformedJSON, Message: err.Error()}
	}
	switch kind {
	case lambdaevent.FunctionURL:
		request, err := functionurl.ReadRequest(payload)
		if err != nil {
			return nil, err
		}
		return em.serve(ctx, request), nil
	case lambdaevent.Stream:
		batch, err := dynamoitem.ReadStream(payload)
		if err != nil {
			return nil, err
		}
		return em.Capture(ctx, batch), nil
	case lambdaevent.Direct:
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
	return nil, fmt.Errorf("emit does not serve a %s", kind)
}

// serve answers a function URL request: 202 for an event taken in, 200 for one
// that its key had brought before, 207 for a list of which some were refused.
func (em *Emitter) serve(ctx context.Context, r events.LambdaFunctionURLRequest) events.LambdaFunctionURLResponse {
	if r.RequestContext.HTTP.Method != http.MethodPost {
		return respond(http.StatusMethodNotAllowed, Result{Error: &Error{Code: InvalidField, Message: "send events with POST"}}, "Allow", http.MethodPost)
	}
	body := []byte(r.Body)
	if r.IsBase64Encoded {
		decoded, err := base64.StdEncoding.DecodeString(r.Body)
		if err != nil {
			return respond(http.StatusBadRequest, Result{Error: &Error{Code: MalformedJSON, Message: "the request's body could not be read"}})
		}
		body = decoded
	}
	requests, list, err := parse(body)
	if err != nil {
		return refuse(err)
	}
	if list {
		results := em.EmitAll(ctx, requests)
		status := http.StatusAccepted
		for _, one := range results {
			if one.Error != nil {
				status = http.StatusMultiStatus
			}
		}
		return respond(status, map[string][]Result{"results": results})
	}
	request := requests[0]
	if key := r.Headers["idempotency-key"]; key != "" && request.IdempotencyKey == "" {
		request.IdempotencyKey = key
	}
	result := em.Emit(ctx, request)
	switch {
	case result.Error != nil:
		return refuse(result.Error)
	case result.Duplicate:
		return respond(http.StatusOK, result)
	}
	return respond(http.StatusAccepted, result)
}

func refuse(err error) events.LambdaFunctionURLResponse {
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
		return respond(status, Result{Error: refused}, "Retry-After", "5")
	}
	return respond(status, Result{Error: refused})
}

func respond(status int, answer any, header ...string) events.LambdaFunctionURLResponse {
	headers := map[string]string{"Content-Type": "application/json"}
	for i := 0; i+1 < len(header); i += 2 {
		headers[header[i]] = header[i+1]
	}
	body, err := json.Marshal(answer)
	if err != nil {
		panic(err) // Result holds strings and a bool
	}
	return events.LambdaFunctionURLResponse{StatusCode: status, Headers: headers, Body: string(body) + "\n"}
}

// parse reads one event or a list. Names it does not know are refused, because
// a misspelt idempotency_key would otherwise be ignored in silence.
func parse(payload []byte) (requests []Request, list bool, err error) {
	requests, list, err = read(payload)
	if err != nil {
		// What is too long is counted and not read: megabytes of {} are a gigabyte of
		// requests.
		if n, isList := length(payload); n > MaxList {
			return nil, isList, tooMany(n)
		}
		// Rarely: it takes another reading to say well what is wrong.
		requests, list, err = readStrictly(payload)
	}
	if err != nil {
		return nil, list, err
	}
	switch n := len(requests); {
	case n == 0:
		return nil, list, &Error{Code: InvalidField, Field: "events", Message: "events: is an empty list"}
	case n > MaxList:
		return nil, list, tooMany(n)
	}
	return requests, list, nil
}

func tooMany(n int) error {
	return &Error{Code: TooMany, Field: "events", Message: fmt.Sprintf("events: has %d items; the limit of one call is %d", n, MaxList)}
}

// length counts a list's items, as far as it is JSON; of several lists, those of the
// longest.
func length(payload []byte) (n int, list bool) {
	_ = onepass.Read(payload, func(r *onepass.Reader) error {
		here := 0
		each := func() error {
			here++
			n = max(n, here)
			return r.Skip()
		}
		if bytes.HasPrefix(bytes.TrimSpace(payload), []byte("[")) {
			list = true
			return r.Array(each)
		}
		return r.Object(func(name []byte) error {
			if !strings.EqualFold(string(name), "events") { // as encoding/json has it
				return r.Skip()
			}
			here, list = 0, true
			return r.Array(each)
		})
	}) // what is wrong is said by those who read it whole
	return n, list
}

// errUnusual says that a payload is better read strictly.
var errUnusual = errors.New("payload is unusual")

// read reads what has the usual form. Requests' data are parts of the payload.
func read(payload []byte) (requests []Request, list bool, err error) {
	trimmed := bytes.TrimSpace(payload)
	list = len(trimmed) > 0 && trimmed[0] == '['
	err = onepass.Read(trimmed, func(r *onepass.Reader) error {
		each := func() error {
			if len(requests) == MaxList {
				return errUnusual
			}
			requests = append(requests, Request{})
			return readRequest(r, &requests[len(requests)-1])
		}
		if list {
			return r.Array(each)
		}
		var one Request
		fields := 0
		err := r.Object(func(name []byte) error {
			fields++
			if string(name) == "events" {
				list = true
				return r.Array(each)
			}
			return readField(r, name, &one)
		})
		switch {
		case err != nil:
			return err
		case !list:
			requests = append(requests, one)
		case fields > 1:
			return errUnusual
		}
		return nil
	})
	return requests, list, err
}

func readRequest(r *onepass.Reader, to *Request) error {
	return r.Object(func(name []byte) error { return readField(r, name, to) })
}

func readField(r *onepass.Reader, name []byte, to *Request) (err error) {
	switch string(name) {
	case "event":
		return r.String(&to.Event)
	case "tenant":
		return r.String(&to.Tenant)
	case "timestamp":
		return r.String(&to.Timestamp)
	case "actor_user_id":
		return r.String(&to.ActorUserID)
	case "data":
		to.Data, err = r.Raw()
		return err
	case "request_id":
		return r.String(&to.RequestID)
	case "idempotency_key":
		return r.String(&to.IdempotencyKey)
	}
	return errUnusual
}

func readStrictly(payload []byte) (requests []Request, list bool, err error) {
	trimmed := bytes.TrimSpace(payload)
	switch {
	case len(trimmed) == 0:
		return nil, false, &Error{Code: MalformedJSON, Message: "the payload is empty; send one event, or {\"events\":[…]}"}
	case trimmed[0] == '[':
		err = strict(trimmed, &requests)
		list = true
	default:
		var names map[string]json.RawMessage
		if err := strict(trimmed, &names); err != nil {
			return nil, false, err
		}
		if _, list = names["events"]; list {
			var many struct {
				Events []Request `json:"events"`
			}
			err = strict(trimmed, &many)
			requests = many.Events
		} else {
			requests = make([]Request, 1)
			err = strict(trimmed, &requests[0])
		}
	}
	return requests, list, err
}

func strict(text []byte, into any) error {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	err := dec.Decode(into)
	if err == nil {
		if _, more := dec.Token(); more != io.EOF {
			err = errors.New("something follows the JSON document")
		}
	}
	if err == nil {
		return nil
	}
	var wrongType *json.UnmarshalTypeError
	switch {
	case errors.As(err, &wrongType):
		field := wrongType.Field
		if field == "" {
			field = "the payload"
		}
		return &Error{Code: InvalidField, Field: wrongType.Field, Message: fmt.Sprintf("%s: must be %s, not %s", field, jsonName(wrongType.Type.Kind().String()), clip(wrongType.Value))}
	case strings.HasPrefix(err.Error(), "json: unknown field "):
		// The standard library has no type for this one.
		name := clip(strings.Trim(strings.TrimPrefix(err.Error(), "json: unknown field "), `"`))
		return &Error{Code: InvalidField, Field: name, Message: name + ": is not a field of an event; the fields are event, tenant, timestamp, actor_user_id, data, request_id, idempotency_key"}
	}
	return &Error{Code: MalformedJSON, Message: "malformed JSON: " + strings.TrimPrefix(err.Error(), "json: ")}
}

// jsonName says a Go kind in JSON's words.
func jsonName(kind string) string {
	switch kind {
	case "struct", "map":
		return "an object"
	case "slice":
		return "a list"
	}
	return "a " + kind
}

func compact(data json.RawMessage) []byte {
	var buf bytes.Buffer
	if err := json.Compact(&buf, data); err != nil {
		return data
	}
	return buf.Bytes()
}
