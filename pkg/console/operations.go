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

// Operations implements everything that the console can do. The pages and the API
// both call it, so they share its rules: it checks roles, writes every change to the
// audit log and limits each session to its own tenant.
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
	// Receiver is nil in a deployed stack.
	Receiver Receiver
	Now      func() time.Time
}

// Kind classifies an Error and determines its HTTP status.
type Kind int

const (
	Invalid Kind = iota
	NotFound
	Conflict
	Forbidden
)

// Error is an error whose message is shown to the user.
type Error struct {
	Kind    Kind
	Message string
	Fields  []FieldError // for Invalid: the fields that are wrong
}

func (e *Error) Error() string { return e.Message }

// FieldError is an error in one field.
type FieldError struct {
	Field   string `json:"field"`
	Message string `json:"message"`
}

func errorf(kind Kind, format string, args ...any) *Error {
	return &Error{Kind: kind, Message: fmt.Sprintf(format, args...)}
}

func forbidden() *Error {
	return errorf(Forbidden, "you are logged in as a viewer; to make changes, log in with --role admin")
}

// parallel limits the concurrent reads of one operation.
const parallel = 16

// change makes a change that requires the admin role. It writes an audit entry
// before, so that no change is unrecorded, and updates it with the outcome after. do
// returns the id of a new object, or "".
func (o *Operations) change(ctx context.Context, who Session, action, subject, detail string, do func() (string, error)) error {
	if who.Role != Admin {
		return forbidden()
	}
	entry := audit.Entry{
		ID: audit.NewID(o.Now()), Tenant: who.Tenant, Who: who.Name, Role: string(who.Role),
		Action: action, Subject: subject, Outcome: audit.Begun, Detail: audit.Clip(detail),
	}
	if err := o.Audit.PutAudit(ctx, entry); err != nil {
		return fmt.Errorf("write the audit log (nothing was changed): %w", err)
	}
	newID, err := do()
	entry.Outcome = audit.Done
	if newID != "" {
		entry.Subject = newID
	}
	if err != nil {
		entry.Outcome = audit.Failed
		entry.Detail = audit.Clip(strings.TrimPrefix(detail+": "+err.Error(), ": "))
	}
	// Record the outcome even if the client has disconnected.
	if failed := o.Audit.PutAudit(context.WithoutCancel(ctx), entry); failed != nil && err == nil {
		return fmt.Errorf("the change was made, but its outcome is missing in the audit log: %w", failed)
	}
	return err
}
