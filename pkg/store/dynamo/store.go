// Package dynamo keeps events, deliveries, endpoints, idempotency keys and
// the platform's records in DynamoDB. Each move of a delivery is one conditional write whose condition
// says what the transition in package delivery says; where it fails, DynamoDB
// returns the item as it is (ALL_OLD), and the transition itself names the
// cause. It promises that a write whose answer was lost, and which the SDK
// therefore repeats, has the effect of one. Its result is that of one too, but
// where a method says otherwise.
package dynamo

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/store/dynamoitem"
)

// Client is the part of *dynamodb.Client that the store uses.
type Client interface {
	GetItem(context.Context, *dynamodb.GetItemInput, ...func(*dynamodb.Options)) (*dynamodb.GetItemOutput, error)
	PutItem(context.Context, *dynamodb.PutItemInput, ...func(*dynamodb.Options)) (*dynamodb.PutItemOutput, error)
	UpdateItem(context.Context, *dynamodb.UpdateItemInput, ...func(*dynamodb.Options)) (*dynamodb.UpdateItemOutput, error)
	DeleteItem(context.Context, *dynamodb.DeleteItemInput, ...func(*dynamodb.Options)) (*dynamodb.DeleteItemOutput, error)
	Query(context.Context, *dynamodb.QueryInput, ...func(*dynamodb.Options)) (*dynamodb.QueryOutput, error)
	BatchGetItem(context.Context, *dynamodb.BatchGetItemInput, ...func(*dynamodb.Options)) (*dynamodb.BatchGetItemOutput, error)
}

// Tables names the tables. A function names only those it uses.
type Tables struct {
	Events, Deliveries, Endpoints, Control, Platform string
}

// Store is the DynamoDB store. It is safe for concurrent use.
type Store struct {
	db     Client
	tables Tables
	meter  Meter
}

// Option changes a Store.
type Option func(*Store)

// Meter hears what a call consumed, and whether it was a write. It is called
// concurrently.
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

// PutEvent: see emit.Events. Its own write, repeated, is ErrExists too: whoever
// puts an event under a fresh id knows what that means.
func (s *Store) PutEvent(ctx context.Context, a event.Accepted) error {
	item, err := dynamoitem.EncodeEvent(a)
	if err != nil {
		return err
	}
	out, err := s.db.PutItem(ctx, &dynamodb.PutItemInput{
		TableName: &s.tables.Events, Item: item,
		ConditionExpression:    aws.String("attribute_not_exists(event_id)"),
		ReturnConsumedCapacity: s.returnCapacity(),
	})
	if _, failed := conditionFailed(err); failed {
		return event.ErrExists
	}
	if err != nil {
		return fmt.Errorf("put event %s: %w", a.ID, err)
	}
	s.recordWrite(out.ConsumedCapacity)
	return nil
}

// GetEvent: see dispatch.Events. An event that is not found by the cheap read
// is looked for by the consistent one before it is called missing.
func (s *Store) GetEvent(ctx context.Context, id string) (event.Accepted, error) {
	for _, consistent := range []bool{false, true} {
		out, err := s.db.GetItem(ctx, &dynamodb.GetItemInput{
			TableName: &s.tables.Events, Key: dynamoitem.Item{dynamoitem.EventID: dynamoitem.S(id)},
			ConsistentRead: &consistent, ReturnConsumedCapacity: s.returnCapacity(),
		})
		if err != nil {
			return event.Accepted{}, fmt.Errorf("get event %s: %w", id, err)
		}
		s.recordRead(out.ConsumedCapacity)
		if out.Item != nil {
			return dynamoitem.DecodeEvent(out.Item)
		}
	}
	return event.Accepted{}, event.ErrNotFound
}

