// Package dynamo stores events, deliveries, endpoints, idempotency keys and the
// platform's records in DynamoDB. Each transition of a delivery is one conditional
// write, whose condition is the rule of the transition in package delivery. If the
// condition fails, DynamoDB returns the stored item (ALL_OLD), and the transition
// itself gives the cause. It promises that a write which the SDK repeats because the
// response was lost has the effect of one write, and, unless a method says
// otherwise, its result.
package dynamo

import (
	"context"
	"sync/atomic"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
)

// Client is the part of *dynamodb.Client that the store uses.
type Client interface {
	GetItem(context.Context, *dynamodb.GetItemInput, ...func(*dynamodb.Options)) (*dynamodb.GetItemOutput, error)
	PutItem(context.Context, *dynamodb.PutItemInput, ...func(*dynamodb.Options)) (*dynamodb.PutItemOutput, error)
	UpdateItem(context.Context, *dynamodb.UpdateItemInput, ...func(*dynamodb.Options)) (*dynamodb.UpdateItemOutput, error)
	DeleteItem(context.Context, *dynamodb.DeleteItemInput, ...func(*dynamodb.Options)) (*dynamodb.DeleteItemOutput, error)
	Query(context.Context, *dynamodb.QueryInput, ...func(*dynamodb.Options)) (*dynamodb.QueryOutput, error)
	Scan(context.Context, *dynamodb.ScanInput, ...func(*dynamodb.Options)) (*dynamodb.ScanOutput, error)
	BatchGetItem(context.Context, *dynamodb.BatchGetItemInput, ...func(*dynamodb.Options)) (*dynamodb.BatchGetItemOutput, error)
}

// Tables names the tables. A function names only those it uses.
type Tables struct {
	Events, Deliveries, Endpoints, Control, TestReceiver string
	// Platform is the platform's table, which can have other keys than this package's
	// records. Discussions is the index of its discussions.
	Platform, Discussions string
}

// Store is the DynamoDB store. It is safe for concurrent use.
type Store struct {
	db     Client
	tables Tables
	meter  Meter

	indexed atomic.Bool // IndexTable has nothing left to do
}

// Option changes a Store.
type Option func(*Store)

// Meter receives the capacity that a call consumed, and whether it was a write. It is
// called concurrently.
type Meter func(write bool, c types.ConsumedCapacity)

// WithMeter reports the capacity that each call consumed, indexes included.
func WithMeter(meter Meter) Option {
	return func(s *Store) { s.meter = meter }
}

// New returns a store on the tables, which must exist.
func New(db Client, tables Tables, options ...Option) *Store {
	s := &Store{db: db, tables: tables}
	for _, o := range options {
		o(s)
	}
	return s
}

func (s *Store) returnCapacity() types.ReturnConsumedCapacity {
	if s.meter != nil {
		return types.ReturnConsumedCapacityIndexes
	}
	return ""
}

func (s *Store) recordWrite(c *types.ConsumedCapacity) {
	if s.meter != nil && c != nil {
		s.meter(true, *c)
	}
}

func (s *Store) recordRead(c *types.ConsumedCapacity) {
	if s.meter != nil && c != nil {
		s.meter(false, *c)
	}
}
