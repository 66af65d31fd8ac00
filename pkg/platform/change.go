package platform

import (
	"strings"
	"time"
)

// Operation is what happened to an item.
type Operation string

const (
	Insert Operation = "INSERT"
	Modify Operation = "MODIFY"
	Remove Operation = "REMOVE"
)

// Change is one record of the stream of the platform's table.
type Change struct {
	ID             string // unique in its stream
	Stream         string // the stream's ARN
	SequenceNumber string
	Key            string // the item's key as JSON
	Operation      Operation
	ByTTL          bool      // DynamoDB removed the item because its TTL had passed
	At             time.Time // when the change was made, to the second
	Old, New       Image     // nil if the item did not exist
	// Record is the stream's record as JSON. It is part of the payload: copy it to keep it.
	Record []byte
}

// Table returns the name of the table whose change it is; the text of Stream if that is no
// stream's ARN.
func (c Change) Table() string {
	_, name, isARN := strings.Cut(c.Stream, ":table/")
	if !isARN {
		return c.Stream
	}
	name, _, _ = strings.Cut(name, "/")
	return name
}

// Image is a version of an item. It is decoded only when that is needed.
type Image interface {
	// Kind is the item's kind as written, known or not; "" if it has none or it is not a
	// text.
	Kind() Kind
	// Decode fails if an id or a status is missing or has the wrong type. Attributes
	// that only describe are left out if they cannot be read. With an error, the record
	// holds what could be read; it is nil for an unknown kind. The error contains no
	// values.
	Decode() (Record, error)
	// Text returns a string attribute's value, "" if it is missing or no string.
	Text(name string) string
	// Attribute returns an attribute's value for comparisons, nil if it is missing.
	Attribute(name string) any
	// Value returns an attribute's value: a string, a Number, a bool, []byte, []any for a
	// list or a set, or map[string]any. It is nil if the attribute is missing, NULL, or
	// malformed.
	Value(name string) any
	// Names returns the names of the attributes, in no order.
	Names() []string
}

// Number is a number with its digits as they were written.
type Number string
