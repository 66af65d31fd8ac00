package eventbridgeadapter_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/destination"
	"github.com/tidings-dev/tidings/pkg/destination/eventbridgeadapter"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/local/eventbridgeapi"
	"github.com/tidings-dev/tidings/test/destinationtest"
)

func router(o eventbridgeadapter.Options) *destination.Router {
	if o.Config == nil {
		o.Config = config
	}
	return destination.NewRouter(10, eventbridgeadapter.Kind(o))
}

func send(t *testing.T, r *destination.Router, target destination.Target, m destination.Message) delivery.Outcome {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	return r.Deliver(ctx, target, m)
}

var (
	target = destination.Target{Tenant: "t", ID: "e", URL: "eventbridge://orders?region=us-east-1"}
	hello  = destination.Message{EventID: event.NewID(time.Now()), EventType: "user.posted_comment", Body: []byte("{}")}
)

func TestCheck(t *testing.T) {
	r := router(eventbridgeadapter.Options{})
	for name, c := range map[string]struct {
		target destination.Target
		want   string // in the error; "" for none
	}{
		"own account":             {destination.Target{URL: "eventbridge://tidings-webhooks-crm?region=eu-central-1"}, ""},
		"another account":         {destination.Target{URL: "eventbridge://crm.events?region=us-gov-west-1&account=123456789012"}, ""},
		"a role":                  {destination.Target{URL: "eventbridge://crm?region=us-east-1", RoleARN: "arn:aws:iam::123456789012:role/x"}, ""},
		"a CloudEvent":            {destination.Target{URL: "eventbridge://crm?region=us-east-1", Format: endpoint.FormatCloudEvents}, ""},
		"a CloudEvent in headers": {destination.Target{URL: "eventbridge://crm?region=us-east-1", Format: endpoint.FormatCloudEventsBinary}, "binary mode"},
		"no bus":                  {destination.Target{URL: "eventbridge://?region=us-east-1"}, "name of the bus is missing"},
		"a partner's bus":         {destination.Target{URL: "eventbridge://aws.partner/x/y?region=us-east-1"}, "no path"},
		"a port":                  {destination.Target{URL: "eventbridge://crm:8080?region=us-east-1"}, "malformed"},
		"no region":               {destination.Target{URL: "eventbridge://crm"}, "region"},
		"a host as the region":    {destination.Target{URL: "eventbridge://crm?region=evil.example.com/"}, "region"},
		"eleven digits":           {destination.Target{URL: "eventbridge://crm?region=us-east-1&account=12345678901"}, "twelve digits"},
		"an empty account":        {destination.Target{URL: "eventbridge://crm?region=us-east-1&account="}, "twelve digits"},
		"an unknown parameter":    {destination.Target{URL: "eventbridge://crm?region=us-east-1&endpoint=http://169.254.169.254"}, `"endpoint"`},
		"two accounts":            {destination.Target{URL: "eventbridge://crm?region=us-east-1&account=123456789012&account=123456789013"}, "duplicate"},
		"a password":              {destination.Target{URL: "eventbridge://AKIA:hunter2@crm?region=us-east-1"}, "password"},
		"a fragment":              {destination.Target{URL: "eventbridge://crm?region=us-east-1#x"}, "fragment"},
		"credentials":             {destination.Target{URL: "eventbridge://crm?region=us-east-1", Credentials: "tidings/t/x"}, "role_arn"},
		"ordered":                 {destination.Target{URL: "eventbridge://crm?region=us-east-1", Ordered: true}, "keeps no order"},
	} {
		t.Run(name, func(t *testing.T) {
			destinationtest.CheckURL(t, r, c.target, c.want, "eventbridge://bus")
		})
	}
}

// bus returns the URL of an EventBridge that answers the two calls.
func bus(t *testing.T, describe, put http.HandlerFunc) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/x-amz-json-1.1")
		if strings.HasSuffix(r.Header.Get("X-Amz-Target"), ".DescribeEventBus") {
			describe(w, r)
			return
		}
		put(w, r)
	}))
	t.Cleanup(server.Close)
	return server.URL
}

