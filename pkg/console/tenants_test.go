package console_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/pkg/console"
	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/delivery/breaker"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/event/journal"
	"github.com/tidings-dev/tidings/pkg/local"
	"github.com/tidings-dev/tidings/pkg/ops/audit"
	"github.com/tidings-dev/tidings/pkg/ops/jobs"
	"github.com/tidings-dev/tidings/pkg/platform"
)

// operation is an operation of the OpenAPI document.
type operation struct {
	Method, Path string
	Parameters   []struct {
		Name, In string
		Required bool
		Schema   struct {
			Type, Format string
			Enum         []any
		}
	}
	RequestBody struct {
		Content map[string]struct{ Schema json.RawMessage }
	}
}

func operations(t *testing.T, raw []byte) (list []operation) {
	t.Helper()
	var doc struct {
		Paths map[string]map[string]operation
	}
	if err := json.Unmarshal(raw, &doc); err != nil {
		t.Fatal(err)
	}
	for path, methods := range doc.Paths {
		for method, o := range methods {
			o.Method, o.Path = strings.ToUpper(method), path
			list = append(list, o)
		}
	}
	slices.SortFunc(list, func(a, b operation) int { return strings.Compare(a.Path+a.Method, b.Path+b.Method) })
	return list
}

// call is a request that is made of an operation: values of its parameters, and a body.
type call struct {
	operation
	values map[string]string // by the parameter's name
	body   string
}

func (c call) request() *http.Request {
	path, query := c.Path, url.Values{}
	for _, p := range c.Parameters {
		value, ok := c.values[p.Name]
		switch {
		case p.In == "path":
			path = strings.ReplaceAll(path, "{"+p.Name+"}", url.PathEscape(value))
		case p.In == "query" && ok:
			query.Set(p.Name, value)
		}
	}
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	r := httptest.NewRequest(c.Method, path, strings.NewReader(c.body))
	if c.body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	return r
}

// steps counts the calls of a store: two requests with the same steps take the same time.
type steps struct {
	local.Store
	mu    sync.Mutex
	calls []string
}

func (s *steps) add(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, name)
}

// taken returns the calls since the last time, in any order.
func (s *steps) taken() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	slices.Sort(s.calls)
	text := strings.Join(s.calls, " ")
	s.calls = nil
	return text
}

func (s *steps) GetDelivery(ctx context.Context, k delivery.Key) (delivery.Delivery, error) {
	s.add("GetDelivery")
	return s.Store.GetDelivery(ctx, k)
}

func (s *steps) QueryDeliveries(ctx context.Context, q delivery.Query) (delivery.Page, error) {
	s.add("QueryDeliveries")
	return s.Store.QueryDeliveries(ctx, q)
}

func (s *steps) ListPending(ctx context.Context, q delivery.PendingQuery) (delivery.PendingPage, error) {
	s.add("ListPending")
	return s.Store.ListPending(ctx, q)
}

func (s *steps) GetEvent(ctx context.Context, id string) (event.Accepted, error) {
	s.add("GetEvent")
	return s.Store.GetEvent(ctx, id)
}

func (s *steps) GetJob(ctx context.Context, k jobs.Key) (jobs.Job, error) {
	s.add("GetJob")
	return s.Store.GetJob(ctx, k)
}

func (s *steps) ListJobs(ctx context.Context, q jobs.Query) (jobs.Page, error) {
	s.add("ListJobs")
	return s.Store.ListJobs(ctx, q)
}

func (s *steps) QueryJournal(ctx context.Context, r journal.Range) ([]journal.Item, bool, error) {
	s.add("QueryJournal")
	return s.Store.QueryJournal(ctx, r)
}

func (s *steps) GetBreaker(ctx context.Context, tenant, id string, consistent bool) (breaker.State, error) {
	s.add("GetBreaker")
	return s.Store.GetBreaker(ctx, tenant, id, consistent)
}

func (s *steps) GetEndpoint(ctx context.Context, tenant, id string) (endpoint.Endpoint, error) {
	s.add("GetEndpoint")
	return s.Store.GetEndpoint(ctx, tenant, id)
}

func (s *steps) ListEndpoints(ctx context.Context, tenant string) ([]endpoint.Endpoint, error) {
	s.add("ListEndpoints")
	return s.Store.ListEndpoints(ctx, tenant)
}

func (s *steps) GetDiscussion(ctx context.Context, tenant, id string) (platform.Discussion, error) {
	s.add("GetDiscussion")
	return s.Store.GetDiscussion(ctx, tenant, id)
}

func (s *steps) ListAudit(ctx context.Context, tenant string, limit int, cursor string) (audit.Page, error) {
	s.add("ListAudit")
	return s.Store.ListAudit(ctx, tenant, limit, cursor)
}

