package console

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/tidings-dev/tidings/pkg/admin"
	"github.com/tidings-dev/tidings/pkg/admin/capturerules"
	"github.com/tidings-dev/tidings/pkg/admin/eventtypes"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/event/journal"
	"github.com/tidings-dev/tidings/pkg/ops/audit"
	"github.com/tidings-dev/tidings/pkg/ops/stats"
	"github.com/tidings-dev/tidings/pkg/platform"
)

// Operations implements everything that the console can do. The pages and the API
// both call it, so they share its rules: it checks roles, writes every change to the
// audit log and limits each session to its own tenant.
type Operations struct {
	Endpoints   *admin.Endpoints
	Deliveries  Deliveries
	Events      Events
	Journal     journal.Source
	Jobs        Jobs
	Breakers    Breakers
	Discussions Discussions
	Statistics  Statistics
	History     History
	Targets     stats.Targets // of the metrics
	Audit       Audit
	// FailedChanges are the changes of the platform's table that could not become events.
	FailedChanges FailedChanges
	// Rules changes the capture rules, and Types the event types.
	Rules       *capturerules.Manager
	Types       *eventtypes.Manager
	Dispatch    Invoke
	TestWebhook Invoke
	Emit        Invoke
	// Receiver is nil in a deployed stack.
	Receiver Receiver
	// RetentionDays is how many days events are kept whose type has no retention of its own;
	// 0 means event.DefaultRetentionDays.
	RetentionDays int
	Now           func() time.Time
	Log           *slog.Logger

	// cursorKey is the session key; Console.Handler sets it.
	cursorKey func(context.Context) ([]byte, error)
}

// Kind classifies an Error. It is the HTTP status of the answer.
type Kind int

const (
	Invalid      Kind = http.StatusUnprocessableEntity
	NotFound     Kind = http.StatusNotFound
	Conflict     Kind = http.StatusConflict
	Forbidden    Kind = http.StatusForbidden
	Unauthorized Kind = http.StatusUnauthorized
	TooLarge     Kind = http.StatusRequestEntityTooLarge
	TooMany      Kind = http.StatusTooManyRequests
)

// Error is an error whose message is shown to the user.
type Error struct {
	Kind    Kind
	Message string
	Fields  []FieldError // for Invalid: the fields that are wrong
	// Refused are, for Conflict, changes of event types that need force.
	Refused []PlannedType
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
// before, so that no change is unrecorded, and updates it with the outcome after.
// subject is the id of the changed object; do sets it if it creates the object.
func change[T any](ctx context.Context, o *Operations, who Session, action string, subject *string, detail string, do func() (T, error)) (T, error) {
	var result T
	if !who.Role.changes() {
		return result, forbidden()
	}
	entry := audit.Entry{
		ID: audit.NewID(o.Now()), Tenant: who.Tenant, Who: who.Name, Role: string(who.Role),
		Action: action, Subject: *subject, Outcome: audit.Begun, Detail: audit.Clip(detail),
	}
	if err := o.Audit.PutAudit(ctx, entry); err != nil {
		return result, fmt.Errorf("write the audit log (nothing was changed): %w", err)
	}
	result, err := do()
	err = explain(*subject, err)
	entry.Outcome, entry.Subject = audit.Done, *subject
	if err != nil {
		entry.Outcome = audit.Failed
		entry.Detail = audit.Clip(strings.TrimPrefix(detail+": "+o.shown(ctx, err), ": "))
	}
	// Record the outcome even if the client has disconnected.
	if failed := o.Audit.PutAudit(context.WithoutCancel(ctx), entry); failed != nil && err == nil {
		return result, fmt.Errorf("the change was made, but its outcome is missing in the audit log: %w", failed)
	}
	return result, err
}

// changeEndpoint is change for an existing endpoint. A text that cannot be an endpoint's
// id is not written to the audit log.
func changeEndpoint[T any](ctx context.Context, o *Operations, who Session, action, id, detail string, do func() (T, error)) (T, error) {
	if who.Role.changes() && !endpoint.IsID(id) {
		var none T
		return none, explain(id, endpoint.ErrNotFound)
	}
	return change(ctx, o, who, action, &id, detail, do)
}

// shown returns the message of an error for users and for the audit log. An error that
// is no *Error can name tables, functions and requests of the deployment, so it goes to
// the log only.
func (o *Operations) shown(ctx context.Context, err error) string {
	var known *Error
	if errors.As(err, &known) {
		return known.Message
	}
	o.Log.LogAttrs(ctx, slog.LevelError, "console.failed", slog.String("error", err.Error()))
	return internalError
}

const internalError = "internal error; see console.failed in the log"

// explain converts the errors of endpoints and discussions to errors for the user.
func explain(id string, err error) error {
	var rotation *endpoint.RotationError
	switch {
	case errors.As(err, &rotation):
		return errorf(Conflict, "%s", err)
	case errors.Is(err, endpoint.ErrNotFound):
		return errorf(NotFound, "endpoint %s not found", id)
	case errors.Is(err, endpoint.ErrConflict):
		return errorf(Conflict, "the endpoint was changed in the meantime; reload it and repeat the change")
	case errors.Is(err, admin.ErrTooMany), errors.Is(err, admin.ErrDisabled):
		return errorf(Conflict, "%s", err)
	case errors.Is(err, platform.ErrNotFound):
		return errorf(NotFound, "discussion %s not found", id)
	case errors.Is(err, platform.ErrNoFailedChange):
		return errorf(NotFound, "%s", err)
	case errors.Is(err, platform.ErrClosed), errors.Is(err, platform.ErrNotLater), errors.Is(err, platform.ErrChanged):
		return errorf(Conflict, "%s", err)
	case errors.Is(err, platform.ErrPast):
		return errorf(Invalid, "%s", err)
	}
	return err
}
