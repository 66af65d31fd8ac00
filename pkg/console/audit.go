package console

import (
	"context"
	"net/http"
	"time"

	"github.com/tidings-dev/tidings/pkg/ops/audit"
)

// AuditPage is a page of the audit log, newest first.
type AuditPage struct {
	Entries []AuditEntry `json:"entries" nullable:"false"`
	Next    string       `json:"next,omitempty"`
}

// AuditEntry is one change.
type AuditEntry struct {
	audit.Entry
	At time.Time `json:"at"`
}

// ListAudit returns a page of the tenant's audit log.
func (o *Operations) ListAudit(ctx context.Context, who Session, limit int, cursor string) (AuditPage, error) {
	of := list{tenant: who.Tenant, name: "audit"}
	place, err := o.openCursor(ctx, of, cursor)
	if err != nil {
		return AuditPage{}, err
	}
	found, err := o.Audit.ListAudit(ctx, who.Tenant, limit, place)
	if err != nil {
		return AuditPage{}, err
	}
	page := AuditPage{Entries: []AuditEntry{}}
	for _, e := range found.Entries {
		page.Entries = append(page.Entries, AuditEntry{e, e.At()})
	}
	page.Next, err = o.sealCursor(ctx, of, found.Next)
	return page, err
}

func (c *Console) listAudit(r *http.Request, who Session) (page, error) {
	found, err := c.Operations.ListAudit(r.Context(), who, defaultPage, r.URL.Query().Get("cursor"))
	return page{Template: "audit", Title: "Audit log", Nav: "audit", Data: found}, err
}
