package dynamo_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/tidings-dev/tidings/pkg/platform"
	"github.com/tidings-dev/tidings/pkg/store/dynamo"
	"github.com/tidings-dev/tidings/pkg/store/dynamoitem"
)

// reads records the reads that a store sends, and answers that there is nothing. Writes
// fail their condition, so that a store which then reads does so.
type reads struct {
	mu   sync.Mutex
	sent []string
}

func (r *reads) Do(q *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(q.Body)
	if err != nil {
		return nil, err
	}
	_, operation, _ := strings.Cut(q.Header.Get("X-Amz-Target"), ".")
	answer := func(status int, text string) (*http.Response, error) {
		return &http.Response{
			StatusCode: status, Header: http.Header{"Content-Type": {"application/x-amz-json-1.0"}}, Body: io.NopCloser(strings.NewReader(text)),
		}, nil
	}
	if operation == "PutItem" || operation == "UpdateItem" || operation == "DeleteItem" {
		return answer(http.StatusBadRequest, `{"__type":"com.amazonaws.dynamodb.v20120810#ConditionalCheckFailedException","message":"no"}`)
	}
	var in struct {
		TableName, IndexName string
		ConsistentRead       bool
		RequestItems         map[string]struct{ ConsistentRead bool }
	}
	if err := json.Unmarshal(body, &in); err != nil {
		return nil, err
	}
	for table, asked := range in.RequestItems { // one table per batch
		in.TableName, in.ConsistentRead = table, asked.ConsistentRead
	}
	said := operation + " " + in.TableName
	if in.IndexName != "" {
		said += "'s index"
	}
	if in.ConsistentRead {
		said += ", consistent"
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if !slices.Contains(r.sent, said) {
		r.sent = append(r.sent, said)
	}
	if operation == "Query" && in.TableName == "discussions" && strings.Contains(string(body), dynamoitem.ExpiringIndex) {
		return answer(http.StatusOK, wire(dynamoitem.EncodeEntry(platform.Discussion{
			Common: platform.Common{Tenant: "t"}, ID: "d", Status: platform.Open, ExpiresAt: time.Unix(1, 0),
		}, dynamoitem.EncodeKey(dynamoitem.Item{dynamoitem.PK: dynamoitem.S("p"), dynamoitem.SK: dynamoitem.S("s")}))))
	}
	return answer(http.StatusOK, "{}")
}

// wire is a response with one item, whose attributes are texts and numbers.
func wire(item dynamoitem.Item) string {
	attributes := map[string]map[string]string{}
	for name, value := range item {
		switch v := value.(type) {
		case *types.AttributeValueMemberS:
			attributes[name] = map[string]string{"S": v.Value}
		case *types.AttributeValueMemberN:
			attributes[name] = map[string]string{"N": v.Value}
		}
	}
	text, err := json.Marshal(map[string]any{"Items": []any{attributes}, "Count": 1})
	if err != nil {
		panic(err) // cannot happen: maps of texts
	}
	return string(text)
}

// wantReads is how each method that reads does so, or at least one of its ways. A consistent
// read costs twice as much, so it is for what is acted upon at once. An index is never
// consistent, and the callers of the other eventual reads expect a stale answer: lists that
// are cached or shown, and a first look that a consistent one follows if it finds nothing.
var wantReads = map[string][]string{
	// Deliveries and endpoints: a worker acts on what it reads.
	"GetDelivery":      {"GetItem Deliveries, consistent"},
	"Replay":           {"GetItem Deliveries, consistent"},
	"EraseDelivery":    {"GetItem Deliveries, consistent"},
	"ScanEvents":       {"Scan Events, consistent"}, // or an erasure misses one
	"ScanRange":        {"Scan Events"},             // events of more than five minutes ago
	"QueryDeliveries":  {"Query Deliveries"},        // or its index
	"GetEndpoint":      {"GetItem Endpoints, consistent"},
	"ListEndpoints":    {"Query Endpoints"},             // for people
	"ReadEndpoints":    {"Query Endpoints, consistent"}, // as its caller asks
	"EndpointsVersion": {"GetItem Endpoints"},           // of each batch: half a unit
	"EachEndpoint":     {"Scan Endpoints"},              // for a check that an operator asks for
	"GetEvent":         {"GetItem Events", "GetItem Events, consistent"},
	"GetBreaker":       {"GetItem Control, consistent"}, // as its caller asks
	// Indexes.
	"CountDue":     {"Query Deliveries's index"},
	"Due":          {"Query Deliveries's index"},
	"ListBacklog":  {"Query Deliveries's index"}, // and BatchGetItem, if it finds any: a claim is conditional
	"ListCircuits": {"Query Control's index"},
	"ListPending":  {"Query Deliveries's index"}, // and BatchGetItem, if it finds any: a list for people
	"CountBacklog": {"Query Deliveries's index"}, // a job adds a few more or less
	// Jobs: a worker acts on what it reads. The sweep looks again a minute later.
	"GetJob":   {"GetItem Deliveries, consistent"},
	"ListJobs": {"Query Deliveries"},
	"DueJobs":  {"Query Deliveries's index"},
	// Sessions: a revoked one must not be valid for another second.
	"GetValue": {"GetItem Control, consistent"},
	// Health, alerts and the console.
	"ReadDocument":       {"GetItem Control, consistent"}, // or an alert is sent twice
	"ReadDays":           {"BatchGetItem Control"},
	"ReadStatistics":     {"BatchGetItem Control"},
	"ReadStuckCapture":   {"GetItem Control"},
	"MarkStuckCapture":   {"GetItem Control"}, // only for the time since when
	"DisabledEndpoints":  {"BatchGetItem Endpoints"},
	"ListAudit":          {"Query Deliveries"},
	"QueryJournal":       {"Query Deliveries"}, // a list of events for people
	"CountFailedChanges": {"Query Deliveries"},
	"ListFailedChanges":  {"Query Deliveries"},
	"GetFailedChange":    {"GetItem Deliveries, consistent"},
	// Discussions.
	"GetDiscussion":      {"GetItem discussions, consistent"},
	"CloseDiscussion":    {"GetItem discussions, consistent"},
	"ExtendDiscussion":   {"GetItem discussions, consistent"},
	"ExpiredDiscussions": {"Query discussions's index"},
	"ListDiscussions":    {"Query discussions's index", "BatchGetItem Platform, consistent"},
	"IndexTable":         {"GetItem discussions, consistent", "Scan Platform"},
	// Tests of a deployment.
	"GetTestRun":   {"GetItem TestReceiver, consistent"},
	"ListArrivals": {"Query TestReceiver, consistent"},
}

// The emulator answers every read consistently, so only the request shows the difference.
func TestEachReadIsAsConsistentAsItsCallerNeeds(t *testing.T) {
	got := map[string][]string{}
	contextType := reflect.TypeFor[context.Context]()
	for i := range reflect.TypeFor[*dynamo.Store]().NumMethod() {
		for _, text := range []string{"01JZZZZZZZZZZZZZZZZZZZZZZZ", ""} { // a text may be a cursor
			r := &reads{}
			store := reflect.ValueOf(dynamo.New(dynamodb.New(dynamodb.Options{
				Region: "us-east-1", Credentials: credentials.NewStaticCredentialsProvider("k", "s", ""), Retryer: aws.NopRetryer{}, HTTPClient: r,
			}), dynamo.Tables{
				Events: "Events", Deliveries: "Deliveries", Endpoints: "Endpoints", Control: "Control", Platform: "Platform", TestReceiver: "TestReceiver", Discussions: "discussions",
			}))
			name, method := store.Type().Method(i).Name, store.Method(i)
			kind := method.Type()
			if kind.NumIn() == 0 || kind.In(0) != contextType {
				continue
			}
			arguments := []reflect.Value{reflect.ValueOf(t.Context())}
			for n := 1; n < kind.NumIn(); n++ {
				arguments = append(arguments, filled(kind.In(n), text))
				if kind.In(n).Kind() == reflect.Bool {
					arguments[n].SetBool(true) // GetBreaker's caller asks for a consistent read
				}
				if kind.In(n) == reflect.TypeFor[platform.Query]() {
					arguments[n] = reflect.ValueOf(platform.Query{Tenant: "t", View: platform.ViewOpen, Limit: 1})
				}
			}
			method.Call(arguments)
			for _, said := range r.sent {
				if !slices.Contains(got[name], said) {
					got[name] = append(got[name], said)
				}
			}
		}
	}
	for name, said := range got {
		if want := wantReads[name]; !slices.Equal(slices.Sorted(slices.Values(said)), slices.Sorted(slices.Values(want))) {
			t.Errorf("%s sends %q; want %q: decide whether a stale answer is right, and say so in wantReads", name, said, want)
		}
	}
	for name := range wantReads {
		if got[name] == nil {
			t.Errorf("%s reads nothing any more: remove it from wantReads", name)
		}
	}
	// A caller that does not ask gets the cheap read.
	r := &reads{}
	store := dynamo.New(dynamodb.New(dynamodb.Options{
		Region: "us-east-1", Credentials: credentials.NewStaticCredentialsProvider("k", "s", ""), Retryer: aws.NopRetryer{}, HTTPClient: r,
	}), dynamo.Tables{Control: "Control"})
	if _, err := store.GetBreaker(t.Context(), "t", "ep_1", false); err != nil || !slices.Equal(r.sent, []string{"GetItem Control"}) {
		t.Errorf("a breaker for the cache is read by %q, %v", r.sent, err)
	}
}
