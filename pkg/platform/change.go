package platform

import "time"

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
}

// Image is a version of an item. It is decoded only when that is needed.
type Image interface {
	// Kind is "" if the item does not name a kind that this package knows.
	Kind() Kind
	// Decode fails if an attribute that it reads is missing or has the wrong type.
	// The error contains no values.
	Decode() (Record, error)
	// Attribute returns an attribute's value for comparisons, nil if it is missing.
	Attribute(name string) any
}
