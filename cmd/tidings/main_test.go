package main

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/pkg/console"
	"github.com/tidings-dev/tidings/pkg/local"
	"github.com/tidings-dev/tidings/pkg/ops/jobs"
	"github.com/tidings-dev/tidings/pkg/signature"
)

// tool runs the CLI in a state directory with a running local system.
type tool struct {
	t   *testing.T
	dir string
}

func newTool(t *testing.T, change ...func(*local.Options)) *tool {
	t.Helper()
	dir := t.TempDir()
	o := local.Options{Template: filepath.Join("..", "..", "template.yaml"), StateDir: dir, Log: slog.New(slog.DiscardHandler)}
	for _, f := range change {
		f(&o)
	}
	system, err := local.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if err := system.WriteRunnerInfo(""); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- system.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		system.Close()
	})
	return &tool{t, dir}
}

// do runs a command line, checks its exit code and returns its output.
func (x *tool) do(wantCode int, in string, args ...string) (out, errOut string) {
	x.t.Helper()
	var o, e bytes.Buffer
	code := run(x.t.Context(), append([]string{"--state-dir", x.dir}, args...), strings.NewReader(in), &o, &e)
	if code != wantCode {
		x.t.Fatalf("tidings %s: exit code %d, want %d\n%s%s", strings.Join(args, " "), code, wantCode, o.String(), e.String())
	}
	return o.String(), e.String()
}

// try runs a command and returns what it prints, and its exit code.
func (x *tool) try(args ...string) (out string, code int) {
	x.t.Helper()
	var both bytes.Buffer
	code = run(x.t.Context(), append([]string{"--state-dir", x.dir}, args...), strings.NewReader(""), &both, &both)
	return both.String(), code
}

func (x *tool) json(into any, args ...string) {
	x.t.Helper()
	out, _ := x.do(0, "", append(args, "--json")...)
	if err := json.Unmarshal([]byte(out), into); err != nil {
		x.t.Fatalf("tidings %v prints no JSON: %v\n%s", args, err, out)
	}
}

func TestEndpointLifecycle(t *testing.T) {
	t.Parallel()
	x := newTool(t)
	out, _ := x.do(0, "", "endpoint", "list")
	if !strings.Contains(out, "no endpoints: add one") {
		t.Errorf("an empty list prints %q", out)
	}
	out, _ = x.do(0, "", "endpoint", "add", "https://crm.example.com/hooks", "--types", "user.*,discussion.extended", "--filter", `{"data":{"status":["success"]}}`)
	secret := regexp.MustCompile(`whsec_\S+`).FindString(out)
	id := regexp.MustCompile(`ep_\w+`).FindString(out)
	if _, err := signature.ParseSecret(secret); err != nil || !strings.Contains(out, "shown only once") {
		t.Fatalf("added: %v\n%s", err, out)
	}
	for _, args := range [][]string{{"endpoint", "list"}, {"endpoint", "show", id}, {"endpoint", "list", "--json"}, {"endpoint", "show", id, "--json"}, {"endpoint", "disable", id, "--reason", "moving"}, {"endpoint", "enable", id}, {"endpoint", "pause", id, "--reason", "moving"}, {"endpoint", "resume", id}} {
		if out, _ := x.do(0, "", args...); strings.Contains(out, secret) || strings.Contains(out, strings.TrimPrefix(secret, "whsec_")) || !strings.Contains(out, id) {
			t.Errorf("tidings %v prints\n%s", args, out)
		}
	}
	out, _ = x.do(0, "", "endpoint", "rotate-secret", id)
	if fresh := regexp.MustCompile(`whsec_\S+`).FindString(out); fresh == "" || fresh == secret {
		t.Errorf("rotated to %q", fresh)
	}
	out, _ = x.do(0, "", "endpoint", "show", id)
	if !strings.Contains(out, "valid until") {
		t.Errorf("after a rotation:\n%s", out)
	}
	x.do(0, "", "endpoint", "remove", id)
	if _, errOut := x.do(1, "", "endpoint", "show", id); !strings.Contains(errOut, "has no endpoint") {
		t.Errorf("a removed one: %s", errOut)
	}

	given := signature.NewSecret().Reveal()
	if out, _ = x.do(0, given+"\n", "endpoint", "add", "https://a.example/", "--secret-stdin"); strings.Contains(out, given) {
		t.Error("a given secret is repeated")
	}
	if out, _ = x.do(0, "", "endpoint", "add", "https://b.example/", "--ed25519"); !strings.Contains(out, "whpk_") || strings.Contains(out, "whsk_") {
		t.Errorf("Ed25519:\n%s", out)
	}
}

