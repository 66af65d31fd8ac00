package sqsqueue_test

import (
	"context"
	"crypto/md5"
	"encoding/hex"
	"encoding/json"
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

	"github.com/tidings-dev/tidings/pkg/aws/sqsqueue"
	"github.com/tidings-dev/tidings/pkg/delivery/work"
	"github.com/tidings-dev/tidings/pkg/local/queue"
)

// entry is one of SendMessageBatch, as the AWS JSON protocol has it.
type entry struct {
	ID             string `json:"Id"`
	MessageBody    string
	MessageGroupID string `json:"MessageGroupId"`
	DelaySeconds   int
}

// service is SQS's SendMessageBatch over the local queue: the SDK's own client
// talks to it, so what goes over the wire is what SQS would get.
type service struct {
	queue    *queue.Queue
	requests atomic.Int32
	// refuse returns the error code for an entry, "" to take it.
	refuse func(e entry) string
}

func (s *service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.requests.Add(1)
	if r.Header.Get("X-Amz-Target") == "AmazonSQS.GetQueueAttributes" {
		s.attributes(w, r)
		return
	}
	var in struct{ Entries []entry }
	if r.Header.Get("X-Amz-Target") != "AmazonSQS.SendMessageBatch" || json.NewDecoder(r.Body).Decode(&in) != nil || len(in.Entries) > 10 {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	var out struct {
		Successful []map[string]string
		Failed     []map[string]any
	}
	for _, e := range in.Entries {
		if code := s.refuse(e); code != "" {
			out.Failed = append(out.Failed, map[string]any{"Id": e.ID, "Code": code, "Message": "no", "SenderFault": code == "InvalidMessageContents"})
			continue
		}
		id, err := s.queue.Put(e.MessageBody, e.MessageGroupID, time.Duration(e.DelaySeconds)*time.Second)
		if err != nil {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		sum := md5.Sum([]byte(e.MessageBody))
		out.Successful = append(out.Successful, map[string]string{"Id": e.ID, "MessageId": id, "MD5OfMessageBody": hex.EncodeToString(sum[:])})
	}
	w.Header().Set("Content-Type", "application/x-amz-json-1.0")
	_ = json.NewEncoder(w).Encode(out)
}

func open(t *testing.T) (*sqsqueue.Queue, *service) {
	t.Helper()
	c, url, s := client(t)
	return sqsqueue.New(c, url), s
}

func client(t *testing.T) (c *sqs.Client, url string, s *service) {
	t.Helper()
	local, err := queue.Open(queue.Config{Visibility: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	s = &service{queue: local, refuse: func(entry) string { return "" }}
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

func TestAllItemsArriveTenARequest(t *testing.T) {
	q, s := open(t)
	list := items(25)
	if errs := q.Send(t.Context(), list); errs != nil {
		t.Fatal(errs)
	}
	got, err := s.queue.Receive(t.Context(), 100)
	if err != nil || len(got) != 25 || s.requests.Load() != 3 {
		t.Fatalf("%d messages by %d requests, %v", len(got), s.requests.Load(), err)
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

func TestDelaysAreWholeSecondsRoundedUp(t *testing.T) {
	q, s := open(t)
	want := map[string]int{"ev_00": 0, "ev_01": 1, "ev_02": 2, "ev_03": 900, "ev_04": 0}
	s.refuse = func(e entry) string {
		item, err := work.Decode(e.MessageBody)
		if err != nil || want[item.EventID] != e.DelaySeconds {
			t.Errorf("%s is delayed by %d s, want %d", item.EventID, e.DelaySeconds, want[item.EventID])
		}
		return ""
	}
	list := items(5)
	list[1].Delay, list[2].Delay, list[3].Delay, list[4].Delay = time.Millisecond, 2*time.Second, time.Hour, -time.Second
	if errs := q.Send(t.Context(), list); errs != nil {
		t.Fatal(errs)
	}
}

func TestFailuresAreReportedItemByItem(t *testing.T) {
	q, s := open(t)
	var throttled atomic.Int32
	s.refuse = func(e entry) string {
		item, _ := work.Decode(e.MessageBody)
		switch item.EventID {
		case "ev_03":
			return "InvalidMessageContents"
		case "ev_07":
			if throttled.Add(1) == 1 {
				return "ThrottlingException" // cured by the second try
			}
		case "ev_12":
			return "InternalError" // never cured
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

func TestAQueueThatIsAwayFailsEveryItem(t *testing.T) {
	q, _ := open(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for i, err := range q.Send(ctx, items(12)) {
		if err == nil {
			t.Errorf("item %d is said to be sent", i)
		}
	}
}

// attributes answers as SQS does: with what was asked for, numbers as text.
func (s *service) attributes(w http.ResponseWriter, r *http.Request) {
	var in struct{ AttributeNames []string }
	_ = json.NewDecoder(r.Body).Decode(&in)
	held := s.queue.Stats()
	all := map[string]int{
		"ApproximateNumberOfMessages": held.Visible, "ApproximateNumberOfMessagesDelayed": held.Delayed,
		"ApproximateNumberOfMessagesNotVisible": held.InFlight, "VisibilityTimeout": 30,
	}
	out := map[string]string{}
	for _, name := range in.AttributeNames {
		out[name] = fmt.Sprint(all[name])
	}
	w.Header().Set("Content-Type", "application/x-amz-json-1.0")
	_ = json.NewEncoder(w).Encode(map[string]any{"Attributes": out})
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
		t.Errorf("over SQS: %+v, %v; want %+v", got, err, want)
	}
	if got, err := s.queue.Depth(t.Context()); err != nil || got != want {
		t.Errorf("of the local queue: %+v, %v; want %+v", got, err, want)
	}
}
