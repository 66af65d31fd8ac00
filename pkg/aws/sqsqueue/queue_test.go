package sqsqueue_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/tidings-dev/tidings/pkg/aws/sqsqueue"
	"github.com/tidings-dev/tidings/pkg/delivery/work"
	"github.com/tidings-dev/tidings/pkg/local/queue"
	"github.com/tidings-dev/tidings/pkg/local/sqsapi"
)

// service is the local SQS, which counts requests.
type service struct {
	*sqsapi.Service
	queue    *queue.Queue
	requests atomic.Int32
}

func (s *service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.requests.Add(1)
	s.Service.ServeHTTP(w, r)
}

func open(t *testing.T) (*sqsqueue.Queue, *service) {
	t.Helper()
	c, url, s := client(t)
	return sqsqueue.New(c, url), s
}

func client(t *testing.T) (c *sqs.Client, url string, s *service) {
	t.Helper()
	local, err := queue.Open(queue.Config{Name: "work", Visibility: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	s = &service{Service: sqsapi.New(), queue: local}
	s.Serve(local)
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	c = sqs.New(sqs.Options{Region: "us-east-1", BaseEndpoint: &server.URL, Credentials: aws.NewCredentialsCache(credentials.NewStaticCredentialsProvider("a", "b", ""))})
	return c, server.URL + "/000000000000/work", s
}

func items(n int) []work.Item {
	var list []work.Item
	for i := range n {
		list = append(list, work.Item{Tenant: "t", EndpointID: fmt.Sprint("ep_", i%3), EventID: fmt.Sprintf("ev_%02d", i), Attempts: i})
	}
	return list
}

func TestSendPutsTenItemsInEachRequest(t *testing.T) {
	q, s := open(t)
	list := items(25)
	if errs := q.Send(t.Context(), list); errs != nil {
		t.Fatal(errs)
	}
	got, err := s.queue.Receive(t.Context(), 100)
	if err != nil || len(got) != 25 || s.requests.Load() != 3 {
		t.Fatalf("%d messages in %d requests, %v", len(got), s.requests.Load(), err)
	}
	found := map[string]bool{}
	for _, m := range got {
		item, err := work.Decode(m.Body)
		if err != nil || m.Group != item.EndpointID {
			t.Errorf("message %+v, %v", m, err)
		}
		found[item.Encode()] = true
	}
	for _, item := range list {
		if !found[item.Encode()] {
			t.Errorf("%+v did not arrive", item)
		}
	}
}

// SQS refuses a request without entries.
func TestSendSendsNoEmptyRequest(t *testing.T) {
	for n, want := range map[int]int32{0: 0, 1: 1, 10: 1, 11: 2, 20: 2} {
		q, s := open(t)
		if errs := q.Send(t.Context(), items(n)); errs != nil || s.requests.Load() != want {
			t.Errorf("%d items in %d requests, %v; want %d", n, s.requests.Load(), errs, want)
		}
	}
}

func TestDelaysAreWholeSecondsRoundedUp(t *testing.T) {
	q, s := open(t)
	want := map[string]int{"ev_00": 0, "ev_01": 1, "ev_02": 2, "ev_03": 900, "ev_04": 0}
	s.Refuse = func(body string, delay int) string {
		item, err := work.Decode(body)
		if err != nil || want[item.EventID] != delay {
			t.Errorf("%s is delayed by %d s, want %d", item.EventID, delay, want[item.EventID])
		}
		return ""
	}
	list := items(5)
	list[1].Delay, list[2].Delay, list[3].Delay, list[4].Delay = time.Millisecond, 2*time.Second, time.Hour, -time.Second
	if errs := q.Send(t.Context(), list); errs != nil {
		t.Fatal(errs)
	}
}

func TestFailuresAreReportedPerItem(t *testing.T) {
	q, s := open(t)
	var throttled atomic.Int32
	s.Refuse = func(body string, _ int) string {
		item, _ := work.Decode(body)
		switch item.EventID {
		case "ev_03":
			return "InvalidMessageContents"
		case "ev_07":
			if throttled.Add(1) == 1 {
				return "ThrottlingException" // the second try succeeds
			}
		case "ev_12":
			return "InternalError" // no try succeeds
		}
		return ""
	}
	errs := q.Send(t.Context(), items(15))
	for i, err := range errs {
		if want := i == 3 || i == 12; (err != nil) != want {
			t.Errorf("item %d: %v", i, err)
		}
	}
	if len(errs) != 15 || !strings.Contains(errs[12].Error(), "InternalError") {
		t.Errorf("errors = %v", errs)
	}
	got, err := s.queue.Receive(t.Context(), 100)
	if err != nil || len(got) != 13 {
		t.Errorf("%d messages arrived, %v", len(got), err)
	}
}

func TestSendReportsEveryItemWhenTheRequestFails(t *testing.T) {
	q, _ := open(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	errs := q.Send(ctx, items(12))
	if len(errs) != 12 {
		t.Fatalf("%d errors for 12 items", len(errs))
	}
	for i, err := range errs {
		if err == nil {
			t.Errorf("item %d is reported as sent", i)
		}
	}
}

func TestDepth(t *testing.T) {
	c, url, s := client(t)
	q, gauge := sqsqueue.New(c, url), sqsqueue.Gauge{Client: c, URL: url}
	list := items(6)
	for i := range 3 {
		list[i].Delay = time.Hour
	}
	if errs := q.Send(t.Context(), list); errs != nil {
		t.Fatal(errs)
	}
	if _, err := s.queue.Receive(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	want := work.Depth{Visible: 1, Delayed: 3, InFlight: 2}
	if got, err := gauge.Depth(t.Context()); err != nil || got != want {
		t.Errorf("Gauge: %+v, %v; want %+v", got, err, want)
	}
	if got, err := s.queue.Depth(t.Context()); err != nil || got != want {
		t.Errorf("local queue: %+v, %v; want %+v", got, err, want)
	}
}

// scripted is an SQS with the answers of a test; the last one is repeated.
type scripted struct {
	batches    []*sqs.SendMessageBatchOutput
	attributes map[string]string
	err        error
	requests   int
}

func (s *scripted) SendMessageBatch(context.Context, *sqs.SendMessageBatchInput, ...func(*sqs.Options)) (*sqs.SendMessageBatchOutput, error) {
	s.requests++
	return s.batches[min(s.requests, len(s.batches))-1], s.err
}

func (s *scripted) GetQueueAttributes(context.Context, *sqs.GetQueueAttributesInput, ...func(*sqs.Options)) (*sqs.GetQueueAttributesOutput, error) {
	return &sqs.GetQueueAttributesOutput{Attributes: s.attributes}, s.err
}

// answer is that of a batch: the ids of the entries that were sent, and of those that were not.
func answer(sent, failed string) *sqs.SendMessageBatchOutput {
	out := &sqs.SendMessageBatchOutput{}
	for _, id := range strings.Fields(sent) {
		out.Successful = append(out.Successful, types.SendMessageBatchResultEntry{Id: &id})
	}
	for _, id := range strings.Fields(failed) {
		out.Failed = append(out.Failed, types.BatchResultErrorEntry{Id: &id, Code: aws.String("Throttled")})
	}
	return out
}

// An item is sent if SQS says so for its id, and tried three times; other ids say nothing.
func TestAnItemIsSentIfItsIDIsConfirmed(t *testing.T) {
	for name, c := range map[string]struct {
		batches  []*sqs.SendMessageBatchOutput
		failed   []bool // of two items
		requests int
	}{
		"both are sent":             {[]*sqs.SendMessageBatchOutput{answer("0 1", "")}, nil, 1},
		"the second try succeeds":   {[]*sqs.SendMessageBatchOutput{answer("", "0 1"), answer("0 1", "")}, nil, 2},
		"no try succeeds":           {[]*sqs.SendMessageBatchOutput{answer("", "0 1")}, []bool{true, true}, 3},
		"the first fails":           {[]*sqs.SendMessageBatchOutput{answer("1", "0")}, []bool{true, false}, 3},
		"failures of other entries": {[]*sqs.SendMessageBatchOutput{answer("0 1", "x -1 2")}, nil, 1},
		"others are sent":           {[]*sqs.SendMessageBatchOutput{answer("", "0 1"), answer("x -1 2", "")}, []bool{true, true}, 2},
	} {
		client := &scripted{batches: c.batches}
		errs := sqsqueue.New(client, "url").Send(t.Context(), items(2))
		if len(errs) != len(c.failed) || client.requests != c.requests {
			t.Errorf("%s: %v after %d requests, want %d", name, errs, client.requests, c.requests)
			continue
		}
		for i, failed := range c.failed {
			if (errs[i] != nil) != failed {
				t.Errorf("%s: item %d: %v", name, i, errs[i])
			}
		}
	}
}

func TestADepthThatIsNoNumberIsAnError(t *testing.T) {
	good := map[string]string{"ApproximateNumberOfMessages": "1", "ApproximateNumberOfMessagesDelayed": "2", "ApproximateNumberOfMessagesNotVisible": "3"}
	if d, err := (sqsqueue.Gauge{Client: &scripted{attributes: good}}).Depth(t.Context()); err != nil || d != (work.Depth{Visible: 1, Delayed: 2, InFlight: 3}) {
		t.Fatalf("%+v, %v", d, err)
	}
	for name, client := range map[string]*scripted{
		"no numbers": {attributes: map[string]string{"ApproximateNumberOfMessages": "many"}}, "none": {}, "no answer": {attributes: good, err: errors.New("access denied")},
	} {
		if d, err := (sqsqueue.Gauge{Client: client}).Depth(t.Context()); err == nil {
			t.Errorf("%s: %+v", name, d)
		}
	}
}
