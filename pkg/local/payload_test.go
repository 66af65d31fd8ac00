package local

import (
	"encoding/json"
	"os"
	"reflect"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/events"

	"github.com/tidings-dev/tidings/pkg/local/queue"
	"github.com/tidings-dev/tidings/test/jsontest"
)

// through is what a function reads of an event that encoding/json has written.
func through[T any](t *testing.T, v T) (back T) {
	t.Helper()
	payload, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(payload, &back); err != nil {
		t.Fatal(err)
	}
	return back
}

const odd = "\x00\x1f\"\\/<&>\u2028\u2029\u007f ü 🎟 \xff \xed\xa0\x80"

func TestStreamPayloadsReadAsTheLibrarysDo(t *testing.T) {
	image := map[string]events.DynamoDBAttributeValue{
		"s" + odd: events.NewStringAttribute(odd), "n": events.NewNumberAttribute("-1.5e3"), "b": events.NewBinaryAttribute([]byte{0, 0xff}), "t": events.NewBooleanAttribute(true),
		"null": events.NewNullAttribute(), "ss": events.NewStringSetAttribute([]string{"a", odd}), "ns": events.NewNumberSetAttribute([]string{"1"}), "bs": events.NewBinarySetAttribute([][]byte{{1}}),
		"l": events.NewListAttribute([]events.DynamoDBAttributeValue{events.NewStringAttribute("x")}),
		"m": events.NewMapAttribute(map[string]events.DynamoDBAttributeValue{"k": events.NewNumberAttribute("1")}),
	}
	batches := [][]events.DynamoDBEventRecord{nil, {{}}, {{
		EventID: odd, EventName: "MODIFY", EventVersion: "1.1", EventSource: "aws:dynamodb", AWSRegion: "us-east-1", EventSourceArn: "arn:x",
		UserIdentity: &events.DynamoDBUserIdentity{Type: "Service", PrincipalID: odd},
		Change: events.DynamoDBStreamRecord{
			ApproximateCreationDateTime: events.SecondsEpochTime{Time: time.UnixMilli(1769690096789)}, Keys: map[string]events.DynamoDBAttributeValue{"k": events.NewStringAttribute("v")},
			NewImage: image, OldImage: image, SequenceNumber: "000000000000000000001", SizeBytes: 12345, StreamViewType: "NEW_AND_OLD_IMAGES",
		},
	}, {EventName: "REMOVE", Change: events.DynamoDBStreamRecord{Keys: image}}}}
	for _, sample := range []string{"../../events/dispatch-stream.json", "../../events/emit-platform-stream.json"} {
		text, err := os.ReadFile(sample)
		if err != nil {
			t.Fatal(err)
		}
		var batch events.DynamoDBEvent
		if err := json.Unmarshal(text, &batch); err != nil {
			t.Fatal(err)
		}
		batches = append(batches, batch.Records)
	}
	for _, batch := range batches {
		payload, err := streamPayload(batch)
		if err != nil {
			t.Fatal(err)
		}
		var got events.DynamoDBEvent
		if err := json.Unmarshal(payload, &got); err != nil {
			t.Fatalf("%v: %s", err, payload)
		}
		want := through(t, events.DynamoDBEvent{Records: batch})
		if len(batch) == 0 {
			want.Records = []events.DynamoDBEventRecord{} // not null
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s reads as\n%+v, want\n%+v", payload, got, want)
		}
	}
}

func TestQueuePayloadsReadAsTheLibrarysDo(t *testing.T) {
	batch := []queue.Message{
		{ID: "1", Receipt: "1.3", Body: "hello " + odd, Group: "g" + odd, Receives: 3, Sent: time.UnixMilli(1769690097000), First: time.UnixMilli(1769690097010)},
		{ID: "2", Receipt: "2.1", Body: "hello", Group: "g", Receives: 1, Sent: time.UnixMilli(1), First: time.UnixMilli(2)},
	}
	var got events.SQSEvent
	payload, err := queuePayload(batch, "arn:aws:sqs:x", "us-east-1")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(payload, &got); err != nil {
		t.Fatalf("%v: %s", err, payload)
	}
	want := through(t, events.SQSEvent{Records: []events.SQSMessage{
		{
			MessageId: "1", ReceiptHandle: "1.3", Body: batch[0].Body, Md5OfBody: got.Records[0].Md5OfBody, MessageAttributes: map[string]events.SQSMessageAttribute{},
			Attributes: map[string]string{
				"ApproximateReceiveCount": "3", "ApproximateFirstReceiveTimestamp": "1769690097010", "SentTimestamp": "1769690097000", "SenderId": "local", "MessageGroupId": batch[0].Group,
			},
			EventSource: "aws:sqs", EventSourceARN: "arn:aws:sqs:x", AWSRegion: "us-east-1",
		},
		{
			MessageId: "2", ReceiptHandle: "2.1", Body: "hello", Md5OfBody: "5d41402abc4b2a76b9719d911017c592", MessageAttributes: map[string]events.SQSMessageAttribute{},
			Attributes: map[string]string{
				"ApproximateReceiveCount": "1", "ApproximateFirstReceiveTimestamp": "2", "SentTimestamp": "1", "SenderId": "local", "MessageGroupId": "g",
			},
			EventSource: "aws:sqs", EventSourceARN: "arn:aws:sqs:x", AWSRegion: "us-east-1",
		},
	}})
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s reads as\n%+v, want\n%+v", payload, got, want)
	}
}

