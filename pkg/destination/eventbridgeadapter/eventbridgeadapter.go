// Package eventbridgeadapter delivers events to event buses of EventBridge. It promises that
// one Deliver is at most one event, whose detail is the body, whose detail-type is the event
// type and whose source is Source, and that it does not report success for a bus that it
// knows to be missing: PutEvents itself answers success for one.
package eventbridgeadapter

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge/types"
	"github.com/aws/smithy-go"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/destination"
	"github.com/tidings-dev/tidings/pkg/destination/awsclient"
)

// Source is the source of every event.
const Source = "tidings"

const (
	service       = "EventBridge"
	form          = "eventbridge://bus?region=us-east-1, with &account=123456789012 for a bus of another account"
	maxEntry      = 1 << 20 // bytes of source, detail-type and detail; a limit of EventBridge
	maxDetailType = 128     // characters; a limit of EventBridge
	// recheck is how long a bus that was found is taken to exist.
	recheck = 5 * time.Minute
)

// Options are shared by all adapters of a router.
type Options = awsclient.Options

// Kind returns the EventBridge protocol for a router. Adapters share the connections, and
// one client per region and role.
func Kind(o Options) destination.Kind {
	clients := awsclient.New(o, func(c aws.Config) *eventbridge.Client { return eventbridge.NewFromConfig(c) })
	now := o.Now
	if now == nil {
		now = time.Now
	}
	return destination.Kind{
		Schemes: []string{"eventbridge"},
		Form:    form,
		Check: func(t destination.Target, u *url.URL) error {
			_, err := parse(t, u)
			return err
		},
		Open: func(t destination.Target, u *url.URL) (destination.Adapter, error) {
			b, err := parse(t, u)
			if err != nil {
				return nil, err
			}
			return &sender{bus: b.address(), client: clients.For(t, b.region), now: now}, nil
		},
		Close: clients.Close,
	}
}

// bus is a parsed destination URL.
type bus struct {
	name, region string
	account      string // empty means the account of the credentials
}

// A partner's buses, whose names have slashes, accept events of the partner only.
var nameForm = regexp.MustCompile(`^[A-Za-z0-9._-]{1,256}$`)

func parse(t destination.Target, u *url.URL) (bus, error) {
	b := bus{name: u.Host, account: u.Query().Get("account")}
	var err error
	if b.region, err = awsclient.Region(t, u, service, "the bus's policy", "account"); err != nil {
		return b, err
	}
	switch {
	case u.Opaque != "" || b.name == "":
		return b, errors.New("the name of the bus is missing")
	case u.Path != "":
		return b, errors.New("a URL of EventBridge has no path: it names a bus only")
	case !nameForm.MatchString(b.name):
		return b, errors.New("the name of the bus is malformed: it has 1 to 256 letters, digits, '.', - and _")
	case t.Ordered:
		return b, errors.New("ordered applies to Pub/Sub: EventBridge keeps no order")
	case u.Query().Has("account"):
		return b, awsclient.CheckAccount(b.account)
	}
	return b, nil
}

// address is what PutEvents calls the bus: its name, or its ARN in a named account.
func (b bus) address() string {
	if b.account == "" {
		return b.name
	}
	partition := "aws"
	switch {
	case strings.HasPrefix(b.region, "cn-"):
		partition = "aws-cn"
	case strings.HasPrefix(b.region, "us-gov-"):
		partition = "aws-us-gov"
	}
	return "arn:" + partition + ":events:" + b.region + ":" + b.account + ":event-bus/" + b.name
}

// sender sends to one bus.
type sender struct {
	bus    string
	client *eventbridge.Client
	now    func() time.Time

	mu    sync.Mutex
	found time.Time // when the bus was last found, or could not be looked for
}

// Close does nothing: all senders share the connections.
func (s *sender) Close() error { return nil }

// Deliver sends the message once.
func (s *sender) Deliver(ctx context.Context, m destination.Message) delivery.Outcome {
	began := time.Now()
	if why := unsendable(m); why != nil {
		return *why
	}
	eventID, err := s.send(ctx, m)
	o := delivery.Outcome{Class: delivery.Success}
	if err != nil {
		o = awsclient.Classify(ctx, err, service, refused)
	}
	if x := destination.Observed(ctx); x != nil {
		x.Method, x.To, x.Ended = "PutEvents", s.bus, destination.PhaseExchange
		x.RequestHeaders = []destination.Field{{Name: "DetailType", Value: m.EventType}, {Name: "Source", Value: Source}}
		if err == nil {
			x.ResponseHeaders = []destination.Field{{Name: "EventId", Value: eventID}}
		}
		x.Cause, x.Code, x.EndedAfter = err, awsclient.Code(err), time.Since(began)
	}
	o.Timings.Total = time.Since(began)
	return o
}

