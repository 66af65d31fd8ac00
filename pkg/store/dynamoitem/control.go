package dynamoitem

import (
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery/breaker"
	"github.com/tidings-dev/tidings/pkg/event"
)

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

// breakerRetention is how long a breaker is kept after its last write. It is longer
// than an endpoint can fail before it is disabled.
const breakerRetention = 60 * 24 * time.Hour

// EncodeBreaker returns the item of a breaker.
func EncodeBreaker(s breaker.State, now time.Time) Item {
	item := BreakerKey(s.EndpointID)
	item[EndpointID], item[Tenant], item[Version] = S(s.EndpointID), S(s.Tenant), N(int64(s.Version))
	put(item, "phase", string(s.Phase))
	put(item, "cause", s.Cause)
	put(item, "probe_id", s.ProbeID)
	put(item, "write_id", s.WriteID)
	for name, n := range map[string]int64{"failures": int64(s.Failures), "wait_ms": s.OpenFor.Milliseconds(), "drain_rate": int64(s.Drain.Rate)} {
		if n != 0 {
			item[name] = N(n)
		}
	}
	for name, t := range map[string]time.Time{
		"failing_since": s.FailingSince, "failed_at": s.FailedAt, Since: s.Since, "until": s.Until, "probe_until": s.ProbeUntil, WakeAt: s.WakeAt,
		"drain_rate_at": s.Drain.RateAt, "drain_sent_at": s.Drain.SentAt, "drain_mark_at": s.Drain.MarkAt, "keep_until": s.Drain.KeepUntil,
		"slow_until": s.SlowUntil, "slow_since": s.SlowSince,
	} {
		putTime(item, name, t)
	}
	put(item, "drain_cursor", s.Drain.Cursor)
	put(item, "drain_mark", s.Drain.Mark)
	if s.Drain.Behind {
		item["drain_behind"] = N(1)
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
		Phase: breaker.Phase(r.s("phase")), Failures: int(r.n("failures")), FailingSince: r.millis("failing_since"), FailedAt: r.millis("failed_at"), Cause: r.s("cause"),
		Since: r.millis(Since), OpenFor: ms("wait_ms"), Until: r.millis("until"),
		ProbeID: r.s("probe_id"), ProbeUntil: r.millis("probe_until"), WakeAt: r.millis(WakeAt), SlowUntil: r.millis("slow_until"), SlowSince: r.millis("slow_since"),
		Drain: breaker.Drain{
			Rate: int(r.n("drain_rate")), RateAt: r.millis("drain_rate_at"), SentAt: r.millis("drain_sent_at"), MarkAt: r.millis("drain_mark_at"),
			KeepUntil: r.millis("keep_until"), Cursor: r.s("drain_cursor"), Mark: r.s("drain_mark"), Behind: r.n("drain_behind") != 0,
		},
	}, r.err
}

// VersionOf returns an item's version; 0 if it has none that can be read.
func VersionOf(item Item) int {
	r := reader{item: item}
	n := r.n(Version)
	if r.err != nil {
		return 0
	}
	return int(n)
}

// LimitKey is the Control key of a rate limit.
func LimitKey(key string) Item { return Item{Key: S("limit#" + key)} }

// DecodeSlotsAt reads the theoretical arrival time of a rate limit's item.
func DecodeSlotsAt(item Item) (time.Time, error) {
	r := reader{item: item}
	r.must(SlotsAt)
	return time.UnixMicro(r.n(SlotsAt)).UTC(), r.err
}

// Attributes of values and counters in Control.
const (
	Bound = "bound"
	Tally = "tally"
)

// EncodeBound returns the item that binds a value to a key. A zero time means that it
// does not expire.
func EncodeBound(key, value string, expires time.Time) Item {
	item := Item{Key: S(key), Bound: S(value)}
	if !expires.IsZero() {
		item[ExpiresAt] = Seconds(expires)
	}
	return item
}

// DecodeBound reads what EncodeBound wrote.
func DecodeBound(item Item) (value string, expires time.Time, err error) {
	r := reader{item: item}
	r.must(Key, Bound)
	return r.s(Bound), r.seconds(ExpiresAt), r.err
}

// DecodeTally reads a counter.
func DecodeTally(item Item) (int, error) {
	r := reader{item: item}
	r.must(Tally)
	return int(r.n(Tally)), r.err
}

// EncodeDocument returns the item of a document, whose name is its Control key.
func EncodeDocument(name string, document []byte, version int, writer string) Item {
	return Item{Key: S(name), "document": S(string(document)), Version: N(int64(version)), "writer": S(writer)}
}

// DecodeDocument reads what EncodeDocument wrote.
func DecodeDocument(item Item) (document []byte, version int, writer string, err error) {
	in := reader{item: item}
	in.must("document", Version)
	return []byte(in.s("document")), int(in.n(Version)), in.s("writer"), in.err
}
