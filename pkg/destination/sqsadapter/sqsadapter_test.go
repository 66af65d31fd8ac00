package sqsadapter_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/destination"
	"github.com/tidings-dev/tidings/pkg/destination/sqsadapter"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/local/sqsapi"
	"github.com/tidings-dev/tidings/test/destinationtest"
)

func router(o sqsadapter.Options) *destination.Router {
	if o.Config == nil {
		o.Config = config
	}
	return destination.NewRouter(10, sqsadapter.Kind(o))
}

func TestCheck(t *testing.T) {
	r := router(sqsadapter.Options{})
	for name, c := range map[string]struct {
		target destination.Target
		want   string // in the error; "" for none
	}{
		"account and queue":           {destination.Target{URL: "sqs://123456789012/orders?region=eu-central-1"}, ""},
		"own account":                 {destination.Target{URL: "sqs://orders?region=us-gov-west-1"}, ""},
		"FIFO":                        {destination.Target{URL: "sqs://123456789012/orders.fifo?region=ap-southeast-2"}, ""},
		"a role":                      {destination.Target{URL: "sqs://orders?region=us-east-1", RoleARN: "arn:aws:iam::123456789012:role/x"}, ""},
		"no queue":                    {destination.Target{URL: "sqs://?region=us-east-1"}, "name is missing"},
		"no region":                   {destination.Target{URL: "sqs://123456789012/orders"}, "region"},
		"a host as the region":        {destination.Target{URL: "sqs://orders?region=evil.example.com/"}, "region"},
		"an account of eleven digits": {destination.Target{URL: "sqs://12345678901/orders?region=us-east-1"}, "twelve digits"},
		"a path with two segments":    {destination.Target{URL: "sqs://123456789012/a/b?region=us-east-1"}, "queue name is malformed"},
		"a dot in the name":           {destination.Target{URL: "sqs://123456789012/a.b?region=us-east-1"}, "queue name is malformed"},
		"a name that is too long":     {destination.Target{URL: "sqs://" + strings.Repeat("q", 81) + "?region=us-east-1"}, "queue name is malformed"},
		"an unknown parameter":        {destination.Target{URL: "sqs://orders?region=us-east-1&endpoint=http://169.254.169.254"}, `"endpoint"`},
		"two regions":                 {destination.Target{URL: "sqs://orders?region=us-east-1&region=eu-west-1"}, "duplicate"},
		"a password":                  {destination.Target{URL: "sqs://AKIA:hunter2@123456789012/orders?region=us-east-1"}, "password"},
		"a fragment":                  {destination.Target{URL: "sqs://orders?region=us-east-1#x"}, "fragment"},
		"credentials":                 {destination.Target{URL: "sqs://orders?region=us-east-1", Credentials: "tidings/t/x"}, "role_arn"},
		"ordered":                     {destination.Target{URL: "sqs://orders?region=us-east-1", Ordered: true}, "FIFO"},
	} {
		t.Run(name, func(t *testing.T) {
			destinationtest.CheckURL(t, r, c.target, c.want, "sqs://account/queue")
		})
	}
}

// refusing returns an SQS that fails every call with one error code.
func refusing(t *testing.T, status int, code string) *httptest.Server {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/x-amz-json-1.0")
		w.WriteHeader(status)
		fmt.Fprintf(w, `{"__type":"com.amazonaws.sqs#%s","message":"User: arn:aws:sts::1:assumed-role/internal is not"}`, code)
	}))
	t.Cleanup(server.Close)
	return server
}

func send(t *testing.T, r *destination.Router, target destination.Target, m destination.Message) delivery.Outcome {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	return r.Deliver(ctx, target, m)
}

var (
	target = destination.Target{Tenant: "t", ID: "e", URL: "sqs://123456789012/orders?region=us-east-1"}
	hello  = destination.Message{EventID: event.NewID(time.Now()), EventType: "user.posted_comment", Body: []byte("{}")}
)

