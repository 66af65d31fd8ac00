package console

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/tidings-dev/tidings/pkg/admin"
	"github.com/tidings-dev/tidings/pkg/event/catalog"
	"github.com/tidings-dev/tidings/pkg/ops/audit"
)

// Operations are all that the console can do. The pages and the API call nothing
// else, so both have the same rules: what a role may do is decided here, every
// change is written to the audit log here, and nobody sees another tenant's.
type Operations struct {
	Endpoints   *admin.Endpoints
	Deliveries  Deliveries
	Events      Events
	Catalog     *catalog.Catalog
	Breakers    Breakers
	Discussions Discussions
	Statistics  Statistics
	Audit       Audit
	Dispatch    Invoke
	TestWebhook Invoke
	// Receiver is nil in a deployment.
	Receiver Receiver
	Now      func() time.Time
}

// Kind is what kind of trouble an Error is; it decides the HTTP status.
type Kind int

const (
	Invalid Kind = iota
	NotFound
	Conflict
	Forbidden
)

// Error is an operation's refusal, in words for whoever asked.
type Error struct {
	Kind    Kind
	Message string
	Fields  []FieldError // for Invalid, where fields are to blame
}

func (e *Error) Error() string { return e.Message }

// FieldError is what is wrong with one field.
type FieldError struct {
	Field   string `json:"field"`
	Message string `json:"message"`
}

func errorf(kind Kind, format string, args ...any) *Error {
	return &Error{Kind: kind, Message: fmt.Sprintf(format, args...)}
}

func forbidden() *Error {
	return errorf(Forbidden, "you are logged in as a viewer: to change something, log in with --role admin")
}

// parallel is how many reads one operation makes at the same time.
const parallel = 16

// change does what only an admin may, and records it: before, so that nothing is
// changed unrecorded, and after, with what became of it. do returns the id of
// what was changed, where it has just got one.
func (o *Operations) change(ctx context.Context, who Session, action, subject, detail string, do func() (string, error)) error {
	if who.Role != Admin {
		return forbidden()
	}
	entry := audit.Entry{
		ID: audit.NewID(o.Now()), Tenant: who.Tenant, Who: who.Name, Role: string(who.Role),
		Action: action, Subject: subject, Outcome: audit.Begun, Detail: audit.Clip(detail),
	}
	if err := o.Audit.PutAudit(ctx, entry); err != nil {
		return fmt.Errorf("nothing was changed: %w", err)
	}
	fresh, err := do()
	entry.Outcome = audit.Done
	if fresh != "" {
		entry.Subject = fresh
	}
	if err != nil {
		entry.Outcome = audit.Failed
		entry.Detail = audit.Clip(strings.TrimPrefix(detail+": "+err.Error(), ": "))
	}
	// Even a client that has gone leaves its record.
	if failed := o.Audit.PutAudit(context.WithoutCancel(ctx), entry); failed != nil && err == nil {
		return fmt.Errorf("it was done, but the audit log only says that it was begun: %w", failed)
	}
	return err
}
