package console_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/html"

	"github.com/tidings-dev/tidings/pkg/console"
	"github.com/tidings-dev/tidings/pkg/delivery/breaker"
	"github.com/tidings-dev/tidings/pkg/delivery/ratelimit"
	"github.com/tidings-dev/tidings/pkg/delivery/retry"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/event/catalog"
)

// filled returns endpoints that together have every setting set.
func filled(t *testing.T) []endpoint.Endpoint {
	rules := endpoint.Endpoint{
		Tenant: "default", Description: "of the CRM", EventTypes: []string{"user.*", "discussion.extended"}, Filter: json.RawMessage(`{"data":{"community_id":["c_7"]}}`),
		Traceparent: true, Timeout: 2500 * time.Millisecond, Retry: retry.Policy{MaxAttempts: 7, MaxAge: 90 * time.Minute, MaxDelay: 45 * time.Second},
		Breaker: breaker.Policy{Failures: 4, FailingFor: 1500 * time.Millisecond, OpenFor: 90 * time.Second, MaxOpenFor: 2 * time.Hour, DisableAfter: 48 * time.Hour},
		Limit:   ratelimit.Limit{PerMinute: 600, Burst: 20},
	}
	web, queue, topic, kafka := rules, rules, rules, rules
	web.URL, web.Auth = "https://crm.example.com/hooks", &endpoint.Auth{
		Headers: []endpoint.AuthHeader{{Name: "X-Team", Value: endpoint.NewSecret("crm: 1")}, {Name: "cookie", Value: endpoint.NewSecret("s=1")}},
		Bearer:  endpoint.NewSecret("token"), APIKey: &endpoint.AuthHeader{Name: "X-Api-Key", Value: endpoint.NewSecret("key")},
	}
	web.Shape = endpoint.Shape{Format: endpoint.FormatCloudEventsBinary, Include: []string{"data.community_id", "data.a.b"}, Method: "PUT", ContentType: "application/vnd.crm+json"}
	login := web
	login.Shape = endpoint.Shape{Exclude: []string{"actor_user_id"}, Method: "PATCH"}
	login.Auth = &endpoint.Auth{Basic: &endpoint.BasicAuth{User: "tidings", Password: endpoint.NewSecret("password")}}
	queue.URL, queue.RoleARN = "sqs://123456789012/orders?region=eu-central-1", "arn:aws:iam::123456789012:role/tidings"
	topic.URL, topic.Ordered, topic.OldNames = "pubsub://project-1/happenings", true, true
	topic.TypeVersions = map[string]int{"user.joined_platform": 1}
	kafka.URL, kafka.Credentials = "kafka://broker.example.com:9096/events?tls=true&sasl=scram-sha-512", "tidings/default/kafka"
	topic.Shape, kafka.Shape = endpoint.Shape{Format: endpoint.FormatCloudEvents}, endpoint.Shape{Thin: true}
	tokens := web
	tokens.Auth = &endpoint.Auth{OAuth2: &endpoint.OAuth2{
		TokenURL: "https://login.example.com/token", ClientID: "tidings", ClientSecret: endpoint.NewSecret("secret"), Scopes: []string{"a", "b"}, Audience: "crm", SecretInBody: true,
	}, ClientCertificate: "tidings/default/crm"}
	list := []endpoint.Endpoint{web, login, tokens, queue, topic, kafka}
	for i := range reflect.TypeFor[endpoint.Endpoint]().NumField() {
		switch name := reflect.TypeFor[endpoint.Endpoint]().Field(i).Name; name {
		case "ID", "Secrets", "Status", "StatusReason", "Version", "CreatedAt", "UpdatedAt": // not for an editor to set
		default:
			set := false
			for _, e := range list {
				set = set || !reflect.ValueOf(e).Field(i).IsZero()
			}
			if !set {
				t.Fatalf("no endpoint has %s", name)
			}
		}
	}
	return list
}

// controls returns the values that a browser submits for a page's unchanged form.
func controls(t *testing.T, page string) url.Values {
	t.Helper()
	document, err := html.Parse(strings.NewReader(page))
	if err != nil {
		t.Fatal(err)
	}
	values := url.Values{}
	var visit func(n *html.Node, within bool)
	visit = func(n *html.Node, within bool) {
		attributes := map[string]string{}
		for _, a := range n.Attr {
			attributes[a.Key] = a.Val
		}
		_, checked := attributes["checked"]
		switch name := attributes["name"]; {
		case n.Data == "form":
			within = attributes["class"] == "form"
		case !within || name == "":
		case n.Data == "textarea":
			content := ""
			if n.FirstChild != nil {
				content = n.FirstChild.Data
			}
			values.Add(name, content)
		case n.Data == "select":
			values.Add(name, selected(n))
		case n.Data == "input" && (attributes["type"] != "checkbox" || checked):
			values.Add(name, attributes["value"])
		}
		for c := n.FirstChild; c != nil; c = c.NextSibling {
			visit(c, within)
		}
	}
	visit(document, false)
	return values
}