func (s *steps) PutAudit(ctx context.Context, e audit.Entry) error {
	s.add("PutAudit")
	return s.Store.PutAudit(ctx, e)
}

// seen is what a client can see of an answer.
type seen struct {
	status  int
	headers string
	body    string
	steps   string
}

// Every operation of the OpenAPI document, with another tenant's ids, names and cursors,
// answers as it does for those that never existed: in status, headers, body, and the work
// that it does. Nothing of the other tenant changes.
func TestSecurityOtherTenantsIDsAreLikeThoseThatDoNotExist(t *testing.T) {
	w, e, eventID := seeded(t)
	deleted := w.endpoint("default", "https://example.com/deleted")
	w.deliver(deleted, eventID, "user.posted_comment", delivery.Dead, "the receiver answered 500", "oops")
	if err := w.store.RemoveEndpoint(t.Context(), "default", deleted.ID); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		id := w.event("default", "user.posted_comment", comment)
		w.deliver(e, id, "user.posted_comment", delivery.Dead, "the receiver answered 500", "oops")
	}
	for range 2 {
		w.recorded("default", journal.Entry{Type: "user.posted_comment", Subject: "cmt_7", Actor: "u_1042"})
	}
	w.recorded("default", journal.Entry{ID: eventID, Type: "user.posted_comment"})
	failed := w.failedChange("private")
	job := w.startJob("default", e.ID).ID
	w.startJob("default", e.ID)
	victim := w.login(console.Operator, "default")
	for range 3 { // entries of the audit log
		victim.api("POST", "/api/endpoints/"+e.ID+"/test", "")
	}
	var cursors []string // of every list of the victim
	for _, path := range []string{"/api/deliveries?limit=1", "/api/deliveries?limit=1&endpoint=" + e.ID, "/api/audit?limit=1", "/api/jobs?limit=1", "/api/events?limit=1", "/api/discussions?limit=1", "/api/failed-changes?limit=1"} {
		var page struct{ Next string }
		if err := json.Unmarshal(victim.get(path).Body.Bytes(), &page); err != nil {
			t.Fatal(err)
		}
		if page.Next == "" {
			if path == "/api/failed-changes?limit=1" {
				continue
			}
			t.Fatalf("%s has no second page", path)
		}
		if victim.get(path+"&cursor="+url.QueryEscape(page.Next)).Code != http.StatusOK {
			t.Fatalf("%s: its own cursor is refused", path)
		}
		cursors = append(cursors, page.Next)
	}
	for _, place := range []string{eventID, eventID + "/" + e.ID, eventID + "/~"} { // as they were before they were sealed
		cursors = append(cursors, base64.RawURLEncoding.EncodeToString([]byte(place)))
	}

	store := &steps{Store: w.store}
	w.ops.Endpoints.Store, w.ops.Deliveries, w.ops.Events, w.ops.Breakers, w.ops.Discussions, w.ops.Audit, w.ops.Journal, w.ops.Jobs = store, store, store, store, store, store, store, store
	absent, absentEvent := endpoint.NewID(w.now()), event.NewID(w.now())

	// Pairs of a value that the other tenant has and one that nobody has, by parameter.
	pairs := map[string][][2]string{
		"endpoint": {{e.ID, absent}, {deleted.ID, absent}, {"audit#default", "audit#nobodys"}, {"capture-failed", "capture-failee"}, {e.ID, "ep_none"}},
		"event":    {{eventID, absentEvent}},
		"subject":  {{"cmt_7", "cmt_none"}},
		"actor":    {{"u_1042", "u_none"}},
		"tenant":   {{"acme", "nobody"}},
		"q":        {{"cmt_7", "cmt_none"}, {"u_1042", "u_none"}, {eventID, absentEvent}, {eventID[18:], absentEvent[18:]}},
		"cursor":   nil,
	}
	for _, c := range cursors {
		pairs["cursor"] = append(pairs["cursor"], [2]string{c, base64.RawURLEncoding.EncodeToString(make([]byte, base64.RawURLEncoding.DecodedLen(len(c))))})
	}
	pairsOf := func(o operation, name string) [][2]string {
		if name != "id" {
			return pairs[name]
		}
		switch {
		case o.Path == "/api/events":
			return [][2]string{{eventID, absentEvent}, {eventID[18:], absentEvent[18:]}}
		case strings.HasPrefix(o.Path, "/api/discussions/"):
			return [][2]string{{"d1", "dx"}, {"d2", "dy"}}
		case strings.HasPrefix(o.Path, "/api/jobs/"):
			return [][2]string{{job, jobs.NewID(w.now())}}
		case strings.HasPrefix(o.Path, "/api/failed-changes/"):
			return [][2]string{{failed, absentEvent}}
		}
		return pairs["endpoint"]
	}
	// Values of the other parameters; each is tried alone beside the pair.
	others := map[string][]string{
		"type": {"user.posted_comment", "user.joined_platform"}, "state": {"dead", "delivered", "pending"}, "limit": {"1"}, "after": {"user.joined_platform"}, "status": {"503", "500..599"}, "days": {"2"}, "view": {"closed", "expiring"},
		"from": {w.now().Add(-time.Hour).Format(time.RFC3339), w.now().Add(time.Hour).Format(time.RFC3339)}, "to": {w.now().Format(time.RFC3339)},
	}
	later := w.now().Add(48 * time.Hour).UTC().Format(time.RFC3339)
	bodies := map[string]string{ // %[1]s is an endpoint, %[2]s an event
		"PUT /api/endpoints/{id}":           fmt.Sprintf(`{"url":"https://example.com/taken","version":%d}`, e.Version),
		"POST /api/jobs":                    `{"kind":"recover","endpoint_id":"%[1]s","from":"2026-01-01T00:00:00Z"}`,
		"POST /api/capture-rules":           `{"remove":["shipped"]}`,
		"POST /api/event-types":             `{"remove":[{"type":"user.posted_comment"}],"force":true}`,
		"PUT /api/undefined-event-types":    `{"allowed":true}`,
		"POST /api/erasures":                `{"subject":"u_1042","dry_run":true}`,
		"POST /api/replays":                 `{"deliveries":[{"endpoint_id":"%[1]s","event_id":"%[2]s"}]}`,
		"POST /api/discussions/{id}/extend": `{"to":"` + later + `"}`,
		"POST /api/endpoints":               `{"url":"ftp://example.com/","credentials":"tidings/default/kafka"}`,
		"POST /api/endpoint-checks":         `{"url":"https://example.com/","credentials":"tidings/default/kafka"}`,
		"POST /api/backfill-estimates":      `{"url":"https://example.com/","backfill":"30d"}`,
		"PUT /api/receiver":                 `{"fail_percent":0,"fail_status":500,"slow_seconds":0}`,
	}
	raw := victim.get(console.OpenAPIPath).Body.Bytes()
	calls, before := 0, w.everything()
	for _, role := range []console.Role{console.Viewer, console.Admin, console.Operator} {
		b := w.login(role, "other")
		look := func(c call) seen {
			store.taken()
			r := c.request()
			r.Header.Set("X-CSRF-Token", b.csrf)
			a := b.do(r)
			calls++
			headers := a.Header().Clone()
			headers.Del("Content-Length") // of ids of different lengths
			return seen{a.Code, fmt.Sprint(headers), a.Body.String(), store.taken()}
		}
		for _, o := range operations(t, raw) {
			if role == console.Operator && strings.HasPrefix(o.Path, "/api/failed-changes") {
				continue // they are of the whole deployment
			}
			what := o.Method + " " + o.Path
			if len(o.RequestBody.Content) > 0 && bodies[what] == "" {
				t.Errorf("%s has a body: give this test one", what)
			}
			// One parameter at a time has the pair; the others have the other tenant's values.
			for _, p := range o.Parameters {
				if p.In == "header" {
					continue
				}
				list := pairsOf(o, p.Name)
				if list == nil && others[p.Name] == nil && p.Name != "event" {
					t.Errorf("%s has the parameter %s: give this test values of it", what, p.Name)
				}
				for _, pair := range list {
					options := []map[string]string{{}}
					for _, q := range o.Parameters {
						for _, value := range others[q.Name] {
							if q.In == "query" {
								options = append(options, map[string]string{q.Name: value})
							}
						}
					}
					for _, option := range options {
						make := func(value string) call {
							c := call{operation: o, values: maps.Clone(option), body: fmt.Sprintf(bodies[what]+"%[3]s", e.ID, eventID, "")}
							for _, q := range o.Parameters {
								if of := pairsOf(o, q.Name); q.In == "path" && len(of) > 0 {
									c.values[q.Name] = of[0][0]
								}
							}
							c.values[p.Name] = value
							return c
						}
						theirs, nobodys := look(make(pair[0])), look(make(pair[1]))
						compare(t, fmt.Sprintf("%s as %s, %s=%s, %v", what, role, p.Name, pair[0], option), theirs, nobodys, pair)
					}
				}
			}
			// Ids in bodies.
			if what == "POST /api/replays" || what == "POST /api/jobs" {
				for _, pair := range pairs["endpoint"] {
					make := func(id string) call { return call{operation: o, body: fmt.Sprintf(bodies[what], id, eventID)} }
					compare(t, what+" "+pair[0], look(make(pair[0])), look(make(pair[1])), pair)
				}
			}
			for _, text := range []string{bodies["POST /api/endpoint-checks"]} {
				if what == "POST /api/endpoint-checks" || what == "POST /api/endpoints" {
					theirs := look(call{operation: o, body: text})
					nobodys := look(call{operation: o, body: strings.ReplaceAll(text, "default", "nobodys")})
					compare(t, what, theirs, nobodys, [2]string{"default", "nobodys"})
				}
			}
		}
		// The pages, with the same ids.
		for _, path := range []string{"/endpoints/%s", "/endpoints/%s/edit", "/deliveries?endpoint=%s", "/deliveries?endpoint=%s&state=dead", "/deliveries/%s/" + eventID} {
			for _, pair := range pairs["endpoint"] {
				page := func(id string) seen {
					store.taken()
					a := b.get(fmt.Sprintf(path, url.PathEscape(id)))
					return seen{a.Code, "", a.Body.String(), store.taken()}
				}
				compare(t, path+" "+pair[0], page(pair[0]), page(pair[1]), pair)
			}
		}
	}
	if after := w.everything(); !reflect.DeepEqual(before, after) {
		t.Errorf("the other tenant's data changed:\n%v\nwas\n%v", after, before)
	}
	if calls < 500 {
		t.Errorf("only %d calls", calls)
	}
	t.Logf("%d calls", calls)
}

