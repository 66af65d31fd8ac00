package console_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pb33f/libopenapi"
	validator "github.com/pb33f/libopenapi-validator"

	"github.com/tidings-dev/tidings/pkg/console"
	"github.com/tidings-dev/tidings/pkg/event"
)

// Every route is called with valid and invalid requests, and an independent library
// checks each request and response against the OpenAPI document.
func TestTheAPIMatchesItsOpenAPIDocument(t *testing.T) {
	w, e, id := seeded(t)
	b := w.login(console.Operator, "default")
	kept, lost := w.failedChange("one"), event.NewID(w.now())
	raw := b.get(console.OpenAPIPath).Body.Bytes()
	document, err := libopenapi.NewDocument(raw)
	if err != nil {
		t.Fatal(err)
	}
	check, errs := validator.NewValidator(document)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	if ok, problems := check.ValidateDocument(); !ok {
		for _, p := range problems {
			t.Errorf("the document: %s: %s", p.Message, p.Reason)
		}
	}
	if document.GetVersion() != "3.1.0" {
		t.Errorf("OpenAPI %s", document.GetVersion())
	}

	const body = `{"url":"https://example.com/added","event_types":["user.*"],"filter":{"data":{"status":["success"]}}}`
	edited := fmt.Sprintf(`{"url":"https://example.com/edited","version":%d}`, e.Version)
	later := w.now().Add(48 * time.Hour).UTC().Format(time.RFC3339)
	running := w.startJob(e.Tenant, e.ID)
	calls := []struct {
		method, route, path, body string
		status                    int
	}{
		{"GET", "/api/session", "", "", 200},
		{"GET", "/api/source-addresses", "", "", 200},
		{"GET", "/api/endpoints", "", "", 200},
		{"POST", "/api/endpoints", "", body, 200},
		{"POST", "/api/endpoints", "", `{"url":"https://example.com/a","auth":{"headers":[{"name":"X-Team","value":"crm"}],"basic":{"user":"u","password":"p"},"api_key":{"name":"X-Key","value":"k"}}}`, 200},
		{"POST", "/api/endpoints", "", `{"url":"https://example.com/b","auth":{"bearer":"t"}}`, 200},
		{"POST", "/api/endpoints", "", `{"url":"https://example.com/c","auth":null}`, 200},
		{"POST", "/api/endpoints", "", `{"url":"https://example.com/e","auth":{"oauth2":{"token_url":"https://login.example.com/token","client_id":"c","client_secret":"s","scopes":["a"],"audience":"x","secret_in_body":true},"client_certificate":"tidings/default/crm"}}`, 200},
		{"POST", "/api/endpoints", "", `{"url":"https://example.com/e","auth":{"client_certificate":"tidings/another/crm"}}`, 422},
		{"POST", "/api/endpoints", "", `{"url":"https://example.com/e","auth":{"oauth2":{"token_url":"https://169.254.169.254/token","client_id":"c","client_secret":"s"}}}`, 422},
		{"POST", "/api/endpoints", "", `{"url":"https://example.com/d","auth":{"bearer":{"token":"t"}}}`, 422},
		{"POST", "/api/endpoints", "", `{"url":"ftp://example.com"}`, 422},
		{"POST", "/api/endpoints", "", `{"url":5}`, 422},
		{"POST", "/api/endpoints", "", `{"url":"https://example.com","surprise":1}`, 422},
		{"POST", "/api/endpoints", "", `{`, 400},
		{"POST", "/api/endpoint-checks", "", body, 200},
		{"POST", "/api/backfill-estimates", "", `{"url":"https://example.com/","backfill":"14d"}`, 200},
		{"POST", "/api/backfill-estimates", "", `{"url":"https://example.com/"}`, 422},
		{"POST", "/api/backfill-estimates", "", `{"url":"ftp://example.com/","backfill":"14d"}`, 422},
		{"POST", "/api/endpoint-checks", "", `{"url":"ftp://example.com","filter":5}`, 200},
		{"GET", "/api/endpoints/{id}", "/api/endpoints/" + e.ID, "", 200},
		{"GET", "/api/endpoints/{id}", "/api/endpoints/ep_none", "", 404},
		{"PUT", "/api/endpoints/{id}", "/api/endpoints/" + e.ID, edited, 200},
		{"PUT", "/api/endpoints/{id}", "/api/endpoints/" + e.ID, edited, 409},
		{"POST", "/api/endpoints/{id}/rotate-secret", "/api/endpoints/" + e.ID + "/rotate-secret", "", 200},
		{"GET", "/api/deliveries", "", "", 200},
		{"GET", "/api/deliveries", "/api/deliveries?endpoint=" + e.ID + "&type=user.posted_comment&state=dead&limit=1&from=2026-01-01T00:00:00Z", "", 200},
		{"GET", "/api/deliveries", "/api/deliveries?state=asleep", "", 422},
		{"GET", "/api/deliveries", "/api/deliveries?cursor=nonsense", "", 422},
		{"GET", "/api/deliveries", "/api/deliveries?from=2030-01-01T00:00:00Z&to=2020-01-01T00:00:00Z", "", 422},
		{"GET", "/api/deliveries", "/api/deliveries?endpoint=" + e.ID + "&from=2030-01-01T00:00:00Z&to=2020-01-01T00:00:00Z", "", 422},
		{"POST", "/api/endpoints", "", `{"url":"https://example.com/x?a b"}`, 422},
		{"POST", "/api/endpoints", "", `{"url":"https://example.com/a\u00a0b"}`, 422},
		{"POST", "/api/endpoints", "", `{"url":"https://example.com/","event_types":[]}`, 422},
		{"POST", "/api/endpoints", "", `{"url":"https://example.com/","event_types":[""]}`, 422},
		{"GET", "/api/deliveries", "/api/deliveries?limit=201", "", 422},
		{"GET", "/api/deliveries/{endpoint}/{event}", "/api/deliveries/" + e.ID + "/" + id, "", 200},
		{"GET", "/api/deliveries/{endpoint}/{event}/request", "/api/deliveries/" + e.ID + "/" + id + "/request", "", 200},
		{"POST", "/api/replays", "", `{"deliveries":[{"endpoint_id":"` + e.ID + `","event_id":"` + id + `"},{"endpoint_id":"ep_none","event_id":"` + id + `"}]}`, 200},
		{"POST", "/api/replays", "", `{"deliveries":[]}`, 422},
		{"GET", "/api/event-types", "", "", 200},
		{"GET", "/api/event-types", "/api/event-types?after=user.joined_platform&limit=1", "", 200},
		{"GET", "/api/event-types", "/api/event-types?limit=1001", "", 422},
		{"GET", "/api/events", "/api/events?type=user.posted_comment&type=user.joined_community&q=u_1&from=2026-01-01T00:00:00Z&limit=1", "", 200},
		{"GET", "/api/events", "/api/events?type=user.exploded", "", 200},
		{"GET", "/api/events", "/api/events?type=Exploded", "", 422},
		{"GET", "/api/events", "/api/events?cursor=nonsense", "", 422},
		{"GET", "/api/events", "/api/events?from=2030-01-01T00:00:00Z&to=2020-01-01T00:00:00Z", "", 422},
		{"GET", "/api/events/{event}", "/api/events/" + id, "", 200},
		{"GET", "/api/events/{event}", "/api/events/none", "", 404},
		{"GET", "/api/audit", "/api/audit?limit=2", "", 200},
		{"GET", "/api/failed-changes", "/api/failed-changes?limit=1&from=2026-01-01T00:00:00Z", "", 200},
		{"GET", "/api/failed-changes", "/api/failed-changes?cursor=nonsense", "", 422},
		{"GET", "/api/failed-changes/{id}", "/api/failed-changes/" + kept, "", 200},
		{"GET", "/api/failed-changes/{id}", "/api/failed-changes/" + lost, "", 404},
		{"POST", "/api/failed-changes/{id}/redrive", "/api/failed-changes/" + kept + "/redrive", "", 200},
		{"POST", "/api/failed-changes/{id}/redrive", "/api/failed-changes/" + kept + "/redrive", "", 404},
		{"GET", "/api/capture-rules", "", "", 200},
		{"POST", "/api/capture-rules", "", `{"files":[{"name":"own","text":"rules:\n- {event: user.posted_comment, when: change == 'insert', data: {comment_id: new.id}}"}],"dry_run":true}`, 200},
		{"POST", "/api/capture-rules", "", `{"files":[{"name":"own","text":"rules:\n- {event: user.posted_comment, when: change == 'insert', data: {comment_id: new.id}}"}]}`, 200},
		{"POST", "/api/capture-rules", "", `{"files":[{"name":"own","text":"rules: ["}]}`, 422},
		{"POST", "/api/capture-rules", "", `{"remove":["none"]}`, 422},
		{"POST", "/api/capture-rules", "", `{"surprise":1}`, 422},
		{"GET", "/api/event-types/{type}", "/api/event-types/user.posted_comment", "", 200},
		{"GET", "/api/event-types/{type}", "/api/event-types/user.exploded", "", 404},
		{"POST", "/api/event-types", "", `{"types":[` + ownType + `],"dry_run":true}`, 200},
		{"POST", "/api/event-types", "", `{"types":[` + ownType + `],"revision":7}`, 409},
		{"POST", "/api/event-types", "", `{"types":[` + ownType + `]}`, 200},
		{"POST", "/api/event-types", "", `{"types":[{"title":"order.paid"}, 5]}`, 422},
		{"POST", "/api/event-types", "", `{"types":[` + strings.Replace(ownType, `"number"`, `"numeral"`, 1) + `]}`, 422},
		{"POST", "/api/event-types", "", `{"deprecate":[{"type":"order.paid","instead":"user.joined_platform"}]}`, 200},
		{"POST", "/api/event-types", "", `{"deprecate":[{"type":"order.paid","undo":true,"since":"2026-11-30"}]}`, 422},
		{"POST", "/api/event-types", "", `{"deprecate":[{"type":"order.unknown"}]}`, 422},
		{"POST", "/api/event-types", "", `{"remove":[{"type":"user.posted_comment"}]}`, 409},
		{"POST", "/api/event-types", "", `{"remove":[{"type":"user.posted_comment"}],"force":true,"dry_run":true}`, 200},
		{"POST", "/api/event-types", "", `{"remove":[{"type":"order.paid","version":7}]}`, 422},
		{"POST", "/api/event-types", "", `{"surprise":1}`, 422},
		{"POST", "/api/event-types", "", `{"tenant":"acme","types":[` + strings.Replace(ownType, "order.paid", "parcel.lost", 1) + `]}`, 200},
		{"POST", "/api/event-types", "", `{"tenant":"acme","types":[` + ownType + `]}`, 422},
		{"POST", "/api/event-types", "", `{"tenant":"a b","remove":[{"type":"parcel.lost"}]}`, 422},
		{"GET", "/api/event-types", "/api/event-types?tenant=acme", "", 200},
		{"GET", "/api/event-types", "/api/event-types?tenant=a%20b", "", 422},
		{"GET", "/api/event-types/{type}", "/api/event-types/user.posted_comment?tenant=acme", "", 200},
		{"GET", "/api/event-types/{type}", "/api/event-types/parcel.lost?tenant=acme", "", 404},
		{"PUT", "/api/undefined-event-types", "", `{"allowed":true}`, 200},
		{"PUT", "/api/undefined-event-types", "", `{}`, 422},
		{"GET", "/api/overview", "", "", 200},
		{"GET", "/api/metrics", "", "", 200},
		{"GET", "/api/metrics", "/api/metrics?days=1", "", 200},
		{"GET", "/api/metrics", "/api/metrics?days=31", "", 422},
		{"POST", "/api/endpoints/{id}/test", "/api/endpoints/" + e.ID + "/test?event=user.posted_comment", "", 200},
		{"GET", "/api/circuits", "", "", 200},
		{"GET", "/api/circuits/{id}", "/api/circuits/" + e.ID, "", 200},
		{"GET", "/api/circuits/{id}", "/api/circuits/ep_none", "", 404},
		{"POST", "/api/circuits/{id}/close", "/api/circuits/" + e.ID + "/close", "", 200},
		{"GET", "/api/discussions", "", "", 200},
		{"GET", "/api/discussions", "/api/discussions?view=expiring&limit=1", "", 200},
		{"GET", "/api/discussions", "/api/discussions?view=lost", "", 422},
		{"GET", "/api/discussions", "/api/discussions?cursor=nonsense", "", 422},
		{"GET", "/api/discussions/{id}", "/api/discussions/d1", "", 200},
		{"GET", "/api/discussions/{id}", "/api/discussions/none", "", 404},
		{"POST", "/api/discussions/{id}/extend", "/api/discussions/d1/extend", `{"to":"` + later + `"}`, 200},
		{"POST", "/api/discussions/{id}/extend", "/api/discussions/d1/extend", `{"to":"2020-01-01T00:00:00Z"}`, 422},
		{"POST", "/api/discussions/{id}/close", "/api/discussions/d2/close", "", 200},
		{"POST", "/api/discussions/{id}/extend", "/api/discussions/d2/extend", `{"to":"` + later + `"}`, 409},
		{"GET", "/api/discussions", "/api/discussions?view=closed", "", 200},
		{"GET", "/api/receiver", "", "", 200},
		{"PUT", "/api/receiver", "", `{"fail_percent":50,"fail_status":503,"slow_seconds":1}`, 200},
		{"PUT", "/api/receiver", "", `{"fail_percent":101,"fail_status":503,"slow_seconds":1}`, 422},
		{"POST", "/api/jobs", "", `{"kind":"recover","endpoint_id":"` + e.ID + `","from":"2026-01-01T00:00:00Z","states":["missing","dead"],"types":["user.posted_comment"],"dry_run":true}`, 200},
		{"POST", "/api/jobs", "", `{"kind":"replay","endpoint_id":"` + e.ID + `","status":"500..599"}`, 200},
		{"POST", "/api/jobs", "", `{"kind":"replay","endpoint_id":"` + e.ID + `","status":"many"}`, 422},
		{"POST", "/api/jobs", "", `{"kind":"recover","endpoint_id":"` + e.ID + `"}`, 422},
		{"POST", "/api/jobs", "", `{"kind":"replay","endpoint_id":"` + e.ID + `","states":["missing"]}`, 422},
		{"POST", "/api/jobs", "", `{"kind":"stream","from":"2026-01-01T00:00:00Z"}`, 200},
		{"POST", "/api/jobs", "", `{"kind":"paint","endpoint_id":"` + e.ID + `"}`, 422},
		{"POST", "/api/jobs", "", `{"kind":"replay","endpoint_id":"ep_none"}`, 404},
		{"POST", "/api/erasures", "", `{"subject":"u_1042","dry_run":true}`, 200},
		{"POST", "/api/erasures", "", `{"subject":" u "}`, 422},
		{"POST", "/api/erasures", "", `{}`, 422},
		{"GET", "/api/jobs", "/api/jobs?limit=1", "", 200},
		{"GET", "/api/jobs", "/api/jobs?cursor=nonsense", "", 422},
		{"GET", "/api/jobs/{id}", "/api/jobs/" + running.ID, "", 200},
		{"GET", "/api/jobs/{id}", "/api/jobs/job_none", "", 404},
		{"POST", "/api/jobs/{id}/cancel", "/api/jobs/" + running.ID + "/cancel", "", 200},
		{"POST", "/api/jobs/{id}/cancel", "/api/jobs/" + running.ID + "/cancel", "", 409},
		{"POST", "/api/jobs/{id}/cancel", "/api/jobs/job_none/cancel", "", 404},
		{"POST", "/api/endpoints/{id}/pause", "/api/endpoints/" + e.ID + "/pause", "", 200},
		{"POST", "/api/endpoints/{id}/resume", "/api/endpoints/" + e.ID + "/resume", "", 200},
		{"POST", "/api/endpoints/{id}/disable", "/api/endpoints/" + e.ID + "/disable", "", 200},
		{"POST", "/api/endpoints/{id}/pause", "/api/endpoints/" + e.ID + "/pause", "", 409},
		{"POST", "/api/endpoints/{id}/resume", "/api/endpoints/" + e.ID + "/resume", "", 409},
		{"POST", "/api/endpoints/{id}/enable", "/api/endpoints/" + e.ID + "/enable", "", 200},
		{"DELETE", "/api/endpoints/{id}", "/api/endpoints/" + e.ID, "", 200},
		{"DELETE", "/api/endpoints/{id}", "/api/endpoints/" + e.ID, "", 404},
	}
	asked := map[string]bool{}
	for _, c := range calls {
		if c.path == "" {
			c.path = c.route
		}
		what := c.method + " " + c.path + " " + c.body
		r := httptest.NewRequest(c.method, "http://console.example"+c.path, strings.NewReader(c.body))
		if c.body != "" {
			r.Header.Set("Content-Type", "application/json")
		}
		r.Header.Set("X-CSRF-Token", b.csrf)
		recorded := b.do(r)
		if recorded.Code != c.status {
			t.Errorf("%s: %d, want %d: %s", what, recorded.Code, c.status, recorded.Body)
			continue
		}
		if c.status == 200 {
			asked[c.method+" "+c.route] = true
		}
		answer := recorded.Result()
		r.Body = io.NopCloser(strings.NewReader(c.body))
		if ok, problems := check.ValidateHttpResponse(r, answer); !ok {
			for _, p := range problems {
				t.Errorf("%s: the response does not match the document: %s: %s %v\n%s", what, p.Message, p.Reason, p.SchemaValidationErrors, recorded.Body)
			}
		}
		if c.status < 400 {
			r.Body = io.NopCloser(strings.NewReader(c.body))
			r.Header.Set("X-Tidings-Session", "x")
			if ok, problems := check.ValidateHttpRequest(r); !ok {
				for _, p := range problems {
					t.Errorf("%s: the request does not match the document: %s: %s", what, p.Message, p.Reason)
				}
			}
		}
	}
	for _, route := range routes(t, raw) {
		if !asked[route] {
			t.Errorf("the document has %s, which this test does not call", route)
		}
		delete(asked, route)
	}
	for route := range asked {
		t.Errorf("%s is not in the document", route)
	}
}

