package dynamoitem_test

import (
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/store/dynamoitem"
)

// The largest delivery: a full history with the longest timings and classes, and texts of
// maximum length.
func TestADeliveryFitsIntoOneWriteUnit(t *testing.T) {
	now := time.Date(2026, 1, 29, 12, 0, 0, 0, time.UTC)
	long := delivery.Timings{DNS: 30 * time.Second, Connect: 30 * time.Second, TLS: 30 * time.Second, FirstByte: 30 * time.Second, Total: 30 * time.Second}
	d := delivery.Delivery{
		Key: delivery.Key{EndpointID: endpoint.NewID(now), EventID: event.NewID(now)}, Tenant: strings.Repeat("t", 64), EventType: "user.cancelled_registration",
		State: delivery.Pending, Attempts: 99, Uncounted: 83, Since: now, ClaimID: strings.Repeat("x", 16), LeaseUntil: now, NextAttemptAt: now, DueAt: now,
		Reason: strings.Repeat("ä", delivery.MaxErrorBytes/2), Snippet: strings.Repeat("🎟", delivery.MaxSnippetBytes/4), CreatedAt: now, UpdatedAt: now, ExpiresAt: now,
	}
	for n := range delivery.MaxHistory {
		d.History = append(d.History, delivery.Attempt{Number: 92 + n, At: now, Class: delivery.Throttled, Status: 503, Timings: long})
	}
	item := dynamoitem.EncodeDelivery(d)
	if size := dynamoitem.Size(item); size > 1024 {
		t.Errorf("%d bytes; a write unit is 1024", size)
	}
	got, err := dynamoitem.DecodeDelivery(item)
	if err != nil {
		t.Fatal(err)
	}
	if !utf8.ValidString(got.Reason) || !utf8.ValidString(got.Snippet) || !strings.HasPrefix(d.Reason, got.Reason) || !strings.HasPrefix(d.Snippet, got.Snippet) {
		t.Errorf("cut to %q, %q", got.Reason, got.Snippet)
	}
	if n := len(got.History); n == 0 || got.History[n-1].Number != 92+delivery.MaxHistory-1 {
		t.Errorf("the latest attempt is not in %+v", got.History)
	}
	// A typical failed delivery is stored unchanged.
	d.Tenant, d.Reason, d.Snippet, d.History = "default", "the receiver answered 503 Service Unavailable", "try later", d.History[:4]
	got, err = dynamoitem.DecodeDelivery(dynamoitem.EncodeDelivery(d))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(d, got); diff != "" {
		t.Errorf("changed (-want +got):\n%s", diff)
	}
}

func TestSize(t *testing.T) {
	// "name" 4 + "Grüße" 7; "n" 1 + 38 digits 19 + 1
	item := dynamoitem.Item{"name": dynamoitem.S("Grüße"), "n": dynamoitem.N(1234567890123456)}
	if got := dynamoitem.Size(item); got != 4+7+1+8+1 {
		t.Errorf("Size = %d", got)
	}
}

func TestEventImageEqualsImageOfTheItem(t *testing.T) {
	for _, a := range []event.Accepted{
		{ID: "01KG4VZS4NCPSXFR1K7QEWBC9B", Tenant: "default", Body: []byte(`{"t":"Grüße"}`), Trace: "Root=1-5759e988-bd862e3fe1be46a994272793", Subject: "d_1", OldType: "user.welcome_email_sent", Versions: []byte(`[{"version":2},{"version":1,"data":{}}]`)}, {ID: "01KG4VZS4NCPSXFR1K7QEWBC9B", RetentionDays: 365, Undefined: true}, {ID: "01KG4VZS4NCPSXFR1K7QEWBC9B"}, {ID: "00000000000000000000000000"},
	} {
		item, err := dynamoitem.EncodeEvent(a)
		if err != nil {
			t.Fatal(err)
		}
		image, size, err := dynamoitem.EventImage(a)
		if err != nil || size != dynamoitem.Size(item) || !reflect.DeepEqual(image, dynamoitem.Image(item)) {
			t.Errorf("%+v has the image %v of %d bytes (%v), the item's is %v of %d", a, image, size, err, dynamoitem.Image(item), dynamoitem.Size(item))
		}
	}
	if _, _, err := dynamoitem.EventImage(event.Accepted{ID: "x"}); err == nil {
		t.Error("an event with an invalid id has an image")
	}
}

func TestDecodingWhatIsNotOursFails(t *testing.T) {
	for name, err := range map[string]error{
		"an empty delivery":   second(dynamoitem.DecodeDelivery(dynamoitem.Item{})),
		"a number as id":      second(dynamoitem.DecodeDelivery(dynamoitem.Item{dynamoitem.EndpointID: dynamoitem.N(1), dynamoitem.EventID: dynamoitem.S("x"), dynamoitem.State: dynamoitem.S("dead")})),
		"a broken history":    second(dynamoitem.DecodeDelivery(dynamoitem.Item{dynamoitem.EndpointID: dynamoitem.S("e"), dynamoitem.EventID: dynamoitem.S("x"), dynamoitem.State: dynamoitem.S("dead"), "history": dynamoitem.S("[[1]]")})),
		"an empty event":      second(dynamoitem.DecodeEvent(dynamoitem.Item{})),
		"an empty endpoint":   second(dynamoitem.DecodeEndpoint(dynamoitem.Item{})),
		"an empty image":      second(dynamoitem.EventFromImage(nil)),
		"an event without id": second(dynamoitem.EncodeEvent(event.Accepted{})),
		"an empty due entry":  second(dynamoitem.DecodeDue(dynamoitem.Item{})),
	} {
		if err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}

func second[T any](_ T, err error) error { return err }
