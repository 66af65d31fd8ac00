package dynamo_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/delivery/ratelimit"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/ops/stats"
	"github.com/tidings-dev/tidings/pkg/store/dynamo"
	"github.com/tidings-dev/tidings/pkg/store/dynamoitem"
)

// object is JSON.
type object map[string]any

// request is what a store asked for.
type request struct {
	operation string
	in        object
}

// answers is a DynamoDB that gives the answers of a test, by operation. Of several answers
// of one operation, the last one is repeated.
type answers struct {
	by   map[string][]object // an answer with __type is an error
	sent []request
}

func (a *answers) Do(q *http.Request) (*http.Response, error) {
	var in object
	if err := json.NewDecoder(q.Body).Decode(&in); err != nil {
		return nil, err
	}
	_, operation, _ := strings.Cut(q.Header.Get("X-Amz-Target"), ".")
	a.sent = append(a.sent, request{operation, in})
	answer := object{}
	if list := a.by[operation]; len(list) > 0 {
		answer = list[0]
		a.by[operation] = list[min(1, len(list)-1):]
	}
	text, err := json.Marshal(answer)
	if err != nil {
		return nil, err
	}
	status := http.StatusOK
	if answer["__type"] != nil {
		status = http.StatusBadRequest
	}
	return &http.Response{
		StatusCode: status, Header: http.Header{"Content-Type": {"application/x-amz-json-1.0"}}, Body: io.NopCloser(strings.NewReader(string(text))),
	}, q.Context().Err()
}

// answering returns a store whose DynamoDB gives these answers.
func answering(by map[string][]object) (*dynamo.Store, *answers) {
	a := &answers{by: by}
	return dynamo.New(dynamodb.New(dynamodb.Options{
		Region: "us-east-1", Credentials: credentials.NewStaticCredentialsProvider("k", "s", ""), Retryer: aws.NopRetryer{}, HTTPClient: a,
	}), dynamo.Tables{Events: "e", Deliveries: "d", Endpoints: "n", Control: "c", Platform: "p"}), a
}

var (
	broken  = object{"x": object{"S": "of another version"}} // an item without what it needs
	absent  = object{"__type": "com.amazonaws.dynamodb.v20120810#ResourceNotFoundException", "message": "no such table"}
	refused = object{"__type": "com.amazonaws.dynamodb.v20120810#ConditionalCheckFailedException", "message": "no"}
)

func holding(item object) object {
	return object{"__type": refused["__type"], "message": "no", "Item": item}
}

// onWire returns an item as DynamoDB sends it.
func onWire(item dynamoitem.Item) object {
	out := object{}
	for name, value := range item {
		switch v := value.(type) {
		case *types.AttributeValueMemberS:
			out[name] = object{"S": v.Value}
		case *types.AttributeValueMemberN:
			out[name] = object{"N": v.Value}
		case *types.AttributeValueMemberB:
			out[name] = object{"B": v.Value}
		case *types.AttributeValueMemberBOOL:
			out[name] = object{"BOOL": v.Value}
		}
	}
	return out
}

var (
	noon = time.Date(2026, 1, 29, 12, 0, 0, 0, time.UTC)
	keyA = delivery.Key{EndpointID: "ep_1", EventID: "01KG4N5G00AAAAAAAAAAAAAAAA"}
	keyB = delivery.Key{EndpointID: "ep_1", EventID: "01KG4N5G00BBBBBBBBBBBBBBBB"}
	keyC = delivery.Key{EndpointID: "ep_1", EventID: "01KG4N5G00CCCCCCCCCCCCCCCC"}
)

func stored(k delivery.Key, change func(*delivery.Delivery)) object {
	d := delivery.Delivery{Key: k, Tenant: "t", EventType: "a.b", State: delivery.Pending, Attempts: 1, Since: noon, CreatedAt: noon, UpdatedAt: noon, ExpiresAt: noon.Add(event.Retention(0))}
	if change != nil {
		change(&d)
	}
	return onWire(dynamoitem.EncodeDelivery(d))
}