// ReserveKey: see emit.Keys. A key whose time is over counts as free, though
// DynamoDB deletes it only some time later.
func (s *Store) ReserveKey(ctx context.Context, tenant, key string, r event.Reservation, expires time.Time) (event.Reservation, error) {
	out, err := s.db.PutItem(ctx, &dynamodb.PutItemInput{
		TableName: &s.tables.Control, Item: dynamoitem.EncodeReservation(tenant, key, r, expires),
		ConditionExpression:                 aws.String("attribute_not_exists(#key) OR expires_at <= :now"),
		ExpressionAttributeNames:            map[string]string{"#key": dynamoitem.Key},
		ExpressionAttributeValues:           dynamoitem.Item{":now": dynamoitem.Seconds(time.Now())},
		ReturnValuesOnConditionCheckFailure: types.ReturnValuesOnConditionCheckFailureAllOld,
		ReturnConsumedCapacity:              s.returnCapacity(),
	})
	if old, failed := conditionFailed(err); failed {
		holds, _, err := dynamoitem.DecodeReservation(old)
		return holds, err
	}
	if err != nil {
		return r, fmt.Errorf("reserve an idempotency key: %w", err)
	}
	s.recordWrite(out.ConsumedCapacity)
	return r, nil
}

// conditionFailed tells whether a write's condition failed, and what the item
// was then (nil if there was none, or if it was not asked for).
func conditionFailed(err error) (old dynamoitem.Item, failed bool) {
	var check *types.ConditionalCheckFailedException
	if errors.As(err, &check) {
		return check.Item, true
	}
	return nil, false
}

// update is an UpdateItem in the making.
type update struct {
	sets, removes []string
	values        dynamoitem.Item
}

func (u *update) set(name string, value types.AttributeValue) {
	u.sets = append(u.sets, "#"+name+" = :"+name)
	u.values[":"+name] = value
}

// putFirst sets an attribute only where there is none yet.
func (u *update) setIfAbsent(name string, value types.AttributeValue) {
	u.sets = append(u.sets, "#"+name+" = if_not_exists(#"+name+", :"+name+")")
	u.values[":"+name] = value
}

func (u *update) remove(name string) { u.removes = append(u.removes, "#"+name) }

func (u *update) expression() string {
	var parts []string
	if len(u.sets) > 0 {
		parts = append(parts, "SET "+strings.Join(u.sets, ", "))
	}
	if len(u.removes) > 0 {
		parts = append(parts, "REMOVE "+strings.Join(u.removes, ", "))
	}
	return strings.Join(parts, " ")
}

// names maps every #name in the expressions to its attribute: several
// attributes here are words that DynamoDB reserves.
func names(expressions ...string) map[string]string {
	found := map[string]string{}
	for _, e := range expressions {
		for _, word := range strings.FieldsFunc(e, func(r rune) bool { return strings.ContainsRune(" ,()=<>", r) }) {
			if name, ok := strings.CutPrefix(word, "#"); ok {
				found[word] = name
			}
		}
	}
	return found
}

// moveDelivery applies an update to a delivery under a condition and returns the
// item after it, or, where the condition failed, the one that stood against it.
func (s *Store) updateDelivery(ctx context.Context, k delivery.Key, u update, condition string) (after dynamoitem.Item, against dynamoitem.Item, ok bool, err error) {
	expression := u.expression()
	out, err := s.db.UpdateItem(ctx, &dynamodb.UpdateItemInput{
		TableName: &s.tables.Deliveries, Key: dynamoitem.DeliveryKey(k),
		UpdateExpression: &expression, ConditionExpression: &condition,
		ExpressionAttributeNames: names(expression, condition), ExpressionAttributeValues: u.values,
		ReturnValues:                        types.ReturnValueAllNew,
		ReturnValuesOnConditionCheckFailure: types.ReturnValuesOnConditionCheckFailureAllOld,
		ReturnConsumedCapacity:              s.returnCapacity(),
	})
	if old, failed := conditionFailed(err); failed {
		return nil, old, false, nil
	}
	if err != nil {
		return nil, nil, false, err
	}
	s.recordWrite(out.ConsumedCapacity)
	return out.Attributes, nil, true, nil
}