func answer(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

func refusing(status int, code string) http.HandlerFunc {
	return answer(status, `{"__type":"`+code+`","message":"User: arn:aws:sts::1:assumed-role/internal is not"}`)
}

var exists = answer(200, `{"Name":"orders"}`)

func TestErrorCodesAreClassified(t *testing.T) {
	entry := func(code string) http.HandlerFunc {
		return answer(200, `{"FailedEntryCount":1,"Entries":[{"ErrorCode":"`+code+`","ErrorMessage":"arn:aws:sts::1:assumed-role/internal"}]}`)
	}
	for name, c := range map[string]struct {
		put       http.HandlerFunc
		class     delivery.Class
		permanent bool
		status    int
	}{
		"the call is denied":              {refusing(400, "AccessDeniedException"), delivery.Denied, true, 400},
		"the call has no known key":       {refusing(403, "UnrecognizedClientException"), delivery.Denied, true, 403},
		"the call is throttled":           {refusing(400, "ThrottlingException"), delivery.Throttled, false, 400},
		"the call is too large":           {refusing(400, "ValidationException"), delivery.TooLarge, true, 400},
		"the call fails":                  {refusing(500, "InternalException"), delivery.Answered, false, 500},
		"the token has expired":           {refusing(400, "ExpiredTokenException"), delivery.Answered, false, 400},
		"the bus was deleted":             {refusing(400, "ResourceNotFoundException"), delivery.Missing, true, 0},
		"the entry is denied":             {entry("AccessDeniedException"), delivery.Denied, true, 0},
		"the entry's source is denied":    {entry("NotAuthorizedForSourceException"), delivery.Denied, true, 0},
		"the entry's type is denied":      {entry("NotAuthorizedForDetailTypeException"), delivery.Denied, true, 0},
		"the entry is throttled":          {entry("ThrottlingException"), delivery.Throttled, false, 0},
		"the entry fails":                 {entry("InternalFailure"), delivery.Answered, false, 0},
		"the entry is malformed":          {entry("MalformedDetail"), delivery.Invalid, true, 0},
		"the entry has a new error":       {entry("SomethingNew"), delivery.Answered, false, 0},
		"no entry is answered":            {answer(200, `{"FailedEntryCount":0,"Entries":[]}`), delivery.Protocol, false, 0},
		"no id is answered":               {answer(200, `{"FailedEntryCount":0,"Entries":[{}]}`), delivery.Protocol, false, 0},
		"a failure without an error code": {answer(200, `{"FailedEntryCount":1,"Entries":[{"EventId":"1"}]}`), delivery.Protocol, false, 0},
		"a page of something else":        {answer(200, `<html>`), delivery.Protocol, false, 0},
	} {
		t.Run(name, func(t *testing.T) {
			r := router(eventbridgeadapter.Options{Endpoint: bus(t, exists, c.put)})
			defer r.Close()
			ctx, x := destination.Observe(t.Context())
			o := r.Deliver(ctx, target, hello)
			if o.Class != c.class || o.Permanent != c.permanent || o.Status != c.status || o.Error == "" || strings.Contains(o.Error, "assumed-role") {
				t.Errorf("outcome = %+v", o)
			}
			if x.Method != "PutEvents" || x.To != "orders" || x.Cause == nil {
				t.Errorf("exchange = %+v", x)
			}
		})
	}
}

// Whether the bus exists is asked at first and again after five minutes; who may not ask
// may send nevertheless.
func TestTheBusIsLookedForOnceInFiveMinutes(t *testing.T) {
	var asked, put atomic.Int32
	for name, c := range map[string]struct {
		describe http.HandlerFunc
		asked    int32
	}{
		"it exists":        {exists, 2},
		"asking is denied": {refusing(400, "AccessDeniedException"), 2},
	} {
		asked.Store(0)
		put.Store(0)
		clock := &destinationtest.Clock{}
		address := bus(t, func(w http.ResponseWriter, r *http.Request) { asked.Add(1); c.describe(w, r) },
			func(w http.ResponseWriter, _ *http.Request) {
				put.Add(1)
				_, _ = io.WriteString(w, `{"FailedEntryCount":0,"Entries":[{"EventId":"1"}]}`)
			})
		r := router(eventbridgeadapter.Options{Endpoint: address, Now: clock.Now})
		for _, pass := range []time.Duration{0, time.Minute, 5 * time.Minute} {
			clock.Pass(pass)
			if o := send(t, r, target, hello); o.Class != delivery.Success {
				t.Errorf("%s: %+v", name, o)
			}
		}
		if asked.Load() != c.asked || put.Load() != 3 {
			t.Errorf("%s: asked %d times, want %d; %d events, want 3", name, asked.Load(), c.asked, put.Load())
		}
		_ = r.Close()
	}
}

func TestABusOfAnotherAccountIsNamedByItsARN(t *testing.T) {
	for region, partition := range map[string]string{"eu-central-1": "aws", "cn-north-1": "aws-cn", "us-gov-west-1": "aws-us-gov"} {
		var sent string
		r := router(eventbridgeadapter.Options{Endpoint: bus(t, exists, func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			sent = string(body)
			_, _ = io.WriteString(w, `{"FailedEntryCount":0,"Entries":[{"EventId":"1"}]}`)
		})})
		o := send(t, r, destination.Target{URL: "eventbridge://crm?region=" + region + "&account=210987654321"}, hello)
		if want := `"arn:` + partition + `:events:` + region + `:210987654321:event-bus/crm"`; o.Class != delivery.Success || !strings.Contains(sent, want) {
			t.Errorf("%+v, sent %s, want %s", o, sent, want)
		}
		_ = r.Close()
	}
}

