package console_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/tidings-dev/tidings/pkg/console"
	"github.com/tidings-dev/tidings/pkg/local"
	"github.com/tidings-dev/tidings/pkg/store/dynamo"
	"github.com/tidings-dev/tidings/test/dynamotest"
)

// errorLines keeps the log lines of level ERROR.
type errorLines struct {
	slog.Handler
	mu    sync.Mutex
	lines []string
}

func (e *errorLines) Enabled(context.Context, slog.Level) bool { return true }

func (e *errorLines) Handle(_ context.Context, r slog.Record) error {
	if r.Level < slog.LevelError {
		return nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	text := r.Message
	r.Attrs(func(a slog.Attr) bool { text += " " + a.String(); return true })
	e.lines = append(e.lines, text)
	return nil
}

func (e *errorLines) taken() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	text := strings.Join(e.lines, "; ")
	e.lines = nil
	return text
}

// requests makes requests out of the OpenAPI document and of what a program, a person and
// an attacker would put into its parameters.
type requests struct {
	random *rand.Rand
	texts  []string
	all    []operation
	// schemas are the document's, by name.
	schemas map[string]json.RawMessage
}

var times = []string{
	"", "0001-01-01T00:00:00Z", "0000-01-01T00:00:00Z", "1969-12-31T23:59:59Z", "1970-01-01T00:00:00Z", "2026-11-30T00:00:00.000000001Z", "2026-11-30T00:00:00+14:00",
	"9999-12-31T23:59:59.999Z", "2026-02-30T00:00:00Z", "now", "1", "-1", "99999-01-01T00:00:00Z",
}

func (q *requests) text() string { return q.texts[q.random.IntN(len(q.texts))] }

// value returns a value for a schema, mostly of its type.
func (q *requests) value(raw json.RawMessage, depth int) any {
	var s struct {
		Ref        string `json:"$ref"`
		Type       any
		Format     string
		Enum       []any
		Properties map[string]json.RawMessage
		Items      json.RawMessage
	}
	_ = json.Unmarshal(raw, &s) // an empty schema takes everything
	if s.Ref != "" {
		return q.value(q.schemas[s.Ref[strings.LastIndex(s.Ref, "/")+1:]], depth)
	}
	if q.random.IntN(12) == 0 || depth > 4 {
		return []any{nil, true, -1, 1e300, "", []any{}, map[string]any{}, map[string]any{"a": []any{1, "b"}}, strings.Repeat("x", 5000)}[q.random.IntN(9)]
	}
	if len(s.Enum) > 0 && q.random.IntN(4) > 0 {
		return s.Enum[q.random.IntN(len(s.Enum))]
	}
	kind, _ := s.Type.(string)
	switch {
	case s.Format == "date-time":
		return times[q.random.IntN(len(times))]
	case kind == "integer" || kind == "number":
		return []any{0, 1, 2, 50, -1, 101, 1 << 40, -1 << 62, 0.5}[q.random.IntN(9)]
	case kind == "boolean":
		return q.random.IntN(2) == 0
	case kind == "array" || kind == "" && s.Items != nil:
		list := []any{}
		for range q.random.IntN(4) {
			list = append(list, q.value(s.Items, depth+1))
		}
		return list
	case kind == "object" || s.Properties != nil:
		object := map[string]any{}
		for name, of := range s.Properties {
			if q.random.IntN(3) > 0 {
				object[name] = q.value(of, depth+1)
			}
		}
		return object
	}
	return q.text()
}

// next returns a request.
func (q *requests) next() *http.Request {
	o := q.all[q.random.IntN(len(q.all))]
	path, query := o.Path, url.Values{}
	for _, p := range o.Parameters {
		schema, err := json.Marshal(p.Schema)
		if err != nil {
			panic(err)
		}
		value := fmt.Sprint(q.value(schema, 0))
		if q.random.IntN(6) == 0 {
			value = q.text()
		}
		if p.In == "path" {
			path = strings.ReplaceAll(path, "{"+p.Name+"}", url.PathEscape(value))
		} else if p.In == "query" && q.random.IntN(2) == 0 {
			query.Set(p.Name, value)
		}
	}
	body := ""
	for _, content := range o.RequestBody.Content {
		text, err := json.Marshal(q.value(content.Schema, 0))
		if err != nil {
			panic(err)
		}
		if body = string(text); q.random.IntN(20) == 0 {
			body = body[:q.random.IntN(len(body)+1)]
		}
	}
	r := httptest.NewRequest(o.Method, "/", strings.NewReader(body))
	r.URL.Path, r.URL.RawPath = "", ""
	if parsed, err := url.Parse(path); err == nil {
		r.URL = parsed
	}
	r.URL.RawQuery = query.Encode()
	r.RequestURI = r.URL.RequestURI()
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	return r
}

