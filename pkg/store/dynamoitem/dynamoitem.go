// Package dynamoitem is how the vocabulary is written as DynamoDB items: the tables'
// keys, the attributes' names, the encodings. It promises that decoding what it
// encoded gives the value back (times to the millisecond), that a delivery's item
// stays below 1 KB, which is one write unit, and that both stores and the streams
// speak of items in the same words.
package dynamoitem

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/delivery/breaker"
	"github.com/tidings-dev/tidings/pkg/delivery/ratelimit"
	"github.com/tidings-dev/tidings/pkg/delivery/retry"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/signature"
)

// The tables, by the names that streams and documents use.
const (
	Events     = "Events"
	Deliveries = "Deliveries"
	Endpoints  = "Endpoints"
	Control    = "Control"
	Platform   = "Platform"
)

// DueIndex is the sparse index of Deliveries that the sweep goes through.
const DueIndex = "due"

// WaitingIndex is the sparse index of Deliveries that wait for their endpoint's
// circuit, oldest event first.
const WaitingIndex = "waiting"

// WakeIndex is the sparse index of Control with the circuits that somebody has to
// look after, and when.
const WakeIndex = "wake"

// WakeIndexShard is the only partition of WakeIndex: few circuits are open at a
// time.
const WakeIndexShard = 0

// Attributes that keys, indexes, conditions and TTL name.
const (
	EventID    = "event_id"
	EndpointID = "endpoint_id"
	Tenant     = "tenant"
	Key        = "key"
	DueShard   = "due_shard"
	DueAt      = "due_at"
	ExpiresAt  = "expires_at" // TTL, epoch seconds; every other time is in milliseconds
	State      = "state"
	Attempts   = "attempts"
	ClaimID    = "claim_id"
	LeaseUntil = "lease_until"
	NextAt     = "next_attempt_at"
	UpdatedAt  = "updated_at"
	CreatedAt  = "created_at"
	Since      = "since"
	EventType  = "event_type"
	Version    = "version"
	Status     = "status"
	StatusWhy  = "status_reason"
	Reason     = "reason"
	Waiting    = "waiting" // the endpoint's id, while the delivery waits for its circuit
	Slot       = "slot"
	WakeShard  = "wake_shard"
	WakeAt     = "wake_at"
	SlotsAt    = "slots_at" // microseconds, the theoretical arrival time

	body      = "body"
	trace     = "trace"
	uncounted = "uncounted"
	snippet   = "snippet"
	history   = "history"
	digest    = "digest"
)

// EventRetention is how long an event is kept.
const EventRetention = 30 * 24 * time.Hour

// maxDeliverySize leaves room below a write unit's 1,024 bytes for what a claim
// adds (a claim id, a lease) to an item that this package has encoded.
const maxDeliverySize = 960

// Item is an item, or a part of one.
type Item = map[string]types.AttributeValue

// S is a string attribute.
func S(v string) types.AttributeValue { return &types.AttributeValueMemberS{Value: v} }

// N is a number attribute.
func N(v int64) types.AttributeValue {
	return &types.AttributeValueMemberN{Value: strconv.FormatInt(v, 10)}
}

// Millis is a time attribute, in epoch milliseconds.
func Millis(t time.Time) types.AttributeValue { return N(t.UnixMilli()) }

// Seconds is a TTL attribute.
func Seconds(t time.Time) types.AttributeValue { return N(t.Unix()) }

// reader reads attributes and keeps the first error, so that decoding reads as
// a list of fields.
type reader struct {
	item Item
	err  error
}

func (r *reader) fail(name, want string) {
	if r.err == nil {
		r.err = fmt.Errorf("item: attribute %q is not %s", name, want)
	}
}

func (r *reader) s(name string) string {
	switch v := r.item[name].(type) {
	case nil:
	case *types.AttributeValueMemberS:
		return v.Value
	default:
		r.fail(name, "a string")
	}
	return ""
}

func (r *reader) n(name string) int64 {
	switch v := r.item[name].(type) {
	case nil:
	case *types.AttributeValueMemberN:
		n, err := strconv.ParseInt(v.Value, 10, 64)
		if err == nil {
			return n
		}
		r.fail(name, "a whole number")
	default:
		r.fail(name, "a number")
	}
	return 0
}

