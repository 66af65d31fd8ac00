package dynamo

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/store/dynamoitem"
)

// errRaced is the error of a write whose condition failed although the transition now
// succeeds on the stored item: the delivery has changed during the write.
func errRaced(operation string, k delivery.Key) error {
	return fmt.Errorf("%s %s: the delivery changed during the write; it is retried", operation, k)
}

func (s *Store) updateDelivery(ctx context.Context, k delivery.Key, u update, condition string) (after, stored dynamoitem.Item, ok bool, err error) {
	return s.update(ctx, s.tables.Deliveries, dynamoitem.DeliveryKey(k), u, condition)
}

// refusal returns why a transition refuses the stored item. If the transition would
// apply (the write was our own, or the item changed in between), it returns the
// transition's result.
func refusal(stored dynamoitem.Item, apply func(*delivery.Delivery) (delivery.Delivery, *delivery.Refusal)) (delivery.Delivery, error) {
	var current *delivery.Delivery
	if stored != nil {
		d, err := dynamoitem.DecodeDelivery(stored)
		if err != nil {
			return d, err
		}
		current = &d
	}
	after, refused := apply(current)
	if refused != nil { // not returned as it is: a nil *Refusal is not a nil error
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
	u.written(delivery.InFlight, c.Now, c.RetentionDays)
	u.created(c.Tenant, c.EventType, c.Accepted, c.Now)
	u.remove(dynamoitem.Waiting, dynamoitem.Slot)
	condition := "(#state = :pending AND #attempts = :expected AND (attribute_not_exists(#next_attempt_at) OR #next_attempt_at <= :now))" +
		" OR (#state = :state AND #lease_until <= :now AND #claim_id <> :claim_id)"
	condition = "(" + condition + ") AND attribute_not_exists(#erased_at)"
	if c.Attempts == 0 {
		condition += " OR attribute_not_exists(#event_id)"
	}
	after, stored, ok, err := s.updateDelivery(ctx, c.Key, u, condition)
	switch {
	case err != nil:
		return delivery.Delivery{}, fmt.Errorf("claim %s: %w", c.Key, err)
	case ok:
		return dynamoitem.DecodeDelivery(after)
	}
	d, err := refusal(stored, c.Apply)
	if err == nil && d.ClaimID == c.ID && stored != nil && d.Attempts == attempts(stored) {
		return d, nil // our own write, repeated by the SDK
	}
	if err == nil {
		return d, errRaced("claim", c.Key)
	}
	return d, err
}

// attempts returns the number of attempts in an item, or -1 if it cannot be decoded.
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
	u.assign(item, verdictAttributes...)
	u.values[":claim_id"], u.values[":attempts"] = item[dynamoitem.ClaimID], item[dynamoitem.Attempts]
	_, stored, ok, err := s.updateDelivery(ctx, d.Key, u, "#state = :in_flight AND #claim_id = :claim_id AND #attempts = :attempts")
	if err != nil {
		return fmt.Errorf("complete %s: %w", d.Key, err)
	}
	if ok {
		return nil
	}
	if stored != nil {
		held, err := dynamoitem.DecodeDelivery(stored)
		if err == nil && held.ClaimID == d.ClaimID && held.Attempts == d.Attempts && held.State == d.State {
			return nil // our own write, repeated by the SDK
		}
	}
	return delivery.ErrFenced
}

// verdictAttributes are the attributes that a verdict or a replay may change.
var verdictAttributes = []string{
	dynamoitem.State, dynamoitem.Listed, dynamoitem.Waiting, dynamoitem.Slot, "uncounted", dynamoitem.Reason, "snippet", "history", dynamoitem.LeaseUntil, dynamoitem.NextAt,
	dynamoitem.DueShard, dynamoitem.DueAt, dynamoitem.UpdatedAt, dynamoitem.ExpiresAt,
}

