package lambdaevent_test

import (
	"encoding/json"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/events"

	"github.com/tidings-dev/tidings/pkg/aws/lambdaevent"
	"github.com/tidings-dev/tidings/test/jsontest"
)

// FuzzReadQueue checks that a batch is read as aws-lambda-go reads it.
func FuzzReadQueue(f *testing.F) {
	sample, err := os.ReadFile("../../../events/dispatch-sqs.json")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(sample)
	for _, seed := range []string{
		`{}`, `null`, `{"Records":null}`, `{"Records":[]}`, `{"Records":[{}]}`, `{"Records":[null]}`, `{"Records":[{"messageId":"m","body":"a\nb\ud83c\udf9f","attributes":{"ApproximateReceiveCount":"3","SentTimestamp":"1769690097000"}},{"messageId":"n","body":"","attributes":null}]}`,
		`{"Records":[{"messageId":5}]}`, `{"Records":{}}`, `{"Records":[{"attributes":{"ApproximateReceiveCount":"many","SentTimestamp":"soon"}}]}`, `{"Records":[{"attributes":{"SenderId":"x","AWSTraceHeader":"Root=1"},"messageAttributes":{"a":{"stringValue":"b","dataType":"String"}}}]}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		payload, ok := jsontest.Comparable(payload, "Records", "messageId", "body", "attributes")
		if !ok {
			return // Lambda keeps to one case
		}
		var want events.SQSEvent
		if json.Unmarshal(payload, &want) != nil {
			return // it looks at fields that are passed over here
		}
		got, err := lambdaevent.ReadQueue(payload)
		if err != nil {
			t.Fatalf("%q: %v", payload, err)
		}
		if len(got) != len(want.Records) {
			t.Fatalf("%q: %d messages, want %d", payload, len(got), len(want.Records))
		}
		for i, m := range got {
			w := want.Records[i]
			receives, _ := strconv.Atoi(w.Attributes["ApproximateReceiveCount"])
			var sent time.Time
			if ms, err := strconv.ParseInt(w.Attributes["SentTimestamp"], 10, 64); err == nil {
				sent = time.UnixMilli(ms)
			}
			if m.ID != w.MessageId || m.Body != w.Body || m.Receives != receives || !m.SentAt.Equal(sent) {
				t.Errorf("%q: %+v, want %+v", payload, m, w)
			}
		}
	})
}