func (r *reader) millis(name string) time.Time {
	if r.item[name] == nil {
		return time.Time{}
	}
	return time.UnixMilli(r.n(name)).UTC()
}

func (r *reader) seconds(name string) time.Time {
	if r.item[name] == nil {
		return time.Time{}
	}
	return time.Unix(r.n(name), 0).UTC()
}

func (r *reader) must(names ...string) {
	for _, name := range names {
		if r.item[name] == nil && r.err == nil {
			r.err = fmt.Errorf("item: attribute %q is missing", name)
		}
	}
}

// put adds what is not zero.
func put(item Item, name, value string) {
	if value != "" {
		item[name] = S(value)
	}
}

func putTime(item Item, name string, t time.Time) {
	if !t.IsZero() {
		item[name] = Millis(t)
	}
}

// EncodeEvent returns the item of an accepted event. It expires EventRetention
// after the event was accepted.
func EncodeEvent(a event.Accepted) (Item, error) {
	at, err := event.IDTime(a.ID)
	if err != nil {
		return nil, err
	}
	item := Item{
		EventID: S(a.ID), Tenant: S(a.Tenant), body: S(string(a.Body)),
		ExpiresAt: Seconds(at.Add(EventRetention)),
	}
	put(item, trace, a.Trace)
	return item, nil
}

// DecodeEvent reads what EncodeEvent wrote.
func DecodeEvent(item Item) (event.Accepted, error) {
	r := reader{item: item}
	r.must(EventID, Tenant, body)
	a := event.Accepted{ID: r.s(EventID), Tenant: r.s(Tenant), Body: []byte(r.s(body)), Trace: r.s(trace)}
	return a, r.err
}

// EventImage returns the item of an accepted event as Lambda gets it in a stream
// record, and its size: what Image and Size make of EncodeEvent's.
func EventImage(a event.Accepted) (image map[string]events.DynamoDBAttributeValue, size int, err error) {
	at, err := event.IDTime(a.ID)
	if err != nil {
		return nil, 0, err
	}
	image = make(map[string]events.DynamoDBAttributeValue, 5)
	text := func(name, value string) {
		image[name] = events.NewStringAttribute(value)
		size += len(name) + len(value)
	}
	text(EventID, a.ID)
	text(Tenant, a.Tenant)
	text(body, string(a.Body))
	if a.Trace != "" {
		text(trace, a.Trace)
	}
	expires := strconv.FormatInt(at.Add(EventRetention).Unix(), 10)
	image[ExpiresAt] = events.NewNumberAttribute(expires)
	return image, size + len(ExpiresAt) + (len(expires)+1)/2 + 1, nil
}

// EventFromImage reads an event from a stream record's image, as Lambda gets it.
func EventFromImage(image map[string]events.DynamoDBAttributeValue) (event.Accepted, error) {
	var a event.Accepted
	for _, f := range []struct {
		name  string
		into  func(string)
		maybe bool
	}{
		{EventID, func(s string) { a.ID = s }, false},
		{Tenant, func(s string) { a.Tenant = s }, false},
		{body, func(s string) { a.Body = []byte(s) }, false},
		{trace, func(s string) { a.Trace = s }, true},
	} {
		v, ok := image[f.name]
		switch {
		case !ok && f.maybe:
		case !ok:
			return a, fmt.Errorf("stream image: attribute %q is missing", f.name)
		case v.DataType() != events.DataTypeString:
			return a, fmt.Errorf("stream image: attribute %q is not a string", f.name)
		default:
			f.into(v.String())
		}
	}
	return a, nil
}

// DeliveryKey is the key of a delivery's item.
func DeliveryKey(k delivery.Key) Item {
	return Item{EndpointID: S(k.EndpointID), EventID: S(k.EventID)}
}

// DecodeDeliveryKey reads a delivery's key.
func DecodeDeliveryKey(item Item) (delivery.Key, error) {
	r := reader{item: item}
	r.must(EndpointID, EventID)
	return delivery.Key{EndpointID: r.s(EndpointID), EventID: r.s(EventID)}, r.err
}

