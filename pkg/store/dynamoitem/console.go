package dynamoitem

import (
	"time"

	"github.com/tidings-dev/tidings/pkg/ops/audit"
)

// Attributes of what is bound and counted in Control.
const (
	Bound = "bound"
	Tally = "tally"
)

// EncodeBound returns the item that binds a value to a key; the zero time is for
// ever.
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

// AuditPartition is where a tenant's audit entries stand: in Deliveries, whose
// key orders them by time, under an id that no endpoint has.
func AuditPartition(tenant string) string { return "audit#" + tenant }

// EncodeAudit returns the item of an audit entry.
func EncodeAudit(e audit.Entry) Item {
	item := Item{
		EndpointID: S(AuditPartition(e.Tenant)), EventID: S(e.ID), Tenant: S(e.Tenant),
		"outcome": S(string(e.Outcome)), ExpiresAt: Seconds(e.At().Add(audit.Retention)),
	}
	put(item, "who", e.Who)
	put(item, "role", e.Role)
	put(item, "action", e.Action)
	put(item, "subject", e.Subject)
	put(item, "detail", e.Detail)
	return item
}

// DecodeAudit reads what EncodeAudit wrote.
func DecodeAudit(item Item) (audit.Entry, error) {
	r := reader{item: item}
	r.must(EventID, Tenant, "outcome")
	return audit.Entry{
		ID: r.s(EventID), Tenant: r.s(Tenant), Who: r.s("who"), Role: r.s("role"), Action: r.s("action"),
		Subject: r.s("subject"), Outcome: audit.Outcome(r.s("outcome")), Detail: r.s("detail"),
	}, r.err
}
