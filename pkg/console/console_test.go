package console_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/html"

	"github.com/tidings-dev/tidings/pkg/admin"
	"github.com/tidings-dev/tidings/pkg/admin/capturerules"
	"github.com/tidings-dev/tidings/pkg/admin/capturerules/compile"
	"github.com/tidings-dev/tidings/pkg/admin/eventtypes"
	typecompile "github.com/tidings-dev/tidings/pkg/admin/eventtypes/compile"
	"github.com/tidings-dev/tidings/pkg/console"
	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/delivery/breaker"
	"github.com/tidings-dev/tidings/pkg/destination"
	"github.com/tidings-dev/tidings/pkg/dispatch"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/event/catalog"
	"github.com/tidings-dev/tidings/pkg/event/deployed"
	"github.com/tidings-dev/tidings/pkg/event/validate"
	"github.com/tidings-dev/tidings/pkg/local"
	"github.com/tidings-dev/tidings/pkg/ops/audit"
	"github.com/tidings-dev/tidings/pkg/ops/jobs"
	"github.com/tidings-dev/tidings/pkg/ops/stats"
	"github.com/tidings-dev/tidings/pkg/platform"
	"github.com/tidings-dev/tidings/pkg/signature"
	"github.com/tidings-dev/tidings/pkg/store/memory"
	"github.com/tidings-dev/tidings/pkg/testsend"
)

// world is a console on a store with its own clock.
type world struct {
	t       *testing.T
	store   store
	ops     *console.Operations
	console *console.Console
	handler http.Handler
	audit   *failingAudit

	mu       sync.Mutex
	clock    time.Time
	commands []dispatch.Command
	replay   error  // the error that dispatch returns for a replay
	answer   string // the response body of a test send
	// stillFails makes emit refuse to capture a failed change again.
	stillFails bool
}

// store is a store of the console and of those that fill it.
type store interface {
	local.Store
	deployed.Store
	eventtypes.Endpoints
}

// failingAudit is an audit log that can be made to fail.
type failingAudit struct {
	console.Audit
	away atomic.Bool
}

func (a *failingAudit) PutAudit(ctx context.Context, e audit.Entry) error {
	if a.away.Load() {
		return errors.New("the table is unavailable")
	}
	return a.Audit.PutAudit(ctx, e)
}

// invoking invokes a tester like its Lambda function.
func invoking(tester *testsend.Tester) console.Invoke {
	return func(ctx context.Context, payload, answer any) error {
		report, err := tester.Run(ctx, payload.(testsend.Request))
		if err == nil {
			*answer.(*testsend.Report) = report
		}
		return err
	}
}

// answering supports every protocol; its receiver answers 500.
type answering struct {
	*destination.Router
	body *string
}

func (a answering) Deliver(ctx context.Context, _ destination.Target, _ destination.Message) delivery.Outcome {
	return delivery.Outcome{Class: delivery.Answered, Status: 500, Error: "the receiver answered 500 " + *a.body, Snippet: *a.body}
}

type demo struct {
	b atomic.Pointer[console.Behaviour]
}

func (d *demo) Behaviour() console.Behaviour     { return *d.b.Load() }
func (d *demo) SetBehaviour(b console.Behaviour) { d.b.Store(&b) }

func (w *world) now() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.clock
}

func (w *world) pass(d time.Duration) {
	w.mu.Lock()
	w.clock = w.clock.Add(d)
	w.mu.Unlock()
}

// newWorld returns a console on a memory store.
func newWorld(t *testing.T) *world {
	w := &world{t: t, clock: time.Now().Truncate(time.Millisecond)}
	return w.on(memory.New(w.now))
}

// on makes the world's console on a store.
func (w *world) on(store store) *world {
	t := w.t
	w.store = store
	w.audit = &failingAudit{Audit: w.store}
	known := catalog.Default()
	receiver := &demo{}
	reader := &stats.Reader{Source: w.store, Now: w.now}
	receiver.SetBehaviour(console.Behaviour{FailStatus: 500})
	w.ops = &console.Operations{
		Endpoints:  &admin.Endpoints{Store: w.store, Catalog: known, Check: protocols(t).Check, Now: w.now},
		Deliveries: w.store, Events: w.store, Journal: w.store, Jobs: w.store, Audit: w.audit, Receiver: receiver, Now: w.now,
		Breakers: w.store, Discussions: w.store, FailedChanges: w.store, Emit: w.emit, Statistics: reader,
		Rules:   &capturerules.Manager{Store: w.store, Check: compile.Check, Now: w.now},
		Types:   &eventtypes.Manager{Store: w.store, Endpoints: w.store, Check: typecompile.Check, Now: w.now},
		History: &stats.History{Reader: reader, Days: w.store, Now: w.now}, Targets: stats.Targets{SuccessPercent: 95, SlowSeconds: 60, FailedPerDay: 50},
		TestWebhook: invoking(&testsend.Tester{
			Catalog: known, Validate: (&validate.Live{Types: known}).Validate, Endpoints: w.store, Limits: w.store, Log: slog.New(slog.DiscardHandler), Now: w.now,
			Open: func() (testsend.Sender, error) { return answering{protocols(t), &w.answer}, nil },
		}),
		Dispatch: func(_ context.Context, payload, answer any) error {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.commands = append(w.commands, payload.(dispatch.Command))
			switch done := answer.(type) {
			case *dispatch.Replayed:
				done.Replayed = 1
			case *jobs.Job:
				return w.doJob(payload.(dispatch.Command), done)
			case *dispatch.Closed:
				done.WasOpen = true
			}
			return w.replay
		},
	}
	w.console = &console.Console{Operations: w.ops, Sessions: w.store, Log: slog.New(slog.DiscardHandler)}
	w.handler = w.console.Handler()
	return w
}