func TestErrorCodesAreClassified(t *testing.T) {
	for _, c := range []struct {
		status    int
		code      string
		class     delivery.Class
		permanent bool
	}{
		{400, "QueueDoesNotExist", delivery.Missing, true},
		{400, "AWS.SimpleQueueService.NonExistentQueue", delivery.Missing, true},
		{403, "AccessDenied", delivery.Denied, true},
		{400, "AccessDeniedException", delivery.Denied, true},
		{403, "InvalidClientTokenId", delivery.Denied, true},
		{400, "KmsAccessDenied", delivery.Denied, true},
		{400, "KmsDisabled", delivery.Denied, true},
		{403, "RequestThrottled", delivery.Throttled, false},
		{400, "ThrottlingException", delivery.Throttled, false},
		{400, "OverLimit", delivery.Throttled, false},
		{400, "InvalidParameterValue", delivery.TooLarge, true},
		{400, "InvalidMessageContents", delivery.Invalid, true},
		{400, "UnsupportedOperation", delivery.Invalid, true},
		{400, "ExpiredToken", delivery.Answered, false}, // the SDK refreshes it for the next call
		{500, "InternalFailure", delivery.Answered, false},
		{503, "ServiceUnavailable", delivery.Answered, false},
		{400, "SomethingNew", delivery.Answered, false},
	} {
		t.Run(c.code, func(t *testing.T) {
			r := router(sqsadapter.Options{Endpoint: refusing(t, c.status, c.code).URL})
			defer r.Close()
			o := send(t, r, target, hello)
			if o.Class != c.class || o.Permanent != c.permanent || o.Error == "" || strings.Contains(o.Error, "assumed-role") {
				t.Errorf("outcome = %+v", o)
			}
			if c.class != delivery.Missing && o.Status != c.status {
				t.Errorf("status = %d", o.Status)
			}
		})
	}
}

func TestRequestsAreNotRetried(t *testing.T) {
	requests := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		requests++
		w.WriteHeader(http.StatusServiceUnavailable)
	}))
	defer server.Close()
	r := router(sqsadapter.Options{Endpoint: server.URL})
	defer r.Close()
	if o := send(t, r, target, hello); o.Class == delivery.Success || requests != 1 {
		t.Errorf("%d requests for one attempt, outcome %+v", requests, o)
	}
}

func TestQueueURLIsLookedUpOnce(t *testing.T) {
	service := sqsapi.New("webhooks")
	lookups := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.Header.Get("X-Amz-Target"), "GetQueueUrl") {
			lookups++
		}
		service.ServeHTTP(w, r)
	}))
	defer server.Close()
	r := router(sqsadapter.Options{Endpoint: server.URL})
	defer r.Close()
	own := destination.Target{URL: "sqs://webhooks?region=us-east-1"}
	for range 3 {
		if o := send(t, r, own, hello); o.Class != delivery.Success {
			t.Fatalf("outcome = %+v", o)
		}
	}
	if lookups != 1 {
		t.Errorf("%d lookups, want 1", lookups)
	}
	if o := send(t, r, destination.Target{ID: "2", URL: "sqs://missing?region=us-east-1"}, hello); o.Class != delivery.Missing || !o.Permanent {
		t.Errorf("outcome for a missing queue = %+v", o)
	}
}

func TestFIFO(t *testing.T) {
	server := httptest.NewServer(sqsapi.New())
	defer server.Close()
	digest := func(s string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(s))) }
	long := strings.Repeat("x", 129)
	for subject, want := range map[string]string{
		"d1":    "d1",
		"":      hello.EventID, // no subject, so no order to keep
		"Grüße": digest("Grüße"),
		long:    digest(long),
	} {
		d := newDestination(t, server.Listener.Addr().String(), ".fifo", nil)
		r := destination.NewRouter(10, d.Kind)
		m := hello
		m.Subject = subject
		for range 2 { // as after a lost response
			if o := send(t, r, d.Target, m); o.Class != delivery.Success {
				t.Fatalf("subject %q: %+v", subject, o)
			}
		}
		if got := receive(t, d); got.Key != want {
			t.Errorf("group = %q, want %q", got.Key, want)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		if again, err := d.Receive(ctx); err == nil {
			t.Errorf("received a duplicate from a FIFO queue: %+v", again)
		}
		cancel()
		_ = r.Close()
	}
}

