package emit_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/events"

	"github.com/tidings-dev/tidings/pkg/emit"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/platform"
	"github.com/tidings-dev/tidings/pkg/store/dynamoitem"
	"github.com/tidings-dev/tidings/pkg/store/memory"
	"github.com/tidings-dev/tidings/test/streamtest"
)

// changes writes records to the platform's table and returns its stream.
func changes(t *testing.T, records ...platform.Record) events.DynamoDBEvent {
	t.Helper()
	s := memory.New(time.Now)
	for _, r := range records {
		if err := s.PutRecord(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	list, err := s.Records(t.Context(), dynamoitem.Platform, "", 100_000)
	if err != nil {
		t.Fatal(err)
	}
	return events.DynamoDBEvent{Records: list}
}

func comment(n int) platform.Comment {
	return platform.Comment{ID: fmt.Sprint("m_", n), DiscussionID: "d", UserID: "u", Text: fmt.Sprint("text ", n)}
}

func capture(t *testing.T, em *emit.Emitter, batch events.DynamoDBEvent) []string {
	t.Helper()
	return em.Capture(t.Context(), streamtest.Changes(batch.Records...))
}

func TestChangesAreCapturedOnce(t *testing.T) {
	em, store := newEmitter()
	batch := changes(t, comment(1), comment(2), comment(3))
	for range 2 {
		if answer := capture(t, em, batch); len(answer) != 0 {
			t.Errorf("failures: %+v", answer)
		}
	}
	all := stored(t, store)
	if len(all) != 3 {
		t.Fatalf("%d events are stored", len(all))
	}
	for _, a := range all {
		e, err := event.Decode(a.Body)
		if err != nil || e.ID != a.ID || e.Type != "user.posted_comment" || e.ActorUserID != "u" || e.IdempotencyKey != a.ID || a.Tenant != "default" {
			t.Errorf("stored %s, %v", a.Body, err)
		}
	}
}

// A record that cannot be read, or whose event is invalid, is logged and counted, and
// the records after it are captured.
func TestAMalformedRecordDoesNotBlockTheStream(t *testing.T) {
	em, store := newEmitter()
	var log bytes.Buffer
	em.Log = slog.New(slog.NewJSONHandler(&log, nil))
	private := platform.User{Common: platform.Common{Tenant: "private, no tenant"}, ID: "u_1", Name: "private"}
	huge := comment(2)
	huge.ID = strings.Repeat("m", 300)
	stranger := comment(3)
	stranger.Tenant = "no/tenant"
	batch := changes(t, comment(1), private, huge, stranger, comment(4))
	broken := batch.Records[1]
	broken.Change.NewImage = map[string]events.DynamoDBAttributeValue{"kind": events.NewStringAttribute("comment"), "comment_text": events.NewStringAttribute("private")}
	broken.Change.Keys = map[string]events.DynamoDBAttributeValue{"id": events.NewNumberAttribute("7")}
	batch.Records = append(batch.Records, broken)
	if answer := capture(t, em, batch); len(answer) != 0 {
		t.Errorf("failures: %+v", answer)
	}
	if all := stored(t, store); len(all) != 2 {
		t.Errorf("%d events are stored, want 2", len(all))
	}
	text := log.String()
	if strings.Count(text, "capture.malformed_record") != 4 || !strings.Contains(text, `"malformed":4`) || !strings.Contains(text, `USER#u_1`) {
		t.Errorf("log:\n%s", text)
	}
	if strings.Contains(text, "private") {
		t.Errorf("the log holds somebody's data:\n%s", text)
	}
}

// away fails to store some events, and records the order of the others.
type away struct {
	mu    sync.Mutex
	fails string
	put   []string
	seen  map[string]bool
}

func (a *away) PutEvent(_ context.Context, e event.Accepted) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.fails != "" && strings.Contains(string(e.Body), a.fails) {
		return errors.New("throttled")
	}
	if a.seen[e.ID] {
		return event.ErrExists
	}
	a.seen[e.ID] = true
	a.put = append(a.put, string(e.Body))
	return nil
}

func TestAFailedRecordIsReportedByItsSequenceNumber(t *testing.T) {
	store := &away{fails: "text 3", seen: map[string]bool{}}
	em := emitterOn(store, memory.New(time.Now))
	batch := changes(t, comment(1), comment(2), comment(3), comment(4))
	answer := capture(t, em, batch)
	if len(answer) != 1 || answer[0] != batch.Records[2].Change.SequenceNumber {
		t.Fatalf("failures: %+v", answer)
	}
	// The stream replays from there.
	store.fails = ""
	batch.Records = batch.Records[2:]
	if answer := capture(t, em, batch); len(answer) != 0 || len(store.put) != 4 {
		t.Errorf("replayed: %+v, %d events", answer, len(store.put))
	}
}

// Different items are stored concurrently.
func TestEventsOfOneItemKeepTheirOrder(t *testing.T) {
	store := &away{seen: map[string]bool{}}
	em := emitterOn(store, memory.New(time.Now))
	var records []platform.Record
	for i := range 40 {
		for _, status := range []platform.RegistrationStatus{platform.Pending, platform.Failed, platform.Success} {
			records = append(records, platform.Registration{ID: fmt.Sprint("r_", i), EventID: "e", UserID: "u", PaymentID: "p", Status: status})
		}
	}
	if answer := capture(t, em, changes(t, records...)); len(answer) != 0 {
		t.Fatalf("failures: %+v", answer)
	}
	order := map[string][]string{}
	for _, body := range store.put {
		e, err := event.Decode([]byte(body))
		if err != nil {
			t.Fatal(err)
		}
		var data struct {
			RegistrationID string `json:"registration_id"`
			Status         string
		}
		if err := json.Unmarshal(e.Data, &data); err != nil {
			t.Fatal(err)
		}
		order[data.RegistrationID] = append(order[data.RegistrationID], data.Status)
	}
	for id, statuses := range order {
		if !slices.Equal(statuses, []string{"pending", "failed", "success"}) {
			t.Errorf("%s: %v", id, statuses)
		}
	}
	if len(order) != 40 {
		t.Errorf("%d registrations", len(order))
	}
}