func dead(d *delivery.Delivery) { d.State = delivery.Dead }

func keyOf(k delivery.Key) object { return onWire(dynamoitem.DeliveryKey(k)) }

// Whatever DynamoDB answers that a method can't take for success is an error: an item that
// cannot be decoded, a write that was refused although it should not have been, a failure of
// the second of two requests.
func TestEveryUnexpectedAnswerIsAnError(t *testing.T) {
	type store = *dynamo.Store
	claim := delivery.Claim{Key: keyA, Tenant: "t", ID: "w", Now: noon, Lease: time.Minute}
	reservation := ratelimit.Limit{PerMinute: 60, Burst: 5}.Reserve(1, noon, noon.Add(time.Minute))
	for name, c := range map[string]struct {
		by map[string][]object
		do func(context.Context, store) error
	}{
		"a key that is held": {map[string][]object{"PutItem": {holding(broken)}}, func(ctx context.Context, s store) error {
			_, err := s.ReserveKey(ctx, "t", "k", event.Reservation{}, noon)
			return err
		}},
		"a value that is held": {map[string][]object{"PutItem": {holding(broken)}}, func(ctx context.Context, s store) error {
			_, err := s.PutValueIfAbsent(ctx, "k", "v", noon)
			return err
		}},
		"a value": {map[string][]object{"GetItem": {{"Item": broken}}}, func(ctx context.Context, s store) error { _, err := s.GetValue(ctx, "k"); return err }},
		"a document": {map[string][]object{"GetItem": {{"Item": broken}}}, func(ctx context.Context, s store) error {
			_, _, err := s.ReadDocument(ctx, "k")
			return err
		}},
		"a document that is held": {map[string][]object{"PutItem": {holding(broken)}}, func(ctx context.Context, s store) error {
			_, err := s.WriteDocument(ctx, "k", nil, 1, "me")
			return err
		}},
		"slots that keep changing": {map[string][]object{"UpdateItem": {refused}}, func(ctx context.Context, s store) error {
			_, err := s.ReserveSlots(ctx, "k", time.Second, noon)
			return err
		}},
		"a reservation that keeps changing": {map[string][]object{"UpdateItem": {refused}}, func(ctx context.Context, s store) error {
			_, _, err := s.Reserve(ctx, "k", reservation)
			return err
		}},
		"a reservation": {map[string][]object{"UpdateItem": {{"Attributes": broken}}}, func(ctx context.Context, s store) error {
			_, _, err := s.Reserve(ctx, "k", reservation)
			return err
		}},
		"a reservation that is held": {map[string][]object{"UpdateItem": {holding(broken)}}, func(ctx context.Context, s store) error {
			_, _, err := s.Reserve(ctx, "k", reservation)
			return err
		}},
		"the first reservation": {map[string][]object{"UpdateItem": {refused, {"Attributes": broken}}}, func(ctx context.Context, s store) error {
			_, _, err := s.Reserve(ctx, "k", reservation)
			return err
		}},
		"a reservation without a table": {map[string][]object{"UpdateItem": {refused, absent}}, func(ctx context.Context, s store) error {
			_, _, err := s.Reserve(ctx, "k", reservation)
			return err
		}},
		"a claim that changed meanwhile": {map[string][]object{"UpdateItem": {refused}}, func(ctx context.Context, s store) error { _, err := s.Claim(ctx, claim); return err }},
		"a delivery that is held":        {map[string][]object{"UpdateItem": {holding(broken)}}, func(ctx context.Context, s store) error { _, err := s.Claim(ctx, claim); return err }},
		"settling what changed meanwhile": {map[string][]object{"UpdateItem": {refused}}, func(ctx context.Context, s store) error {
			return s.Settle(ctx, delivery.Settle{Key: keyA, Tenant: "t", State: delivery.Dead, Now: noon})
		}},
		"parking what changed meanwhile": {map[string][]object{"UpdateItem": {refused}}, func(ctx context.Context, s store) error {
			_, err := s.Park(ctx, delivery.Park{Key: keyA, Tenant: "t", InBacklog: true, Now: noon, DueAt: noon})
			return err
		}},
		"a replay without a table":                       {map[string][]object{"GetItem": {{"Item": stored(keyA, dead)}}, "UpdateItem": {absent}}, replay},
		"a replay of what was deleted":                   {map[string][]object{"GetItem": {{"Item": stored(keyA, dead)}}, "UpdateItem": {refused}}, replay},
		"a replay of what is pending since another time": {map[string][]object{"GetItem": {{"Item": stored(keyA, dead)}}, "UpdateItem": {holding(stored(keyA, nil))}}, replay},
		"a replay of what died again": {map[string][]object{"GetItem": {{"Item": stored(keyA, dead)}}, "UpdateItem": {holding(stored(keyA, func(d *delivery.Delivery) {
			d.State, d.Since = delivery.Dead, noon.Add(time.Hour)
		}))}}, replay},
		"a query": {map[string][]object{"Query": {{"Items": []object{broken}}}}, func(ctx context.Context, s store) error {
			_, err := s.QueryDeliveries(ctx, delivery.Query{EndpointID: "ep_1"})
			return err
		}},
		"the end of a query": {map[string][]object{"Query": {{"ScannedCount": 1, "LastEvaluatedKey": broken}}}, func(ctx context.Context, s store) error {
			_, err := s.QueryDeliveries(ctx, delivery.Query{EndpointID: "ep_1", EventType: "a.b", Examine: 1})
			return err
		}},
		"a backlog": {map[string][]object{"Query": {{"Items": []object{broken}}}}, backlog},
		"a delivery of a backlog": {map[string][]object{
			"Query": {{"Items": []object{keyOf(keyA)}}}, "BatchGetItem": {{"Responses": object{"d": []object{broken}}}},
		}, backlog},
		"a backlog without a table":    {map[string][]object{"Query": {{"Items": []object{keyOf(keyA)}}}, "BatchGetItem": {absent}}, backlog},
		"a due delivery":               {map[string][]object{"Query": {{"Items": []object{broken}}}}, due("")},
		"the end of the due ones":      {map[string][]object{"Query": {{"LastEvaluatedKey": broken}}}, due("")},
		"a cursor without an endpoint": {nil, due(`{"At":1,"EventID":"e"}`)},
		"a cursor without an event":    {nil, due(`{"At":1,"EndpointID":"e"}`)},
		"a cursor of something else":   {nil, due(`[]`)},
		"an endpoint that is stored, and not announced": {map[string][]object{"UpdateItem": {absent}}, func(ctx context.Context, s store) error {
			return s.AddEndpoint(ctx, endpoint.Endpoint{Tenant: "t", ID: "ep_1"})
		}},
		"an endpoint that is not stored": {map[string][]object{"PutItem": {absent}}, func(ctx context.Context, s store) error {
			return s.AddEndpoint(ctx, endpoint.Endpoint{Tenant: "t", ID: "ep_1"})
		}},
		"the version of the endpoints is no endpoint": {nil, func(ctx context.Context, s store) error {
			_, err := s.GetEndpoint(ctx, "t", dynamoitem.EndpointsVersion)
			return err
		}},
		"the version of the endpoints cannot be removed": {nil, func(ctx context.Context, s store) error {
			return s.RemoveEndpoint(ctx, "t", dynamoitem.EndpointsVersion)
		}},
		"the version of the endpoints, if it is no number": {map[string][]object{"Query": {{"Items": []object{{"tenant": object{"S": "t"}, "endpoint_id": object{"S": dynamoitem.EndpointsVersion}, "version": object{"S": "x"}}}}}}, func(ctx context.Context, s store) error {
			_, err := s.ReadEndpoints(ctx, "t", true)
			return err
		}},
		"a disabled endpoint": {map[string][]object{"BatchGetItem": {{"Responses": object{"n": []object{broken}}}}}, func(ctx context.Context, s store) error {
			_, err := s.DisabledEndpoints(ctx, []stats.Endpoint{{Tenant: "t", ID: "ep_1"}})
			return err
		}},
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := answering(c.by)
			if err := c.do(t.Context(), s); err == nil {
				t.Error("no error")
			}
		})
	}
}