// refusal asks a transition why it does not apply to the item that stood
// against it. Where the transition would apply after all (the write was ours, or
// something moved in between) it returns the transition's result.
func refusal(against dynamoitem.Item, apply func(*delivery.Delivery) (delivery.Delivery, *delivery.Refusal)) (delivery.Delivery, error) {
	var current *delivery.Delivery
	if against != nil {
		d, err := dynamoitem.DecodeDelivery(against)
		if err != nil {
			return d, err
		}
		current = &d
	}
	after, refused := apply(current)
	if refused != nil {
		return after, refused
	}
	return after, nil
}

// Claim: see dispatch.Deliveries.
func (s *Store) Claim(ctx context.Context, c delivery.Claim) (delivery.Delivery, error) {
	u := update{values: dynamoitem.Item{
		":pending": dynamoitem.S(string(delivery.Pending)), ":expected": dynamoitem.N(int64(c.Attempts)),
		":now": dynamoitem.Millis(c.Now), ":zero": dynamoitem.N(0), ":one": dynamoitem.N(1),
	}}
	u.sets = append(u.sets, "#attempts = if_not_exists(#attempts, :zero) + :one")
	u.set(dynamoitem.State, dynamoitem.S(string(delivery.InFlight)))
	u.set(dynamoitem.ClaimID, dynamoitem.S(c.ID))
	u.set(dynamoitem.LeaseUntil, dynamoitem.Millis(c.Now.Add(c.Lease)))
	u.set(dynamoitem.UpdatedAt, dynamoitem.Millis(c.Now))
	u.set(dynamoitem.ExpiresAt, dynamoitem.Seconds(c.Now.Add(delivery.Retention)))
	u.setIfAbsent(dynamoitem.Tenant, dynamoitem.S(c.Tenant))
	u.setIfAbsent(dynamoitem.EventType, dynamoitem.S(c.EventType))
	u.setIfAbsent(dynamoitem.Since, dynamoitem.Millis(c.Accepted))
	u.setIfAbsent(dynamoitem.CreatedAt, dynamoitem.Millis(c.Now))
	u.remove(dynamoitem.Waiting)
	u.remove(dynamoitem.Slot)
	condition := "(#state = :pending AND #attempts = :expected AND (attribute_not_exists(#next_attempt_at) OR #next_attempt_at <= :now))" +
		" OR (#state = :state AND #lease_until <= :now AND #claim_id <> :claim_id)"
	if c.Attempts == 0 {
		condition += " OR attribute_not_exists(#event_id)"
	}
	after, against, ok, err := s.updateDelivery(ctx, c.Key, u, condition)
	switch {
	case err != nil:
		return delivery.Delivery{}, fmt.Errorf("claim %s: %w", c.Key, err)
	case ok:
		return dynamoitem.DecodeDelivery(after)
	}
	d, err := refusal(against, c.Apply)
	if err == nil && d.ClaimID == c.ID && against != nil && d.Attempts == attempts(against) {
		return d, nil // our own write, repeated by the SDK
	}
	if err == nil {
		// The transition allows what the condition refused. That is no answer to
		// act upon; the item comes again.
		return d, fmt.Errorf("claim %s: its condition and its transition disagree", c.Key)
	}
	return d, err
}

// attempts is the count in an item, -1 where it has none.
func attempts(item dynamoitem.Item) int {
	d, err := dynamoitem.DecodeDelivery(item)
	if err != nil {
		return -1
	}
	return d.Attempts
}

// Complete: see dispatch.Deliveries.
func (s *Store) Complete(ctx context.Context, d delivery.Delivery) error {
	item := dynamoitem.EncodeDelivery(d)
	u := update{values: dynamoitem.Item{":in_flight": dynamoitem.S(string(delivery.InFlight))}}
	for _, name := range verdict {
		if value, ok := item[name]; ok {
			u.set(name, value)
		} else {
			u.remove(name)
		}
	}
	u.values[":claim_id"], u.values[":attempts"] = item[dynamoitem.ClaimID], item[dynamoitem.Attempts]
	_, against, ok, err := s.updateDelivery(ctx, d.Key, u, "#state = :in_flight AND #claim_id = :claim_id AND #attempts = :attempts")
	if err != nil {
		return fmt.Errorf("complete %s: %w", d.Key, err)
	}
	if ok {
		return nil
	}
	if against != nil {
		held, err := dynamoitem.DecodeDelivery(against)
		if err == nil && held.ClaimID == d.ClaimID && held.Attempts == d.Attempts && held.State == d.State {
			return nil // our own write, repeated by the SDK
		}
	}
	return delivery.ErrFenced
}