func TestAnEventInAFileIsReadStrictly(t *testing.T) {
	t.Parallel()
	x := newTool(t)
	for text, says := range map[string]string{
		`{"event":"user.joined_community","idempotencyKey":"k","data":{"community_id":"c"}}`:        `unknown field "idempotencyKey"`,
		`{"event":"user.joined_community","data":{"community_id":"c"}}{}`:                           "more than one event",
		`{"event":"user.joined_community","idempotency_key":"a\nb","data":{"community_id":"c"}}`:    "idempotency_key: has the control character U+000A",
		`{"event":"user.joined_community","idempotency_key":"a\ud800","data":{"community_id":"c"}}`: "idempotency_key: has U+FFFD or a lone surrogate",
		`{"event":"user.joined_community","data":{"community_id":"c","community_name":"\ud800"}}`:   "data.community_name: has a lone surrogate",
	} {
		file := filepath.Join(t.TempDir(), "event.json")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, errOut := x.do(1, "", "emit", "--file", file); !strings.Contains(errOut, says) {
			t.Errorf("%s: %s", text, errOut)
		}
	}
}

func TestRotationsAreBounded(t *testing.T) {
	t.Parallel()
	x := newTool(t)
	out, _ := x.do(0, "", "endpoint", "add", "https://crm.example.com/hooks")
	id := regexp.MustCompile(`ep_\w+`).FindString(out)
	for _, overlap := range []string{"-1h", "8784h"} {
		if _, errOut := x.do(1, "", "endpoint", "rotate-secret", id, "--overlap="+overlap); !strings.Contains(errOut, "it must be 0s to 168h0m0s (7 days)") {
			t.Errorf("%s: %s", overlap, errOut)
		}
	}
	for range 3 {
		x.do(0, "", "endpoint", "rotate-secret", id)
	}
	if _, errOut := x.do(1, "", "endpoint", "rotate-secret", id); !strings.Contains(errOut, "4 secrets that sign, which is the limit") {
		t.Errorf("the fourth rotation: %s", errOut)
	}
	x.do(0, "", "endpoint", "rotate-secret", id, "--overlap", "0")
	if _, errOut := x.do(1, "whsec_"+strings.Repeat("A", 16)+"\n"+strings.Repeat("A", 16), "endpoint", "add", "https://a.example/", "--secret-stdin"); !strings.Contains(errOut, "line break") {
		t.Errorf("a secret with a line break: %s", errOut)
	}
}