// unsendable returns the outcome for a message that EventBridge cannot carry.
func unsendable(m destination.Message) *delivery.Outcome {
	size := len(Source) + len(m.EventType) + len(m.Body)
	var object map[string]json.RawMessage
	switch {
	case size >= maxEntry:
		return &delivery.Outcome{Class: delivery.TooLarge, Permanent: true,
			Error: fmt.Sprintf("nothing was sent: the event has %d bytes with its type and source, and EventBridge takes less than %d", size, maxEntry)}
	case m.EventType == "" || utf8.RuneCountInString(m.EventType) > maxDetailType:
		return &delivery.Outcome{Class: delivery.Invalid, Permanent: true,
			Error: fmt.Sprintf("nothing was sent: the event type must have 1 to %d characters to be the detail-type of EventBridge", maxDetailType)}
	case !utf8.Valid(m.Body) || json.Unmarshal(m.Body, &object) != nil || object == nil:
		return &delivery.Outcome{Class: delivery.Invalid, Permanent: true,
			Error: "nothing was sent: the body is not a JSON object, and the detail of an event of EventBridge must be one"}
	}
	return nil
}

// entryError is the failure of the only entry of a PutEvents call that itself succeeded. It
// is a smithy.APIError, so that it is handled as the failure of a call.
type entryError struct{ types.PutEventsResultEntry }

func (e *entryError) Error() string        { return e.ErrorCode() }
func (e *entryError) ErrorCode() string    { return aws.ToString(e.PutEventsResultEntry.ErrorCode) }
func (e *entryError) ErrorMessage() string { return aws.ToString(e.PutEventsResultEntry.ErrorMessage) }
func (e *entryError) ErrorFault() smithy.ErrorFault {
	return smithy.FaultUnknown
}

// send sends the event, and returns the id that EventBridge gives it.
func (s *sender) send(ctx context.Context, m destination.Message) (eventID string, err error) {
	if err := s.find(ctx); err != nil {
		return "", err
	}
	out, err := s.client.PutEvents(ctx, &eventbridge.PutEventsInput{Entries: []types.PutEventsRequestEntry{{
		EventBusName: &s.bus, Source: aws.String(Source), DetailType: &m.EventType, Detail: aws.String(string(m.Body)),
	}}})
	if err != nil {
		return "", err
	}
	if len(out.Entries) == 1 && aws.ToString(out.Entries[0].ErrorCode) != "" {
		return "", &entryError{out.Entries[0]}
	}
	if out.FailedEntryCount != 0 || len(out.Entries) != 1 || aws.ToString(out.Entries[0].EventId) == "" {
		return "", awsclient.ErrNoReceipt
	}
	return *out.Entries[0].EventId, nil
}

// find returns an error if the bus does not exist: PutEvents answers success then, and the
// event is lost (github.com/aws/aws-cli/issues/9186). A sender does not need the
// permission to describe a bus, so any other error is ignored.
func (s *sender) find(ctx context.Context) error {
	now := s.now()
	s.mu.Lock()
	age := now.Sub(s.found)
	s.mu.Unlock()
	if age >= 0 && age < recheck {
		return nil
	}
	_, err := s.client.DescribeEventBus(ctx, &eventbridge.DescribeEventBusInput{Name: &s.bus})
	if code := awsclient.Code(err); err != nil && !awsclient.Denied(code) {
		return err
	}
	s.mu.Lock()
	s.found = now
	s.mu.Unlock()
	return nil
}

const notFound = "ResourceNotFoundException"

// refused returns the outcome for an error code of EventBridge or STS (API references).
func refused(code string) delivery.Outcome {
	o := delivery.Outcome{Class: delivery.Answered, Error: "EventBridge answered " + code}
	switch code {
	case notFound:
		return delivery.Outcome{Class: delivery.Missing, Permanent: true, Error: "the event bus does not exist: check name, region and account"}
	case "NotAuthorizedForSourceException", "NotAuthorizedForDetailTypeException", "InvalidAccountIdException":
		o.Class, o.Permanent = delivery.Denied, true
		o.Error += ": the bus's policy must allow the source tidings and the event type"
	case "MalformedDetail", "InvalidArgument", "RedactionFailure":
		o.Class, o.Permanent = delivery.Invalid, true
		o.Error += ": EventBridge rejects the event"
	case "ValidationException", "RequestEntityTooLargeException":
		// Only the size can be invalid: everything else was validated.
		o.Class, o.Permanent = delivery.TooLarge, true
		o.Error += fmt.Sprintf(": the event is larger than EventBridge takes (%d bytes, or 256 KB where it has not been raised)", maxEntry)
	}
	switch {
	case awsclient.Denied(code):
		o.Class, o.Permanent = delivery.Denied, true
		o.Error += ": allow the dispatch function's role events:PutEvents, in the bus's policy or with role_arn (a role that trusts it, with the tenant as external id)"
	case awsclient.Throttled(code):
		o.Class = delivery.Throttled
	}
	return o
}