func replay(ctx context.Context, s *dynamo.Store) error {
	_, err := s.Replay(ctx, delivery.Replay{Key: keyA, Now: noon.Add(time.Hour), DueAt: noon.Add(time.Hour)})
	return err
}

func backlog(ctx context.Context, s *dynamo.Store) error {
	_, err := s.ListBacklog(ctx, "ep_1", "", 10)
	return err
}

func due(cursor string) func(context.Context, *dynamo.Store) error {
	return func(ctx context.Context, s *dynamo.Store) error {
		_, _, err := s.Due(ctx, 0, noon, base64.RawURLEncoding.EncodeToString([]byte(cursor)), 10)
		return err
	}
}

// A document of another version is not a repeated write, also if the same writer wrote it.
func TestAWriteOfADocumentIsItsOwnByVersionAndWriter(t *testing.T) {
	for name, c := range map[string]struct {
		version int
		writer  string
		own     bool
	}{"its own": {2, "me", true}, "another's": {2, "another", false}, "an older one of its own": {1, "me", false}} {
		s, _ := answering(map[string][]object{"PutItem": {holding(onWire(dynamoitem.EncodeDocument("k", []byte("{}"), c.version, c.writer)))}})
		if own, err := s.WriteDocument(t.Context(), "k", []byte("{}"), 1, "me"); err != nil || own != c.own {
			t.Errorf("%s: %t, %v", name, own, err)
		}
	}
}

