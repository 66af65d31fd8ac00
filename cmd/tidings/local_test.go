package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/pkg/admin"
	"github.com/tidings-dev/tidings/pkg/destination"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/event/catalog"
	"github.com/tidings-dev/tidings/pkg/local"
	"github.com/tidings-dev/tidings/pkg/store/memory"
)

func TestLocalDeliversOverEveryProtocol(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	reader, out := io.Pipe()
	ended := make(chan int, 1)
	go func() {
		ended <- run(ctx, []string{"--state-dir", dir, "local", "--all-protocols", "--memory", "--port", "0", "--template", filepath.Join("..", "..", "template.yaml")},
			strings.NewReader(""), out, out)
		out.Close()
	}()
	webhook := regexp.MustCompile(`\s(http|sqs|eventbridge|pubsub|kafka)\s+(✓ verified|✗ not verified|– unsigned).*user\.joined_community\s+(\w{26})`)
	via := map[string]string{}
	for lines := bufio.NewScanner(reader); lines.Scan(); {
		if strings.Contains(lines.Text(), "Ctrl-C") {
			note, err := local.ReadRunnerInfo(dir)
			if err != nil {
				t.Error(err)
				cancel()
				continue
			}
			event, err := os.Open(filepath.Join("..", "..", "events", "emit-user-joined-community.json"))
			if err != nil {
				t.Fatal(err)
			}
			response, err := http.Post(note.URLs["emit"], "application/json", event)
			if err != nil || response.StatusCode != http.StatusAccepted {
				t.Errorf("emit: %v, %v", response, err)
				cancel()
				continue
			}
			response.Body.Close()
		}
		if m := webhook.FindStringSubmatch(lines.Text()); m != nil {
			if want := map[bool]string{true: "– unsigned", false: "✓ verified"}[m[1] == "eventbridge"]; m[2] != want {
				t.Errorf("want %s: %s", want, lines.Text())
			}
			via[m[1]] = m[3]
			if len(via) == 5 {
				cancel()
			}
		}
	}
	if code := <-ended; code != 0 {
		t.Errorf("exit code %d", code)
	}
	if len(via) != 5 || via["sqs"] != via["http"] || via["eventbridge"] != via["http"] || via["pubsub"] != via["http"] || via["kafka"] != via["http"] {
		t.Errorf("arrived %v, want one id over five protocols", via)
	}
}

func TestReadEndpoints(t *testing.T) {
	path := filepath.Join(t.TempDir(), "endpoints.json")
	read := func(text string) ([]endpoint.Endpoint, error) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return readEndpoints(path)
	}
	got, err := read(`[{"url":"http://127.0.0.1:1/a","types":["user.*"],"filter":{"data":{"status":["success"]}}},{"url":"http://127.0.0.1:1/b"}]`)
	if err != nil || len(got) != 2 || got[0].URL != "http://127.0.0.1:1/a" || got[0].EventTypes[0] != "user.*" || string(got[0].Filter) != `{"data":{"status":["success"]}}` || got[1].URL != "http://127.0.0.1:1/b" {
		t.Errorf("read as %+v, %v", got, err)
	}
	if _, err := read(`[{"url":"http://127.0.0.1:1/a","event_types":["user.*"]}]`); err == nil || !strings.Contains(err.Error(), "event_types") {
		t.Errorf("unknown field: %v", err)
	}
	if _, err := read(`[{"url":"http://127.0.0.1:1/a"}] and more`); err == nil || !strings.Contains(err.Error(), "data after the JSON list") {
		t.Errorf("data after the list: %v", err)
	}
	if _, err := readEndpoints(path + ".none"); err == nil || !strings.Contains(err.Error(), "--endpoints") {
		t.Errorf("no file: %v", err)
	}
	if got, err := readEndpoints(""); got != nil || err != nil {
		t.Errorf("no flag: %v, %v", got, err)
	}
	// An invalid endpoint is an error that says which one it is.
	if _, err := read(`[{"url":"http://127.0.0.1:1/a"},{"url":"gopher://127.0.0.1:1/b"}]`); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	code := run(t.Context(), []string{"--state-dir", t.TempDir(), "local", "--memory", "--receiver=false", "--port", "0", "--endpoints", path, "--template", filepath.Join("..", "..", "template.yaml")},
		strings.NewReader(""), &out, &out)
	if code == 0 || !strings.Contains(out.String(), "endpoint 2 of 2") {
		t.Errorf("exit code %d: %s", code, out.String())
	}
}