// selected returns the value of a select's selected option, or of its first.
func selected(list *html.Node) string {
	value, first := "", true
	for option := range list.ChildNodes() {
		if option.Data != "option" {
			continue
		}
		own, is := option.FirstChild.Data, first
		for _, a := range option.Attr {
			if a.Key == "value" {
				own = a.Val
			}
			is = is || a.Key == "selected"
		}
		if is {
			value = own
		}
		first = false
	}
	return value
}

// Saving an unchanged endpoint, in the form or through the API, changes nothing: both
// have every setting.
func TestSavingUnchangedSettingsChangesNothing(t *testing.T) {
	w := newWorld(t)
	b := w.login(console.Admin, "default")
	for _, e := range filled(t) {
		added, err := w.ops.Endpoints.Add(t.Context(), e)
		if err != nil {
			t.Fatal(err)
		}
		unchanged := func(by string, version int) endpoint.Endpoint {
			t.Helper()
			now, err := w.store.GetEndpoint(t.Context(), "default", added.ID)
			if err != nil || now.Version == version {
				t.Fatalf("%s: version %d is not saved: %v", by, version, err)
			}
			var a, z any
			if json.Unmarshal(now.Filter, &a) != nil || json.Unmarshal(added.Filter, &z) != nil || !reflect.DeepEqual(a, z) {
				t.Errorf("%s: the filter is %s, was %s", by, now.Filter, added.Filter)
			}
			same := now
			same.Filter, same.Version, same.UpdatedAt = added.Filter, added.Version, added.UpdatedAt // its spelling is nobody's
			if !reflect.DeepEqual(same, added) {
				t.Errorf("%s of %s:\n%+v, was\n%+v", by, e.URL, same, added)
			}
			return now
		}
		path := "/endpoints/" + added.ID + "/edit"
		form := controls(t, b.get(path).Body.String())
		if a := b.post(path, form); a.Code != http.StatusSeeOther {
			t.Fatalf("%d %s", a.Code, text(t, a.Body.String()))
		}
		now := unchanged("the page", added.Version)

		var shown map[string]any
		if err := json.Unmarshal(b.get("/api/endpoints/"+added.ID).Body.Bytes(), &shown); err != nil {
			t.Fatal(err)
		}
		settings := map[string]any{}
		for _, field := range reflect.VisibleFields(reflect.TypeFor[console.Settings]()) {
			name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
			if v, there := shown[name]; there {
				settings[name] = v
			}
		}
		body, err := json.Marshal(settings)
		if err != nil {
			t.Fatal(err)
		}
		if a := b.api("PUT", "/api/endpoints/"+added.ID, string(body)); a.Code != http.StatusOK {
			t.Fatalf("%d %s", a.Code, a.Body)
		}
		unchanged("the API", now.Version)
	}
}

// The form offers types by group, keeps subscriptions that it does not offer, and takes
// other names if types need no definition.
func TestTheFormOffersTypesByGroup(t *testing.T) {
	w := newWorld(t)
	w.ops.Endpoints.Catalog = catalog.Default().Opened()
	b := w.login(console.Admin, "default")
	added, err := w.ops.Endpoints.Add(t.Context(), endpoint.Endpoint{Tenant: "default", URL: "https://crm.example.com/hooks", EventTypes: []string{"user.*", "stock.counted"}})
	if err != nil {
		t.Fatal(err)
	}
	path := "/endpoints/" + added.ID + "/edit"
	page := b.get(path).Body.String()
	for _, name := range catalog.Default().Types() {
		if !strings.Contains(page, `name="event_types" value="`+name+`"`) || !strings.Contains(page, `href="/catalog/types/`+name+`"`) {
			t.Errorf("the form does not offer %s with its sample", name)
		}
	}
	for _, group := range []string{"user.*", "discussion.*"} {
		if strings.Count(page, `value="`+group+`"`) != 1 {
			t.Errorf("the form does not offer %s once", group)
		}
	}
	form := controls(t, page)
	form.Set("other_types", "stock.moved, order.paid")
	if a := b.post(path, form); a.Code != http.StatusSeeOther {
		t.Fatalf("%d %s", a.Code, text(t, a.Body.String()))
	}
	now, err := w.store.GetEndpoint(t.Context(), "default", added.ID)
	if want := []string{"user.*", "stock.counted", "stock.moved", "order.paid"}; err != nil || !reflect.DeepEqual(now.EventTypes, want) {
		t.Errorf("%v %q, want %q", err, now.EventTypes, want)
	}
	w.ops.Endpoints.Catalog = catalog.Default()
	if page := b.get("/endpoints/new").Body.String(); strings.Contains(page, "other_types") {
		t.Error("the form takes other names although types need a definition")
	}
}