// What a write sets and removes.
func TestWhatAWriteSends(t *testing.T) {
	r := ratelimit.Limit{PerMinute: 60, Burst: 5}.Reserve(3, noon, noon.Add(time.Minute))
	last := dynamoitem.Micros(r.AtMost.Add(-r.Cost)).(*types.AttributeValueMemberN).Value
	park := func(p delivery.Park) func(*dynamo.Store) error {
		p.Key, p.Tenant, p.Now, p.DueAt = keyA, "t", noon, noon.Add(time.Hour)
		return func(s *dynamo.Store) error { _, err := s.Park(context.Background(), p); return err }
	}
	attributes := map[string][]object{"UpdateItem": {{"Attributes": stored(keyA, nil)}}}
	for name, c := range map[string]struct {
		by       map[string][]object
		do       func(*dynamo.Store) error
		contains []string // of the last request
	}{
		"a reservation": {map[string][]object{"UpdateItem": {{"Attributes": object{"slots_at": object{"N": "1"}}}}}, func(s *dynamo.Store) error {
			_, _, err := s.Reserve(t.Context(), "k", r)
			return err
		}, []string{"#expires_at = :expires_at", `":last":{"N":"` + last + `"}`}},
		"the first reservation": {map[string][]object{"UpdateItem": {refused, {"Attributes": object{"slots_at": object{"N": "1"}}}}}, func(s *dynamo.Store) error {
			_, _, err := s.Reserve(t.Context(), "k", r)
			return err
		}, []string{"#slots_at = :slots_at", "#expires_at = :expires_at"}},
		"a wait in the backlog": {attributes, park(delivery.Park{InBacklog: true}), []string{"#due_shard = :due_shard", "#due_at = :due_at", "#waiting = :waiting", "REMOVE #slot"}},
		"a wait for a slot":     {attributes, park(delivery.Park{Slot: noon.Add(time.Minute)}), []string{"#due_shard = :due_shard", "#slot = :slot", "REMOVE #waiting"}},
	} {
		s, a := answering(c.by)
		if err := c.do(s); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		text, err := json.Marshal(a.sent[len(a.sent)-1].in)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range c.contains {
			if !strings.Contains(string(text), want) {
				t.Errorf("%s: %s is missing in %s", name, want, text)
			}
		}
	}
}