// routes returns the routes of an OpenAPI document.
func routes(t *testing.T, raw []byte) (list []string) {
	t.Helper()
	var doc struct {
		Paths map[string]map[string]json.RawMessage
	}
	if err := json.Unmarshal(raw, &doc); err != nil {
		t.Fatal(err)
	}
	for path, methods := range doc.Paths {
		for method := range methods {
			list = append(list, strings.ToUpper(method)+" "+path)
		}
	}
	slices.Sort(list)
	return list
}

// Without a demo receiver, no page and no route has it.
func TestDeploymentsHaveNoDemoReceiver(t *testing.T) {
	w := newWorld(t)
	w.ops.Receiver = nil
	w.handler = (&console.Console{Operations: w.ops, Sessions: w.store, Log: discard}).Handler()
	b := w.login(console.Admin, "default")
	if raw := b.get(console.OpenAPIPath).Body.Bytes(); bytes.Contains(raw, []byte("/api/receiver")) {
		t.Error("the document names the receiver")
	}
	if a := b.get("/api/receiver"); a.Code != http.StatusNotFound {
		t.Errorf("GET /api/receiver: %d", a.Code)
	}
	if a := b.post("/receiver", nil); a.Code != http.StatusNotFound {
		t.Errorf("POST /receiver: %d", a.Code)
	}
	if strings.Contains(b.get("/").Body.String(), "/receiver") {
		t.Error("the page offers it")
	}
}
