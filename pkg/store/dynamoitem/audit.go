package dynamoitem

import (
	"github.com/tidings-dev/tidings/pkg/ops/audit"
)

// AuditPartition is the partition of a tenant's audit entries. They are in Deliveries,
// whose sort key orders them by time, under an id that no endpoint can have.
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
