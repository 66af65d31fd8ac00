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
	ID      string        `json:"id"`
	At      time.Time     `json:"at"`
	Who     string        `json:"who"`
	Role    string        `json:"role"`
	Action  string        `json:"action"`
	Subject string        `json:"subject,omitempty"`
	Outcome audit.Outcome `json:"outcome" enum:"begun,done,failed"`
	Detail  string        `json:"detail,omitempty"`
}

// ListAudit returns a page of the tenant's audit log.
func (o *Operations) ListAudit(ctx context.Context, who Session, limit int, cursor string) (AuditPage, error) {
	if err := checkCursor(cursor); err != nil {
		return AuditPage{}, err
	}
	found, err := o.Audit.ListAudit(ctx, who.Tenant, limit, cursor)
	if err != nil {
		return AuditPage{}, err
	}
	page := AuditPage{Entries: []AuditEntry{}, Next: found.Next}
	for _, e := range found.Entries {
		page.Entries = append(page.Entries, AuditEntry{
			ID: e.ID, At: e.At(), Who: e.Who, Role: e.Role, Action: e.Action, Subject: e.Subject, Outcome: e.Outcome, Detail: e.Detail,
		})
	}
	return page, nil
}

func (c *Console) listAudit(w http.ResponseWriter, r *http.Request) error {
	found, err := c.Operations.ListAudit(r.Context(), sessionOf(r.Context()), defaultPage, r.URL.Query().Get("cursor"))
	if err != nil {
		return err
	}
	c.render(w, r, http.StatusOK, "audit", page{Title: "Audit log", Nav: "audit", Data: found})
	return nil
}
