package dynamoitem_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/aws/aws-lambda-go/events"

	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/store/dynamoitem"
)

// FuzzEventFromImage: an event that is read is complete and survives a round trip through
// its item. Errors are short.
func FuzzEventFromImage(f *testing.F) {
	for _, seed := range []string{
		`{"event_id":{"S":"01KDJ0000000000000000000AA"},"tenant":{"S":"default"},"body":{"S":"{}"},"trace":{"S":"Root=1"},"expires_at":{"N":"1"}}`,
		`{"event_id":{"S":"x"},"tenant":{"S":"default"},"body":{"S":"{}"}}`, `{"event_id":{"N":"7"}}`, `{"event_id":{"NULL":true},"tenant":{"M":{}},"body":{"B":"AA=="}}`,
		`{"event_id":{"S":"` + strings.Repeat("x", 5000) + `"},"tenant":{"S":"t"},"body":{"N":"1"}}`, `{}`, `null`, `{"event_id":{"S":"01KDJ0000000000000000000AA"},"tenant":{"S":""},"body":{"S":""},"trace":{"NULL":true}}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var image map[string]events.DynamoDBAttributeValue
		if json.Unmarshal(text, &image) != nil {
			return // aws-lambda-go rejects it
		}
		a, err := dynamoitem.EventFromImage(image)
		if err != nil {
			if len(err.Error()) > 256 {
				t.Errorf("an error of %d bytes", len(err.Error()))
			}
			return
		}
		if a.ID != image["event_id"].String() || a.Tenant != image["tenant"].String() || string(a.Body) != image["body"].String() {
			t.Errorf("%s is read as %+v", text, a)
		}
		if _, err := event.IDTime(a.ID); err != nil {
			return // fan-out skips it
		}
		item, err := dynamoitem.EncodeEvent(a)
		if err != nil {
			t.Fatal(err)
		}
		again, err := dynamoitem.EventFromImage(dynamoitem.Image(item))
		if err != nil || again.ID != a.ID || again.Tenant != a.Tenant || string(again.Body) != string(a.Body) || again.Trace != a.Trace {
			t.Errorf("%+v is read back as %+v (%v)", a, again, err)
		}
	})
}