// EncodeDelivery returns the whole item of a delivery. What would exceed
// one write unit is cut: the failed answer's snippet first, then the reason,
// then the oldest attempts.
func EncodeDelivery(d delivery.Delivery) Item {
	item := DeliveryKey(d.Key)
	put(item, Tenant, d.Tenant)
	put(item, EventType, d.EventType)
	item[State] = S(string(d.State))
	item[Attempts] = N(int64(d.Attempts))
	if d.Uncounted > 0 {
		item[uncounted] = N(int64(d.Uncounted))
	}
	if d.InBacklog {
		item[Waiting] = S(d.EndpointID)
	}
	put(item, ClaimID, d.ClaimID)
	for name, t := range map[string]time.Time{
		Since: d.Since, LeaseUntil: d.LeaseUntil, NextAt: d.NextAttemptAt, Slot: d.Slot,
		CreatedAt: d.CreatedAt, UpdatedAt: d.UpdatedAt,
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
			return item // ids and times alone; they do not reach the limit
		}
	}
	return item
}

// shorten cuts a string attribute by the excess, on a rune's edge, and drops it
// where little would be left.
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
		Attempts: int(r.n(Attempts)), Uncounted: int(r.n(uncounted)), InBacklog: r.s(Waiting) != "", Since: r.millis(Since),
		ClaimID: r.s(ClaimID), LeaseUntil: r.millis(LeaseUntil),
		NextAttemptAt: r.millis(NextAt), Slot: r.millis(Slot), DueAt: r.millis(DueAt),
		Reason: r.s(Reason), Snippet: r.s(snippet),
		CreatedAt: r.millis(CreatedAt), UpdatedAt: r.millis(UpdatedAt), ExpiresAt: r.seconds(ExpiresAt),
	}
	if text := r.s(history); text != "" && r.err == nil {
		d.History, r.err = decodeHistory(text)
	}
	return d, r.err
}

// pastAttempt is an attempt as the history keeps it: one short list, because
// sixteen attempts with named attributes would not fit into a write unit.
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

// EndpointKey is the key of an endpoint's item.
func EndpointKey(tenant, id string) Item {
	return Item{Tenant: S(tenant), EndpointID: S(id)}
}

// storedSecret is a secret's only written form.
type storedSecret struct {
	Secret    string `json:"secret"`
	ExpiresAt int64  `json:"expires_at,omitempty"` // epoch ms
}

// EncodeEndpoint returns the item of an endpoint, its secrets revealed: this is
// where they are kept.
func EncodeEndpoint(e endpoint.Endpoint) Item {
	item := EndpointKey(e.Tenant, e.ID)
	item["url"] = S(e.URL)
	put(item, "description", e.Description)
	put(item, "role_arn", e.RoleARN)
	put(item, "credentials", e.Credentials)
	if e.Ordered {
		item["ordered"] = N(1)
	}
	if e.Traceparent {
		item["traceparent"] = N(1)
	}
	subscribed, err := json.Marshal(e.EventTypes)
	if err != nil {
		panic(err) // a list of strings
	}
	item["event_types"] = S(string(subscribed))
	put(item, "filter", string(e.Filter))
	secrets := make([]storedSecret, len(e.Secrets))
	for i, s := range e.Secrets {
		secrets[i].Secret = s.Secret.Reveal()
		if !s.ExpiresAt.IsZero() {
			secrets[i].ExpiresAt = s.ExpiresAt.UnixMilli()
		}
	}
	text, err := json.Marshal(secrets)
	if err != nil {
		panic(err) // strings and numbers
	}
	item["secrets"] = S(string(text))
	for name, n := range map[string]int64{
		"timeout_ms": e.Timeout.Milliseconds(), "max_attempts": int64(e.Retry.MaxAttempts),
		"max_age_ms": e.Retry.MaxAge.Milliseconds(), "max_delay_ms": e.Retry.MaxDelay.Milliseconds(),
		"breaker_failures": int64(e.Breaker.Failures), "breaker_open_ms": e.Breaker.OpenFor.Milliseconds(),
		"breaker_max_open_ms": e.Breaker.MaxOpenFor.Milliseconds(), "disable_after_ms": e.Breaker.DisableAfter.Milliseconds(),
		"rate_per_minute": int64(e.Limit.PerMinute), "burst": int64(e.Limit.Burst),
	} {
		if n != 0 {
			item[name] = N(n)
		}
	}
	item[Status] = S(string(e.Status))
	put(item, StatusWhy, e.StatusReason)
	item[Version] = N(int64(e.Version))
	putTime(item, CreatedAt, e.CreatedAt)
	putTime(item, UpdatedAt, e.UpdatedAt)
	return item
}

