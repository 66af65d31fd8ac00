package destination_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	cloudevents "github.com/cloudevents/sdk-go/v2"

	"github.com/tidings-dev/tidings/pkg/destination"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/event/catalog"
	"github.com/tidings-dev/tidings/pkg/signature"
)

var happened = time.Date(2026, 12, 1, 1, 2, 3, 4_000_000, time.UTC)

// order is an event with everything that a shape may leave out.
var order = event.Event{
	ID: "01KJ", Type: "order.paid", Version: 2, Timestamp: happened, ActorUserID: "u_1", RequestID: "r_1", TraceID: "t_1", IdempotencyKey: "k_1",
	Data: json.RawMessage(`{"order_id":"o_1","total":1.50,"customer":{"id":"c_1","email":"a@b.example","address":{"city":"Köln"}},"items":[{"sku":"x","price":1},{"sku":"y","price":2e0},7],"tag_ids":["a","b"],"note":null}`),
}

func compose(t *testing.T, s endpoint.Shape) destination.Message {
	t.Helper()
	body, err := order.Encode()
	if err != nil {
		t.Fatal(err)
	}
	secret := signature.NewSecret()
	ep := endpoint.Endpoint{Tenant: "acme", Secrets: []endpoint.SigningSecret{{Secret: secret}}, Shape: s}
	m, err := destination.Compose(ep, order, event.Accepted{ID: order.ID, Tenant: "acme", Body: body, Subject: "o_1"}, "", happened)
	if err != nil {
		t.Fatal(err)
	}
	if err := signature.Verify(secret, order.ID, m.Headers[signature.HeaderTimestamp], m.Headers[signature.HeaderSignature], m.Body, happened); err != nil {
		t.Errorf("what is signed is not what is sent: %v", err)
	}
	return m
}

// What is kept is spelled as it was accepted: 1.50 stays 1.50.
func TestShapesKeepTheNamedFields(t *testing.T) {
	const (
		head = `{"id":"01KJ","event":"order.paid","version":2,"timestamp":"2026-12-01T01:02:03.004Z","actor_user_id":"u_1","data":`
		tail = `,"request_id":"r_1","trace_id":"t_1","idempotency_key":"k_1"}`
		few  = `{"id":"01KJ","event":"order.paid","timestamp":"2026-12-01T01:02:03.004Z","data":`
		end  = `,"idempotency_key":"k_1"}`
	)
	for name, c := range map[string]struct {
		shape endpoint.Shape
		want  string
	}{
		"no shape":         {endpoint.Shape{}, head + string(order.Data) + tail},
		"tidings, by name": {endpoint.Shape{Format: endpoint.FormatTidings}, head + string(order.Data) + tail},
		"thin keeps ids":   {endpoint.Shape{Thin: true}, head + `{"order_id":"o_1","tag_ids":["a","b"]}` + tail},
		"one field":        {endpoint.Shape{Include: []string{"data.total"}}, few + `{"total":1.50}` + end},
		"a field of an object, one of each item, and one of the envelope": {
			endpoint.Shape{Include: []string{"data.customer.address.city", "data.items.price", "request_id"}},
			few + `{"customer":{"address":{"city":"Köln"}},"items":[{"price":1},{"price":2e0}]},"request_id":"r_1"` + end,
		},
		"an object and a field of it is the object": {
			endpoint.Shape{Include: []string{"data.customer.id", "data.customer"}},
			few + `{"customer":{"id":"c_1","email":"a@b.example","address":{"city":"Köln"}}}` + end,
		},
		"a field that is not there": {endpoint.Shape{Include: []string{"data.absent", "data.total.deeper"}}, few + `{}` + end},
		"null is a value":           {endpoint.Shape{Include: []string{"data.note"}}, few + `{"note":null}` + end},
		"without a field of an object and one of each item": {
			endpoint.Shape{Exclude: []string{"data.customer.email", "data.items.price", "actor_user_id", "data.absent.x", "data.total.deeper"}},
			`{"id":"01KJ","event":"order.paid","version":2,"timestamp":"2026-12-01T01:02:03.004Z","data":{"order_id":"o_1","total":1.50,` +
				`"customer":{"id":"c_1","address":{"city":"Köln"}},"items":[{"sku":"x"},{"sku":"y"},7],"tag_ids":["a","b"],"note":null}` + tail,
		},
		"without an object and a field of it": {
			endpoint.Shape{Exclude: []string{"data.customer.email", "data.customer", "data.items"}},
			head + `{"order_id":"o_1","total":1.50,"tag_ids":["a","b"],"note":null}` + tail,
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := compose(t, c.shape)
			if string(m.Body) != c.want {
				t.Errorf("body\n%s\nwant\n%s", m.Body, c.want)
			}
			if _, err := event.Decode(m.Body); err != nil {
				t.Errorf("receivers cannot read it: %v", err)
			}
			if m.ContentType != "application/json" || m.CloudEvent != nil {
				t.Errorf("%q, %v", m.ContentType, m.CloudEvent)
			}
		})
	}
}

