package rules_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tidings-dev/tidings/pkg/emit/capture/rules"
	"github.com/tidings-dev/tidings/pkg/platform"
	"github.com/tidings-dev/tidings/pkg/store/dynamoitem"
)

// testdata/changes.jsonl has 400 changes, most of them with an attribute or two that are
// missing or odd, and the events that the Go code before the rules gave: with their IDs, so
// that an event that was captured before an upgrade is recognised after it.
func TestTheShippedRulesGiveTheEventsOfEarlierVersions(t *testing.T) {
	file, err := os.Open("testdata/changes.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	type captured struct {
		Tenant    string          `json:"tenant"`
		ID        string          `json:"id"`
		Type      string          `json:"type"`
		Timestamp time.Time       `json:"timestamp"`
		Actor     string          `json:"actor_user_id"`
		RequestID string          `json:"request_id"`
		Data      json.RawMessage `json:"data"`
		OnceKeys  []string        `json:"once_keys,omitempty"`
	}
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 1<<20)
	n, given := 0, 0
	for ; lines.Scan(); n++ {
		var c struct {
			Record json.RawMessage `json:"record"`
			Events json.RawMessage `json:"events"`
			Failed bool            `json:"failed"`
		}
		if err := json.Unmarshal(lines.Bytes(), &c); err != nil {
			t.Fatal(err)
		}
		change, err := dynamoitem.ReadChange(c.Record)
		if err != nil {
			t.Fatal(err)
		}
		events, err := rules.Shipped().Events(change)
		if (err != nil) != c.Failed {
			t.Errorf("change %d: %v, failed before: %v", n+1, err, c.Failed)
		}
		var got []captured
		for _, one := range events {
			e := one.Event
			got = append(got, captured{one.Tenant, e.ID, e.Type, e.Timestamp, e.ActorUserID, e.RequestID, e.Data, one.OnceKeys})
		}
		given += len(got)
		text, err := json.Marshal(got)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(c.Events), string(text)); diff != "" {
			t.Errorf("change %d gives (-before +now):\n%s", n+1, diff)
		}
	}
	if err := lines.Err(); err != nil || n != 400 || given < 300 {
		t.Errorf("%d changes give %d events (%v)", n, given, err)
	}
}

// BenchmarkEvents applies the shipped rules to the changes of testdata, each of which most
// of the rules are not for.
func BenchmarkEvents(b *testing.B) {
	text, err := os.ReadFile("testdata/changes.jsonl")
	if err != nil {
		b.Fatal(err)
	}
	var changes []platform.Change
	for line := range bytes.Lines(text) {
		var c struct {
			Record json.RawMessage `json:"record"`
		}
		if err := json.Unmarshal(line, &c); err != nil {
			b.Fatal(err)
		}
		change, err := dynamoitem.ReadChange(c.Record)
		if err != nil {
			b.Fatal(err)
		}
		changes = append(changes, change)
	}
	set := rules.Shipped()
	b.ReportAllocs()
	for n := 0; b.Loop(); n++ {
		_, _ = set.Events(changes[n%len(changes)])
	}
}

// BenchmarkParse compiles the shipped rules, as emit does when it captures its first batch.
func BenchmarkParse(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := rules.Parse(rules.ShippedFile, rules.ShippedText()); err != nil {
			b.Fatal(err)
		}
	}
}