// DecodeEndpoint reads what EncodeEndpoint wrote. Its errors hold no secret.
func DecodeEndpoint(item Item) (endpoint.Endpoint, error) {
	r := reader{item: item}
	r.must(Tenant, EndpointID, "url", "event_types", "secrets", Status)
	ms := func(name string) time.Duration { return time.Duration(r.n(name)) * time.Millisecond }
	e := endpoint.Endpoint{
		Tenant: r.s(Tenant), ID: r.s(EndpointID), URL: r.s("url"), Description: r.s("description"),
		RoleARN: r.s("role_arn"), Credentials: r.s("credentials"), Ordered: r.n("ordered") != 0, Traceparent: r.n("traceparent") != 0,
		Timeout: ms("timeout_ms"),
		Retry:   retry.Policy{MaxAttempts: int(r.n("max_attempts")), MaxAge: ms("max_age_ms"), MaxDelay: ms("max_delay_ms")},
		Breaker: breaker.Policy{
			Failures: int(r.n("breaker_failures")), OpenFor: ms("breaker_open_ms"),
			MaxOpenFor: ms("breaker_max_open_ms"), DisableAfter: ms("disable_after_ms"),
		},
		Limit:  ratelimit.Limit{PerMinute: int(r.n("rate_per_minute")), Burst: int(r.n("burst"))},
		Status: endpoint.Status(r.s(Status)), StatusReason: r.s(StatusWhy), Version: int(r.n(Version)),
		CreatedAt: r.millis(CreatedAt), UpdatedAt: r.millis(UpdatedAt),
	}
	if text := r.s("filter"); text != "" {
		e.Filter = json.RawMessage(text)
	}
	if r.err != nil {
		return e, r.err
	}
	if err := json.Unmarshal([]byte(r.s("event_types")), &e.EventTypes); err != nil {
		return e, fmt.Errorf("endpoint %s: event_types: %w", e.ID, err)
	}
	var secrets []storedSecret
	if err := json.Unmarshal([]byte(r.s("secrets")), &secrets); err != nil {
		return e, fmt.Errorf("endpoint %s: its secrets cannot be read", e.ID)
	}
	for _, s := range secrets {
		secret, err := signature.ParseSecret(s.Secret)
		if err != nil {
			return e, fmt.Errorf("endpoint %s: %w", e.ID, err)
		}
		one := endpoint.SigningSecret{Secret: secret}
		if s.ExpiresAt != 0 {
			one.ExpiresAt = time.UnixMilli(s.ExpiresAt).UTC()
		}
		e.Secrets = append(e.Secrets, one)
	}
	return e, nil
}

// IdempotencyKey is the Control key of a tenant's idempotency key.
func IdempotencyKey(tenant, key string) string { return "idem#" + tenant + "#" + key }

// EncodeReservation returns the item of an idempotency key.
func EncodeReservation(tenant, key string, r event.Reservation, expires time.Time) Item {
	return Item{Key: S(IdempotencyKey(tenant, key)), EventID: S(r.EventID), digest: S(r.Digest), ExpiresAt: Seconds(expires)}
}

// DecodeReservation reads what EncodeReservation wrote.
func DecodeReservation(item Item) (r event.Reservation, expires time.Time, err error) {
	in := reader{item: item}
	in.must(EventID, digest, ExpiresAt)
	r = event.Reservation{EventID: in.s(EventID), Digest: in.s(digest)}
	return r, in.seconds(ExpiresAt), in.err
}

// BreakerKey is the Control key of an endpoint's breaker.
func BreakerKey(endpointID string) Item { return Item{Key: S("breaker#" + endpointID)} }

// breakerRetention is how long a breaker is kept after it was last written: longer
// than an endpoint may fail before it is disabled.
const breakerRetention = 60 * 24 * time.Hour