// A subject is not sent by another way if its field is not sent. Brokers need something that is
// the same for the same subject.
func TestASubjectThatIsNotSentIsAPseudonym(t *testing.T) {
	for name, c := range map[string]struct {
		shape endpoint.Shape
		kept  bool
	}{
		"no shape":                     {endpoint.Shape{}, true},
		"thin":                         {endpoint.Shape{Thin: true}, true},
		"another field is left out":    {endpoint.Shape{Exclude: []string{"data.total"}}, true},
		"the field is left out":        {endpoint.Shape{Exclude: []string{"data.order_id"}}, false},
		"only another field":           {endpoint.Shape{Include: []string{"data.total"}}, false},
		"a CloudEvent":                 {endpoint.Shape{Format: endpoint.FormatCloudEvents}, true},
		"a CloudEvent without it":      {endpoint.Shape{Format: endpoint.FormatCloudEvents, Exclude: []string{"data.order_id"}}, false},
		"in binary mode":               {endpoint.Shape{Format: endpoint.FormatCloudEventsBinary}, true},
		"in binary mode, only another": {endpoint.Shape{Format: endpoint.FormatCloudEventsBinary, Include: []string{"data.total"}}, false},
	} {
		m := compose(t, c.shape)
		attributes := m.Attributes("ce_")
		_, there := attributes["ce_subject"]
		text := fmt.Sprint(attributes, string(m.Body), m.Subject)
		if c.kept != strings.Contains(text, "o_1") || c.kept != (m.Subject == "o_1") || m.Subject == "" || there && !c.kept {
			t.Errorf("%s: %s", name, text)
		}
		if again := compose(t, c.shape); again.Subject != m.Subject {
			t.Errorf("%s: %q and %q", name, m.Subject, again.Subject)
		}
	}
}

func TestThinKeepsNoObjects(t *testing.T) {
	e := order
	e.Data = json.RawMessage(`{"id":{"email":"a@b.example"},"user_ids":["u",{"email":"a"},["v"]],"order_id":null,"name":"x"}`)
	body, err := e.Encode()
	if err != nil {
		t.Fatal(err)
	}
	ep := endpoint.Endpoint{Secrets: []endpoint.SigningSecret{{Secret: signature.NewSecret()}}, Shape: endpoint.Shape{Thin: true, Format: endpoint.FormatCloudEventsBinary}}
	m, err := destination.Compose(ep, e, event.Accepted{Body: body}, "", happened)
	if want := `{"user_ids":["u",["v"]],"order_id":null}`; err != nil || string(m.Body) != want {
		t.Errorf("%s, want %s; %v", m.Body, want, err)
	}
}

// The official SDK reads what an HTTP receiver gets, and finds it valid.
func TestTheCloudEventsSDKReadsBothModes(t *testing.T) {
	for _, format := range []endpoint.Format{endpoint.FormatCloudEvents, endpoint.FormatCloudEventsBinary} {
		for name, c := range map[string]struct {
			shape      endpoint.Shape
			data       string
			extensions map[string]any
		}{
			"whole": {endpoint.Shape{}, string(order.Data), map[string]any{
				"actoruserid": "u_1", "requestid": "r_1", "traceid": "t_1", "idempotencykey": "k_1", "dataversion": "2",
			}},
			"thin": {endpoint.Shape{Thin: true}, `{"order_id":"o_1","tag_ids":["a","b"]}`, map[string]any{
				"actoruserid": "u_1", "requestid": "r_1", "traceid": "t_1", "idempotencykey": "k_1", "dataversion": "2",
			}},
			"one field": {endpoint.Shape{Include: []string{"data.total"}}, `{"total":1.50}`, map[string]any{"idempotencykey": "k_1"}},
			"without a person": {endpoint.Shape{Exclude: []string{"data.customer", "data.items", "actor_user_id"}}, `{"order_id":"o_1","total":1.50,"tag_ids":["a","b"],"note":null}`, map[string]any{
				"requestid": "r_1", "traceid": "t_1", "idempotencykey": "k_1", "dataversion": "2",
			}},
		} {
			t.Run(string(format)+"/"+name, func(t *testing.T) {
				c.shape.Format = format
				m := compose(t, c.shape)
				r, err := http.NewRequest(http.MethodPost, "https://receiver.example/", bytes.NewReader(m.Body))
				if err != nil {
					t.Fatal(err)
				}
				r.Header.Set("Content-Type", m.ContentType)
				for name, value := range m.CloudEventHeaders() {
					r.Header.Set(name, value)
				}
				e, err := cloudevents.NewEventFromHTTPRequest(r)
				if err != nil {
					t.Fatalf("%v\n%s", err, m.Body)
				}
				if err := e.Validate(); err != nil {
					t.Error(err)
				}
				subject := ""
				if strings.Contains(c.data, "o_1") {
					subject = "o_1"
				}
				if e.ID() != "01KJ" || e.Type() != "order.paid" || e.Source() != "/tidings/acme" || e.Subject() != subject || !e.Time().Equal(happened) ||
					e.DataContentType() != "application/json" || e.SpecVersion() != "1.0" || string(e.Data()) != c.data {
					t.Errorf("%s", e)
				}
				got := e.Extensions()
				for name, value := range got { // a number of JSON, and a header's text
					if n, ok := value.(int32); ok {
						got[name] = fmt.Sprint(n)
					}
				}
				if len(got) != len(c.extensions) {
					t.Errorf("extensions %v, want %v", got, c.extensions)
				}
				for name, want := range c.extensions {
					if got[name] != want {
						t.Errorf("%s is %v, want %v", name, got[name], want)
					}
				}
			})
		}
	}
}

