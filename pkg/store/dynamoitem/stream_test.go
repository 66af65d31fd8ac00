package dynamoitem_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-lambda-go/events"

	"github.com/tidings-dev/tidings/pkg/store/dynamoitem"
	"github.com/tidings-dev/tidings/test/jsontest"
)

var streamSeeds = []string{
	`{"Records":[{"eventID":"1","eventName":"INSERT","eventVersion":"1.1","eventSource":"aws:dynamodb","awsRegion":"us-east-1","dynamodb":{"ApproximateCreationDateTime":1.5e9,"Keys":{"a":{"S":"x"}},"NewImage":{"a":{"S":"x\\"\u00fc\\n"},"n":{"N":"-1.5"},"l":{"L":[{"S":"a"},{"M":{"k":{"NULL":true}}}]}},"SequenceNumber":"1","SizeBytes":7,"StreamViewType":"NEW_IMAGE"},"eventSourceARN":"arn:x"}]}`,
	`{"Records":[{"eventName":"REMOVE","userIdentity":{"type":"Service","principalId":"dynamodb.amazonaws.com"},"dynamodb":{"OldImage":{"a":{"SS":["x","y"]},"b":{"B":"AA=="},"t":{"BOOL":true}}}},{"eventName":"MODIFY"}]}`,
	`{"Records":[{"dynamodb":{"Keys":{"a":{ "S" : "x\\\\" }, "b":{"S":"a","N":"1"},"c":{"S":"a\\","S":"b"}}}}]}`, `{"Records":[{"dynamodb":{"NewImage":{"a":{"S":7}}}}]}`, `{"Records":[{"dynamodb":{"NewImage":{"a":null}}}]}`,
	`{"Records":null}`, `{"Records":[]}`, `{}`, `null`, `[]`, `{"Records":[null,{"dynamodb":null,"eventName":null}]}`, `{"Records":[{"dynamodb":{"SizeBytes":1.5}}]}`, `{"Records":[{"dynamodb":{"ApproximateCreationDateTime":"x"}}]}`,
	`{"Records":[{"dynamodb":{"Keys":{"a":{"S":"x"},"b":{"N":"x"},"c":{"S":""},"d":{"X":"y"}}}}],"window":{"start":"x"}}`, `{"Records":[{"eventName":"\ud800"}]}`, "{\"Records\":[{\"eventName\":\"\xff\"}]}", `{"Records":[{"dynamodb":{"Keys":{"a":{"S":"x"}}}}]}x`,
	`{"Records":[{"dynamodb":{"Keys":{"a":{}, "b":{"S":"x"`,
}

// fields are the names that encoding/json would know in any case.
var fields = []string{"Records", "eventID", "eventName", "eventVersion", "eventSource", "eventSourceARN", "awsRegion", "dynamodb", "userIdentity", "type", "principalId",
	"ApproximateCreationDateTime", "Keys", "NewImage", "OldImage", "SequenceNumber", "SizeBytes", "StreamViewType"}

// FuzzReadStream: what aws-lambda-go makes of a payload is what is read.
func FuzzReadStream(f *testing.F) {
	for _, seed := range streamSeeds {
		f.Add([]byte(seed))
	}
	samples, err := filepath.Glob("../../../events/*-stream.json")
	if err != nil || len(samples) < 2 {
		f.Fatal(samples, err)
	}
	for _, name := range samples {
		text, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		payload, ok := jsontest.Comparable(payload, fields...)
		if !ok {
			return // Lambda keeps to one case
		}
		var want events.DynamoDBEvent
		wrong := json.Unmarshal(payload, &want)
		got, err := dynamoitem.ReadStream(payload)
		if (err == nil) != (wrong == nil) {
			t.Fatalf("%s is read with %v, by aws-lambda-go with %v", payload, err, wrong)
		}
		if err != nil {
			return
		}
		if len(got.Records) == 0 {
			got.Records, want.Records = nil, nil
		}
		// Written again, values show their type, and an empty image is no image.
		a, err := json.Marshal(got)
		if err != nil {
			t.Fatal(err)
		}
		b, err := json.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		if string(a) != string(b) {
			t.Errorf("%s is read as\n%s, by aws-lambda-go as\n%s", payload, a, b)
		}
	})
}