// Settle: see dispatch.Deliveries. A repeated write of its own is refused as
// settled, which is what the caller wanted.
func (s *Store) Settle(ctx context.Context, settle delivery.Settle) error {
	u := update{values: dynamoitem.Item{
		":pending": dynamoitem.S(string(delivery.Pending)), ":in_flight": dynamoitem.S(string(delivery.InFlight)), ":now": dynamoitem.Millis(settle.Now),
	}}
	u.set(dynamoitem.State, dynamoitem.S(string(settle.State)))
	u.set(dynamoitem.Listed, dynamoitem.ListedPartition(settle.EndpointID, settle.State))
	u.set(dynamoitem.Reason, dynamoitem.S(settle.Reason))
	u.written(settle.State, settle.Now, settle.RetentionDays)
	u.created(settle.Tenant, settle.EventType, settle.Accepted, settle.Now)
	u.setIfAbsent(dynamoitem.Attempts, dynamoitem.N(0))
	u.remove(dynamoitem.LeaseUntil, dynamoitem.NextAt, dynamoitem.DueShard, dynamoitem.DueAt, dynamoitem.Waiting, dynamoitem.Slot)
	condition := "#state = :pending OR (#state = :in_flight AND #lease_until <= :now)"
	if !settle.SinceBefore.IsZero() {
		condition = "(" + condition + ") AND #since <= :since_before"
		u.values[":since_before"] = dynamoitem.Millis(settle.SinceBefore)
	}
	_, stored, ok, err := s.updateDelivery(ctx, settle.Key, u, "attribute_not_exists(#event_id) OR "+condition)
	if err != nil {
		return fmt.Errorf("settle %s: %w", settle.Key, err)
	}
	if ok {
		return nil
	}
	if _, err := refusal(stored, settle.Apply); err != nil {
		return err
	}
	return errRaced("settle", settle.Key)
}

// Park: see dispatch.Deliveries. A repeated write of its own changes nothing more.
// With a slot it is refused as early, until that slot.
func (s *Store) Park(ctx context.Context, p delivery.Park) (delivery.Delivery, error) {
	u := update{values: dynamoitem.Item{
		":in_flight": dynamoitem.S(string(delivery.InFlight)), ":expected": dynamoitem.N(int64(p.Attempts)), ":now": dynamoitem.Millis(p.Now),
	}}
	u.set(dynamoitem.State, dynamoitem.S(string(delivery.Pending)))
	u.set(dynamoitem.Reason, dynamoitem.S(p.Reason))
	u.set(dynamoitem.DueShard, dynamoitem.N(int64(p.DueShard())))
	u.set(dynamoitem.DueAt, dynamoitem.Millis(p.DueAt))
	u.written(delivery.Pending, p.Now, p.RetentionDays)
	if p.InBacklog {
		u.set(dynamoitem.Waiting, dynamoitem.S(p.EndpointID))
	} else {
		u.remove(dynamoitem.Waiting)
	}
	if !p.Slot.IsZero() {
		u.set(dynamoitem.NextAt, dynamoitem.Millis(p.Slot))
		u.set(dynamoitem.Slot, dynamoitem.Millis(p.Slot))
	} else {
		u.remove(dynamoitem.Slot)
	}
	u.created(p.Tenant, p.EventType, p.Accepted, p.Now)
	u.setIfAbsent(dynamoitem.Attempts, dynamoitem.N(0))
	u.remove(dynamoitem.LeaseUntil, dynamoitem.ClaimID)
	condition := "(#state = :state AND #attempts = :expected AND (attribute_not_exists(#next_attempt_at) OR #next_attempt_at <= :now))" +
		" OR (#state = :in_flight AND #lease_until <= :now)"
	if p.Attempts == 0 {
		condition += " OR attribute_not_exists(#event_id)"
	}
	after, stored, ok, err := s.updateDelivery(ctx, p.Key, u, condition)
	switch {
	case err != nil:
		return delivery.Delivery{}, fmt.Errorf("park %s: %w", p.Key, err)
	case ok:
		return dynamoitem.DecodeDelivery(after)
	}
	d, err := refusal(stored, p.Apply)
	if err == nil {
		err = errRaced("park", p.Key)
	}
	return d, err
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
	u.assign(item, dynamoitem.Since)
	u.assign(item, verdictAttributes...)
	condition := "#state = :was AND #attempts = :attempts AND attribute_not_exists(#erased_at)"
	if !r.SettledBefore.IsZero() {
		condition += " AND #updated_at < :settled_before"
		u.values[":settled_before"] = dynamoitem.Millis(r.SettledBefore)
	}
	replayed, stored, ok, err := s.updateDelivery(ctx, r.Key, u, condition)
	switch {
	case err != nil:
		return before, fmt.Errorf("replay %s: %w", r.Key, err)
	case ok:
		return dynamoitem.DecodeDelivery(replayed)
	case stored == nil:
		return before, delivery.ErrNotFound
	}
	d, err := dynamoitem.DecodeDelivery(stored)
	if err == nil && d.State == delivery.Pending && d.Attempts == before.Attempts && d.Since.Equal(after.Since) {
		return d, nil // our own write, repeated by the SDK
	}
	if err == nil {
		_, err = refusal(stored, func(*delivery.Delivery) (delivery.Delivery, *delivery.Refusal) { return r.Apply(d) })
	}
	if err == nil {
		err = fmt.Errorf("replay %s: the delivery changed during the write; try again", r.Key)
	}
	return d, err
}