// At every start the file decides the events of its own endpoints; an operator's
// changes to other endpoints are kept.
func TestSyncEndpointsAtRestart(t *testing.T) {
	const a, b = "http://127.0.0.1:1/a", "http://127.0.0.1:1/b"
	store := memory.New(time.Now)
	r := &admin.Endpoints{Store: store, Catalog: catalog.Default(), Check: func(destination.Target) error { return nil }, Now: time.Now}
	if _, err := r.Add(t.Context(), endpoint.Endpoint{Tenant: "default", URL: "http://127.0.0.1:1/mine", EventTypes: []string{"user.*"}}); err != nil {
		t.Fatal(err)
	}
	file := func(url, types, filter string) endpoint.Endpoint {
		e := endpoint.Endpoint{URL: url, Description: fileDescription, EventTypes: strings.Fields(types)}
		if filter != "" {
			e.Filter = json.RawMessage(filter)
		}
		return e
	}
	flag := endpoint.Endpoint{URL: b}
	ids := map[string]string{}
	for i, start := range []struct {
		wanted []endpoint.Endpoint
		then   string
	}{
		{[]endpoint.Endpoint{flag, file(a, "user.*", "")}, "a user.* | b * | mine user.*"},
		{[]endpoint.Endpoint{flag, file(a, "discussion.*", `{"data":{"a":[1]}}`)}, `a discussion.* {"data":{"a":[1]}} | b * | mine user.*`},
		{[]endpoint.Endpoint{file(a, "user.*", ""), file(a, "discussion.*", ""), flag}, "a discussion.* | a user.* | b * | mine user.*"},
		{[]endpoint.Endpoint{file(a, "user.*", ""), flag}, "a user.* | b * | mine user.*"},
		{[]endpoint.Endpoint{{URL: a}, flag}, "a * | b * | mine user.*"},
		{[]endpoint.Endpoint{{URL: a}, file(a, "discussion.*", ""), flag}, "a * | a discussion.* | b * | mine user.*"},
		{[]endpoint.Endpoint{file(a, "", ""), {URL: "http://127.0.0.1:1/mine"}}, "a * | mine user.*"},
		{nil, "mine user.*"},
	} {
		if err := syncEndpoints(t.Context(), store, start.wanted); err != nil {
			t.Fatal(err)
		}
		list, err := store.ListEndpoints(t.Context(), "default")
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, e := range list {
			name := strings.TrimPrefix(e.URL, "http://127.0.0.1:1/")
			got = append(got, strings.TrimSpace(name+" "+strings.Join(e.EventTypes, " ")+" "+string(e.Filter)))
			if i < 2 && cmp.Or(ids[name], e.ID) != e.ID {
				t.Errorf("start %d: %s is another endpoint", i+1, name)
			}
			ids[name] = e.ID
		}
		slices.Sort(got)
		if strings.Join(got, " | ") != start.then {
			t.Errorf("start %d: %s, want %s", i+1, strings.Join(got, " | "), start.then)
		}
	}
	if err := syncEndpoints(t.Context(), store, []endpoint.Endpoint{flag}); err != nil {
		t.Fatal(err)
	}
	list, _ := store.ListEndpoints(t.Context(), "default")
	for _, e := range list {
		if e.URL == b {
			if _, err := r.Change(t.Context(), e.Tenant, e.ID, func(e *endpoint.Endpoint) { e.EventTypes = []string{"user.*"} }); err != nil {
				t.Fatal(err)
			}
			if err := syncEndpoints(t.Context(), store, []endpoint.Endpoint{flag}); err != nil {
				t.Fatal(err)
			}
			if now, err := store.GetEndpoint(t.Context(), e.Tenant, e.ID); err != nil || now.EventTypes[0] != "user.*" {
				t.Errorf("what somebody changed is %v (%v)", now.EventTypes, err)
			}
		}
	}
}