// What filters have said of a record is not said of another that differs in what
// they ask for.
func TestFiltersTellRecordsApart(t *testing.T) {
	insert, expiry := events.DynamoDBEventRecord{EventName: "INSERT"}, events.DynamoDBEventRecord{EventName: "REMOVE", UserIdentity: &events.DynamoDBUserIdentity{Type: "Service"}}
	removal := events.DynamoDBEventRecord{EventName: "REMOVE"}
	key := func(value string) events.DynamoDBEventRecord {
		r := insert
		r.Change.Keys = map[string]events.DynamoDBAttributeValue{"pk": events.NewStringAttribute(value)}
		return r
	}
	for _, c := range []struct {
		filters []string
		batch   []events.DynamoDBEventRecord
		want    []int
	}{
		{[]string{`{"eventName":["INSERT"]}`}, []events.DynamoDBEventRecord{insert, removal, insert, expiry}, []int{0, 2}},
		{[]string{`{"userIdentity":{"type":["Service"]}}`, `{"eventName":["INSERT"]}`}, []events.DynamoDBEventRecord{removal, expiry, removal, insert}, []int{1, 3}},
		{[]string{`{"userIdentity":{"type":[{"exists":false}]}}`}, []events.DynamoDBEventRecord{expiry, removal, {UserIdentity: &events.DynamoDBUserIdentity{}}}, []int{1}},
		{[]string{`{"dynamodb":{"Keys":{"pk":{"S":["a"]}}}}`}, []events.DynamoDBEventRecord{key("b"), key("a"), key("b"), key("a")}, []int{1, 3}},
		{[]string{`{"$or":[{"dynamodb":{"Keys":{"pk":{"S":["a"]}}}},{"eventName":["REMOVE"]}]}`}, []events.DynamoDBEventRecord{key("b"), key("a"), removal}, []int{1, 2}},
		{nil, []events.DynamoDBEventRecord{insert, removal}, []int{0, 1}},
	} {
		var texts []json.RawMessage
		for _, f := range c.filters {
			texts = append(texts, json.RawMessage(f))
		}
		f, err := compileFilters(texts)
		if err != nil {
			t.Fatal(err)
		}
		for i := range c.batch {
			c.batch[i].Change.SequenceNumber = string(rune('0' + i))
		}
		for range 2 { // the second time from memory
			got, err := f.apply(c.batch)
			if err != nil || len(got) != len(c.want) {
				t.Fatalf("%s keeps %d of %d (%v), want %v", c.filters, len(got), len(c.batch), err, c.want)
			}
			for i, at := range c.want {
				if got[i].Change.SequenceNumber != c.batch[at].Change.SequenceNumber {
					t.Errorf("%s keeps record %s, want %d", c.filters, got[i].Change.SequenceNumber, at)
				}
			}
		}
	}
}

func TestURLPayloadsReadAsTheLibrarysDo(t *testing.T) {
	for _, in := range []events.LambdaFunctionURLRequest{
		{},
		{
			Version: "2.0", RawPath: "/" + odd, RawQueryString: "a=b", Cookies: []string{"a=b", odd}, Headers: map[string]string{"host": "h", "x": odd}, QueryStringParameters: map[string]string{"a": "b", odd: odd},
			RequestContext: events.LambdaFunctionURLRequestContext{
				AccountID: "anonymous", RequestID: "r", APIID: "local", DomainName: odd, DomainPrefix: "p", Time: "t", TimeEpoch: 1769690096789,
				HTTP: events.LambdaFunctionURLRequestContextHTTPDescription{Method: "POST", Path: "/" + odd, Protocol: "HTTP/1.1", SourceIP: "127.0.0.1", UserAgent: odd},
			},
			Body: `{"a":"` + odd + `"}`, IsBase64Encoded: true,
		},
	} {
		var got events.LambdaFunctionURLRequest
		payload, err := urlPayload(in)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(payload, &got); err != nil {
			t.Fatalf("%v: %s", err, payload)
		}
		want := through(t, in)
		if len(in.Headers) == 0 {
			want.Headers = map[string]string{} // not null
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s reads as\n%+v, want\n%+v", payload, got, want)
		}
	}
}

// FuzzReadURLAnswer: what encoding/json makes of an answer is what is read.
func FuzzReadURLAnswer(f *testing.F) {
	for _, seed := range []string{
		`{"statusCode":202,"headers":{"a":"b","c":null},"body":"x\n","isBase64Encoded":true,"cookies":["a=b",null]}`, `{"statusCode":null}`, `{"statusCode":"200"}`, `{"statusCode":200.5}`, `{"statusCode":0}`, `{"statusCode":200,"headers":null,"cookies":null,"body":null}`,
		`{"plain":"object"}`, `null`, `[]`, `"text"`, `{"statusCode":200}x`, ``, `{"statusCode":200,"body":5}`, "{\"statusCode\":200,\"body\":\"\xff\"}",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, answer []byte) {
		answer, plain := jsontest.Comparable(answer, "statusCode", "headers", "body", "isBase64Encoded", "cookies")
		if !plain {
			return
		}
		var want struct {
			StatusCode *int `json:"statusCode"`
			events.LambdaFunctionURLResponse
		}
		err := json.Unmarshal(answer, &want)
		got, ok := readURLAnswer(answer)
		if ok != (err == nil && want.StatusCode != nil) {
			t.Fatalf("%s is an answer: %v; encoding/json: %v", answer, ok, err)
		}
		if !ok {
			return
		}
		want.LambdaFunctionURLResponse.StatusCode = *want.StatusCode
		if len(want.Headers) == 0 {
			want.Headers = got.Headers // nil or empty
		}
		if len(want.Cookies) == 0 {
			want.Cookies = got.Cookies
		}
		if !reflect.DeepEqual(got, want.LambdaFunctionURLResponse) {
			t.Errorf("%s is read as\n%+v, by encoding/json as\n%+v", answer, got, want.LambdaFunctionURLResponse)
		}
	})
}
