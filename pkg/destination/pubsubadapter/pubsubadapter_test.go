package pubsubadapter_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2/pstest"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/destination"
	"github.com/tidings-dev/tidings/pkg/destination/pubsubadapter"
	"github.com/tidings-dev/tidings/test/destinationtest"
)

func TestCheck(t *testing.T) {
	r := destination.NewRouter(10, pubsubadapter.Kind(pubsubadapter.Options{}))
	for name, c := range map[string]struct {
		target destination.Target
		want   string // in the error; "" for none
	}{
		"project and topic":     {destination.Target{URL: "pubsub://my-project-1/community.events"}, ""},
		"ordered":               {destination.Target{URL: "pubsub://my-project-1/events", Ordered: true}, ""},
		"no topic":              {destination.Target{URL: "pubsub://my-project-1"}, "topic name"},
		"no project":            {destination.Target{URL: "pubsub:///events"}, "project id"},
		"a long project id":     {destination.Target{URL: "pubsub://p" + strings.Repeat("x", 30) + "/events"}, "project id"},
		"upper case":            {destination.Target{URL: "pubsub://My-Project/events"}, "project id"},
		"a short topic":         {destination.Target{URL: "pubsub://my-project-1/ab"}, "topic name"},
		"a reserved topic name": {destination.Target{URL: "pubsub://my-project-1/google-events"}, "topic name"},
		"a resource name":       {destination.Target{URL: "pubsub://my-project-1/topics/events"}, "topic name"},
		"a parameter":           {destination.Target{URL: "pubsub://my-project-1/events?endpoint=evil.example.com"}, "no parameters"},
		"a password":            {destination.Target{URL: "pubsub://x:hunter2@my-project-1/events"}, "password"},
		"a fragment":            {destination.Target{URL: "pubsub://my-project-1/events#x"}, "fragment"},
		"a role":                {destination.Target{URL: "pubsub://my-project-1/events", RoleARN: "arn:aws:iam::123456789012:role/x"}, "role_arn"},
		"credentials":           {destination.Target{URL: "pubsub://my-project-1/events", Credentials: "tidings/t/x"}, "pubsub.publisher"},
	} {
		t.Run(name, func(t *testing.T) {
			destinationtest.CheckURL(t, r, c.target, c.want, "pubsub://project/topic")
		})
	}
}

func publish(t *testing.T, options pubsubadapter.Options, body []byte) delivery.Outcome {
	t.Helper()
	r := destination.NewRouter(10, pubsubadapter.Kind(options))
	defer r.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	return r.Deliver(ctx, destination.Target{URL: "pubsub://my-project-1/events"}, destination.Message{EventID: "01J", EventType: "x", Body: body})
}

func TestErrorCodesAreClassified(t *testing.T) {
	for _, c := range []struct {
		code      codes.Code
		class     delivery.Class
		permanent bool
	}{
		{codes.NotFound, delivery.Missing, true},
		{codes.PermissionDenied, delivery.Denied, true},
		{codes.Unauthenticated, delivery.Denied, false},
		{codes.ResourceExhausted, delivery.Throttled, false},
		{codes.InvalidArgument, delivery.Invalid, true},
		{codes.FailedPrecondition, delivery.Invalid, true},
		{codes.DeadlineExceeded, delivery.Timeout, false},
		{codes.Canceled, delivery.Protocol, false},
		{codes.Unavailable, delivery.Connect, false},
		{codes.Internal, delivery.Answered, false},
		{codes.Aborted, delivery.Answered, false},
		{codes.Unknown, delivery.Answered, false},
	} {
		t.Run(c.code.String(), func(t *testing.T) {
			server := pstest.NewServer(pstest.ServerReactorOption{FuncName: "Publish", Reactor: refusal{status.New(c.code, "secret text of the service")}})
			defer server.Close()
			o := publish(t, pubsubadapter.Options{Emulator: server.Addr}, []byte("{}"))
			if o.Class != c.class || o.Permanent != c.permanent || o.Error == "" || strings.Contains(o.Error, "secret") {
				t.Errorf("outcome = %+v", o)
			}
		})
	}
}

// refusal returns the status for every call.
type refusal struct{ status *status.Status }

func (r refusal) React(any) (bool, any, error) { return true, nil, r.status.Err() }

func TestRetryInfoIsHonoured(t *testing.T) {
	with, err := status.New(codes.ResourceExhausted, "slow down").WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(17 * time.Second)})
	if err != nil {
		t.Fatal(err)
	}
	server := pstest.NewServer(pstest.ServerReactorOption{FuncName: "Publish", Reactor: refusal{with}})
	defer server.Close()
	if o := publish(t, pubsubadapter.Options{Emulator: server.Addr}, []byte("{}")); o.Class != delivery.Throttled || o.RetryAfter != 17*time.Second {
		t.Errorf("outcome = %+v", o)
	}
}

// counting returns Unavailable and counts the calls.
type counting struct{ calls *int }

func (c counting) React(any) (bool, any, error) {
	*c.calls++
	return true, nil, status.Error(codes.Unavailable, "")
}

func TestRequestsAreNotRetried(t *testing.T) {
	calls := 0
	server := pstest.NewServer(pstest.ServerReactorOption{FuncName: "Publish", Reactor: counting{&calls}})
	defer server.Close()
	if o := publish(t, pubsubadapter.Options{Emulator: server.Addr}, []byte("{}")); o.Class != delivery.Connect || calls != 1 {
		t.Errorf("%d requests for one attempt, outcome %+v", calls, o)
	}
}

func TestMissingCredentialsAreReported(t *testing.T) {
	broken := filepath.Join(t.TempDir(), "credentials.json")
	if err := os.WriteFile(broken, []byte(`{"type":"hunter2"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("GOOGLE_APPLICATION_CREDENTIALS", broken)
	for name, options := range map[string]pubsubadapter.Options{
		"invalid file":        {},
		"invalid parameter":   {Credentials: `{"type":"hunter2"}`},
		"service account key": {Credentials: `{"type":"service_account","private_key":"hunter2"}`},
	} {
		o := publish(t, options, []byte("{}"))
		if o.Class != delivery.Denied || !o.Permanent || !strings.Contains(o.Error, "docs/destinations.md") || strings.Contains(o.Error, "hunter2") {
			t.Errorf("%s: outcome = %+v", name, o)
		}
	}
}

// gRPC refuses a text that is not UTF-8 before anything is sent.
func TestAnUnsendableMessageIsInvalid(t *testing.T) {
	r := destination.NewRouter(10, pubsubadapter.Kind(pubsubadapter.Options{Emulator: "127.0.0.1:1"}))
	defer r.Close()
	m := destination.Message{EventID: "01J", EventType: "x", Body: []byte("{}"), Headers: map[string]string{"idempotency-key": "\xff"}}
	if o := r.Deliver(t.Context(), destination.Target{URL: "pubsub://my-project-1/events"}, m); o.Class != delivery.Invalid || !o.Permanent {
		t.Errorf("outcome = %+v", o)
	}
}
