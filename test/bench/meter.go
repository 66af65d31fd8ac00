package main

import (
	"context"
	"errors"
	"strings"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/tidings-dev/tidings/pkg/store/dynamo"
	"github.com/tidings-dev/tidings/pkg/store/dynamoitem"
)

// meter counts the capacity that a store's calls consume.
type meter struct {
	dynamo.Client

	mu    sync.Mutex
	units Units
	put   []dynamoitem.Item // events that were written
}

func (m *meter) take() Units {
	m.mu.Lock()
	defer m.mu.Unlock()
	u := m.units
	m.units = Units{}
	return u
}

// account is what a call's units are counted for.
type account int

const (
	reads      account = iota
	writes             // of the event's own items
	statistics         // of the items of Control that belong to no single event
	journaled          // of the journal
)

// note counts a call. A refused condition is billed as a write of the item it read.
func (m *meter) note(to account, c *types.ConsumedCapacity, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.units.Requests++
	units := 0.0
	if c != nil {
		units = aws.ToFloat64(c.CapacityUnits)
	}
	var refused *types.ConditionalCheckFailedException
	if errors.As(err, &refused) {
		m.units.Refused++
		units = float64(max(1, (dynamoitem.Size(refused.Item)+1023)/1024))
	}
	*map[account]*float64{reads: &m.units.Reads, writes: &m.units.Writes, statistics: &m.units.Statistics, journaled: &m.units.Journal}[to] += units
}

// accountOf returns what a write of an item, or of the item with a key, is counted for.
func accountOf(item dynamoitem.Item) account {
	if key, ok := item[dynamoitem.Key].(*types.AttributeValueMemberS); ok && (strings.HasPrefix(key.Value, "stats#") || key.Value == dynamoitem.SweepKey) {
		return statistics
	}
	if key, ok := item[dynamoitem.EndpointID].(*types.AttributeValueMemberS); ok && strings.HasPrefix(key.Value, "journal#") {
		return journaled
	}
	return writes
}

// wrote counts a write, whose output is nil where it failed.
func wrote[Out any](m *meter, to account, out *Out, err error, consumed func(*Out) *types.ConsumedCapacity) (*Out, error) {
	var c *types.ConsumedCapacity
	if out != nil {
		c = consumed(out)
	}
	m.note(to, c, err)
	return out, err
}

// GetItem counts a read. Like the methods below it, it implements dynamo.Client.
func (m *meter) GetItem(ctx context.Context, in *dynamodb.GetItemInput, o ...func(*dynamodb.Options)) (*dynamodb.GetItemOutput, error) {
	in.ReturnConsumedCapacity = types.ReturnConsumedCapacityTotal
	out, err := m.Client.GetItem(ctx, in, o...)
	if err == nil {
		m.note(reads, out.ConsumedCapacity, nil)
	}
	return out, err
}

// PutItem counts a write, and keeps the item if it is an event.
func (m *meter) PutItem(ctx context.Context, in *dynamodb.PutItemInput, o ...func(*dynamodb.Options)) (*dynamodb.PutItemOutput, error) {
	in.ReturnConsumedCapacity = types.ReturnConsumedCapacityTotal
	out, err := m.Client.PutItem(ctx, in, o...)
	if err == nil && strings.HasSuffix(aws.ToString(in.TableName), "-"+dynamoitem.Events) {
		m.mu.Lock()
		m.put = append(m.put, in.Item)
		m.mu.Unlock()
	}
	return wrote(m, accountOf(in.Item), out, err, func(o *dynamodb.PutItemOutput) *types.ConsumedCapacity { return o.ConsumedCapacity })
}

// UpdateItem counts a write.
func (m *meter) UpdateItem(ctx context.Context, in *dynamodb.UpdateItemInput, o ...func(*dynamodb.Options)) (*dynamodb.UpdateItemOutput, error) {
	in.ReturnConsumedCapacity = types.ReturnConsumedCapacityTotal
	out, err := m.Client.UpdateItem(ctx, in, o...)
	return wrote(m, accountOf(in.Key), out, err, func(o *dynamodb.UpdateItemOutput) *types.ConsumedCapacity { return o.ConsumedCapacity })
}

// DeleteItem counts a write.
func (m *meter) DeleteItem(ctx context.Context, in *dynamodb.DeleteItemInput, o ...func(*dynamodb.Options)) (*dynamodb.DeleteItemOutput, error) {
	in.ReturnConsumedCapacity = types.ReturnConsumedCapacityTotal
	out, err := m.Client.DeleteItem(ctx, in, o...)
	return wrote(m, writes, out, err, func(o *dynamodb.DeleteItemOutput) *types.ConsumedCapacity { return o.ConsumedCapacity })
}

// Query counts a read.
func (m *meter) Query(ctx context.Context, in *dynamodb.QueryInput, o ...func(*dynamodb.Options)) (*dynamodb.QueryOutput, error) {
	in.ReturnConsumedCapacity = types.ReturnConsumedCapacityTotal
	out, err := m.Client.Query(ctx, in, o...)
	if err == nil {
		m.note(reads, out.ConsumedCapacity, nil)
	}
	return out, err
}

// BatchGetItem counts a read of each table.
func (m *meter) BatchGetItem(ctx context.Context, in *dynamodb.BatchGetItemInput, o ...func(*dynamodb.Options)) (*dynamodb.BatchGetItemOutput, error) {
	in.ReturnConsumedCapacity = types.ReturnConsumedCapacityTotal
	out, err := m.Client.BatchGetItem(ctx, in, o...)
	if err == nil {
		for _, c := range out.ConsumedCapacity {
			m.note(reads, &c, nil)
		}
	}
	return out, err
}
