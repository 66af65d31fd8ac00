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
	Version        once[int]            `json:"version"`
	Tenant         once[string]         `json:"tenant"`
	Timestamp      once[string]         `json:"timestamp"`
	ActorUserID    once[string]         `json:"actor_user_id"`
	Data           once[jsontext.Value] `json:"data"`
	RequestID      once[string]         `json:"request_id"`
	IdempotencyKey once[string]         `json:"idempotency_key"`
}

func (e envelope) request() Request {
	return Request{
		Event: e.Event.value, Version: e.Version.value, Tenant: e.Tenant.value, Timestamp: e.Timestamp.value, ActorUserID: e.ActorUserID.value,
		Data: []byte(e.Data.value), RequestID: e.RequestID.value, IdempotencyKey: e.IdempotencyKey.value,
	}
}

// given reports whether any field is present.
func (e envelope) given() bool {
	return e.Event.given || e.Version.given || e.Tenant.given || e.Timestamp.given || e.ActorUserID.given || e.Data.given || e.RequestID.given || e.IdempotencyKey.given
}

// once is a field that must not be repeated. The decoder's own check would not name the
// field; the catalog does for a duplicate key within data.
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
	_, _ = dec.ReadToken() // cannot fail: it is the bracket
	for dec.PeekKind() != ']' && dec.PeekKind() != 0 {
		if len(*l) == MaxList {
			return errTooMany
		}
		// By itself, so that an item that is no event does not affect the others.
		item, err := dec.ReadValue()
		if err != nil {
			return err
		}
		*l = append(*l, readItem(item))
	}
	_, err := dec.ReadToken()
	return err
}

// readItem reads one item of a list. The paths in its error begin at the item.
func readItem(item jsontext.Value) Request {
	var e envelope
	err := json.Unmarshal(item, &e, strictNames)
	if err == nil && item.Kind() == 'n' {
		err = &json.SemanticError{JSONKind: 'n', GoType: reflect.TypeFor[envelope]()}
	}
	r := e.request()
	if err != nil {
		r.malformed = refusal(err, "the event")
	}
	return r
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
func checkLength(payload []byte, isList bool) *Error {
	var count struct {
		Events length `json:"events"`
	}
	target := any(&count)
	if isList {
		target = &count.Events
	}
	if err := json.Unmarshal(payload, target, lenient); err != nil {
		return refusal(err, "the payload")
	}
	if count.Events > MaxList {
		return &Error{Code: TooMany, Field: "events", Message: fmt.Sprintf("events: has %d items; the limit per call is %d", count.Events, MaxList)}
	}
	return nil
}

// lenient leaves duplicate keys and invalid UTF-8 within data to the catalog.
var lenient = json.JoinOptions(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))

// strictNames also rejects unknown names, because a misspelt idempotency_key would
// otherwise be silently ignored.
var strictNames = json.JoinOptions(lenient, json.RejectUnknownMembers(true))

// parse reads one event or a list. An item of a list that is not an event becomes a
// request that Emit refuses.
func parse(payload []byte) (requests []Request, isList bool, refused *Error) {
	payload = bytes.Trim(payload, " \t\r\n") // JSON's white space
	if len(payload) == 0 {
		return nil, false, &Error{Code: MalformedJSON, Message: "the payload is empty; send one event, or {\"events\":[…]}"}
	}
	var call struct {
		envelope
		Events once[list] `json:"events"`
	}
	var err error
	if isList = payload[0] == '['; isList {
		err = json.Unmarshal(payload, &call.Events.value, strictNames)
	} else {
		err = json.Unmarshal(payload, &call, strictNames)
		isList = call.Events.given
	}
	switch {
	case err != nil:
		// A list that is too long is rejected for that, even if an item is invalid.
		if tooLong := checkLength(payload, payload[0] == '['); tooLong != nil {
			return nil, isList, tooLong
		}
		return nil, isList, refusal(err, "the payload")
	case !isList:
		return []Request{call.request()}, false, nil
	case call.envelope.given():
		return nil, true, &Error{Code: InvalidField, Field: "events", Message: "events: cannot be combined with the fields of one event"}
	case len(call.Events.value) == 0:
		return nil, true, &Error{Code: InvalidField, Field: "events", Message: "events: is an empty list"}
	}
	return call.Events.value, true, nil
}

// refusal converts a decoding error to an *Error that says what is wrong, and where. whole
// names what was decoded.
func refusal(err error, whole string) *Error {
	var refused *Error
	if errors.As(err, &refused) {
		return refused
	}
	var wrong *json.SemanticError
	if !errors.As(err, &wrong) {
		return &Error{Code: MalformedJSON, Message: "malformed JSON: " + clip(strings.TrimPrefix(err.Error(), "jsontext: "))}
	}
	field := fieldAt(wrong.JSONPointer)
	invalid := func(format string, a ...any) *Error {
		return &Error{Code: InvalidField, Field: field, Message: fmt.Sprintf("%s: ", cmp.Or(field, whole)) + fmt.Sprintf(format, a...)}
	}
	switch {
	case errors.Is(err, jsontext.ErrDuplicateName):
		return invalid("duplicate key %q at byte %d", wrong.JSONPointer.LastToken(), wrong.ByteOffset)
	case errors.Is(err, json.ErrUnknownName):
		return invalid("is not a field of an event; names are case-sensitive, and the fields are event, version, tenant, timestamp, actor_user_id, data, request_id, idempotency_key")
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
