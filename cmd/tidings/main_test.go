package main

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/pkg/console"
	"github.com/tidings-dev/tidings/pkg/local"
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
	for _, args := range [][]string{{"endpoint", "list"}, {"endpoint", "show", id}, {"endpoint", "list", "--json"}, {"endpoint", "show", id, "--json"}, {"endpoint", "disable", id, "--reason", "moving"}, {"endpoint", "enable", id}} {
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

func TestErrorsNameTheValidForm(t *testing.T) {
	t.Parallel()
	x := newTool(t)
	for name, c := range map[string]struct {
		args []string
		code int
		says string
	}{
		"an unknown scheme":            {[]string{"endpoint", "add", "gopher://x"}, 1, "https://host/path"},
		"a metadata address":           {[]string{"endpoint", "add", "https://169.254.169.254/"}, 1, "not a public address"},
		"a password in the URL":        {[]string{"endpoint", "add", "https://u:hunter2@example.com/"}, 1, "must not hold a user name"},
		"a misspelled type":            {[]string{"endpoint", "add", "https://example.com", "--types", "user.exploded"}, 1, "user.joined_community"},
		"an invalid filter":            {[]string{"endpoint", "add", "https://example.com", "--filter", `{"a":1}`}, 1, "filter: a: must be a list"},
		"a timeout of an hour":         {[]string{"endpoint", "add", "https://example.com", "--timeout", "1h"}, 1, "timeout_seconds"},
		"no URL":                       {[]string{"endpoint", "add"}, 2, "takes one URL"},
		"an unknown flag":              {[]string{"endpoint", "list", "--colour"}, 2, "unknown flag"},
		"an unknown event type":        {[]string{"emit", "user.exploded", "--data", "{}"}, 1, "is not an event type"},
		"data without a field":         {[]string{"emit", "user.joined_community", "--data", `{"community_id":"c"}`}, 1, "data.community_name: is missing"},
		"data that is not JSON":        {[]string{"emit", "user.joined_community", "--data", `{`}, 2, "not valid JSON"},
		"emit without a type":          {[]string{"emit"}, 2, "takes one event type"},
		"an unknown state":             {[]string{"delivery", "list", "--state", "lost"}, 2, "not one of"},
		"replay of nothing":            {[]string{"delivery", "replay"}, 2, "takes ENDPOINT EVENT"},
		"replay, unknown id":           {[]string{"delivery", "replay", "ep_x", "01J"}, 1, "has no endpoint ep_x"},
		"show, unknown id":             {[]string{"delivery", "show", "ep_x", "01J"}, 1, "no delivery of event"},
		"unknown event schema":         {[]string{"events", "show", "user.exploded"}, 2, "is not an event type"},
		"test, unknown id":             {[]string{"test", "ep_x"}, 1, "has no endpoint ep_x"},
		"a test of a metadata address": {[]string{"test", "https://169.254.169.254/"}, 1, "not a public address"},
		"a test, invalid data":         {[]string{"test", "ep_x", "--data", "{"}, 2, "not valid JSON"},
		"two things from stdin":        {[]string{"test", "https://a.example", "--secret-stdin", "--data", "-"}, 2, "standard input"},
		"a test of nothing":            {[]string{"test"}, 2, "an endpoint id or a URL"},
		"a rate above 100%":            {[]string{"local", "--receiver-fails", "300%"}, 2, "between 0% and 100%"},
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
		for end := time.Now().Add(20 * time.Second); ; {
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
	out, _ = x.do(0, "", "delivery", "replay", "--dead", "--endpoint", added.ID, "--from", "2026-01-01T00:00:00Z")
	if out != "1 replayed\n" {
		t.Errorf("replayed:\n%s", out)
	}
	dead(3)
	if out, _ = x.do(0, "", "delivery", "replay", "--dead", "--all"); out != "1 replayed\n" {
		t.Errorf("replayed all:\n%s", out)
	}
	dead(4)
	x.do(0, "", "emit", "--file", filepath.Join("..", "..", "events", "emit-user-posted-comment.json"))
	if out, _ := x.do(0, data, "emit", "user.joined_community", "--data", "-"); !strings.Contains(out, "accepted") {
		t.Errorf("from standard input: %q", out)
	}
	if out, _ := x.do(0, "", "events"); strings.Count(out, "\n") != 10 {
		t.Errorf("events:\n%s", out)
	}
	if out, _ := x.do(0, "", "events", "show", "user.joined_community"); !json.Valid([]byte(out)) {
		t.Errorf("schema:\n%s", out)
	}
}