// EncodeBreaker returns the item of a breaker.
func EncodeBreaker(s breaker.State, now time.Time) Item {
	item := BreakerKey(s.EndpointID)
	item[EndpointID], item[Tenant], item[Version] = S(s.EndpointID), S(s.Tenant), N(int64(s.Version))
	put(item, "phase", string(s.Phase))
	put(item, "cause", s.Cause)
	put(item, "probe_id", s.ProbeID)
	put(item, "write_id", s.WriteID)
	for name, n := range map[string]int64{"failures": int64(s.Failures), "wait_ms": s.OpenFor.Milliseconds(), "slow_ms": s.Slow.Milliseconds()} {
		if n != 0 {
			item[name] = N(n)
		}
	}
	for name, t := range map[string]time.Time{
		"failing_since": s.FailingSince, Since: s.Since, "until": s.Until, "probe_until": s.ProbeUntil, WakeAt: s.WakeAt,
	} {
		putTime(item, name, t)
	}
	if !s.WakeAt.IsZero() {
		item[WakeShard] = N(WakeIndexShard)
	}
	item[ExpiresAt] = Seconds(now.Add(breakerRetention))
	return item
}

// DecodeBreaker reads what EncodeBreaker wrote.
func DecodeBreaker(item Item) (breaker.State, error) {
	r := reader{item: item}
	r.must(EndpointID, Tenant, Version)
	ms := func(name string) time.Duration { return time.Duration(r.n(name)) * time.Millisecond }
	return breaker.State{
		EndpointID: r.s(EndpointID), Tenant: r.s(Tenant), Version: int(r.n(Version)), WriteID: r.s("write_id"),
		Phase: breaker.Phase(r.s("phase")), Failures: int(r.n("failures")), FailingSince: r.millis("failing_since"), Cause: r.s("cause"),
		Since: r.millis(Since), OpenFor: ms("wait_ms"), Until: r.millis("until"),
		ProbeID: r.s("probe_id"), ProbeUntil: r.millis("probe_until"), WakeAt: r.millis(WakeAt), Slow: ms("slow_ms"),
	}, r.err
}

// LimitKey is the Control key of a rate limit.
func LimitKey(key string) Item { return Item{Key: S("limit#" + key)} }

// Micros is a time attribute in epoch microseconds.
func Micros(t time.Time) types.AttributeValue { return N(t.UnixMicro()) }

// DecodeSlotsAt reads the theoretical arrival time of a rate limit's item.
func DecodeSlotsAt(item Item) (time.Time, error) {
	r := reader{item: item}
	r.must(SlotsAt)
	return time.UnixMicro(r.n(SlotsAt)).UTC(), r.err
}

// Size is an item's size in bytes as DynamoDB bills it: names and values in
// UTF-8, a number as half its digits and one byte more. (Amazon DynamoDB
// Developer Guide, "DynamoDB item sizes and formats"; only the types used here.)
func Size(item Item) int {
	total := 0
	for name, value := range item {
		total += len(name)
		switch v := value.(type) {
		case *types.AttributeValueMemberS:
			total += len(v.Value)
		case *types.AttributeValueMemberN:
			total += (len(v.Value)+1)/2 + 1
		default:
			panic(fmt.Sprintf("schema: attribute %q has type %T, which no item here uses", name, value))
		}
	}
	return total
}

// Image returns an item as Lambda gets it in a stream record.
func Image(item Item) map[string]events.DynamoDBAttributeValue {
	image := make(map[string]events.DynamoDBAttributeValue, len(item))
	for name, value := range item {
		switch v := value.(type) {
		case *types.AttributeValueMemberS:
			image[name] = events.NewStringAttribute(v.Value)
		case *types.AttributeValueMemberN:
			image[name] = events.NewNumberAttribute(v.Value)
		default:
			panic(fmt.Sprintf("schema: attribute %q has type %T, which no item here uses", name, value))
		}
	}
	return image
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

// DecodeBacklogEntry reads an entry of the waiting index.
func DecodeBacklogEntry(item Item) (delivery.BacklogEntry, error) {
	key, err := DecodeDeliveryKey(item)
	r := reader{item: item}
	r.must(Attempts)
	w := delivery.BacklogEntry{Key: key, Attempts: int(r.n(Attempts))}
	if err == nil {
		err = r.err
	}
	return w, err
}