// No request makes the API answer with 5xx or log an error, and no answer and no entry of
// the audit log contains an error of AWS's SDK.
func TestSecurityNoRequestIsAnInternalError(t *testing.T) {
	const seed = 17
	for name, open := range map[string]func(*world) store{
		"memory": func(w *world) store { return w.store },
		"DynamoDB": func(w *world) store {
			db, stack := dynamotest.New(w.t)
			return dynamo.New(db, local.Tables(stack.Name))
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.on(open(w))
			e, eventID := w.seed()
			failed := w.failedChange("private")
			log := &errorLines{}
			w.console.Log = slog.New(log)
			w.handler = w.console.Handler()
			b := w.login(console.Operator, "default")
			var page struct{ Next string }
			if err := json.Unmarshal(b.get("/api/discussions?limit=1").Body.Bytes(), &page); err != nil || page.Next == "" {
				t.Fatalf("no cursor: %v", err)
			}
			raw := b.get(console.OpenAPIPath).Body.Bytes()
			var doc struct {
				Components struct{ Schemas map[string]json.RawMessage }
			}
			if err := json.Unmarshal(raw, &doc); err != nil {
				t.Fatal(err)
			}
			all := slices.DeleteFunc(operations(t, raw), func(o operation) bool {
				return o.Method == http.MethodDelete // what was seeded is needed
			})
			q := &requests{random: rand.New(rand.NewPCG(seed, seed)), all: all, schemas: doc.Components.Schemas, texts: []string{
				"", e.ID, eventID, failed, "d1", "d2", page.Next, "ep_", "audit#default", "capture-failed", "user.posted_comment", "user.*", "*", "https://example.com/", "sqs://q?region=us-east-1",
				"http://[::1]:99999/", "72h", "-1s", "9999999h", "00000000000000000000000000", "7ZZZZZZZZZZZZZZZZZZZZZZZZZ", "ep_7ZZZZZZZZZZZZZZZZZZZZZZZZZ", "AAAA", "%", "..", "a/b", "\x00", "\u202e",
				strings.Repeat("z", 64), strings.Repeat("ü", 300), "0", "-1", "null", "18446744073709551616",
			}}
			count := map[string]int{"memory": 6000, "DynamoDB": 1500}[name]
			statuses := map[int]int{}
			for range count {
				r := q.next()
				r.Header.Set("X-CSRF-Token", b.csrf)
				what := r.Method + " " + r.URL.String()
				a := b.do(r)
				statuses[a.Code]++
				if lines := log.taken(); a.Code >= 500 || lines != "" {
					t.Errorf("%s: %d %.300s; log: %s", what, a.Code, a.Body, lines)
				}
				if text := a.Body.String(); strings.Contains(text, "api error") || strings.Contains(text, "operation error") {
					t.Errorf("%s shows an error of the SDK: %.300s", what, text)
				}
			}
			entries, err := w.store.ListAudit(t.Context(), "default", 1000, "")
			if err != nil {
				t.Fatal(err)
			}
			for _, one := range entries.Entries {
				if strings.Contains(one.Detail, "api error") || strings.Contains(one.Detail, "internal error") {
					t.Errorf("the audit log has %+v", one)
				}
			}
			if statuses[200] < count/20 || statuses[422] < count/20 {
				t.Errorf("the requests test little: %v", statuses)
			}
			t.Logf("seed %d: %d requests: %v", seed, count, statuses)
		})
	}
}

// Replays without ids are refused as invalid, and leave no trace.
func TestSecurityReplaysWithoutIDsAreInvalid(t *testing.T) {
	w, e, id := seeded(t)
	b := w.login(console.Admin, "default")
	for _, key := range []string{`"endpoint_id":"","event_id":""`, `"endpoint_id":"` + e.ID + `","event_id":""`, `"endpoint_id":"","event_id":"` + id + `"`, ``} {
		if a := b.api("POST", "/api/replays", `{"deliveries":[{`+key+`}]}`); a.Code != 422 {
			t.Errorf("%s: %d %s", key, a.Code, a.Body)
		}
	}
	if a := b.post("/deliveries/replay", url.Values{"delivery": {"/"}}); a.Code != 422 {
		t.Errorf("the form: %d", a.Code)
	}
	log, err := w.store.ListAudit(t.Context(), "default", 0, "")
	if err != nil || len(log.Entries) != 0 || len(w.commands) != 0 {
		t.Errorf("%+v, %v, %v", log, w.commands, err)
	}
}

// A failure of a store or of another function is not for the user: neither the answer nor
// the audit log has its text.
func TestSecurityErrorsOfAWSAreNotShown(t *testing.T) {
	w, e, id := seeded(t)
	w.replay = fmt.Errorf("operation error DynamoDB: UpdateItem, api error: arn:aws:dynamodb:eu-west-1:123456789012:table/secret")
	b := w.login(console.Admin, "default")
	texts := []string{
		b.api("POST", "/api/replays", `{"deliveries":[{"endpoint_id":"`+e.ID+`","event_id":"`+id+`"}]}`).Body.String(),
		b.post("/deliveries/replay", url.Values{"delivery": {e.ID + "/" + id}}).Body.String(),
		b.api("POST", "/api/circuits/"+e.ID+"/close", "").Body.String(),
		b.get("/api/audit").Body.String(), b.get("/audit").Body.String(),
	}
	for _, text := range texts {
		if strings.Contains(text, "arn:aws") || !strings.Contains(text, "internal error") {
			t.Errorf("shown: %s", text)
		}
	}
}
