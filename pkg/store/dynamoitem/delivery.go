package dynamoitem

import (
	"encoding/json"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/tidings-dev/tidings/pkg/delivery"
)

// maxDeliverySize is below the 1,024 bytes of a write unit, because a claim adds its id
// and a lease to the encoded item.
const maxDeliverySize = 960

// DeliveryKey is the key of a delivery's item.
func DeliveryKey(k delivery.Key) Item {
	return Item{EndpointID: S(k.EndpointID), EventID: S(k.EventID)}
}

// ListedPartition is the partition of ListedIndex for an endpoint's deliveries in a state.
func ListedPartition(endpointID string, s delivery.State) types.AttributeValue {
	return S(endpointID + "#" + string(s))
}

// DecodeDeliveryKey reads a delivery's key.
func DecodeDeliveryKey(item Item) (delivery.Key, error) {
	r := reader{item: item}
	r.must(EndpointID, EventID)
	return delivery.Key{EndpointID: r.s(EndpointID), EventID: r.s(EventID)}, r.err
}

// EncodeDelivery returns the item of a delivery. To stay within one write unit it
// shortens the response snippet first, then drops the oldest attempts, then shortens
// the reason.
func EncodeDelivery(d delivery.Delivery) Item {
	item := DeliveryKey(d.Key)
	put(item, Tenant, d.Tenant)
	put(item, EventType, d.EventType)
	item[State] = S(string(d.State))
	item[Attempts] = N(int64(d.Attempts))
	if d.Uncounted > 0 {
		item[uncounted] = N(int64(d.Uncounted))
	}
	if d.RetentionDays > 0 {
		item[RetentionDays] = N(int64(d.RetentionDays))
	}
	if d.InBacklog {
		item[Waiting] = S(d.EndpointID)
	}
	if d.State.Indexed() {
		item[Listed] = ListedPartition(d.EndpointID, d.State)
	}
	put(item, ClaimID, d.ClaimID)
	for name, t := range map[string]time.Time{
		Since: d.Since, LeaseUntil: d.LeaseUntil, NextAt: d.NextAttemptAt, Slot: d.Slot,
		CreatedAt: d.CreatedAt, UpdatedAt: d.UpdatedAt, ErasedAt: d.ErasedAt,
	} {
		putTime(item, name, t)
	}
	if !d.DueAt.IsZero() {
		item[DueShard] = N(int64(d.DueShard()))
		item[DueAt] = Millis(d.DueAt)
	}
	if !d.ExpiresAt.IsZero() {
		item[ExpiresAt] = Seconds(d.ExpiresAt)
	}
	attempts := d.History
	put(item, history, encodeHistory(attempts))
	put(item, Reason, d.Reason)
	put(item, snippet, d.Snippet)
	for excess := Size(item) - maxDeliverySize; excess > 0; excess = Size(item) - maxDeliverySize {
		switch {
		case item[snippet] != nil:
			shorten(item, snippet, excess)
		case len(attempts) > 1:
			attempts = attempts[1:]
			put(item, history, encodeHistory(attempts))
		case item[Reason] != nil:
			shorten(item, Reason, excess)
		default:
			return item // ids and times alone do not reach the limit
		}
	}
	return item
}

// shorten cuts excess bytes off a string attribute, at a rune boundary. It deletes the
// attribute if fewer than 16 bytes would remain.
func shorten(item Item, name string, excess int) {
	text := item[name].(*types.AttributeValueMemberS).Value
	keep := len(text) - excess
	if keep < 16 {
		delete(item, name)
		return
	}
	for keep > 0 && !utf8.RuneStart(text[keep]) {
		keep--
	}
	item[name] = S(text[:keep])
}

// DecodeDelivery reads what EncodeDelivery wrote.
func DecodeDelivery(item Item) (delivery.Delivery, error) {
	r := reader{item: item}
	r.must(EndpointID, EventID, State)
	d := delivery.Delivery{
		Key:    delivery.Key{EndpointID: r.s(EndpointID), EventID: r.s(EventID)},
		Tenant: r.s(Tenant), EventType: r.s(EventType), State: delivery.State(r.s(State)),
		Attempts: int(r.n(Attempts)), Uncounted: int(r.n(uncounted)), RetentionDays: int(r.n(RetentionDays)), InBacklog: r.s(Waiting) != "", Since: r.millis(Since),
		ClaimID: r.s(ClaimID), LeaseUntil: r.millis(LeaseUntil),
		NextAttemptAt: r.millis(NextAt), Slot: r.millis(Slot), DueAt: r.millis(DueAt),
		Reason: r.s(Reason), Snippet: r.s(snippet),
		CreatedAt: r.millis(CreatedAt), UpdatedAt: r.millis(UpdatedAt), ExpiresAt: r.seconds(ExpiresAt), ErasedAt: r.millis(ErasedAt),
	}
	if text := r.s(history); text != "" && r.err == nil {
		d.History, r.err = decodeHistory(text)
	}
	return d, r.err
}

// pastAttempt is an attempt in the stored history. It is a list, because eight attempts
// with named attributes would not fit into one write unit.
// [number, epoch ms, class, status, dns ms, connect ms, tls ms, first byte ms, total ms]
type pastAttempt [9]any

func encodeHistory(attempts []delivery.Attempt) string {
	if len(attempts) == 0 {
		return ""
	}
	list := make([]pastAttempt, len(attempts))
	for i, a := range attempts {
		var at int64
		if !a.At.IsZero() {
			at = a.At.UnixMilli()
		}
		list[i] = pastAttempt{a.Number, at, string(a.Class), a.Status, a.Timings.DNS.Milliseconds(), a.Timings.Connect.Milliseconds(),
			a.Timings.TLS.Milliseconds(), a.Timings.FirstByte.Milliseconds(), a.Timings.Total.Milliseconds()}
	}
	text, err := json.Marshal(list)
	if err != nil {
		panic(err) // numbers and strings always marshal
	}
	return string(text)
}

func decodeHistory(text string) ([]delivery.Attempt, error) {
	var list [][]json.RawMessage
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		return nil, fmt.Errorf("item: attribute %q: %w", history, err)
	}
	attempts := make([]delivery.Attempt, len(list))
	for i, raw := range list {
		if len(raw) != len(pastAttempt{}) {
			return nil, fmt.Errorf("item: attribute %q: an attempt has %d parts, not %d", history, len(raw), len(pastAttempt{}))
		}
		var n [9]int64
		var class string
		for j, part := range raw {
			var err error
			if j == 2 {
				err = json.Unmarshal(part, &class)
			} else {
				err = json.Unmarshal(part, &n[j])
			}
			if err != nil {
				return nil, fmt.Errorf("item: attribute %q: %w", history, err)
			}
		}
		ms := func(j int) time.Duration { return time.Duration(n[j]) * time.Millisecond }
		attempts[i] = delivery.Attempt{
			Number: int(n[0]), Class: delivery.Class(class), Status: int(n[3]),
			Timings: delivery.Timings{DNS: ms(4), Connect: ms(5), TLS: ms(6), FirstByte: ms(7), Total: ms(8)},
		}
		if n[1] != 0 {
			attempts[i].At = time.UnixMilli(n[1]).UTC()
		}
	}
	return attempts, nil
}

// DecodeDue reads an entry of the due index, or a key of one.
func DecodeDue(item Item) (delivery.Due, error) {
	r := reader{item: item}
	r.must(DueAt)
	key, err := DecodeDeliveryKey(item)
	if err == nil {
		err = r.err
	}
	return delivery.Due{Key: key, DueAt: r.millis(DueAt)}, err
}