func TestEndpointAddPerProtocol(t *testing.T) {
	t.Parallel()
	x := newTool(t)
	for name, c := range map[string]struct {
		args []string
		says string // "" is added; otherwise the refusal
	}{
		"a standard queue of the own account":   {[]string{"sqs://webhooks-crm?region=eu-central-1"}, ""},
		"a FIFO queue of another, by role":      {[]string{"sqs://210987654321/webhooks-crm.fifo?region=eu-central-1", "--role-arn", "arn:aws:iam::210987654321:role/webhooks-tidings"}, ""},
		"a topic, in order":                     {[]string{"pubsub://my-project/community-events", "--ordered"}, ""},
		"a Kafka without login":                 {[]string{"kafka://127.0.0.1:9092/community"}, ""},
		"a Kafka by SCRAM":                      {[]string{"kafka://b1.example.com:9093,b2.example.com:9093/community?tls=true&sasl=scram-sha-512", "--credentials", "tidings/default/kafka"}, ""},
		"an MSK by role":                        {[]string{"kafka://b.example.com:9198/community?tls=true&sasl=msk-iam&region=eu-central-1", "--role-arn", "arn:aws:iam::210987654321:role/webhooks-msk"}, ""},
		"a queue without a region":              {[]string{"sqs://webhooks-crm"}, "add ?region="},
		"a queue with a password":               {[]string{"sqs://u:hunter2@webhooks-crm?region=eu-central-1"}, "must not hold a user name"},
		"a role that is none":                   {[]string{"sqs://webhooks-crm?region=eu-central-1", "--role-arn", "webhooks-tidings"}, "arn:aws:iam::123456789012:role/name"},
		"a topic with a misspelt project":       {[]string{"pubsub://My_Project/community-events"}, "pubsub://project/topic"},
		"a login in the URL of a Kafka":         {[]string{"kafka://u:hunter2@b.example.com:9092/community"}, "store them in a secret"},
		"a Kafka login without credentials":     {[]string{"kafka://b.example.com:9092/community?sasl=scram-sha-256"}, "the name of the secret"},
		"another tenant's secret":               {[]string{"kafka://b.example.com:9092/community?sasl=scram-sha-256", "--credentials", "tidings/other/kafka"}, "must begin with the stack's name and /default/"},
		"a password where TLS is off":           {[]string{"kafka://b.example.com:9092/community?sasl=plain", "--credentials", "tidings/default/kafka"}, "add tls=true"},
		"a broker at the metadata address":      {[]string{"kafka://169.254.169.254:9092/community"}, "not a public address"},
		"a role for a web server":               {[]string{"https://example.com", "--role-arn", "arn:aws:iam::210987654321:role/webhooks"}, "role_arn"},
		"credentials for a web server":          {[]string{"https://example.com", "--credentials", "tidings/default/x"}, "credentials"},
		"an order that HTTP does not keep":      {[]string{"https://example.com", "--ordered"}, "ordered"},
		"a role for Google":                     {[]string{"pubsub://my-project/community-events", "--role-arn", "arn:aws:iam::210987654321:role/webhooks"}, "roles/pubsub.publisher"},
		"a parameter that nobody knows (Kafka)": {[]string{"kafka://b.example.com:9092/community?acks=0"}, `parameter "acks"`},
	} {
		t.Run(name, func(t *testing.T) {
			args := append([]string{"endpoint", "add"}, c.args...)
			if c.says == "" {
				if out, _ := x.do(0, "", args...); !strings.Contains(out, "whsec_") || !strings.Contains(out, c.args[0]) {
					t.Errorf("added:\n%s", out)
				}
				return
			}
			if _, errOut := x.do(1, "", args...); !strings.Contains(errOut, c.says) || strings.Contains(errOut, "hunter2") {
				t.Errorf("says %q, want %q", errOut, c.says)
			}
		})
	}
}