// verdict is what a conclusion or a replay may change.
var verdict = []string{
	dynamoitem.State, dynamoitem.Waiting, dynamoitem.Slot, "uncounted", dynamoitem.Reason, "snippet", "history", dynamoitem.LeaseUntil, dynamoitem.NextAt,
	dynamoitem.DueShard, dynamoitem.DueAt, dynamoitem.UpdatedAt, dynamoitem.ExpiresAt,
}

// Replay: see dispatch.Replays.
func (s *Store) Replay(ctx context.Context, r delivery.Replay) (delivery.Delivery, error) {
	before, err := s.GetDelivery(ctx, r.Key)
	if err != nil {
		return before, err
	}
	after, refused := r.Apply(before)
	if refused != nil {
		return after, refused
	}
	item := dynamoitem.EncodeDelivery(after)
	u := update{values: dynamoitem.Item{":was": dynamoitem.S(string(before.State)), ":attempts": dynamoitem.N(int64(before.Attempts))}}
	for _, name := range append([]string{dynamoitem.Since}, verdict...) {
		if value, ok := item[name]; ok {
			u.set(name, value)
		} else {
			u.remove(name)
		}
	}
	stored, against, ok, err := s.updateDelivery(ctx, r.Key, u, "#state = :was AND #attempts = :attempts")
	switch {
	case err != nil:
		return before, fmt.Errorf("replay %s: %w", r.Key, err)
	case ok:
		return dynamoitem.DecodeDelivery(stored)
	case against == nil:
		return before, delivery.ErrNotFound
	}
	d, err := dynamoitem.DecodeDelivery(against)
	if err == nil && d.State == delivery.Pending && d.Attempts == before.Attempts && d.Since.Equal(after.Since) {
		return d, nil // our own write, repeated by the SDK
	}
	if err == nil {
		_, err = refusal(against, func(*delivery.Delivery) (delivery.Delivery, *delivery.Refusal) { return r.Apply(d) })
	}
	if err == nil {
		err = fmt.Errorf("replay %s: it changed in between: try again", r.Key)
	}
	return d, err
}

// GetDelivery returns one delivery as it is now, or delivery.ErrNotFound.
func (s *Store) GetDelivery(ctx context.Context, k delivery.Key) (delivery.Delivery, error) {
	out, err := s.db.GetItem(ctx, &dynamodb.GetItemInput{
		TableName: &s.tables.Deliveries, Key: dynamoitem.DeliveryKey(k), ConsistentRead: aws.Bool(true), ReturnConsumedCapacity: s.returnCapacity(),
	})
	if err != nil {
		return delivery.Delivery{}, fmt.Errorf("get delivery %s: %w", k, err)
	}
	s.recordRead(out.ConsumedCapacity)
	if out.Item == nil {
		return delivery.Delivery{}, delivery.ErrNotFound
	}
	return dynamoitem.DecodeDelivery(out.Item)
}

