package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"charm.land/lipgloss/v2"
	"github.com/spf13/cobra"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/delivery/breaker"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/event/journal"
	"github.com/tidings-dev/tidings/pkg/local"
	"github.com/tidings-dev/tidings/pkg/ops/jobs"
	"github.com/tidings-dev/tidings/pkg/ops/stats"
	"github.com/tidings-dev/tidings/pkg/platform"
	"github.com/tidings-dev/tidings/pkg/signature"
	"github.com/tidings-dev/tidings/pkg/store/dynamo"
)

// hostile is a text that a terminal would obey: it sets the title and the clipboard, clears
// the screen, moves the cursor, rings, hides and reorders.
const hostile = "hostile\x1b]0;title\x07\x1b]52;c;aGk=\x07\x1b[2J\x1b[H\r\x08\x7f\x9b31m\u009b31m\u202e\u2066\u200b\u2028\U000e0041\x1b[8mend"

// obeyed returns the first character that a terminal would not simply show.
func obeyed(text string) string {
	for i, r := range text {
		if r == utf8.RuneError && !strings.HasPrefix(text[i:], string(utf8.RuneError)) {
			return fmt.Sprintf("the byte %x", text[i])
		}
		if r != '\n' && r != '\t' && r != '\u200c' && r != '\u200d' && unicode.In(r, unicode.C, unicode.Zl, unicode.Zp) && !unicode.Is(unicode.Co, r) {
			return fmt.Sprintf("%U", r)
		}
	}
	return ""
}

func TestSecurityTheScreenShowsWhatATerminalWouldObey(t *testing.T) {
	var out bytes.Buffer
	s := newScreen(&out)
	fmt.Fprintln(s, hostile)
	if found := obeyed(out.String()); found != "" || !strings.Contains(out.String(), `\u001b]52;c;aGk=\u0007`) || !strings.Contains(out.String(), `\u202e\u2066`) {
		t.Errorf("shows %s: %q", found, out.String())
	}
	// In pieces, too.
	out.Reset()
	for _, b := range []byte(hostile + "ü€😀\n") {
		if n, err := s.Write([]byte{b}); n != 1 || err != nil {
			t.Fatal(n, err)
		}
	}
	if found := obeyed(out.String()); found != "" || !strings.HasSuffix(out.String(), "endü€😀\n") {
		t.Errorf("in pieces %s: %q", found, out.String())
	}
	// A style is kept for the terminal, and cannot be made by a text in it.
	if got := visible(paint(lipgloss.NewStyle().Bold(true), hostile)); strings.Contains(got, "\x1b") || strings.Count(got, escape) != strings.Count(lipgloss.NewStyle().Bold(true).Render("x"), "\x1b") {
		t.Errorf("painted: %q", got)
	}
	// JSON stays the same value.
	out.Reset()
	a := &app{out: s}
	value := strings.ToValidUTF8(hostile, "")
	if err := a.printJSON(map[string]string{"text": value}); err != nil {
		t.Fatal(err)
	}
	var back map[string]string
	if err := json.Unmarshal(out.Bytes(), &back); err != nil || back["text"] != value {
		t.Errorf("JSON becomes %q, %v", back["text"], err)
	}
}

// The package writes to the process's streams, and with a library that does, in screen.go and
// main only.
func TestSecurityEverythingIsPrintedThroughTheScreen(t *testing.T) {
	files := token.NewFileSet()
	packages, err := parser.ParseDir(files, ".", func(f fs.FileInfo) bool { return !strings.HasSuffix(f.Name(), "_test.go") }, 0) //nolint:staticcheck // one package
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, p := range packages {
		for name, file := range p.Files {
			ast.Inspect(file, func(n ast.Node) bool {
				s, ok := n.(*ast.SelectorExpr)
				if !ok {
					return true
				}
				x, ok := s.X.(*ast.Ident)
				if !ok {
					return true
				}
				what := x.Name + "." + s.Sel.Name
				prints := x.Name == "lipgloss" && (strings.Contains(s.Sel.Name, "rint")) || slices.Contains([]string{"os.Stdout", "os.Stderr", "fmt.Print", "fmt.Printf", "fmt.Println"}, what)
				if prints {
					found++
				}
				if prints && name != "screen.go" && !(name == "main.go" && (what == "os.Stdout" || what == "os.Stderr")) {
					t.Errorf("%s: %s prints past the screen", files.Position(n.Pos()), what)
				}
				return true
			})
		}
	}
	if found == 0 {
		t.Error("nothing is printed at all, so this test is wrong")
	}
}