// doJob does what dispatch does, apart from the work: a dry run is done at once, and has
// counted 3.
func (w *world) doJob(c dispatch.Command, j *jobs.Job) error {
	ctx := w.t.Context()
	if c.Action == "cancel_job" {
		stored, err := w.store.GetJob(ctx, jobs.Key{Tenant: c.Tenant, ID: c.JobID})
		if err != nil {
			return err
		}
		stored, _ = stored.Cancel(c.By, w.clock)
		*j, err = w.store.PutJob(ctx, stored)
		return err
	}
	started, err := jobs.New(jobs.Job{
		ID: c.JobID, Tenant: c.Tenant, Kind: c.Kind, EndpointID: c.EndpointID, DryRun: c.DryRun, By: c.By,
		Parameters: jobs.Parameters{From: c.From, To: c.To, Types: c.Types, States: c.States, Status: c.Status, Subject: c.Subject, WithoutTenant: c.WithoutTenant},
	}, w.clock)
	if err != nil {
		return err
	}
	if c.DryRun {
		started.State, started.Progress = jobs.Done, 1
		started.Counts = map[string]int{jobs.Examined: 7, jobs.Sent: 3, jobs.Found(dispatch.Missing): 3, jobs.Found(delivery.Dead): 2}
	}
	*j, err = w.store.PutJob(ctx, started)
	return err
}

// browser is a client with a session cookie.
type browser struct {
	w      *world
	cookie string
	csrf   string
}

func (w *world) invite(role console.Role, tenant string) string {
	w.t.Helper()
	path, err := console.Invite(w.t.Context(), w.store, console.Invitation{Name: "ada", Role: role, Tenant: tenant}, w.now())
	if err != nil {
		w.t.Fatal(err)
	}
	return path
}

func (w *world) login(role console.Role, tenant string) *browser {
	w.t.Helper()
	b := &browser{w: w}
	token := strings.TrimPrefix(w.invite(role, tenant), "/login?link=")
	answer := b.post("/login", url.Values{"link": {token}})
	if answer.Code != http.StatusSeeOther {
		w.t.Fatalf("login: %d %s", answer.Code, answer.Body)
	}
	b.cookie = strings.Split(answer.Header().Get("Set-Cookie"), ";")[0]
	var who console.Identity
	if err := json.Unmarshal(b.get("/api/session").Body.Bytes(), &who); err != nil {
		w.t.Fatal(err)
	}
	b.csrf = who.CSRF
	return b
}

func (b *browser) do(r *http.Request) *httptest.ResponseRecorder {
	if b.cookie != "" {
		r.Header.Set("Cookie", b.cookie)
	}
	w := httptest.NewRecorder()
	b.w.handler.ServeHTTP(w, r)
	return w
}

func (b *browser) get(path string) *httptest.ResponseRecorder {
	return b.do(httptest.NewRequest("GET", path, nil))
}