func TestAnUnsendableMessageIsNotSent(t *testing.T) {
	var requests atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { requests.Add(1) }))
	defer server.Close()
	const overhead = len("tidings") + len("user.posted_comment")
	for name, c := range map[string]struct {
		eventType, body string
		class           delivery.Class
	}{
		"as large as the limit": {hello.EventType, `{"a":"` + strings.Repeat("x", 1<<20-overhead-len(`{"a":""}`)) + `"}`, delivery.TooLarge},
		"an array":              {hello.EventType, `[1]`, delivery.Invalid},
		"null":                  {hello.EventType, `null`, delivery.Invalid},
		"a text":                {hello.EventType, `hello`, delivery.Invalid},
		"not UTF-8":             {hello.EventType, "{\"a\":\"\xff\"}", delivery.Invalid},
		"no type":               {"", `{}`, delivery.Invalid},
		"a type that is long":   {strings.Repeat("x", 129), `{}`, delivery.Invalid},
	} {
		o := send(t, router(eventbridgeadapter.Options{Endpoint: server.URL}), target, destination.Message{EventID: "01J", EventType: c.eventType, Body: []byte(c.body)})
		if o.Class != c.class || !o.Permanent || len(o.Error) < 20 {
			t.Errorf("%s: %+v", name, o)
		}
	}
	if n := requests.Load(); n != 0 {
		t.Errorf("%d requests were sent", n)
	}
}

func TestTheLargestMessageIsSent(t *testing.T) {
	service := eventbridgeapi.New("orders")
	server := httptest.NewServer(service)
	defer server.Close()
	r := router(eventbridgeadapter.Options{Endpoint: server.URL})
	defer r.Close()
	m := hello
	m.Body = []byte(`{"a":"` + strings.Repeat("x", 1<<20-1-len("tidings")-len(m.EventType)-len(`{"a":""}`)) + `"}`)
	if o := send(t, r, target, m); o.Class != delivery.Success {
		t.Errorf("%+v", o)
	}
}

func TestRoleIsAssumedOnceWithTheTenantAsExternalID(t *testing.T) {
	var assumed, keys []string
	address := bus(t, exists, func(w http.ResponseWriter, r *http.Request) {
		keys = append(keys, strings.SplitN(strings.TrimPrefix(r.Header.Get("Authorization"), "AWS4-HMAC-SHA256 Credential="), "/", 2)[0])
		_, _ = io.WriteString(w, `{"FailedEntryCount":0,"Entries":[{"EventId":"1"}]}`)
	})
	r := router(eventbridgeadapter.Options{Endpoint: address, AssumeRole: func(role, externalID, region string) aws.CredentialsProvider {
		assumed = append(assumed, role+" "+externalID+" "+region)
		return aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: "ASIA", SecretAccessKey: "of the role"}, nil
		})
	}})
	defer r.Close()
	for i := range 3 {
		with := target
		with.ID, with.RoleARN = fmt.Sprint(i), "arn:aws:iam::123456789012:role/webhooks"
		if o := send(t, r, with, hello); o.Class != delivery.Success {
			t.Fatalf("outcome = %+v", o)
		}
	}
	if len(assumed) != 1 || assumed[0] != "arn:aws:iam::123456789012:role/webhooks t us-east-1" || strings.Join(keys, " ") != "ASIA ASIA ASIA" {
		t.Errorf("assumed %q, signed by %q", assumed, keys)
	}
}
