package dynamoitem_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/tidings-dev/tidings/pkg/platform"
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

// fields are the names that encoding/json matches case-insensitively.
var fields = []string{"Records", "eventID", "eventName", "eventVersion", "eventSource", "eventSourceARN", "awsRegion", "dynamodb", "userIdentity", "type", "principalId",
	"ApproximateCreationDateTime", "Keys", "NewImage", "OldImage", "SequenceNumber", "SizeBytes", "StreamViewType"}

// comparable reports whether a payload spells the names like Lambda and has only the
// attribute types that this package decodes.
func comparable(payload []byte) ([]byte, bool) {
	return jsontest.Comparable(payload, slices.Concat(fields, []string{"event_id", "tenant", "body", "trace", "S", "N", "BOOL", "NULL"})...)
}

// image is an image of a stream record in aws-lambda-go.
type image = map[string]events.DynamoDBAttributeValue

// FuzzReadChanges: a payload is decoded like aws-lambda-go decodes it.
func FuzzReadChanges(f *testing.F) {
	seedStream(f)
	f.Fuzz(func(t *testing.T, payload []byte) {
		payload, ok := comparable(payload)
		if !ok {
			return
		}
		var want events.DynamoDBEvent
		if json.Unmarshal(payload, &want) != nil {
			return
		}
		got, err := dynamoitem.ReadChanges(payload)
		if err != nil && !strings.Contains(string(payload), "null") {
			t.Fatalf("%s is refused: %v", payload, err)
		}
		if err != nil {
			return
		}
		if len(got) != len(want.Records) {
			t.Fatalf("%s is read as %d changes, want %d", payload, len(got), len(want.Records))
		}
		for i, g := range got {
			w := want.Records[i]
			byTTL := w.UserIdentity != nil && w.UserIdentity.Type == "Service" && w.UserIdentity.PrincipalID == "dynamodb.amazonaws.com"
			if g.ID != w.EventID || string(g.Operation) != w.EventName || g.Stream != w.EventSourceArn || g.ByTTL != byTTL || g.SequenceNumber != w.Change.SequenceNumber {
				t.Errorf("%s: change %d is %+v, want %+v", payload, i, g, w)
			}
			if at := w.Change.ApproximateCreationDateTime; !at.IsZero() && !g.At.Equal(at.Time) {
				t.Errorf("%s: change %d was made at %s, want %s", payload, i, g.At, at)
			}
			sameImage(t, payload, g.Old, w.Change.OldImage)
			sameImage(t, payload, g.New, w.Change.NewImage)
		}
	})
}

func sameImage(t *testing.T, payload []byte, got platform.Image, want image) {
	t.Helper()
	if got == nil && len(want) > 0 {
		t.Errorf("%s: an image is missing", payload)
	}
	for name, w := range want {
		var text string
		switch v := got.Attribute(name).(type) {
		case *types.AttributeValueMemberS:
			text = "S" + v.Value
		case *types.AttributeValueMemberN:
			text = "N" + v.Value
		}
		wanted := ""
		switch w.DataType() {
		case events.DataTypeString:
			wanted = "S" + w.String()
		case events.DataTypeNumber:
			wanted = "N" + w.Number()
		}
		if text != wanted {
			t.Errorf("%s: attribute %q is %q, want %q", payload, name, text, wanted)
		}
	}
}

// FuzzReadEvents: an event equals that of the image that aws-lambda-go decodes.
func FuzzReadEvents(f *testing.F) {
	seedStream(f)
	for _, seed := range []string{
		`{"Records":[{"eventName":"INSERT","dynamodb":{"ApproximateCreationDateTime":1769690096.5,"SequenceNumber":"7","Keys":{"event_id":{"S":"x"}},"NewImage":{"event_id":{"S":"x"},"tenant":{"S":"\\u00fc"},"body":{"S":"{\\"a\\":1}"},"trace":{"S":""},"undefined":{"N":"1"},"expires_at":{"N":"1"}}}}]}`,
		`{"Records":[{"eventName":"INSERT","dynamodb":{"NewImage":{"event_id":{"N":"7"},"tenant":{"S":"t"}}}},{"eventName":"INSERT","dynamodb":{"NewImage":{"event_id":{"S":"x"},"tenant":{"S":"t"},"body":{"S":"b"},"trace":{"NULL":true}}}}]}`,
		`{"Records":[{"eventName":"REMOVE","dynamodb":{"SequenceNumber":"8","OldImage":{"event_id":{"S":"x"}}}},{"eventName":"INSERT"},{"eventName":"INSERT","dynamodb":{"NewImage":{"event_id":{"S":"x","N":"1"}}}}]}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		payload, ok := comparable(payload)
		if !ok {
			return
		}
		var batch events.DynamoDBEvent
		if json.Unmarshal(payload, &batch) != nil {
			return
		}
		got, err := dynamoitem.ReadEvents(payload)
		if err != nil || len(got) != len(batch.Records) {
			t.Fatalf("%s is read as %d changes (%v), want %d", payload, len(got), err, len(batch.Records))
		}
		for i, g := range got {
			w := batch.Records[i]
			if g.Inserted != (w.EventName == "INSERT") || g.SequenceNumber != w.Change.SequenceNumber {
				t.Errorf("%s: change %d is %+v", payload, i, g)
			}
			if at := w.Change.ApproximateCreationDateTime.Unix(); at > 0 && at < 1<<40 && g.At.Unix() != at {
				t.Errorf("%s: change %d was made at %s, want %d", payload, i, g.At, at)
			}
			if !g.Inserted {
				continue
			}
			want, err := dynamoitem.EventFromImage(w.Change.NewImage)
			if (err == nil) != (g.Err == nil) || err == nil && (g.Event.ID != want.ID || g.Event.Tenant != want.Tenant || g.Event.Trace != want.Trace || string(g.Event.Body) != string(want.Body) || g.Event.Undefined != want.Undefined) {
				t.Errorf("%s: event %d is %+v (%v), want %+v (%v)", payload, i, g.Event, g.Err, want, err)
			}
		}
	})
}

// seedStream adds stream payloads to a corpus.
func seedStream(f *testing.F) {
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
}

func TestErrorsNameTheFieldOfTheStream(t *testing.T) {
	for _, read := range []func([]byte) error{
		func(p []byte) error { _, err := dynamoitem.ReadEvents(p); return err },
		func(p []byte) error { _, err := dynamoitem.ReadChanges(p); return err },
	} {
		if err := read([]byte(`{"Records":[{"eventName":7}]}`)); err == nil || !strings.Contains(err.Error(), "stream batch: ") || !strings.Contains(err.Error(), "eventName") {
			t.Error(err)
		}
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

func benchmarkRead[T any](b *testing.B, read func([]byte) (T, error)) {
	payload := streamOf(b)
	b.ReportAllocs()
	b.SetBytes(int64(len(payload)))
	for b.Loop() {
		if _, err := read(payload); err != nil {
			b.Fatal(err)
		}
	}
}

// These decode a batch of 64 records; the last one is for comparison.
func BenchmarkReadChanges(b *testing.B) { benchmarkRead(b, dynamoitem.ReadChanges) }
func BenchmarkReadEvents(b *testing.B)  { benchmarkRead(b, dynamoitem.ReadEvents) }
func BenchmarkReadByLambdasLibrary(b *testing.B) {
	benchmarkRead(b, func(payload []byte) (batch events.DynamoDBEvent, err error) {
		return batch, json.Unmarshal(payload, &batch)
	})
}