// EraseDelivery: see dispatch.Erasures.
func (s *Store) EraseDelivery(ctx context.Context, e delivery.Erase) (after delivery.Delivery, was delivery.State, err error) {
	var current *delivery.Delivery
	before, err := s.GetDelivery(ctx, e.Key)
	switch {
	case err == nil:
		current = &before
	case !errors.Is(err, delivery.ErrNotFound):
		return after, "", err
	}
	after, ok := e.Apply(current)
	if !ok {
		return after, "", delivery.ErrNotFound
	}
	if current != nil && reflect.DeepEqual(before, after) {
		return after, before.State, nil
	}
	item := dynamoitem.EncodeDelivery(after)
	u := update{values: dynamoitem.Item{}}
	u.assign(item, dynamoitem.ErasedAt)
	condition := "attribute_not_exists(#event_id)"
	if current != nil {
		condition = "#state = :was AND #attempts = :attempts AND #updated_at = :updated"
		u.values[":was"], u.values[":attempts"] = dynamoitem.S(string(before.State)), dynamoitem.N(int64(before.Attempts))
		u.values[":updated"] = dynamoitem.Millis(before.UpdatedAt)
	} else {
		u.assign(item, dynamoitem.Tenant, dynamoitem.EventType, dynamoitem.Attempts, dynamoitem.Since, dynamoitem.RetentionDays, dynamoitem.CreatedAt)
	}
	if after.State != delivery.InFlight {
		u.assign(item, verdictAttributes...)
	}
	_, stored, ok, err := s.updateDelivery(ctx, e.Key, u, condition)
	if err != nil {
		return after, before.State, fmt.Errorf("erase %s: %w", e.Key, err)
	}
	if !ok {
		held, err := dynamoitem.DecodeDelivery(stored)
		if err != nil || held.State != after.State || !held.ErasedAt.Equal(after.ErasedAt) || held.Reason != after.Reason {
			return after, before.State, errRaced("erase", e.Key)
		}
	}
	return after, before.State, nil // also if it was our own write, repeated by the SDK
}

// GetDelivery returns one delivery by a consistent read, or delivery.ErrNotFound.
func (s *Store) GetDelivery(ctx context.Context, k delivery.Key) (delivery.Delivery, error) {
	item, err := s.get(ctx, s.tables.Deliveries, dynamoitem.DeliveryKey(k), true)
	if err != nil {
		return delivery.Delivery{}, fmt.Errorf("get delivery %s: %w", k, err)
	}
	if item == nil {
		return delivery.Delivery{}, delivery.ErrNotFound
	}
	return dynamoitem.DecodeDelivery(item)
}

// newestFirst returns the query for a page of a partition of Deliveries, and one item more
// to know whether there is another page.
func (s *Store) newestFirst(q delivery.Query) (*dynamodb.QueryInput, error) {
	first, last, err := q.Bounds()
	if err != nil {
		return nil, err
	}
	condition := "#endpoint_id = :partition AND #event_id BETWEEN :first AND :last"
	return &dynamodb.QueryInput{
		TableName: &s.tables.Deliveries, KeyConditionExpression: &condition, ExpressionAttributeNames: names(condition),
		ExpressionAttributeValues: dynamoitem.Item{
			":partition": dynamoitem.S(q.EndpointID), ":first": dynamoitem.S(first), ":last": dynamoitem.S(last),
		},
		ScanIndexForward: aws.Bool(false), Limit: aws.Int32(int32(q.PageSize() + 1)), ReturnConsumedCapacity: s.returnCapacity(),
	}, nil
}