func receive(t *testing.T, d destinationtest.Destination) destinationtest.Received {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	got, err := d.Receive(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// roles records the assumed roles.
type roles struct {
	assumed []string
	fail    error
}

func (a *roles) assume(role, externalID, region string) aws.CredentialsProvider {
	a.assumed = append(a.assumed, role+" "+externalID+" "+region)
	return aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
		return aws.Credentials{AccessKeyID: "ASIA", SecretAccessKey: "of the role"}, a.fail
	})
}

func TestRoleIsAssumedOnceWithTheTenantAsExternalID(t *testing.T) {
	var keys []string
	service := sqsapi.New("orders")
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		keys = append(keys, strings.SplitN(strings.TrimPrefix(r.Header.Get("Authorization"), "AWS4-HMAC-SHA256 Credential="), "/", 2)[0])
		service.ServeHTTP(w, r)
	}))
	defer server.Close()
	a := &roles{}
	r := router(sqsadapter.Options{Endpoint: server.URL, AssumeRole: a.assume})
	defer r.Close()
	for i := range 3 {
		with := target
		with.ID, with.RoleARN = fmt.Sprint(i), "arn:aws:iam::123456789012:role/webhooks"
		if o := send(t, r, with, hello); o.Class != delivery.Success {
			t.Fatalf("outcome = %+v", o)
		}
	}
	if len(a.assumed) != 1 || a.assumed[0] != "arn:aws:iam::123456789012:role/webhooks t us-east-1" {
		t.Errorf("assumed %q", a.assumed)
	}
	if strings.Join(keys, " ") != "ASIA ASIA ASIA" {
		t.Errorf("signed by %q, want the role's key", keys)
	}
}

func TestFailedAssumeRoleRevealsNoSecret(t *testing.T) {
	a := &roles{fail: errors.New("the secret is hunter2")}
	r := router(sqsadapter.Options{Endpoint: "http://127.0.0.1:1", AssumeRole: a.assume})
	defer r.Close()
	with := target
	with.RoleARN = "arn:aws:iam::123456789012:role/webhooks"
	if o := send(t, r, with, hello); o.Class == delivery.Success || o.Permanent || strings.Contains(o.Error, "hunter2") {
		t.Errorf("outcome = %+v", o)
	}
}

func TestUnresolvableHostIsRetried(t *testing.T) {
	r := router(sqsadapter.Options{Endpoint: "http://sqs.invalid"})
	defer r.Close()
	if o := send(t, r, target, hello); o.Class != delivery.DNS && o.Class != delivery.Connect || o.Permanent {
		t.Errorf("outcome = %+v", o)
	}
}

// An attribute that SQS would refuse is our fault, not a message that is too large.
func TestAnUnsendableMessageIsInvalid(t *testing.T) {
	var requests atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { requests.Add(1) }))
	defer server.Close()
	for _, key := range []string{"a\x00b", "a\x01", "\uffff", "\xff", ""} {
		m := destination.Message{EventID: "01J", EventType: "x", Body: []byte(`{}`), Headers: map[string]string{"idempotency-key": key}}
		o := send(t, router(sqsadapter.Options{Endpoint: server.URL}), destination.Target{URL: "sqs://123456789012/orders?region=us-east-1"}, m)
		if o.Class != delivery.Invalid || !o.Permanent || !strings.Contains(o.Error, "idempotency-key") {
			t.Errorf("%q: %+v", key, o)
		}
	}
	if n := requests.Load(); n != 0 {
		t.Errorf("%d requests were sent", n)
	}
}
