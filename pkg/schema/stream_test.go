package schema_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-lambda-go/events"

	"github.com/tidings-dev/tidings/pkg/schema"
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

// plain tells whether every name is spelt as Lambda spells it.
func plain(v any) bool {
	switch v := v.(type) {
	case map[string]any:
		for name, inner := range v {
			for _, field := range fields {
				if name != field && strings.EqualFold(name, field) {
					return false
				}
			}
			if !plain(inner) {
				return false
			}
		}
	case []any:
		for _, inner := range v {
			if !plain(inner) {
				return false
			}
		}
	}
	return true
}

// FuzzReadStream: what aws-lambda-go makes of a payload is what is read.
func FuzzReadStream(f *testing.F) {
	for _, seed := range streamSeeds {
		f.Add([]byte(seed))
	}
	samples, err := filepath.Glob("../../events/*-stream.json")
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
		var document any
		if json.Unmarshal(payload, &document) == nil {
			if !plain(document) {
				return // names are told apart by their case; Lambda keeps to one
			}
			if bytes, err := json.Marshal(document); err != nil {
				t.Fatal(err)
			} else if len(bytes) < len(payload) {
				payload = bytes // without names that stand twice
			}
		}
		var want events.DynamoDBEvent
		wrong := json.Unmarshal(payload, &want)
		got, err := schema.ReadStream(payload)
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

func TestReadStreamSaysWhatIsWrong(t *testing.T) {
	if _, err := schema.ReadStream([]byte(`{"Records":[{"eventName":7}]}`)); err == nil || !strings.Contains(err.Error(), "stream batch: ") || !strings.Contains(err.Error(), "eventName") {
		t.Error(err)
	}
}

func streamOf(b *testing.B) []byte {
	var batch events.DynamoDBEvent
	text, err := os.ReadFile("../../events/dispatch-stream.json")
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
		if _, err := schema.ReadStream(payload); err != nil {
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