func TestErrorsNameTheValidForm(t *testing.T) {
	t.Parallel()
	x := newTool(t)
	for name, c := range map[string]struct {
		args []string
		code int
		says string
	}{
		"an unknown scheme":                            {[]string{"endpoint", "add", "gopher://x"}, 1, "https://host/path"},
		"a metadata address":                           {[]string{"endpoint", "add", "https://169.254.169.254/"}, 1, "not a public address"},
		"a password in the URL":                        {[]string{"endpoint", "add", "https://u:hunter2@example.com/"}, 1, "must not hold a user name"},
		"a misspelled type":                            {[]string{"endpoint", "add", "https://example.com", "--types", "user.exploded"}, 1, "user.joined_community"},
		"a renamed type":                               {[]string{"endpoint", "add", "https://example.com", "--types", "user.welcome_email_sent"}, 1, `was replaced by "user.joined_platform"`},
		"a filter for a renamed type":                  {[]string{"endpoint", "add", "https://example.com", "--filter", `{"event":["user.welcome_email_sent"]}`}, 1, `was replaced by "user.joined_platform"`},
		"emitting a renamed type":                      {[]string{"emit", "user.welcome_email_sent", "--data", `{"user_id":"u"}`}, 1, `was replaced by "user.joined_platform"`},
		"testing with a renamed type":                  {[]string{"test", "https://example.com", "--type", "user.welcome_email_sent"}, 1, `was replaced by "user.joined_platform"`},
		"the schema of a renamed type":                 {[]string{"type", "show", "user.welcome_email_sent"}, 2, `was replaced by "user.joined_platform"`},
		"an invalid filter":                            {[]string{"endpoint", "add", "https://example.com", "--filter", `{"a":1}`}, 1, "filter: a: must be a list"},
		"a tenant with a blank":                        {[]string{"--tenant", "a b", "endpoint", "add", "https://example.com"}, 1, "tenant: must be 1 to 64 letters"},
		"a tenant that is a path":                      {[]string{"--tenant", "../x", "endpoint", "add", "https://example.com"}, 1, "tenant: must be 1 to 64 letters"},
		"a tenant of 65 characters":                    {[]string{"--tenant", strings.Repeat("t", 65), "endpoint", "add", "https://example.com"}, 1, "tenant: must be 1 to 64 letters"},
		"a blank in the query":                         {[]string{"endpoint", "add", "https://example.com/x?a b"}, 1, "url is malformed (white space"},
		"a trailing blank":                             {[]string{"endpoint", "add", "https://example.com/ "}, 1, "url is malformed (white space"},
		"a trailing no-break space":                    {[]string{"endpoint", "add", "https://example.com/\u00a0"}, 1, "url is malformed (white space"},
		"no types":                                     {[]string{"endpoint", "add", "https://example.com", "--types", ""}, 1, "event_types has 0 entries"},
		"an empty type":                                {[]string{"endpoint", "add", "https://example.com", "--types", "user.*,"}, 1, `event_types: "" matches no event type`},
		"replay of a range that ends before it begins": {[]string{"delivery", "replay", "--dead", "--all", "--from", "2030-01-01T00:00:00Z", "--to", "2020-01-01T00:00:00Z"}, 2, "is after to"},
		"deliveries of a negative time":                {[]string{"delivery", "list", "--since", "-1h"}, 2, "--since must be positive"},
		"a timeout of an hour":                         {[]string{"endpoint", "add", "https://example.com", "--timeout", "1h"}, 1, "timeout_seconds"},
		"no URL":                                       {[]string{"endpoint", "add"}, 2, "takes one URL"},
		"an unknown flag":                              {[]string{"endpoint", "list", "--colour"}, 2, "unknown flag"},
		"an unknown event type":                        {[]string{"emit", "user.exploded", "--data", "{}"}, 1, "is not an event type"},
		"data without a field":                         {[]string{"emit", "user.joined_community", "--data", `{"community_name":"c"}`}, 1, "data.community_id: is missing"},
		"data that is not JSON":                        {[]string{"emit", "user.joined_community", "--data", `{`}, 2, "not valid JSON"},
		"emit without a type":                          {[]string{"emit"}, 2, "takes one event type"},
		"an unknown state":                             {[]string{"delivery", "list", "--state", "lost"}, 2, "not one of"},
		"replay of nothing":                            {[]string{"delivery", "replay"}, 2, "takes ENDPOINT EVENT"},
		"replay, unknown id":                           {[]string{"delivery", "replay", "ep_x", "01J"}, 1, "has no endpoint ep_x"},
		"show, unknown id":                             {[]string{"delivery", "show", "ep_x", "01J"}, 1, "no delivery of event"},
		"unknown event schema":                         {[]string{"type", "show", "user.exploded"}, 2, "is not an event type"},
		"test, unknown id":                             {[]string{"test", "ep_x"}, 1, "has no endpoint ep_x"},
		"a test of a metadata address":                 {[]string{"test", "https://169.254.169.254/"}, 1, "not a public address"},
		"a test, invalid data":                         {[]string{"test", "ep_x", "--data", "{"}, 2, "not valid JSON"},
		"two things from stdin":                        {[]string{"test", "https://a.example", "--secret-stdin", "--data", "-"}, 2, "standard input"},
		"a test of nothing":                            {[]string{"test"}, 2, "an endpoint id or a URL"},
		"a rate above 100%":                            {[]string{"local", "--receiver-fails", "300%"}, 2, "between 0% and 100%"},
	} {
		t.Run(name, func(t *testing.T) {
			_, errOut := x.do(c.code, "", c.args...)
			if !strings.Contains(errOut, c.says) || strings.Contains(errOut, "hunter2") {
				t.Errorf("says %q, want %q", errOut, c.says)
			}
		})
	}
}