func (b *browser) post(path string, form url.Values) *httptest.ResponseRecorder {
	if form == nil {
		form = url.Values{}
	}
	if b.csrf != "" && !form.Has("csrf") {
		form.Set("csrf", b.csrf)
	}
	r := httptest.NewRequest("POST", path, strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return b.do(r)
}

func (b *browser) api(method, path, body string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	r.Header.Set("X-CSRF-Token", b.csrf)
	return b.do(r)
}

// endpoint adds an endpoint directly to the store.
func (w *world) endpoint(tenant, url string) endpoint.Endpoint {
	w.t.Helper()
	e, err := w.ops.Endpoints.Add(w.t.Context(), endpoint.Endpoint{Tenant: tenant, URL: url})
	if err != nil {
		w.t.Fatal(err)
	}
	return e
}

// event stores an event.
func (w *world) event(tenant, eventType, data string) string {
	w.t.Helper()
	now := w.now()
	e := event.Event{ID: event.NewID(now), Type: eventType, Timestamp: now, ActorUserID: "u_1", Data: json.RawMessage(data)}
	body, err := e.Encode()
	if err != nil {
		w.t.Fatal(err)
	}
	if err := w.store.PutEvent(w.t.Context(), event.Accepted{ID: e.ID, Tenant: tenant, Body: body}); err != nil {
		w.t.Fatal(err)
	}
	return e.ID
}

// deliver stores a delivery that is in a state after one attempt.
func (w *world) deliver(e endpoint.Endpoint, eventID, eventType string, state delivery.State, reason, snippet string) {
	w.t.Helper()
	now := w.now()
	c := delivery.Claim{
		Key: delivery.Key{EndpointID: e.ID, EventID: eventID}, Tenant: e.Tenant, EventType: eventType,
		Accepted: now, ID: "c", Now: now, Lease: time.Minute,
	}
	d, err := w.store.Claim(w.t.Context(), c)
	if err != nil {
		w.t.Fatal(err)
	}
	if state == delivery.InFlight {
		return
	}
	class := delivery.Answered
	if state == delivery.Delivered {
		class = delivery.Success
	}
	k := delivery.Conclusion{State: state, Reason: reason, Snippet: snippet, Now: now, NextAt: now.Add(time.Hour), DueAt: now.Add(time.Hour),
		Attempt: delivery.Attempt{Number: 1, At: now, Class: class, Status: 500, Timings: delivery.Timings{DNS: 3e6, Connect: 4e6, FirstByte: 20e6, Total: 30e6}}}
	if err := w.store.Complete(w.t.Context(), k.Apply(d)); err != nil {
		w.t.Fatal(err)
	}
}

const comment = `{"discussion_id":"d1","comment_id":"m1","comment_text":"hello"}`

// pages returns all pages, given an endpoint and an event.
func pages(e endpoint.Endpoint, eventID string) []string {
	return []string{
		"/", "/metrics", "/endpoints", "/endpoints/new", "/endpoints/" + e.ID, "/endpoints/" + e.ID + "/edit", "/deliveries",
		"/deliveries?endpoint=" + e.ID + "&type=user.posted_comment&state=dead&since=24h", "/deliveries/" + e.ID + "/" + eventID,
		"/events", "/events/" + eventID, "/audit", "/circuits", "/discussions", "/discussions?view=expiring", "/discussions?view=closed",
	}
}

// changes returns all forms that make a change.
func (w *world) changes(e endpoint.Endpoint, eventID string) map[string]url.Values {
	return map[string]url.Values{
		"/endpoints/new":                  {"url": {"https://example.com/new"}, "event_types": {"*"}},
		"/endpoints/" + e.ID + "/edit":    {"url": {"https://example.com/edited"}, "event_types": {"user.*"}, "version": {fmt.Sprint(e.Version)}},
		"/endpoints/" + e.ID + "/pause":   nil,
		"/endpoints/" + e.ID + "/resume":  nil,
		"/endpoints/" + e.ID + "/disable": nil,
		"/endpoints/" + e.ID + "/enable":  nil,
		"/endpoints/" + e.ID + "/rotate":  nil,
		"/endpoints/" + e.ID + "/test":    nil,
		"/circuits/" + e.ID + "/close":    nil,
		"/discussions/d1/extend":          {"days": {"7"}, "seen": {w.end("d1")}},
		"/discussions/d2/close":           nil,
		"/endpoints/" + e.ID + "/remove":  nil,
		"/deliveries/replay":              {"delivery": {e.ID + "/" + eventID}},
		"/receiver":                       {"fail_percent": {"100"}, "fail_status": {"503"}, "slow_seconds": {"0"}},
	}
}

func seeded(t *testing.T) (*world, endpoint.Endpoint, string) {
	w := newWorld(t)
	e, id := w.seed()
	return w, e, id
}

// seed stores something of every kind for the tenant default.
func (w *world) seed() (endpoint.Endpoint, string) {
	t := w.t
	t.Helper()
	e := w.endpoint("default", "https://example.com/hooks")
	id := w.event("default", "user.posted_comment", comment)
	w.deliver(e, id, "user.posted_comment", delivery.Dead, "the receiver answered 500", "oops")
	w.open(e, "the receiver answered 500")
	w.discussion("d1", "Who brings the projector?")
	w.discussion("d2", "Parking")
	if err := w.store.AddStatistics(t.Context(), stats.Batch{ID: "b", At: w.now(), Counts: stats.Counts{Attempts: 3, Delivered: 2, Failed: 1, Dead: 1},
		Latencies: []time.Duration{20 * time.Millisecond, 40 * time.Millisecond}}); err != nil {
		t.Fatal(err)
	}
	return e, id
}

// open opens an endpoint's circuit.
func (w *world) open(e endpoint.Endpoint, cause string) {
	w.t.Helper()
	s, err := w.store.GetBreaker(w.t.Context(), e.Tenant, e.ID, true)
	if err != nil {
		w.t.Fatal(err)
	}
	for n := range breaker.DefaultFailures {
		at := w.now().Add(time.Duration(n-breaker.DefaultFailures+1) * breaker.DefaultFailingFor)
		s, _ = s.RecordFailure(breaker.Policy{OpenFor: 5 * time.Minute}, "c", cause, at)
	}
	if _, err := w.store.PutBreaker(w.t.Context(), s, w.now()); err != nil {
		w.t.Fatal(err)
	}
}

// discussion opens a discussion of the default tenant.
func (w *world) discussion(id, title string) {
	w.t.Helper()
	now := w.now()
	d := platform.Discussion{Common: platform.Common{Tenant: "default", CreatedAt: now, UpdatedAt: now}, ID: id, CommunityID: "c_7", Title: title,
		Status: platform.Open, ExpiresAt: now.Add(time.Hour)}
	if err := w.store.PutRecord(w.t.Context(), d); err != nil {
		w.t.Fatal(err)
	}
}

// end returns a discussion's end as the form on the page carries it.
func (w *world) end(id string) string {
	w.t.Helper()
	d, err := w.store.GetDiscussion(w.t.Context(), "default", id)
	if err != nil {
		w.t.Fatal(err)
	}
	return fmt.Sprint(d.ExpiresAt.UnixMilli())
}

func TestRequestsWithoutASessionAreRejected(t *testing.T) {
	w, e, id := seeded(t)
	stranger := &browser{w: w}
	for _, path := range pages(e, id) {
		if a := stranger.get(path); a.Code != http.StatusSeeOther || a.Header().Get("Location") != "/login" {
			t.Errorf("GET %s: %d %s", path, a.Code, a.Header().Get("Location"))
		}
	}
	for path, form := range w.changes(e, id) {
		if a := stranger.post(path, form); a.Code != http.StatusUnauthorized {
			t.Errorf("POST %s: %d", path, a.Code)
		}
	}
	for _, path := range []string{"/api/endpoints", "/api/session", "/api/openapi.json", "/api/nothing"} {
		if a := stranger.get(path); a.Code != http.StatusUnauthorized || strings.Contains(a.Body.String(), "example.com") {
			t.Errorf("GET %s: %d %s", path, a.Code, a.Body)
		}
	}
	for _, path := range []string{"/login", "/assets/console.css", "/assets/htmx.js"} {
		if a := stranger.get(path); a.Code != http.StatusOK {
			t.Errorf("GET %s: %d", path, a.Code)
		}
	}
	for _, path := range []string{"/assets/vendor", "/assets/..%2fconsole.go", "/assets/vendor%2fhtmx.LICENSE"} {
		if a := stranger.get(path); a.Code != http.StatusNotFound {
			t.Errorf("GET %s: %d", path, a.Code)
		}
	}
}

func TestLoginLinksWorkOnce(t *testing.T) {
	w := newWorld(t)
	path := w.invite(console.Admin, "default")
	b := &browser{w: w}
	// Programs that preview links use nothing up.
	for range 3 {
		if a := b.get(path); a.Code != http.StatusOK || a.Header().Get("Set-Cookie") != "" {
			t.Fatalf("opening the link: %d %q", a.Code, a.Header().Get("Set-Cookie"))
		}
	}
	token := strings.TrimPrefix(path, "/login?link=")
	var in, out atomic.Int32
	var all sync.WaitGroup
	for i := range 32 {
		all.Go(func() {
			r := httptest.NewRequest("POST", "/login", strings.NewReader(url.Values{"link": {token}}.Encode()))
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			r.RemoteAddr = fmt.Sprintf("10.0.0.%d:1", i)
			switch a := b.do(r); a.Code {
			case http.StatusSeeOther:
				in.Add(1)
				cookie := a.Result().Cookies()[0]
				if !cookie.HttpOnly || cookie.SameSite != http.SameSiteLaxMode || !cookie.Secure || cookie.MaxAge != int(console.SessionTime.Seconds()) {
					t.Errorf("cookie = %s", a.Header().Get("Set-Cookie"))
				}
			case http.StatusUnauthorized:
				out.Add(1)
			default:
				t.Errorf("login: %d", a.Code)
			}
		})
	}
	all.Wait()
	if in.Load() != 1 || out.Load() != 31 {
		t.Errorf("%d came in, %d stayed out; want 1 and 31", in.Load(), out.Load())
	}

	late := strings.TrimPrefix(w.invite(console.Admin, "default"), "/login?link=")
	w.pass(console.LinkTime)
	if a := b.post("/login", url.Values{"link": {late}}); a.Code != http.StatusUnauthorized {
		t.Errorf("an expired link: %d", a.Code)
	}
	if a := b.post("/login", url.Values{"link": {"made up"}}); a.Code != http.StatusUnauthorized {
		t.Errorf("a link that never was: %d", a.Code)
	}
}

func TestLoginIsRateLimited(t *testing.T) {
	w := newWorld(t)
	b := &browser{w: w}
	try := func(address, link string) int {
		r := httptest.NewRequest("POST", "/login", strings.NewReader(url.Values{"link": {link}}.Encode()))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.RemoteAddr = address
		return b.do(r).Code
	}
	for _, address := range []string{"192.0.2.1:1", "[2001:db8::1]:1"} {
		for range console.LoginTries {
			if code := try(address, "x"); code != http.StatusUnauthorized {
				t.Fatalf("%s: %d", address, code)
			}
		}
	}
	link := strings.TrimPrefix(w.invite(console.Viewer, "default"), "/login?link=")
	for _, address := range []string{"192.0.2.1:9", "[2001:db8::ffff]:1"} { // the second is a neighbour in the same /64
		if code := try(address, link); code != http.StatusTooManyRequests {
			t.Errorf("%s: %d, want 429 even with a right link", address, code)
		}
	}
	if code := try("192.0.2.2:1", link); code != http.StatusSeeOther {
		t.Errorf("another address: %d", code)
	}
	w.pass(time.Minute)
	if code := try("192.0.2.1:1", "x"); code != http.StatusUnauthorized {
		t.Errorf("a minute later: %d", code)
	}
}

func TestSessionsEndByLogoutExpiryAndRevocation(t *testing.T) {
	w := newWorld(t)
	in := func(b *browser) bool { return b.get("/api/session").Code == http.StatusOK }

	b := w.login(console.Admin, "default")
	if !in(b) {
		t.Fatal("a fresh session is not in")
	}
	for name, cookie := range map[string]string{
		"another signature": b.cookie[:len(b.cookie)-2] + "AA",
		"no signature":      strings.Split(b.cookie, ".")[0],
		"another payload":   strings.Replace(b.cookie, "=e", "=f", 1),
		"nothing":           "tidings_session=",
	} {
		if in(&browser{w: w, cookie: cookie}) {
			t.Errorf("%s lets in", name)
		}
	}
	if a := b.post("/logout", nil); a.Code != http.StatusSeeOther {
		t.Fatalf("logout: %d", a.Code)
	}
	if in(b) { // the browser here keeps what a thief would have kept
		t.Error("a session lives on after its logout")
	}

	b = w.login(console.Admin, "default")
	w.pass(console.SessionTime - time.Second)
	if !in(b) {
		t.Error("a session ends before its time")
	}
	w.pass(time.Second)
	if in(b) {
		t.Error("a session lives on after its time")
	}

	b = w.login(console.Admin, "default")
	if err := w.store.DeleteValue(t.Context(), console.KeyName); err != nil {
		t.Fatal(err)
	}
	w.pass(time.Minute)
	if in(b) {
		t.Error("a session lives on a minute after all were revoked")
	}
	if !in(w.login(console.Admin, "default")) {
		t.Error("nobody can log in after a revocation")
	}
}

func TestCrossSiteRequestsChangeNothing(t *testing.T) {
	w, e, _ := seeded(t)
	b := w.login(console.Admin, "default")
	disabled := func() bool {
		now, err := w.store.GetEndpoint(t.Context(), "default", e.ID)
		return err == nil && now.Status == endpoint.Disabled
	}
	path := "/endpoints/" + e.ID + "/disable"
	for name, form := range map[string]url.Values{"no token": {"csrf": {""}}, "another session's token": {"csrf": {w.login(console.Admin, "default").csrf}}} {
		if a := b.post(path, form); a.Code != http.StatusForbidden || disabled() {
			t.Errorf("%s: %d", name, a.Code)
		}
	}
	for _, header := range []string{"Sec-Fetch-Site: cross-site", "Origin: https://evil.example"} {
		r := httptest.NewRequest("POST", path, strings.NewReader(url.Values{"csrf": {b.csrf}}.Encode()))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		name, value, _ := strings.Cut(header, ": ")
		r.Header.Set(name, value)
		if a := b.do(r); a.Code != http.StatusForbidden || disabled() {
			t.Errorf("%s: %d", header, a.Code)
		}
	}
	forged := &browser{w: w, cookie: b.cookie}
	if a := forged.api("POST", "/api/endpoints/"+e.ID+"/disable", ""); a.Code != http.StatusForbidden || disabled() {
		t.Errorf("the API by cookie without a token: %d", a.Code)
	}
	// A form can't set a header, and so must not change the API by its field.
	if a := b.post("/api/endpoints/"+e.ID+"/disable", nil); a.Code != http.StatusForbidden || disabled() {
		t.Errorf("the API by a form: %d", a.Code)
	}
	if a := b.api("POST", "/api/endpoints/"+e.ID+"/disable", ""); a.Code != http.StatusOK || !disabled() {
		t.Errorf("with the token: %d", a.Code)
	}
}

func TestAPITokensAuthenticate(t *testing.T) {
	w, e, _ := seeded(t)
	token, err := console.Token(t.Context(), w.store, console.Invitation{Name: "ci", Role: console.Admin, Tenant: "default"}, w.now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest("POST", "/api/endpoints/"+e.ID+"/disable", nil)
	r.Header.Set("X-Tidings-Session", token)
	if a := (&browser{w: w}).do(r); a.Code != http.StatusOK {
		t.Errorf("%d %s", a.Code, a.Body)
	}
}

func TestViewersChangeNothing(t *testing.T) {
	w, e, id := seeded(t)
	b := w.login(console.Viewer, "default")
	before := fmt.Sprintf("%+v", w.everything())
	for path, form := range w.changes(e, id) {
		if a := b.post(path, form); a.Code != http.StatusForbidden {
			t.Errorf("POST %s: %d", path, a.Code)
		}
	}
	if after := fmt.Sprintf("%+v", w.everything()); after != before {
		t.Errorf("changed from\n%s\nto\n%s", before, after)
	}
	for _, path := range pages(e, id) {
		a := b.get(path)
		for _, f := range elements(t, a.Body.String(), "form") {
			action := attribute(f, "action")
			if attribute(f, "method") == "post" && action != "/logout" {
				t.Errorf("%s offers a viewer %s", path, action)
			}
		}
		if strings.Contains(a.Body.String(), "v1,") {
			t.Errorf("%s shows a viewer a signature", path)
		}
	}
	if a := b.api("GET", "/api/deliveries/"+e.ID+"/"+id+"/request", ""); a.Code != http.StatusForbidden {
		t.Errorf("a viewer gets the signed request: %d", a.Code)
	}
}

// everything returns all state that a change could affect.
func (w *world) everything() any {
	list, err := w.store.ListEndpoints(w.t.Context(), "default")
	if err != nil {
		w.t.Fatal(err)
	}
	log, err := w.store.ListAudit(w.t.Context(), "default", 0, "")
	if err != nil {
		w.t.Fatal(err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	var open []platform.Discussion
	for _, id := range []string{"d1", "d2"} {
		if d, err := w.store.GetDiscussion(w.t.Context(), "default", id); err == nil {
			open = append(open, d)
		}
	}
	return []any{list, log, open, w.commands, w.ops.Receiver.Behaviour()}
}

func TestEveryChangeIsInTheAuditLog(t *testing.T) {
	any, _, _ := seeded(t)
	for path := range any.changes(endpoint.Endpoint{ID: "ID"}, "EVENT") {
		w, e, id := seeded(t)
		b := w.login(console.Admin, "default")
		path = strings.ReplaceAll(path, "ID", e.ID)
		form := w.changes(e, id)[path]

		w.audit.away.Store(true)
		before := fmt.Sprintf("%+v", w.everything())
		if a := b.post(path, form); a.Code < 400 {
			t.Errorf("POST %s without an audit log: %d", path, a.Code)
		}
		if after := fmt.Sprintf("%+v", w.everything()); after != before {
			t.Errorf("POST %s changed something unrecorded", path)
		}
		w.audit.away.Store(false)

		if a := b.post(path, form); a.Code >= 400 {
			t.Errorf("POST %s: %d %s", path, a.Code, text(t, a.Body.String()))
			continue
		}
		log, err := w.store.ListAudit(t.Context(), "default", 0, "")
		if err != nil || len(log.Entries) != 1 {
			t.Fatalf("POST %s left %d entries, %v", path, len(log.Entries), err)
		}
		if got := log.Entries[0]; got.Outcome != audit.Done || got.Who != "ada" || got.Role != "admin" || got.Subject == "" || got.Action == "" {
			t.Errorf("POST %s left %+v", path, got)
		}
	}
}

func TestFailedChangesAreInTheAuditLogWithTheirReason(t *testing.T) {
	w, e, _ := seeded(t)
	id := w.event("default", "user.joined_platform", `{}`)
	w.deliver(e, id, "user.joined_platform", delivery.Pending, "", "")
	b := w.login(console.Admin, "default")
	if a := b.post("/deliveries/replay", url.Values{"delivery": {e.ID + "/" + id}}); a.Code != http.StatusConflict || !strings.Contains(a.Body.String(), "already pending") {
		t.Errorf("%d %s", a.Code, text(t, a.Body.String()))
	}
	log, err := w.store.ListAudit(t.Context(), "default", 0, "")
	if err != nil || len(log.Entries) != 1 || log.Entries[0].Outcome != audit.Failed || !strings.Contains(log.Entries[0].Detail, "already pending") {
		t.Errorf("%+v, %v", log, err)
	}
}

func TestOtherTenantsDataIsNotVisible(t *testing.T) {
	w, e, id := seeded(t)
	b := w.login(console.Admin, "other")
	for _, path := range []string{"/endpoints/" + e.ID, "/deliveries/" + e.ID + "/" + id, "/events/" + id, "/endpoints/" + e.ID + "/edit", "/deliveries?endpoint=" + e.ID} {
		if a := b.get(path); a.Code != http.StatusNotFound || strings.Contains(a.Body.String(), "example.com") {
			t.Errorf("GET %s: %d", path, a.Code)
		}
	}
	for _, path := range []string{"/", "/metrics", "/endpoints", "/deliveries", "/circuits", "/discussions", "/audit"} {
		if a := b.get(path); a.Code != http.StatusOK || strings.Contains(a.Body.String(), "example.com") || strings.Contains(a.Body.String(), "projector") || strings.Contains(a.Body.String(), id) {
			t.Errorf("GET %s: %d shows another tenant's", path, a.Code)
		}
	}
	for path, form := range w.changes(e, id) {
		if strings.Contains(path, e.ID) || strings.Contains(path, "/discussions/") {
			if a := b.post(path, form); a.Code != http.StatusNotFound {
				t.Errorf("POST %s: %d", path, a.Code)
			}
		}
	}
	if a := b.post("/deliveries/replay", url.Values{"delivery": {e.ID + "/" + id}}); a.Code != http.StatusConflict || len(w.commands) != 0 {
		t.Errorf("replayed another tenant's: %d, %v", a.Code, w.commands)
	}
}

func TestSecretsAreShownOnce(t *testing.T) {
	w, e, _ := seeded(t)
	b := w.login(console.Admin, "default")
	a := b.post("/endpoints/"+e.ID+"/rotate", nil)
	now, err := w.store.GetEndpoint(t.Context(), "default", e.ID)
	if err != nil {
		t.Fatal(err)
	}
	secret := now.Secrets[0].Secret.Reveal()
	if got := element(t, a.Body.String(), "pre", "secret"); got != secret || secret == e.Secrets[0].Secret.Reveal() {
		t.Errorf("shown %q, kept %q", got, secret)
	}
	if a.Header().Get("Cache-Control") != "no-store" {
		t.Error("the secret may be cached")
	}
	for _, path := range []string{"/endpoints/" + e.ID, "/endpoints/" + e.ID + "/edit", "/audit", "/api/endpoints", "/api/endpoints/" + e.ID, "/api/audit"} {
		if strings.Contains(b.get(path).Body.String(), "whsec_") {
			t.Errorf("%s shows a secret", path)
		}
	}
}

func TestConcurrentEditsConflict(t *testing.T) {
	w, e, _ := seeded(t)
	b := w.login(console.Admin, "default")
	first := url.Values{"url": {"https://example.com/first"}, "event_types": {"*"}, "version": {fmt.Sprint(e.Version)}}
	if a := b.post("/endpoints/"+e.ID+"/edit", first); a.Code != http.StatusSeeOther {
		t.Fatalf("%d %s", a.Code, text(t, a.Body.String()))
	}
	second := url.Values{"url": {"https://example.com/second"}, "event_types": {"*"}, "version": {fmt.Sprint(e.Version)}}
	if a := b.post("/endpoints/"+e.ID+"/edit", second); a.Code != http.StatusUnprocessableEntity || !strings.Contains(a.Body.String(), "was changed in the meantime") {
		t.Errorf("%d %s", a.Code, text(t, a.Body.String()))
	}
	if now, _ := w.store.GetEndpoint(t.Context(), "default", e.ID); now.URL != "https://example.com/first" {
		t.Errorf("url = %s", now.URL)
	}
}

func TestTheFormIsValidatedWhileTyping(t *testing.T) {
	w := newWorld(t)
	b := w.login(console.Admin, "default")
	for name, c := range map[string]struct {
		form  url.Values
		field string
		says  string
	}{
		"unknown scheme":                {url.Values{"url": {"ftp://example.com"}}, "url", "unsupported scheme"},
		"private address":               {url.Values{"url": {"https://169.254.169.254/"}}, "url", ""},
		"unknown event type":            {url.Values{"url": {"https://example.com"}, "event_types": {"user.slept"}}, "event_types", "matches no event type"},
		"invalid filter":                {url.Values{"url": {"https://example.com"}, "filter": {`{"data":5}`}}, "filter", "data"},
		"filter is not JSON":            {url.Values{"url": {"https://example.com"}, "filter": {`{`}}, "filter", ""},
		"timeout too long":              {url.Values{"url": {"https://example.com"}, "timeout_seconds": {"31"}}, "timeout_seconds", "1 to 30"},
		"not a number":                  {url.Values{"url": {"https://example.com"}, "max_attempts": {"many"}}, "max_attempts", "not a number"},
		"not a duration":                {url.Values{"url": {"https://example.com"}, "max_age": {"3 days"}}, "max_age", "not a duration"},
		"too many attempts":             {url.Values{"url": {"https://example.com"}, "max_attempts": {"1001"}}, "max_attempts", "1 to 1000"},
		"invalid role":                  {url.Values{"url": {"https://example.com"}, "role_arn": {"admin"}}, "role_arn", "must have the form"},
		"credentials of another tenant": {url.Values{"url": {"https://example.com"}, "credentials": {"tidings/other/x"}}, "credentials", "must begin with"},
	} {
		a := b.post("/endpoints/check", c.form)
		got := element(t, a.Body.String(), "p", "error-"+c.field)
		if a.Code != http.StatusOK || got == "" || !strings.Contains(got, c.says) {
			t.Errorf("%s: %d, %s is %q, want it to say %q", name, a.Code, c.field, got, c.says)
		}
		a = b.post("/endpoints/new", c.form)
		if got := element(t, a.Body.String(), "p", "error-"+c.field); a.Code != http.StatusUnprocessableEntity || !strings.Contains(got, c.says) {
			t.Errorf("%s, sent: %d, %q", name, a.Code, got)
		}
		if list, _ := w.store.ListEndpoints(t.Context(), "default"); len(list) != 0 {
			t.Errorf("%s: stored", name)
		}
	}
	a := b.post("/endpoints/check", url.Values{"url": {"https://example.com"}, "event_types": {"user.*"}})
	for _, p := range elements(t, a.Body.String(), "p") {
		if p.FirstChild != nil {
			t.Errorf("nothing is wrong, and %s says %q", attribute(p, "id"), p.FirstChild.Data)
		}
	}
}

// hostile is untrusted text. If it were not escaped, marker would be an element.
const hostile = `"'><marker onload=alert(1)></textarea></pre></script><script>alert(2)</script>{{.}}` + "\u2028`${1}"

// Untrusted text is escaped on every page.
func TestUntrustedTextIsEscaped(t *testing.T) {
	w := newWorld(t)
	address := "https://example.com/" + url.PathEscape(hostile) + "?q=%22%3E%3Cmarker%3E&x='><marker>"
	e, err := w.ops.Endpoints.Add(t.Context(), endpoint.Endpoint{Tenant: "default", URL: address, Description: hostile,
		Filter: json.RawMessage(`{"data":{"comment_text":["<marker>"]}}`)})
	if err != nil {
		t.Fatal(err)
	}
	e2 := w.endpoint("default", "https://example.com/second")
	text, err := json.Marshal(hostile)
	if err != nil {
		t.Fatal(err)
	}
	id := w.event("default", "user.posted_comment", `{"discussion_id":"d1","comment_id":"m1","comment_text":`+string(text)+`}`)
	w.deliver(e, id, "user.posted_comment", delivery.Dead, hostile, hostile)
	w.deliver(e2, id, hostile, delivery.Pending, hostile, hostile)
	if _, err := w.ops.Endpoints.Disable(t.Context(), "default", e.ID, hostile); err != nil {
		t.Fatal(err)
	}
	if err := w.store.PutAudit(t.Context(), audit.Entry{ID: audit.NewID(w.now()), Tenant: "default", Who: hostile, Role: hostile,
		Action: hostile, Subject: hostile, Outcome: audit.Outcome(hostile), Detail: hostile}); err != nil {
		t.Fatal(err)
	}
	w.open(e2, hostile)
	for _, d := range []platform.Discussion{{ID: "d1", Status: platform.Open, ExpiresAt: w.now().Add(time.Hour)}, {ID: hostile, Status: platform.Open, ExpiresAt: w.now().Add(time.Hour)},
		{ID: "d3", Status: platform.Closed, ClosedAt: w.now(), ClosedBy: hostile, Reason: platform.Reason(hostile)}} {
		d.Common, d.Title, d.CommunityID, d.ExtendedBy = platform.Common{Tenant: "default", CreatedAt: w.now()}, hostile, hostile, hostile
		if err := w.store.PutRecord(t.Context(), d); err != nil {
			t.Fatal(err)
		}
	}
	w.answer = hostile
	b := w.login(console.Admin, "default")
	seen := 0
	all := append(pages(e, id), "/endpoints/"+e2.ID, "/deliveries/"+e2.ID+"/"+id, "/deliveries?state="+url.QueryEscape(hostile),
		"/deliveries?endpoint="+url.QueryEscape(hostile), "/deliveries?cursor="+url.QueryEscape(hostile), "/events?q="+url.QueryEscape(hostile), "/events?cursor="+url.QueryEscape(hostile), "/events?type="+url.QueryEscape(hostile),
		"/events/"+url.PathEscape(hostile), "/audit?cursor="+url.QueryEscape(hostile), "/?did="+url.QueryEscape(hostile), "/nothing/"+url.PathEscape(hostile),
		"/login?link="+url.QueryEscape(hostile))
	bodies := map[string]string{}
	for _, path := range all {
		bodies[path] = b.get(path).Body.String()
	}
	form := url.Values{}
	for _, field := range []string{"url", "description", "event_types", "filter", "timeout_seconds", "max_attempts", "max_age", "max_delay", "role_arn", "credentials", "version",
		"rate_per_minute", "burst", "breaker.failures", "breaker.open_for", "breaker.max_open_for", "breaker.disable_after"} {
		form.Set(field, hostile)
	}
	bodies["POST /endpoints/new"] = b.post("/endpoints/new", form).Body.String()
	bodies["POST /endpoints/check"] = b.post("/endpoints/check", form).Body.String()
	bodies["POST /deliveries/replay"] = b.post("/deliveries/replay", url.Values{"delivery": {hostile}}).Body.String()
	bodies["POST test"] = b.post("/endpoints/"+e2.ID+"/test", nil).Body.String()
	bodies["POST close"] = b.post("/discussions/"+url.PathEscape(hostile)+"/close", nil).Body.String()
	bodies["POST /login"] = b.post("/login", url.Values{"link": {hostile}}).Body.String()
	for path, body := range bodies {
		for _, n := range elements(t, body, "") {
			if n.Data == "marker" {
				t.Errorf("%s: a stranger's text is markup", path)
			}
			if n.Data == "script" && (attribute(n, "src") == "" || n.FirstChild != nil) {
				t.Errorf("%s: a script is inline", path)
			}
			if n.Data == "style" {
				t.Errorf("%s: a style is inline", path)
			}
			for _, a := range n.Attr {
				if strings.HasPrefix(a.Key, "on") || a.Key == "style" || a.Key == "srcdoc" {
					t.Errorf("%s: <%s %s>", path, n.Data, a.Key)
				}
				if (a.Key == "href" || a.Key == "src" || a.Key == "action") && !strings.HasPrefix(a.Val, "/") && !strings.HasPrefix(a.Val, "#") {
					t.Errorf("%s: <%s %s=%q> leads elsewhere", path, n.Data, a.Key, a.Val)
				}
			}
		}
		if strings.Contains(body, "marker") {
			seen++
		}
	}
	if seen < 10 {
		t.Errorf("the hostile text showed on %d pages only: this test looks at nothing", seen)
	}
}

func TestSecurityHeaders(t *testing.T) {
	w, e, id := seeded(t)
	b := w.login(console.Admin, "default")
	for _, path := range append(pages(e, id), "/login", "/api/endpoints", "/assets/console.js") {
		h := b.get(path).Header()
		csp := h.Get("Content-Security-Policy")
		if !strings.Contains(csp, "default-src 'none'") || strings.Contains(csp, "unsafe") || !strings.Contains(csp, "frame-ancestors 'none'") {
			t.Errorf("%s: Content-Security-Policy: %s", path, csp)
		}
		if h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Referrer-Policy") != "same-origin" {
			t.Errorf("%s: %v", path, h)
		}
	}
}

// The size on the wire of the overview with its assets, and its response time.
func TestTheOverviewIsSmallAndFast(t *testing.T) {
	w, e, _ := seeded(t)
	for range 100 {
		w.deliver(e, w.event("default", "user.posted_comment", comment), "user.posted_comment", delivery.Delivered, "", "")
	}
	b := w.login(console.Admin, "default")
	size := func(path string) (int, string) {
		r := httptest.NewRequest("GET", path, nil)
		r.Header.Set("Accept-Encoding", "gzip")
		a := b.do(r)
		if a.Code != http.StatusOK {
			t.Fatalf("%s: %d", path, a.Code)
		}
		return a.Body.Len(), a.Header().Get("Content-Encoding")
	}
	total, encoding := size("/")
	if encoding != "gzip" {
		t.Errorf("the page is not compressed: %q", encoding)
	}
	body := b.get("/").Body.String()
	for _, n := range elements(t, body, "") {
		for _, key := range []string{"src", "href"} {
			if path := attribute(n, key); strings.HasPrefix(path, "/assets/") {
				n, _ := size(path)
				total += n
			}
		}
	}
	t.Logf("the first page with all its assets: %d bytes", total)
	if total >= 100_000 {
		t.Errorf("the first page with all its assets is %d bytes, the limit is 100 KB", total)
	}
	const limit = 200 * time.Millisecond
	fastest := time.Hour
	for first := time.Now(); fastest >= limit && time.Since(first) < 30*time.Second; { // the machine may be busy
		began := time.Now()
		b.get("/")
		fastest = min(fastest, time.Since(began))
	}
	t.Logf("it takes %s", fastest)
	if fastest >= limit {
		t.Errorf("the first page takes %s, the limit is %s", fastest, limit)
	}
}

// The curl command sends the signed request, with any URL and body.
func TestTheCurlCommandSendsTheSignedRequest(t *testing.T) {
	w := newWorld(t)
	e := w.endpoint("default", "https://example.com/it's?a=[1-9]&b={x,y}&c=$(id)`id`")
	text, err := json.Marshal("it's \"quoted\" $HOME `id` \\ \n !! <&> ü")
	if err != nil {
		t.Fatal(err)
	}
	id := w.event("default", "user.posted_comment", `{"discussion_id":"d1","comment_id":"m1","comment_text":`+string(text)+`}`)
	r, err := w.ops.SignRequest(t.Context(), console.Session{Tenant: "default", Role: console.Admin}, e.ID, id)
	if err != nil {
		t.Fatal(err)
	}
	words := shell(t, r.Curl)
	if words[len(words)-1] != e.URL || words[len(words)-2] != "--" {
		t.Errorf("the last words are %q", words[len(words)-2:])
	}
	headers, body := map[string]string{}, ""
	for i, word := range words {
		switch word {
		case "-H":
			name, value, _ := strings.Cut(words[i+1], ": ")
			headers[name] = value
		case "--data-binary":
			body = words[i+1]
		}
	}
	accepted, err := w.store.GetEvent(t.Context(), id)
	if err != nil || body != string(accepted.Body) {
		t.Errorf("the body is %s, want %s, %v", body, accepted.Body, err)
	}
	err = signature.Verify(e.Secrets[0].Secret, headers["webhook-id"], headers["webhook-timestamp"], headers["webhook-signature"], []byte(body), w.now())
	if err != nil {
		t.Error(err)
	}
}

// The request to repeat by hand is the one that the endpoint gets: its version, fields, format
// and method.
func TestTheSignedRequestIsTheEndpointsOwn(t *testing.T) {
	w := newWorld(t)
	e := w.endpoint("default", "https://example.com/")
	e.Shape = endpoint.Shape{Format: endpoint.FormatCloudEventsBinary, Include: []string{"data.comment_id"}, Method: "PUT"}
	if _, err := w.store.UpdateEndpoint(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	id := w.event("default", "user.posted_comment", `{"discussion_id":"d1","comment_id":"m1","comment_text":"x"}`)
	r, err := w.ops.SignRequest(t.Context(), console.Session{Tenant: "default", Role: console.Admin}, e.ID, id)
	if err != nil {
		t.Fatal(err)
	}
	headers := map[string]string{}
	for _, f := range r.Headers {
		headers[f.Name] = f.Value
	}
	if r.Method != "PUT" || r.Body != `{"comment_id":"m1"}` || headers["ce-id"] != id || headers["ce-type"] != "user.posted_comment" || headers["content-type"] != "application/json" {
		t.Errorf("%+v", r)
	}
	if err := signature.Verify(e.Secrets[0].Secret, headers["webhook-id"], headers["webhook-timestamp"], headers["webhook-signature"], []byte(r.Body), w.now()); err != nil {
		t.Error(err)
	}
}

// ---- HTML ---------------------------------------------------------------------------------------

func elements(t *testing.T, body, name string) (found []*html.Node) {
	t.Helper()
	root, err := html.Parse(strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for n := range root.Descendants() {
		if n.Type == html.ElementNode && (name == "" || n.Data == name) {
			found = append(found, n)
		}
	}
	return found
}

func attribute(n *html.Node, name string) string {
	for _, a := range n.Attr {
		if a.Key == name {
			return a.Val
		}
	}
	return ""
}

// element returns the text of the element with an id.
func element(t *testing.T, body, name, id string) string {
	t.Helper()
	for _, n := range elements(t, body, name) {
		if attribute(n, "id") == id {
			return strings.TrimSpace(textOf(n))
		}
	}
	return ""
}

func textOf(n *html.Node) string {
	var b strings.Builder
	for c := range n.Descendants() {
		if c.Type == html.TextNode {
			b.WriteString(c.Data)
		}
	}
	return b.String()
}

// text returns the text of a page's main element.
func text(t *testing.T, body string) string {
	return element(t, body, "main", "main")
}