// FuzzReadEvents: the short way to the events says what the long one says.
func FuzzReadEvents(f *testing.F) {
	for _, seed := range append(slices.Clone(streamSeeds),
		`{"Records":[{"eventName":"INSERT","dynamodb":{"SequenceNumber":"7","Keys":{"event_id":{"S":"x"}},"NewImage":{"event_id":{"S":"x"},"tenant":{"S":"\\u00fc"},"body":{"S":"{\\"a\\":1}"},"trace":{"S":""},"expires_at":{"N":"1"}}}}]}`,
		`{"Records":[{"eventName":"INSERT","dynamodb":{"NewImage":{"event_id":{"N":"7"},"tenant":{"S":"t"}}}},{"eventName":"INSERT","dynamodb":{"NewImage":{"event_id":{"S":"x"},"tenant":{"S":"t"},"body":{"S":"b"},"trace":{"NULL":true}}}}]}`,
		`{"Records":[{"eventName":"REMOVE","dynamodb":{"SequenceNumber":"8","OldImage":{"event_id":{"S":"x"}}}},{"eventName":"INSERT"},{"eventName":"INSERT","dynamodb":{"NewImage":{"event_id":{"S":"x","N":"1"}}}}]}`) {
		f.Add([]byte(seed))
	}
	text, err := os.ReadFile("../../../events/dispatch-stream.json")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Fuzz(func(t *testing.T, payload []byte) {
		payload, _ = jsontest.Comparable(payload)
		batch, err := dynamoitem.ReadStream(payload)
		if err != nil {
			return // what is broken where nobody looks need not be noticed
		}
		want := dynamoitem.EventsOf(batch)
		got, err := dynamoitem.ReadEvents(payload)
		if err != nil || len(got) != len(want) {
			t.Fatalf("%s is read as %d changes (%v), want %d", payload, len(got), err, len(want))
		}
		for i, g := range got {
			w := want[i]
			if g.Put != w.Put || g.SequenceNumber != w.SequenceNumber || fmt.Sprint(g.Err) != fmt.Sprint(w.Err) {
				t.Errorf("%s: change %d is %+v, want %+v", payload, i, g, w)
			}
			if w.Err == nil && (g.Event.ID != w.Event.ID || g.Event.Tenant != w.Event.Tenant || g.Event.Trace != w.Event.Trace || string(g.Event.Body) != string(w.Event.Body)) {
				t.Errorf("%s: event %d is %+v, want %+v", payload, i, g.Event, w.Event)
			}
			if w.Put && len(batch.Records[i].Change.Keys) > 0 {
				var a, b map[string]events.DynamoDBAttributeValue
				if json.Unmarshal(g.Keys, &a) != nil || json.Unmarshal(w.Keys, &b) != nil || !reflect.DeepEqual(a, b) {
					t.Errorf("%s: keys %d are %s, want %s", payload, i, g.Keys, w.Keys)
				}
			}
		}
	})
}

func TestReadStreamSaysWhatIsWrong(t *testing.T) {
	if _, err := dynamoitem.ReadStream([]byte(`{"Records":[{"eventName":7}]}`)); err == nil || !strings.Contains(err.Error(), "stream batch: ") || !strings.Contains(err.Error(), "eventName") {
		t.Error(err)
	}
}

func streamOf(b *testing.B) []byte {
	var batch events.DynamoDBEvent
	text, err := os.ReadFile("../../../events/dispatch-stream.json")
	if err != nil {
		b.Fatal(err)
	}
	if err := json.Unmarshal(text, &batch); err != nil {
		b.Fatal(err)
	}
	for range 6 {
		batch.Records = append(batch.Records, batch.Records...)
	}
	if text, err = json.Marshal(batch); err != nil {
		b.Fatal(err)
	}
	return text
}

// BenchmarkReadStream reads a batch of 64 records; per record, divide.
func BenchmarkReadStream(b *testing.B) {
	payload := streamOf(b)
	b.ReportAllocs()
	b.SetBytes(int64(len(payload)))
	for b.Loop() {
		if _, err := dynamoitem.ReadStream(payload); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkReadEvents reads the same batch for a fan out.
func BenchmarkReadEvents(b *testing.B) {
	payload := streamOf(b)
	b.ReportAllocs()
	b.SetBytes(int64(len(payload)))
	for b.Loop() {
		if _, err := dynamoitem.ReadEvents(payload); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkReadStreamByReflection is what to compare with.
func BenchmarkReadStreamByReflection(b *testing.B) {
	payload := streamOf(b)
	b.ReportAllocs()
	b.SetBytes(int64(len(payload)))
	for b.Loop() {
		var batch events.DynamoDBEvent
		if err := json.Unmarshal(payload, &batch); err != nil {
			b.Fatal(err)
		}
	}
}