func TestErrorWithoutALocalRunner(t *testing.T) {
	t.Parallel()
	x := &tool{t, filepath.Join(t.TempDir(), "nothing")}
	if _, errOut := x.do(1, "", "delivery", "list"); !strings.Contains(errOut, "make run") || !strings.Contains(errOut, "--stack") {
		t.Errorf("says %q", errOut)
	}
	if err := os.MkdirAll(x.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	note := `{"stack":"tidings-local","invoke_url":"http://127.0.0.1:1","dynamodb_url":"http://127.0.0.1:1"}`
	if err := os.WriteFile(filepath.Join(x.dir, local.RunnerInfoFile), []byte(note), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, errOut := x.do(1, "", "emit", "user.joined_community", "--data", "{}"); !strings.Contains(errOut, "is not running") {
		t.Errorf("with a stopped runner: %q", errOut)
	}
}

// findsTheEvent checks event list, find and show, and explain: the event went to one
// endpoint, where it is dead.
func (x *tool) findsTheEvent(id, endpointID string) {
	x.t.Helper()
	var other console.WithSecret
	x.json(&other, "endpoint", "add", "http://127.0.0.1:1/filtered", "--filter", `{"data":{"community_id":["c_8"]}}`)
	for _, search := range [][]string{
		{"event", "list"}, {"event", "list", "--type", "user.joined_community", "--subject", "c_7", "--since", "1h"},
		{"event", "find", "c_7"}, {"event", "find", id}, {"event", "find", id[18:]}, {"event", "find", "c_7", "--to", "2999-01-01T00:00:00Z"},
	} {
		var list []console.ListedEvent
		x.json(&list, search...)
		if len(list) != 1 || list[0].ID != id || list[0].Endpoints != 1 {
			x.t.Errorf("%v: %+v, want the event", search, list)
		}
	}
	for _, search := range [][]string{{"event", "list", "--to", "2020-01-01T00:00:00Z"}, {"event", "find", "c_8"}, {"event", "list", "--actor", "u_1"}} {
		var list []console.ListedEvent
		if x.json(&list, search...); len(list) != 0 {
			x.t.Errorf("%v: %+v, want none", search, list)
		}
	}
	out, _ := x.do(0, "", "event", "show", id[18:])
	if !strings.Contains(out, id) || !strings.Contains(out, "dead, attempts 1: ") || !strings.Contains(out, `"community_name": "Gophers"`) {
		x.t.Errorf("event show:\n%s", out)
	}
	out, _ = x.do(0, "", "explain", id)
	if !strings.Contains(out, "the filter does not match: data.community_id") || !strings.Contains(out, endpointID) {
		x.t.Errorf("explain:\n%s", out)
	}
	if out, _ = x.do(0, "", "explain", id[18:], endpointID); strings.Contains(out, other.ID) || !strings.Contains(out, "dead") {
		x.t.Errorf("explain for one endpoint:\n%s", out)
	}
	x.do(1, "", "explain", id, "ep_none")
	x.do(1, "", "event", "show", "ZZZZZZZZ")
	x.do(2, "", "event", "show", "Z")
	if out, errOut := x.do(0, "", "event", "list", "--type", "user.removed"); !strings.Contains(out, "no events") || !strings.Contains(errOut, "there is no event type user.removed") {
		x.t.Errorf("a search for a removed type: %s%s", out, errOut)
	}
	x.do(2, "", "event", "list", "--type", "Removed")
	x.do(2, "", "event", "list", "--from", "2026-02-01T00:00:00Z", "--to", "2026-01-01T00:00:00Z")
	x.do(2, "", "event", "list", "--since", "1h", "--from", "2026-01-01T00:00:00Z")
	x.do(0, "", "endpoint", "remove", other.ID)
}

// What an endpoint missed while it was disabled is found, counted and sent.
func TestRecover(t *testing.T) {
	t.Parallel()
	x := newTool(t)
	received := make(chan string, 10)
	receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { received <- r.Header.Get("webhook-id") }))
	t.Cleanup(receiver.Close)
	var added console.WithSecret
	x.json(&added, "endpoint", "add", receiver.URL+"/")
	x.do(0, "", "endpoint", "disable", added.ID)
	var emitted struct{ ID string }
	x.json(&emitted, "emit", "user.joined_community", "--data", `{"community_id":"c_7","community_name":"Gophers"}`)
	for end := time.Now().Add(patience); ; { // it is fanned out
		var list []console.ListedEvent
		if x.json(&list, "event", "list"); len(list) == 1 {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the event is not in the journal")
		}
	}
	recover := []string{"recover", "--endpoint", added.ID, "--since", "1h"}
	if _, errOut := x.do(1, "", recover...); !strings.Contains(errOut, "is disabled") {
		t.Errorf("a disabled endpoint: %s", errOut)
	}
	x.do(0, "", "endpoint", "enable", added.ID)
	out, _ := x.do(0, "", append(recover, "--dry-run")...)
	if !strings.HasPrefix(out, "1 events examined: 1 missing\n1 would be put into the endpoint's backlog") {
		t.Errorf("the dry run: %s", out)
	}
	if _, errOut := x.do(1, "", recover...); !strings.Contains(errOut, "--yes") {
		t.Errorf("without --yes: %s", errOut)
	}
	select {
	case id := <-received:
		t.Fatalf("%s was sent without --yes", id)
	default:
	}
	out, _ = x.do(0, "", append(recover, "--yes")...)
	if !strings.Contains(out, "1 were put into the endpoint's backlog") {
		t.Errorf("recovered: %s", out)
	}
	select {
	case id := <-received:
		if id != emitted.ID {
			t.Errorf("event %s was received, want %s", id, emitted.ID)
		}
	case <-time.After(patience):
		t.Fatal("the event was not received")
	}
	x.do(2, "", "recover", "--endpoint", added.ID)
	x.do(2, "", "recover", "--since", "1h")
	x.do(1, "", append(recover, "--states", "pending")...)

	// A dry run counts the past, and adds nothing.
	for settings, want := range map[string]string{
		"":                                  "1 of 1 events match; sending them takes about 0s and costs about $0.00",
		`{"data":{"community_id":["c_7"]}}`: "1 of 1 events match",
		`{"data":{"community_id":["c_8"]}}`: "0 of 1 events match",
	} {
		if out, _ := x.do(0, "", "endpoint", "add", receiver.URL+"/second", "--filter", settings, "--backfill", "1d", "--dry-run"); !strings.Contains(out, want) || !strings.Contains(out, "nothing was added") {
			t.Errorf("the dry run with the filter %q: %s", settings, out)
		}
	}
	x.do(1, "", "endpoint", "add", "ftp://example.com", "--dry-run")
	var endpoints []console.Endpoint
	if x.json(&endpoints, "endpoint", "list"); len(endpoints) != 1 {
		t.Errorf("after dry runs there are the endpoints %+v", endpoints)
	}
	// A new endpoint gets the past.
	var second console.WithSecret
	x.json(&second, "endpoint", "add", receiver.URL+"/second", "--backfill", "1d")
	if second.Backfill == nil || second.Secret == "" {
		t.Fatalf("added with a backfill: %+v", second)
	}
	if out, _ := x.do(0, "", "job", "wait", second.Backfill.ID); !strings.Contains(out, "1 were put into the endpoint's backlog") {
		t.Errorf("the backfill: %s", out)
	}
	x.do(2, "", "endpoint", "add", receiver.URL+"/third", "--backfill", "soon")

	var list []console.Job
	x.json(&list, "job", "list")
	list = slices.DeleteFunc(list, func(j console.Job) bool { return j.Kind == jobs.Backfill })
	if len(list) != 4 || list[0].DryRun || list[0].State != jobs.Done || list[0].Sent != 1 || !list[1].DryRun {
		t.Fatalf("jobs: %+v; want three dry runs and the recovery", list)
	}
	if out, _ := x.do(0, "", "job", "show", list[0].ID); !strings.Contains(out, "100 %") {
		t.Errorf("the recovery: %s", out)
	}
	if out, _ := x.do(0, "", "job", "wait", list[0].ID); !strings.Contains(out, "1 were put into the endpoint's backlog") {
		t.Errorf("waited: %s", out)
	}
	if _, errOut := x.do(1, "", "job", "cancel", list[0].ID); !strings.Contains(errOut, "has ended already: it is done") {
		t.Errorf("cancelled: %s", errOut)
	}
	for _, command := range []string{"show", "wait", "cancel"} {
		if _, errOut := x.do(1, "", "job", command, "job_none"); !strings.Contains(errOut, "no job job_none") {
			t.Errorf("%s: %s", command, errOut)
		}
	}
}