// QueryDeliveries: see dispatch.Replays. With a state or a type it reads on until
// the page is full, or until it has examined as many as the query allows.
func (s *Store) QueryDeliveries(ctx context.Context, q delivery.Query) (delivery.Page, error) {
	var page delivery.Page
	first, last, err := q.Bounds()
	if err != nil {
		return page, err
	}
	in := &dynamodb.QueryInput{
		TableName:                &s.tables.Deliveries,
		KeyConditionExpression:   aws.String("#endpoint_id = :endpoint AND #event_id BETWEEN :first AND :last"),
		ExpressionAttributeNames: map[string]string{"#endpoint_id": dynamoitem.EndpointID, "#event_id": dynamoitem.EventID},
		ExpressionAttributeValues: dynamoitem.Item{
			":endpoint": dynamoitem.S(q.EndpointID), ":first": dynamoitem.S(first), ":last": dynamoitem.S(last),
		},
		ScanIndexForward: aws.Bool(false), ReturnConsumedCapacity: s.returnCapacity(),
	}
	var filters []string
	for name, value := range map[string]string{dynamoitem.State: string(q.State), dynamoitem.EventType: q.EventType} {
		if value != "" {
			filters = append(filters, "#"+name+" = :"+name)
			in.ExpressionAttributeNames["#"+name] = name
			in.ExpressionAttributeValues[":"+name] = dynamoitem.S(value)
		}
	}
	filtered := len(filters) > 0
	if filtered {
		in.FilterExpression = aws.String(strings.Join(filters, " AND "))
	} else {
		in.Limit = aws.Int32(int32(q.PageSize() + 1))
	}
	for examined := 0; ; {
		if filtered && q.Examine > 0 {
			in.Limit = aws.Int32(int32(q.Examine - examined))
		}
		out, err := s.db.Query(ctx, in)
		if err != nil {
			return page, fmt.Errorf("query deliveries of %s: %w", q.EndpointID, err)
		}
		s.recordRead(out.ConsumedCapacity)
		for _, item := range out.Items {
			d, err := dynamoitem.DecodeDelivery(item)
			if err != nil {
				return page, err
			}
			if len(page.Deliveries) == q.PageSize() {
				page.Next = q.CursorAfter(page.Deliveries[len(page.Deliveries)-1].EventID)
				return page, nil
			}
			page.Deliveries = append(page.Deliveries, d)
		}
		if out.LastEvaluatedKey == nil {
			return page, nil
		}
		if examined += int(out.ScannedCount); filtered && q.Examine > 0 && examined >= q.Examine {
			last, err := dynamoitem.DecodeDeliveryKey(out.LastEvaluatedKey)
			page.Next = q.CursorAfter(last.EventID)
			return page, err
		}
		in.ExclusiveStartKey = out.LastEvaluatedKey
	}
}

// dueCursor is where a page of the due index ended.
type dueCursor struct {
	At                  int64 // epoch ms
	EndpointID, EventID string
}

// Due: see dispatch.DueIndex. The index follows the table by moments; a delivery
// it does not show yet is there at the next sweep.
func (s *Store) Due(ctx context.Context, shard int, before time.Time, cursor string, limit int) ([]delivery.Due, string, error) {
	in := &dynamodb.QueryInput{
		TableName: &s.tables.Deliveries, IndexName: aws.String(dynamoitem.DueIndex),
		KeyConditionExpression:    aws.String("due_shard = :shard AND due_at <= :before"),
		ExpressionAttributeValues: dynamoitem.Item{":shard": dynamoitem.N(int64(shard)), ":before": dynamoitem.Millis(before)},
		Limit:                     aws.Int32(int32(limit)), ReturnConsumedCapacity: s.returnCapacity(),
	}
	if cursor != "" {
		var at dueCursor
		text, err := base64.RawURLEncoding.DecodeString(cursor)
		if err == nil {
			err = json.Unmarshal(text, &at)
		}
		if err != nil || at.EndpointID == "" || at.EventID == "" {
			return nil, "", fmt.Errorf("cursor %.64q is not one that a page ended with", cursor)
		}
		in.ExclusiveStartKey = dynamoitem.Item{
			dynamoitem.DueShard: dynamoitem.N(int64(shard)), dynamoitem.DueAt: dynamoitem.N(at.At),
			dynamoitem.EndpointID: dynamoitem.S(at.EndpointID), dynamoitem.EventID: dynamoitem.S(at.EventID),
		}
	}
	out, err := s.db.Query(ctx, in)
	if err != nil {
		return nil, "", fmt.Errorf("query the due index: %w", err)
	}
	s.recordRead(out.ConsumedCapacity)
	page := make([]delivery.Due, 0, len(out.Items))
	for _, item := range out.Items {
		due, err := dynamoitem.DecodeDue(item)
		if err != nil {
			return nil, "", err
		}
		page = append(page, due)
	}
	if out.LastEvaluatedKey == nil {
		return page, "", nil
	}
	last, err := dynamoitem.DecodeDue(out.LastEvaluatedKey)
	if err != nil {
		return nil, "", err
	}
	text, err := json.Marshal(dueCursor{last.DueAt.UnixMilli(), last.EndpointID, last.EventID})
	if err != nil {
		return nil, "", err
	}
	return page, base64.RawURLEncoding.EncodeToString(text), nil
}