// A filtered query reads on until it has examined what it may, from where it was.
func TestAFilteredQueryReadsOn(t *testing.T) {
	more := func(k delivery.Key, n int) object {
		return object{"Items": []object{stored(k, nil)}, "ScannedCount": n, "LastEvaluatedKey": keyOf(k)}
	}
	for name, c := range map[string]struct {
		examine int
		limits  []any
		found   int
		next    bool
	}{
		"to its end":           {0, []any{nil, nil, nil}, 3, false},
		"as far as it may":     {3, []any{3.0, 1.0}, 2, true},
		"one more than it has": {4, []any{4.0, 2.0, 1.0}, 3, false},
	} {
		s, a := answering(map[string][]object{"Query": {more(keyC, 2), more(keyB, 1), {"Items": []object{stored(keyA, nil)}, "ScannedCount": 1}}})
		page, err := s.QueryDeliveries(t.Context(), delivery.Query{EndpointID: "ep_1", EventType: "a.b", Limit: 10, Examine: c.examine})
		var limits, starts []any
		for _, r := range a.sent {
			limits, starts = append(limits, r.in["Limit"]), append(starts, r.in["ExclusiveStartKey"])
		}
		if err != nil || len(page.Deliveries) != c.found || (page.Next != "") != c.next || !slices.Equal(limits, c.limits) {
			t.Errorf("%s: %d found, next %q, limits %v, %v", name, len(page.Deliveries), page.Next, limits, err)
		}
		for i, start := range starts {
			if (start != nil) != (i > 0) {
				t.Errorf("%s: request %d begins at %v", name, i, start)
			}
		}
	}
}

// DynamoDB returns the items of a batch in any order.
func TestABacklogIsInTheOrderOfItsEvents(t *testing.T) {
	waiting := func(d *delivery.Delivery) { d.InBacklog = true }
	s, _ := answering(map[string][]object{
		"Query":        {{"Items": []object{keyOf(keyA), keyOf(keyB), keyOf(keyC)}}},
		"BatchGetItem": {{"Responses": object{"d": []object{stored(keyC, waiting), stored(keyA, waiting), stored(keyB, waiting)}}}},
	})
	page, err := s.ListBacklog(t.Context(), "ep_1", "", 10)
	if err != nil || len(page.Deliveries) != 3 || page.Deliveries[0].Key != keyA || page.Deliveries[2].Key != keyC {
		t.Errorf("%+v, %v", page, err)
	}
}

// Keys that DynamoDB has throttled are asked for again, later and later, until the context
// ends. Without any, nothing waits.
func TestThrottledKeysAreReadAgain(t *testing.T) {
	throttled := object{"UnprocessedKeys": object{"d": object{"Keys": []object{keyOf(keyA)}}}}
	good := object{"Responses": object{"d": []object{stored(keyA, func(d *delivery.Delivery) { d.InBacklog = true })}}}
	for name, c := range map[string]struct {
		batches []object
		takes   time.Duration
		fails   bool
	}{
		"none":      {[]object{good}, 0, false},
		"twice":     {[]object{throttled, throttled, good}, 150 * time.Millisecond, false},
		"each time": {[]object{throttled}, time.Minute, true},
	} {
		synctest.Test(t, func(t *testing.T) {
			s, _ := answering(map[string][]object{"Query": {{"Items": []object{keyOf(keyA)}}}, "BatchGetItem": c.batches})
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			began := time.Now()
			page, err := s.ListBacklog(ctx, "ep_1", "", 10)
			if took := time.Since(began); took != c.takes || (err != nil) != c.fails || !c.fails && len(page.Deliveries) != 1 {
				t.Errorf("%s: %d found in %s, %v", name, len(page.Deliveries), took, err)
			}
			if c.fails && (!errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "throttled")) {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
}
