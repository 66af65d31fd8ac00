package rules

import (
	"bytes"
	"fmt"

	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/traits"

	"github.com/tidings-dev/tidings/pkg/emit/capture"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/platform"
)

// rule is a compiled rule. Expressions that it does not have are nil.
type rule struct {
	Rule
	lets      []let
	when      expression
	condition condition // of when; nil if none is known
	isWhole   bool      // the condition is when's value
	byTTL     bool      // when names by_ttl
	// source tells its events from those of other rules for the type; see capture.New.
	source string

	tenant, actor, timestamp, requestID *expression
	once                                []expression
	data                                []field
	shorten                             *shortening
}

// field is a field of an event's data: an expression, or fields of its own.
type field struct {
	name     string
	optional bool
	path     string // for errors
	value    expression
	fields   []field
}

// shortening says how a text is shortened that makes an event too large.
type shortening struct {
	field             string
	characters        int
	truncated, length string // names of the fields that are then added
}

// canMatch reports whether the change can match, as far as that can be told without CEL.
func (r *rule) canMatch(on *evaluation) bool {
	if on.change.ByTTL && on.change.Operation == platform.Remove && !r.byTTL {
		return false
	}
	return r.condition == nil || r.condition(on)
}

func (r *rule) matches(on *evaluation) (bool, error) {
	if r.isWhole {
		return true, nil
	}
	value, err := on.value("when", &r.when)
	if err != nil {
		return false, err
	}
	b, ok := value.(types.Bool)
	if !ok {
		return false, on.fail("when", &r.when, &reason{"the result is neither true nor false"})
	}
	return bool(b), nil
}

// event returns the event of a change that matches.
func (r *rule) event(on *evaluation) (none capture.Captured, err error) {
	tenant, err := r.tenantOf(on)
	if err != nil {
		return none, err
	}
	e := event.Event{Type: r.Event}
	if r.actor != nil {
		value, err := on.value("actor", r.actor)
		if err != nil {
			return none, err
		}
		e.ActorUserID = textOf(value)
	}
	if r.timestamp != nil {
		value, err := on.value("timestamp", r.timestamp)
		if err != nil {
			return none, err
		}
		if at, ok := timeOf(value).(types.Timestamp); ok {
			e.Timestamp = at.Time.UTC()
		}
	}
	if r.requestID != nil {
		value, err := on.value("request_id", r.requestID)
		if err != nil {
			return none, err
		}
		e.RequestID = requestID(textOf(value))
	}
	if e.Data, err = r.encode(on); err != nil {
		return none, err
	}
	made, err := capture.New(on.change, tenant, e, r.source)
	if err != nil {
		return none, &EvaluationError{Rule: r.Rule, Part: "event", Expression: r.Event, Err: err}
	}
	if len(r.once) > 0 {
		parts := make([]string, len(r.once))
		for n := range r.once {
			part := fmt.Sprintf("once[%d]", n)
			value, err := on.value(part, &r.once[n])
			if err != nil {
				return none, err
			}
			if parts[n] = textOf(value); parts[n] == "" {
				return none, on.fail(part, &r.once[n], &reason{"the result is neither a text nor a number"})
			}
		}
		made = made.Once(parts...)
	}
	return made, nil
}

func (r *rule) tenantOf(on *evaluation) (string, error) {
	if r.tenant == nil {
		return event.DefaultTenant, nil
	}
	value, err := on.value("tenant", r.tenant)
	if err != nil {
		return "", err
	}
	tenant := textOf(value)
	if tenant == "" {
		return "", on.fail("tenant", r.tenant, &reason{"the result is neither a text nor a number"})
	}
	return tenant, nil
}

// encode returns the event's data.
func (r *rule) encode(on *evaluation) ([]byte, error) {
	out := &encoder{on: on, shorten: r.shorten}
	if err := out.fields(r.data); err != nil {
		return nil, err
	}
	if out.shortened == nil {
		return bytes.Clone(out.buf.Bytes()), nil
	}
	return out.fit(), nil
}

// bytesOf returns about how many bytes a value takes, -1 if it takes more than the limit.
func bytesOf(v any, limit int) int {
	total := 0
	switch v := v.(type) {
	case types.String:
		total = len(v)
	case types.Bytes:
		total = len(v)
	case *record:
		return 0 // a part of the item
	case traits.Mapper:
		for it := v.Iterator(); it.HasNext() == types.True && total <= limit; {
			key := it.Next()
			value, _ := v.Find(key)
			if total = add(total, bytesOf(key, limit-total), bytesOf(value, limit-total)); total < 0 {
				return -1
			}
		}
	case traits.Lister:
		for it := v.Iterator(); it.HasNext() == types.True && total <= limit; {
			if total = add(total, bytesOf(it.Next(), limit-total)); total < 0 {
				return -1
			}
		}
	default:
		total = 8
	}
	if total > limit {
		return -1
	}
	return total
}

// add adds sizes; the sum is -1 if one of them is.
func add(sizes ...int) int {
	total := 1
	for _, one := range sizes {
		if one < 0 {
			return -1
		}
		total += one
	}
	return total
}