func TestEmitListShowAndReplay(t *testing.T) {
	t.Parallel()
	x := newTool(t)
	var added console.WithSecret
	x.json(&added, "endpoint", "add", "http://127.0.0.1:1/", "--max-attempts", "1") // nothing listens: dead after one attempt
	var first, second struct {
		ID        string
		Duplicate bool
	}
	data := `{"community_id":"c_7","community_name":"Gophers"}`
	x.json(&first, "emit", "user.joined_community", "--data", data, "--key", "k")
	x.json(&second, "emit", "user.joined_community", "--data", data, "--key", "k")
	if first.ID == "" || second.ID != first.ID || !second.Duplicate {
		t.Errorf("emitted %+v and %+v", first, second)
	}
	dead := func(attempts int) {
		t.Helper()
		for end := time.Now().Add(patience); ; {
			var list []console.Delivery
			x.json(&list, "delivery", "list", "--dead")
			if len(list) == 1 && list[0].Attempts == attempts {
				if list[0].EventID != first.ID || list[0].History[0].Outcome != "connect" || list[0].Reason == "" {
					t.Errorf("dead letter = %+v", list[0])
				}
				return
			}
			if time.Now().After(end) {
				t.Fatalf("dead letters = %+v", list)
			}
		}
	}
	dead(1)
	x.findsTheEvent(first.ID, added.ID)
	out, _ := x.do(0, "", "delivery", "list")
	if !strings.Contains(out, "dead") || !strings.Contains(out, "nothing listens") || !strings.HasPrefix(out, "UPDATED") {
		t.Errorf("list:\n%s", out)
	}
	out, _ = x.do(0, "", "delivery", "show", added.ID, first.ID)
	if !strings.Contains(out, "FIRST BYTE") || !strings.Contains(out, "connect") {
		t.Errorf("show:\n%s", out)
	}
	x.do(0, "", "delivery", "replay", added.ID, first.ID)
	dead(2)
	out, _ = x.do(0, "", "delivery", "replay", "--dead", "--endpoint", added.ID, "--from", time.Now().Add(-time.Hour).Format(time.RFC3339), "--yes")
	if !strings.HasPrefix(out, "found 1 dead\n1 were put into") {
		t.Errorf("replayed:\n%s", out)
	}
	dead(3)
	if out, _ = x.do(0, "", "delivery", "replay", "--dead", "--all", "--yes"); !strings.Contains(out, "1 were put into") {
		t.Errorf("replayed all:\n%s", out)
	}
	dead(4)
	x.do(0, "", "emit", "--file", filepath.Join("..", "..", "events", "emit-user-posted-comment.json"))
	if out, _ := x.do(0, data, "emit", "user.joined_community", "--data", "-"); !strings.Contains(out, "accepted") {
		t.Errorf("from standard input: %q", out)
	}
}
