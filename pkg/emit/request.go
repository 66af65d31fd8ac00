package emit

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"reflect"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// envelope is the JSON form of a request. Names are case-sensitive, and duplicate keys
// are rejected.
type envelope struct {
	Event          once[string]         `json:"event"`
	Tenant         once[string]         `json:"tenant"`
	Timestamp      once[string]         `json:"timestamp"`
	ActorUserID    once[string]         `json:"actor_user_id"`
	Data           once[jsontext.Value] `json:"data"`
	RequestID      once[string]         `json:"request_id"`
	IdempotencyKey once[string]         `json:"idempotency_key"`
}

func (e envelope) request() Request {
	return Request{
		Event: e.Event.value, Tenant: e.Tenant.value, Timestamp: e.Timestamp.value, ActorUserID: e.ActorUserID.value,
		Data: []byte(e.Data.value), RequestID: e.RequestID.value, IdempotencyKey: e.IdempotencyKey.value,
	}
}

// given reports whether any field is present.
func (e envelope) given() bool {
	return e.Event.given || e.Tenant.given || e.Timestamp.given || e.ActorUserID.given || e.Data.given || e.RequestID.given || e.IdempotencyKey.given
}

// once is a field that must not be repeated. The decoder's own check would reject the
// whole list for a duplicate key within one event's data; the catalog rejects only that
// event.
type once[T any] struct {
	value T
	given bool
}

func (o *once[T]) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	if o.given {
		return jsontext.ErrDuplicateName
	}
	o.given = true
	return json.UnmarshalDecode(dec, &o.value)
}

// list is a list of at most MaxList requests. It stops at one more: megabytes of {}
// would become a gigabyte of requests.
type list []Request

var errTooMany = errors.New("list is too long")

func (l *list) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	switch dec.PeekKind() {
	case '[':
	case 'n':
		return dec.SkipValue()
	default:
		return &json.SemanticError{JSONKind: dec.PeekKind(), GoType: reflect.TypeFor[[]Request]()}
	}
	if _, err := dec.ReadToken(); err != nil {
		return err
	}
	for dec.PeekKind() != ']' && dec.PeekKind() != 0 {
		if len(*l) == MaxList {
			return errTooMany
		}
		var e envelope
		if err := json.UnmarshalDecode(dec, &e); err != nil {
			return err
		}
		*l = append(*l, e.request())
	}
	_, err := dec.ReadToken()
	return err
}

// length is the number of items in a list; 0 for any other value.
type length int

func (n *length) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	if dec.PeekKind() != '[' {
		return dec.SkipValue()
	}
	_, err := dec.ReadToken()
	for ; err == nil && dec.PeekKind() != ']'; *n++ {
		err = dec.SkipValue()
	}
	if err == nil {
		_, err = dec.ReadToken()
	}
	return err
}

// checkLength returns an error if the list in the payload is over the limit, or the
// payload is not JSON.
func checkLength(payload []byte, isList bool) error {
	var count struct {
		Events length `json:"events"`
	}
	target := any(&count)
	if isList {
		target = &count.Events
	}
	if err := json.Unmarshal(payload, target, lenient); err != nil {
		return refusal(err)
	}
	if count.Events > MaxList {
		return &Error{Code: TooMany, Field: "events", Message: fmt.Sprintf("events: has %d items; the limit per call is %d", count.Events, MaxList)}
	}
	return nil
}

// lenient leaves duplicate keys and invalid UTF-8 within data to the catalog.
var lenient = json.JoinOptions(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))

// parse reads one event or a list. It rejects unknown names, because a misspelt
// idempotency_key would otherwise be silently ignored.
func parse(payload []byte) (requests []Request, isList bool, err error) {
	payload = bytes.TrimSpace(payload)
	if len(payload) == 0 {
		return nil, false, &Error{Code: MalformedJSON, Message: "the payload is empty; send one event, or {\"events\":[…]}"}
	}
	options := json.JoinOptions(lenient, json.RejectUnknownMembers(true))
	var call struct {
		envelope
		Events once[list] `json:"events"`
	}
	if isList = payload[0] == '['; isList {
		err = json.Unmarshal(payload, &call.Events.value, options)
	} else {
		err = json.Unmarshal(payload, &call, options)
		isList = call.Events.given
	}
	switch {
	case err != nil:
		// A list that is too long is rejected for that, even if an item is invalid.
		if tooLong := checkLength(payload, payload[0] == '['); tooLong != nil {
			return nil, isList, tooLong
		}
		return nil, isList, refusal(err)
	case !isList:
		return []Request{call.request()}, false, nil
	case call.envelope.given():
		return nil, true, &Error{Code: InvalidField, Field: "events", Message: "events: cannot be combined with the fields of one event"}
	case len(call.Events.value) == 0:
		return nil, true, &Error{Code: InvalidField, Field: "events", Message: "events: is an empty list"}
	}
	return call.Events.value, true, nil
}

// refusal converts a decoding error to an *Error that says what is wrong, and where.
func refusal(err error) error {
	var refused *Error
	if errors.As(err, &refused) {
		return refused
	}
	var wrong *json.SemanticError
	if !errors.As(err, &wrong) {
		return &Error{Code: MalformedJSON, Message: "malformed JSON: " + clip(strings.TrimPrefix(err.Error(), "jsontext: "))}
	}
	field := fieldAt(wrong.JSONPointer)
	invalid := func(format string, a ...any) error {
		return &Error{Code: InvalidField, Field: field, Message: fmt.Sprintf("%s: ", cmp.Or(field, "the payload")) + fmt.Sprintf(format, a...)}
	}
	switch {
	case errors.Is(err, jsontext.ErrDuplicateName):
		return invalid("duplicate key %q at byte %d", wrong.JSONPointer.LastToken(), wrong.ByteOffset)
	case errors.Is(err, json.ErrUnknownName):
		return invalid("is not a field of an event; names are case-sensitive, and the fields are event, tenant, timestamp, actor_user_id, data, request_id, idempotency_key")
	}
	return invalid("must be %s, not %s", typeName(wrong.GoType), kindName(wrong.JSONKind))
}

// fieldAt converts a JSON pointer to a path such as events.3.tenant.
func fieldAt(p jsontext.Pointer) string {
	return clip(strings.ReplaceAll(strings.TrimPrefix(string(p), "/"), "/", "."))
}

func typeName(t reflect.Type) string {
	if t == nil {
		return "another value"
	}
	switch t.Kind() {
	case reflect.Struct:
		return "an object"
	case reflect.Slice:
		return "a list"
	}
	return "a " + t.Kind().String()
}

func kindName(k jsontext.Kind) string {
	switch k {
	case '{':
		return "an object"
	case '[':
		return "a list"
	case 't', 'f':
		return "a boolean"
	}
	return "a " + k.String()
}