// Postpone: see dispatch.DueIndex. Its own write, repeated, is ErrFenced: the
// caller forgets the delivery, and the due time it has set brings it back.
func (s *Store) Postpone(ctx context.Context, due delivery.Due, to time.Time) (delivery.Delivery, error) {
	u := update{values: dynamoitem.Item{":was": dynamoitem.Millis(due.DueAt)}}
	u.set(dynamoitem.DueAt, dynamoitem.Millis(to))
	after, _, ok, err := s.updateDelivery(ctx, due.Key, u, "#due_at = :was")
	switch {
	case err != nil:
		return delivery.Delivery{}, fmt.Errorf("postpone %s: %w", due.Key, err)
	case !ok:
		return delivery.Delivery{}, delivery.ErrFenced
	}
	return dynamoitem.DecodeDelivery(after)
}

// putEndpoint stores an endpoint under a condition. Where the condition failed
// because the very same write was applied before, that is success; else it
// returns failed, and what stood against it.
func (s *Store) putEndpoint(ctx context.Context, in *dynamodb.PutItemInput) (against dynamoitem.Item, failed bool, err error) {
	in.TableName = &s.tables.Endpoints
	in.ReturnValuesOnConditionCheckFailure = types.ReturnValuesOnConditionCheckFailureAllOld
	in.ReturnConsumedCapacity = s.returnCapacity()
	out, err := s.db.PutItem(ctx, in)
	if old, failed := conditionFailed(err); failed {
		return old, !reflect.DeepEqual(old, in.Item), nil
	}
	if err != nil {
		return nil, false, err
	}
	s.recordWrite(out.ConsumedCapacity)
	return nil, false, nil
}

// AddEndpoint stores a new endpoint; endpoint.ErrConflict if another has its id.
func (s *Store) AddEndpoint(ctx context.Context, e endpoint.Endpoint) error {
	_, failed, err := s.putEndpoint(ctx, &dynamodb.PutItemInput{
		Item: dynamoitem.EncodeEndpoint(e), ConditionExpression: aws.String("attribute_not_exists(endpoint_id)"),
	})
	switch {
	case err != nil:
		return fmt.Errorf("add endpoint: %w", err)
	case failed:
		return endpoint.ErrConflict
	}
	return nil
}

// UpdateEndpoint stores an endpoint that was read with e.Version and returns it
// with its new version; endpoint.ErrConflict if another change came between.
func (s *Store) UpdateEndpoint(ctx context.Context, e endpoint.Endpoint) (endpoint.Endpoint, error) {
	was := e.Version
	e.Version++
	against, failed, err := s.putEndpoint(ctx, &dynamodb.PutItemInput{
		Item:                      dynamoitem.EncodeEndpoint(e),
		ConditionExpression:       aws.String("#version = :was"),
		ExpressionAttributeNames:  map[string]string{"#version": dynamoitem.Version},
		ExpressionAttributeValues: dynamoitem.Item{":was": dynamoitem.N(int64(was))},
	})
	switch {
	case err != nil:
		return e, fmt.Errorf("update endpoint %s: %w", e.ID, err)
	case failed && against == nil:
		return e, endpoint.ErrNotFound
	case failed:
		return e, endpoint.ErrConflict
	}
	return e, nil
}