func compare(t *testing.T, what string, theirs, nobodys seen, pair [2]string) {
	t.Helper()
	normal := func(s seen, id string) seen {
		for _, form := range []string{id, url.PathEscape(id), url.QueryEscape(id)} {
			s.body = strings.ReplaceAll(s.body, form, "ID")
		}
		return s
	}
	a, b := normal(theirs, pair[0]), normal(nobodys, pair[1])
	if pair[1] == "ep_none" {
		a.steps, b.steps = "", "" // a text that is no id is refused without a look
	}
	if a != b {
		t.Errorf("%s: another tenant's can be told from nobody's\n  %+v\n  %+v", what, a, b)
	}
}

// A cursor is good for the tenant, the list and the filter that it was given for, and only
// as it was given.
func TestSecurityCursorsAreBoundToTheirList(t *testing.T) {
	w, e, _ := seeded(t)
	for range 3 {
		id := w.event("default", "user.posted_comment", comment)
		w.deliver(e, id, "user.posted_comment", delivery.Dead, "", "")
	}
	b := w.login(console.Viewer, "default")
	var page struct{ Next string }
	if err := json.Unmarshal(b.get("/api/deliveries?limit=1&state=dead").Body.Bytes(), &page); err != nil || page.Next == "" {
		t.Fatalf("no next page: %v", err)
	}
	text, err := base64.RawURLEncoding.DecodeString(page.Next)
	if err != nil || strings.Contains(string(text), e.ID) {
		t.Errorf("the cursor shows an id: %q, %v", text, err)
	}
	changed := []byte(page.Next)
	changed[20] ^= 1
	for path, want := range map[string]int{
		"/api/deliveries?limit=1&state=dead&cursor=" + page.Next:                200,
		"/api/deliveries?limit=2&state=dead&cursor=" + page.Next:                200,
		"/api/deliveries?limit=1&state=pending&cursor=" + page.Next:             422,
		"/api/deliveries?limit=1&cursor=" + page.Next:                           422,
		"/api/deliveries?state=dead&endpoint=" + e.ID + "&cursor=" + page.Next:  422,
		"/api/audit?cursor=" + page.Next:                                        422,
		"/api/discussions?cursor=" + page.Next:                                  422,
		"/api/deliveries?state=dead&cursor=" + url.QueryEscape(string(changed)): 422,
		"/api/deliveries?state=dead&cursor=" + page.Next[:30]:                   422,
		"/api/deliveries?state=dead&cursor=AAAA":                                422,
		// The time has passed the place of the cursor: nothing is left.
		"/api/deliveries?state=dead&from=2999-01-01T00:00:00Z&cursor=" + page.Next: 200,
		"/api/deliveries?state=dead&to=1999-01-01T00:00:00Z&cursor=" + page.Next:   422,
	} {
		if a := b.get(path); a.Code != want {
			t.Errorf("GET %s: %d, want %d: %s", path, a.Code, want, a.Body)
		}
	}
	if a := w.login(console.Viewer, "other").get("/api/deliveries?limit=1&state=dead&cursor=" + page.Next); a.Code != 422 {
		t.Errorf("another tenant's cursor: %d", a.Code)
	}
}