// QueryDeliveries: see dispatch.Replays. A query that is filtered reads until the page is
// full, or until it has examined as many as the query allows. States that are indexed are
// read from the index, which is a moment behind the table.
func (s *Store) QueryDeliveries(ctx context.Context, q delivery.Query) (delivery.Page, error) {
	var page delivery.Page
	in, err := s.newestFirst(q)
	if err != nil {
		return page, err
	}
	if q.State.Indexed() {
		condition := "#listed = :partition AND #event_id BETWEEN :first AND :last"
		in.IndexName, in.KeyConditionExpression, in.ExpressionAttributeNames = aws.String(dynamoitem.ListedIndex), &condition, names(condition)
		in.ExpressionAttributeValues[":partition"] = dynamoitem.ListedPartition(q.EndpointID, q.State)
	}
	if q.Filtered() {
		in.Limit = nil
	}
	for {
		if q.Filtered() && q.Examine > 0 {
			in.Limit = aws.Int32(int32(q.Examine - page.Examined))
		}
		out, err := s.db.Query(ctx, in)
		if err != nil {
			return page, fmt.Errorf("query deliveries of %s: %w", q.EndpointID, err)
		}
		s.recordRead(out.ConsumedCapacity)
		page.Examined += int(out.ScannedCount)
		for _, item := range out.Items {
			d, err := dynamoitem.DecodeDelivery(item)
			if err != nil {
				return page, err
			}
			if !q.Matches(d) {
				continue
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
		if q.Filtered() && q.Examine > 0 && page.Examined >= q.Examine {
			last, err := dynamoitem.DecodeDeliveryKey(out.LastEvaluatedKey)
			page.Next = q.CursorAfter(last.EventID)
			return page, err
		}
		in.ExclusiveStartKey = out.LastEvaluatedKey
	}
}

// ListBacklog: see dispatch.Waiting. The index is eventually consistent, and has keys
// only; the deliveries are read from the table, also eventually consistent. A delivery
// that has just left the backlog may still be returned.
func (s *Store) ListBacklog(ctx context.Context, endpointID, after string, limit int) (page delivery.Backlog, err error) {
	in := &dynamodb.QueryInput{
		TableName: &s.tables.Deliveries, IndexName: aws.String(dynamoitem.WaitingIndex),
		KeyConditionExpression:    aws.String("waiting = :endpoint"),
		ExpressionAttributeValues: dynamoitem.Item{":endpoint": dynamoitem.S(endpointID)},
		Limit:                     aws.Int32(int32(limit)), ReturnConsumedCapacity: s.returnCapacity(),
	}
	if after != "" {
		in.KeyConditionExpression = aws.String("waiting = :endpoint AND event_id > :after")
		in.ExpressionAttributeValues[":after"] = dynamoitem.S(after)
	}
	out, err := s.db.Query(ctx, in)
	if err != nil {
		return page, fmt.Errorf("query the backlog of %s: %w", endpointID, err)
	}
	s.recordRead(out.ConsumedCapacity)
	page.More = out.LastEvaluatedKey != nil
	var keys []map[string]types.AttributeValue
	for _, item := range out.Items {
		key, err := dynamoitem.DecodeDeliveryKey(item)
		if err != nil {
			return page, err
		}
		page.Last = key.EventID
		keys = append(keys, dynamoitem.DeliveryKey(key))
	}
	items, err := s.getAll(ctx, s.tables.Deliveries, types.KeysAndAttributes{Keys: keys})
	if err != nil {
		return page, fmt.Errorf("read the backlog of %s: %w", endpointID, err)
	}
	for _, item := range items {
		d, err := dynamoitem.DecodeDelivery(item)
		if err != nil {
			return page, err
		}
		if d.InBacklog && d.State == delivery.Pending {
			page.Deliveries = append(page.Deliveries, d)
		}
	}
	slices.SortFunc(page.Deliveries, func(a, b delivery.Delivery) int { return cmp.Compare(a.EventID, b.EventID) })
	return page, nil
}

// CountBacklog: see dispatch.Waiting. It counts in the index, which is eventually
// consistent, for a read unit per 60 entries.
func (s *Store) CountBacklog(ctx context.Context, endpointID string, limit int) (n int, err error) {
	in := &dynamodb.QueryInput{
		TableName: &s.tables.Deliveries, IndexName: aws.String(dynamoitem.WaitingIndex), Select: types.SelectCount,
		KeyConditionExpression:    aws.String("waiting = :endpoint"),
		ExpressionAttributeValues: dynamoitem.Item{":endpoint": dynamoitem.S(endpointID)},
		ReturnConsumedCapacity:    s.returnCapacity(),
	}
	for {
		in.Limit = aws.Int32(int32(limit - n))
		out, err := s.db.Query(ctx, in)
		if err != nil {
			return n, fmt.Errorf("count the backlog of %s: %w", endpointID, err)
		}
		s.recordRead(out.ConsumedCapacity)
		n += int(out.Count)
		if in.ExclusiveStartKey = out.LastEvaluatedKey; in.ExclusiveStartKey == nil || n >= limit {
			return n, nil
		}
	}
}