// Hostile text in everything that others can write, through every command.
func TestSecurityHostileTextThroughEveryCommand(t *testing.T) {
	t.Parallel()
	x := newTool(t)
	info, err := local.ReadRunnerInfo(x.dir)
	if err != nil {
		t.Fatal(err)
	}
	store, now := dynamo.New(info.DynamoDB(), local.Tables(info.Stack)), time.Now()
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header()["X-Hostile"] = []string{strings.NewReplacer("\r", "", "\x08", "").Replace(hostile)}
		w.WriteHeader(http.StatusInternalServerError)
		fmt.Fprint(w, hostile)
	}))
	defer receiver.Close()
	text := strings.ToValidUTF8(hostile, "") + "\nsecond: line\tcell" // what DynamoDB stores
	e := endpoint.Endpoint{
		Tenant: "default", ID: endpoint.NewID(now), URL: receiver.URL + "/", Description: text, EventTypes: []string{"*"}, Filter: json.RawMessage(`{"data":{"x":["` + "\u202e\u2066" + `"]}}`),
		Status: endpoint.Disabled, StatusReason: text, Credentials: text, RoleARN: text, Version: 1, CreatedAt: now, UpdatedAt: now,
		Secrets: []endpoint.SigningSecret{{Secret: signature.NewSecret()}},
	}
	if err := store.AddEndpoint(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	eventID := event.NewID(now)
	c := delivery.Claim{Key: delivery.Key{EndpointID: e.ID, EventID: eventID}, Tenant: "default", EventType: text, Accepted: now, ID: "c", Now: now, Lease: time.Minute}
	d, err := store.Claim(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	k := delivery.Conclusion{State: delivery.Dead, Reason: text, Snippet: text, Now: now, Attempt: delivery.Attempt{Number: 1, At: now, Class: delivery.Class(text), Status: 500}}
	if err := store.Complete(t.Context(), k.Apply(d)); err != nil {
		t.Fatal(err)
	}
	b, err := store.GetBreaker(t.Context(), "default", e.ID, true)
	if err != nil {
		t.Fatal(err)
	}
	for range breaker.DefaultFailures {
		b, _ = b.RecordFailure(breaker.Policy{}, "c", text, now)
		now = now.Add(20 * time.Second) // a circuit opens for failures that last
	}
	if _, err := store.PutBreaker(t.Context(), b, time.Now()); err != nil {
		t.Fatal(err)
	}
	failed := platform.FailedChange{ID: event.NewID(now), Tenant: text, Kind: text, Operation: platform.Operation(text), EventType: text, Reason: text, Stream: text, SequenceNumber: text, Key: text,
		At: now, FirstSeen: now, LastTried: now, Attempts: 1, Record: json.RawMessage(`{"a":"` + "\u202e" + `"}`)}
	if _, err := store.KeepFailedChange(t.Context(), failed); err != nil {
		t.Fatal(err)
	}
	for _, item := range journal.Pack("default", []journal.Entry{{ID: eventID, Type: text, Subject: text, Actor: text}}) {
		if err := store.PutJournal(t.Context(), item); err != nil {
			t.Fatal(err)
		}
	}
	if err := store.AddStatistics(t.Context(), stats.Batch{ID: "b", At: time.Now(), Counts: stats.Counts{Attempts: 1}, UnknownKinds: map[string]int64{text: 3}}); err != nil {
		t.Fatal(err)
	}
	job, err := jobs.New(jobs.Job{
		ID: jobs.NewID(now), Tenant: "default", Kind: jobs.Kind(text), EndpointID: e.ID, By: text,
		Parameters: jobs.Parameters{From: now, To: now, Types: []string{text}, States: []delivery.State{delivery.State(text)}},
	}, now)
	if err != nil {
		t.Fatal(err)
	}
	job.State, job.Reason, job.Counts = jobs.Failed, text, map[string]int{jobs.Found(delivery.State(text)): 1}
	if _, err := store.PutJob(t.Context(), job); err != nil {
		t.Fatal(err)
	}

	ran, shown := map[string]bool{}, 0
	// A definition with hostile texts, but for the name, which must be one.
	types := filepath.Join(t.TempDir(), "types.json")
	definition, err := json.Marshal(map[string]any{
		"title": "a.b", "description": text, "type": "object", "properties": map[string]any{text: map[string]any{"description": text}}, "examples": []any{map[string]any{text: text}},
	})
	if err == nil {
		err = os.WriteFile(types, definition, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	do := func(in string, args ...string) {
		t.Helper()
		for _, format := range [][]string{nil, {"--json"}} {
			var out, errOut bytes.Buffer
			run(t.Context(), slices.Concat([]string{"--state-dir", x.dir}, format, args), strings.NewReader(in), &out, &errOut)
			for name, stream := range map[string]string{"standard output": out.String(), "standard error": errOut.String()} {
				if found := obeyed(stream); found != "" {
					t.Errorf("tidings %q %v: %s has %s: %q", args, format, name, found, stream)
				}
				if strings.Contains(stream, `\u001b`) {
					shown++
				}
				if format == nil && strings.Contains(stream, "\nsecond: line") && args[0] != "test" {
					t.Errorf("tidings %q: a text begins a line of its own:\n%s", args, stream)
				}
			}
		}
		for n := range args {
			ran[strings.Join(args[:n+1], " ")] = true
		}
	}
	do("", "endpoint", "list")
	do("", "endpoint", "show", e.ID)
	do("", "endpoint", "show", hostile)
	do("", "endpoint", "add", hostile)
	do(hostile, "endpoint", "add", "https://example.com/", "--secret-stdin")
	do("", "endpoint", "add", "https://example.com/", "--description", strings.ToValidUTF8(hostile, ""), "--types", hostile)
	do("", "endpoint", "set", e.ID, "--rate-per-minute", "10")
	do("", "endpoint", "set", e.ID, "--rate-per-minute", hostile)
	do("", "endpoint", "enable", e.ID)
	do("", "endpoint", "pause", e.ID, "--reason", strings.ToValidUTF8(hostile, ""))
	do("", "endpoint", "resume", e.ID)
	do("", "endpoint", "disable", e.ID, "--reason", strings.ToValidUTF8(hostile, ""))
	do("", "endpoint", "rotate-secret", e.ID)
	do("", "delivery", "list")
	do("", "delivery", "list", "--endpoint", hostile, "--state", hostile)
	do("", "delivery", "show", e.ID, eventID)
	do("", "delivery", "show", hostile, hostile)
	do("", "delivery", "replay", hostile, hostile)
	do("", "circuit", "list")
	do("", "circuit", "close", hostile)
	do("", "capture", "list")
	do("", "capture", "show", failed.ID)
	do("", "capture", "show", hostile)
	do("", "capture", "redrive", failed.ID)
	do("", "capture", "redrive", hostile)
	do("", "capture", "kinds")
	do("", "capture", "verify")
	do("", "capture", "remove", hostile)
	do("", "test", e.ID)
	do("", "test", receiver.URL+"/")
	do("", "test", hostile)
	do("", "test", "https://"+hostile)
	do("", "emit", hostile)
	do("", "emit", "user.joined_community", "--data", `{"community_id":"`+hostile+`"}`)
	do("", "emit", "user.joined_community", "--data", "@"+hostile)
	do("", "event", "list")
	do("", "event", "list", "--subject", hostile, "--type", hostile, "--from", hostile)
	do("", "event", "find", hostile)
	do("", "event", "show", eventID)
	do("", "event", "show", hostile)
	do("", "explain", eventID)
	do("", "explain", eventID, hostile)
	do("", "recover", "--endpoint", e.ID, "--since", "1h", "--dry-run")
	do("", "recover", "--endpoint", hostile, "--since", "1h", "--states", hostile)
	do("", "erase", "--subject", hostile)
	do("", "job", "list")
	do("", "job", "show", job.ID)
	do("", "job", "show", hostile)
	do("", "job", "wait", job.ID)
	do("", "job", "cancel", job.ID)
	do("", "job", "cancel", hostile)
	do("", "type", "list")
	do("", "type", "show", hostile)
	do("", "type", "test", hostile)
	do(hostile, "type", "test", "user.joined_community")
	do("", "type", "apply", hostile)
	do("", "type", "diff", types)
	do("", "type", "apply", types, "--tenant", "acme")
	do("", "type", "list", "--tenant", "acme")
	do("", "type", "tenants")
	do("", "type", "remove", "a.b", "--tenant", "acme", "--yes")
	do("", "type", "list", "--tenant", hostile)
	do("", "type", "apply", types)
	// Rules with hostile texts, and records of a stream.
	rules := filepath.Join(t.TempDir(), "own.yaml")
	file, err := json.Marshal(map[string]any{
		"description": text, "rules": []any{map[string]any{"event": "a.b", "when": `change == "insert"`, "data": map[string]string{text: "new.x", "y": `id(new["` + text[:7] + `"])`}}},
	})
	if err == nil {
		err = os.WriteFile(rules, file, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	record, err := json.Marshal(map[string]any{
		"eventName": "INSERT", "eventID": text, "eventSourceARN": "arn:aws:dynamodb:r:1:table/" + text + "/stream/x",
		"dynamodb": map[string]any{"ApproximateCreationDateTime": 1796040000, "Keys": map[string]any{text: map[string]string{"S": text}}, "NewImage": map[string]any{"x": map[string]string{"S": text}, "hostile": map[string]string{"S": text}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	do("", "capture", "apply", rules)
	do("", "capture", "apply", hostile)
	do("", "capture", "rules")
	do("", "capture", "rules", "own")
	do("", "capture", "rules", hostile)
	do(string(record), "capture", "test", rules, "-", "--types", types)
	do(strings.Replace(string(record), "INSERT", "\\u202e", 1), "capture", "test", rules, "-", "--types", types)
	do(hostile, "capture", "test", rules, "-", "--types", types)
	do("", "capture", "test", hostile, hostile)
	do("", "capture", "remove-rules", hostile)
	do("", "capture", "remove-rules", "own", "--yes")
	do("", "type", "deprecate", hostile)
	do("", "type", "undefined", hostile)
	do("", "type", "remove", hostile, "--yes")
	do("", "status", "--days", "1")
	do("", "alert", "test")
	do("", "doctor")
	do("", "redrive")
	do("", "console", "login", "--as", hostile)
	do("", "console", "login", "--role", hostile)
	do("", "console", "open")
	do("", "console", "revoke")
	do("", "play", "--hours", hostile)
	do("", "smoke", "--receiver-url", hostile, "--receive-time", "1ms", "--health-time", "1ms")
	do("", "load", "--rate", hostile)
	do("", "local", "--receiver-fails", hostile)
	do("", "--tenant", hostile, "endpoint", "list")
	do("", "--stack", hostile, "--no-such-flag"+hostile)
	do("", hostile)
	do("", "endpoint", "remove", e.ID)
	if shown < 20 {
		t.Errorf("only %d of the outputs have the text, so the test proves little", shown)
	}
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		path := strings.TrimPrefix(c.CommandPath(), "tidings ")
		if c.Runnable() && c.HasParent() && !ran[path] && path != "help" && !strings.HasPrefix(path, "completion") {
			t.Errorf("tidings %s is not tested with hostile text", path)
		}
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk((&app{}).command())
}