// RemoveEndpoint forgets an endpoint; endpoint.ErrNotFound if there is none,
// and for its own write, repeated.
func (s *Store) RemoveEndpoint(ctx context.Context, tenant, id string) error {
	out, err := s.db.DeleteItem(ctx, &dynamodb.DeleteItemInput{
		TableName: &s.tables.Endpoints, Key: dynamoitem.EndpointKey(tenant, id),
		ConditionExpression: aws.String("attribute_exists(endpoint_id)"), ReturnConsumedCapacity: s.returnCapacity(),
	})
	if _, failed := conditionFailed(err); failed {
		return endpoint.ErrNotFound
	}
	if err != nil {
		return fmt.Errorf("remove endpoint %s: %w", id, err)
	}
	s.recordWrite(out.ConsumedCapacity)
	return nil
}

// GetEndpoint: see dispatch.Endpoints. It reads what was last written, because
// a worker is about to act upon it.
func (s *Store) GetEndpoint(ctx context.Context, tenant, id string) (endpoint.Endpoint, error) {
	out, err := s.db.GetItem(ctx, &dynamodb.GetItemInput{
		TableName: &s.tables.Endpoints, Key: dynamoitem.EndpointKey(tenant, id), ConsistentRead: aws.Bool(true), ReturnConsumedCapacity: s.returnCapacity(),
	})
	if err != nil {
		return endpoint.Endpoint{}, fmt.Errorf("get endpoint %s: %w", id, err)
	}
	s.recordRead(out.ConsumedCapacity)
	if out.Item == nil {
		return endpoint.Endpoint{}, endpoint.ErrNotFound
	}
	return dynamoitem.DecodeEndpoint(out.Item)
}

// ListEndpoints: see dispatch.Endpoints. They come in the order of their ids,
// which is the order in which they were added.
func (s *Store) ListEndpoints(ctx context.Context, tenant string) ([]endpoint.Endpoint, error) {
	list := []endpoint.Endpoint{}
	pages := dynamodb.NewQueryPaginator(s.db, &dynamodb.QueryInput{
		TableName:                 &s.tables.Endpoints,
		KeyConditionExpression:    aws.String("tenant = :tenant"),
		ExpressionAttributeValues: dynamoitem.Item{":tenant": dynamoitem.S(tenant)},
		ReturnConsumedCapacity:    s.returnCapacity(),
	})
	for pages.HasMorePages() {
		out, err := pages.NextPage(ctx)
		if err != nil {
			return nil, fmt.Errorf("list endpoints of tenant %s: %w", tenant, err)
		}
		s.recordRead(out.ConsumedCapacity)
		for _, item := range out.Items {
			e, err := dynamoitem.DecodeEndpoint(item)
			if err != nil {
				// One broken record must not stop a tenant's events; it shows as
				// disabled, with what is wrong with it.
				e.Status, e.StatusReason = endpoint.Disabled, err.Error()
			}
			list = append(list, e)
		}
	}
	return slices.Clip(list), nil
}

// DisableEndpoint: see dispatch.Disabler.
func (s *Store) DisableEndpoint(ctx context.Context, tenant, id, reason string, now time.Time) error {
	out, err := s.db.UpdateItem(ctx, &dynamodb.UpdateItemInput{
		TableName: &s.tables.Endpoints, Key: dynamoitem.EndpointKey(tenant, id),
		UpdateExpression:    aws.String("SET #status = :disabled, status_reason = :reason, updated_at = :now ADD #version :one"),
		ConditionExpression: aws.String("attribute_exists(endpoint_id) AND #status <> :disabled"),
		ExpressionAttributeNames: map[string]string{
			"#status": dynamoitem.Status, "#version": dynamoitem.Version,
		},
		ExpressionAttributeValues: dynamoitem.Item{
			":disabled": dynamoitem.S(string(endpoint.Disabled)), ":reason": dynamoitem.S(reason), ":now": dynamoitem.Millis(now), ":one": dynamoitem.N(1),
		},
		ReturnConsumedCapacity: s.returnCapacity(),
	})
	if _, failed := conditionFailed(err); failed {
		return nil
	}
	if err != nil {
		return fmt.Errorf("disable endpoint %s: %w", id, err)
	}
	s.recordWrite(out.ConsumedCapacity)
	return nil
}