func TestABodyThatIsNoJSONIsNotSent(t *testing.T) {
	ep := endpoint.Endpoint{Secrets: []endpoint.SigningSecret{{Secret: signature.NewSecret()}}, Shape: endpoint.Shape{Thin: true}}
	if _, err := destination.Compose(ep, order, event.Accepted{Body: []byte(`{"id":`)}, "", happened); err == nil {
		t.Error("half an object was composed")
	}
}

func TestShapesThatCannotBeSentAreRefused(t *testing.T) {
	many := make([]string, endpoint.MaxFields+1)
	for i := range many {
		many[i] = "data.x"
	}
	for name, c := range map[string]struct {
		shape endpoint.Shape
		want  string
	}{
		"an unknown format":                   {endpoint.Shape{Format: "xml"}, "format"},
		"two selections":                      {endpoint.Shape{Thin: true, Exclude: []string{"data.a"}}, "include_fields"},
		"a path without data":                 {endpoint.Shape{Include: []string{"total"}}, "did you mean data.total?"},
		"a path with a gap":                   {endpoint.Shape{Include: []string{"data..a"}}, "include_fields"},
		"the whole of the data":               {endpoint.Shape{Exclude: []string{"data"}}, "exclude_fields"},
		"a field within a text":               {endpoint.Shape{Include: []string{"id.x"}}, "include_fields"},
		"too many fields":                     {endpoint.Shape{Include: many}, "include_fields"},
		"without the id":                      {endpoint.Shape{Exclude: []string{"id"}}, "exclude_fields"},
		"a method without body":               {endpoint.Shape{Method: "GET"}, "method"},
		"a media type with a line":            {endpoint.Shape{ContentType: "text/plain\r\nx: y"}, "content_type"},
		"a path with a blank":                 {endpoint.Shape{Include: []string{"data.first name"}}, "include_fields"},
		"a form":                              {endpoint.Shape{ContentType: "multipart/form-data"}, "content_type"},
		"another charset":                     {endpoint.Shape{ContentType: "application/json; charset=utf-16"}, "content_type"},
		"that of CloudEvents for binary mode": {endpoint.Shape{Format: endpoint.FormatCloudEventsBinary, ContentType: "application/cloudevents-batch+json"}, "content_type"},
		"no media type":                       {endpoint.Shape{ContentType: "json"}, "content_type"},
		"another media type for a structured CloudEvent": {endpoint.Shape{Format: endpoint.FormatCloudEvents, ContentType: "application/json"}, "content_type"},
	} {
		e := endpoint.Endpoint{
			Tenant: "acme", URL: "https://receiver.example/", EventTypes: []string{"*"}, Secrets: []endpoint.SigningSecret{{Secret: signature.NewSecret()}}, Shape: c.shape,
		}
		if err := e.Validate(catalog.Default()); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

func BenchmarkShape(b *testing.B) {
	body, err := order.Encode()
	if err != nil {
		b.Fatal(err)
	}
	for name, s := range map[string]endpoint.Shape{
		"none": {}, "exclude": {Exclude: []string{"data.customer.email"}}, "cloudevents": {Format: endpoint.FormatCloudEvents},
	} {
		b.Run(name, func(b *testing.B) {
			ep := endpoint.Endpoint{Tenant: "acme", Secrets: []endpoint.SigningSecret{{Secret: signature.NewSecret()}}, Shape: s}
			for b.Loop() {
				if _, err := destination.Compose(ep, order, event.Accepted{ID: order.ID, Body: body}, "", happened); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
