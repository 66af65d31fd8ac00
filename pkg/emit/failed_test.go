package emit_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-lambda-go/events"

	emithandler "github.com/tidings-dev/tidings/functions/emit/handler"
	"github.com/tidings-dev/tidings/pkg/emit"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/ops/stats"
	"github.com/tidings-dev/tidings/pkg/platform"
	"github.com/tidings-dev/tidings/pkg/store/memory"
	"github.com/tidings-dev/tidings/test/streamtest"
)

// nameless returns a batch with one comment that cannot become an event: the attribute
// is missing.
func without(t *testing.T, attribute string) events.DynamoDBEvent {
	t.Helper()
	batch := changes(t, comment(1))
	delete(batch.Records[0].Change.NewImage, attribute)
	return batch
}

func failedChanges(t *testing.T, s *memory.Store) []platform.FailedChange {
	t.Helper()
	page, err := s.ListFailedChanges(t.Context(), time.Time{}, 0, "")
	if err != nil {
		t.Fatal(err)
	}
	return page.Changes
}

func counts(t *testing.T, s *memory.Store) stats.Summary {
	t.Helper()
	summary, err := (&stats.Reader{Source: s, Now: time.Now}).Summary(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return summary
}

func TestAChangeThatCannotBecomeAnEventIsKeptOnce(t *testing.T) {
	em, store := newEmitter()
	batch := without(t, "discussion_id")
	for range 3 {
		if failed := capture(t, em, batch); len(failed) != 0 {
			t.Fatalf("the stream has to deliver %v again", failed)
		}
	}
	list := failedChanges(t, store)
	if len(list) != 1 {
		t.Fatalf("%d failed changes are kept", len(list))
	}
	f := list[0]
	if f.Kind != "comment" || f.Operation != platform.Insert || !strings.Contains(f.Key, "COMMENT#m_1") && !strings.Contains(f.Key, "m_1") ||
		!strings.Contains(f.Reason, "discussion_id") || f.Attempts != 1 || f.SequenceNumber == "" || f.At.IsZero() || f.FirstSeen.IsZero() {
		t.Errorf("kept %+v", f)
	}
	if f.Record != nil {
		t.Error("the list has the record")
	}
	whole, err := store.GetFailedChange(t.Context(), f.ID)
	if err != nil || !bytes.Contains(whole.Record, []byte(`"comment_text":{"S":"text 1"}`)) {
		t.Errorf("kept %s, %v", whole.Record, err)
	}
	if c := counts(t, store).Hour; c.CaptureFailed != 1 || c.Captured != 0 {
		t.Errorf("counted %d captured, %d failed; want 0 and 1", c.Captured, c.CaptureFailed)
	}
}

func TestAChangeIsCountedOnceHoweverOftenItIsDelivered(t *testing.T) {
	em, store := newEmitter()
	batch := changes(t, comment(1), comment(2))
	for range 3 {
		capture(t, em, batch)
	}
	if c := counts(t, store).Hour; c.Captured != 2 || c.CaptureFailed != 0 {
		t.Errorf("counted %d captured, %d failed; want 2 and 0", c.Captured, c.CaptureFailed)
	}
}

// unkept cannot keep failed changes.
type unkept struct{ *memory.Store }

func (unkept) KeepFailedChange(context.Context, platform.FailedChange) (bool, error) {
	return false, errors.New("throttled")
}

func TestAFailedChangeThatCannotBeKeptIsDeliveredAgain(t *testing.T) {
	em, store := newEmitter()
	em.Failed = unkept{store}
	batch := without(t, "discussion_id")
	failed := capture(t, em, batch)
	if len(failed) != 1 || failed[0] != batch.Records[0].Change.SequenceNumber {
		t.Fatalf("failures: %v", failed)
	}
	if c := counts(t, store).Hour; c.CaptureFailed != 0 {
		t.Errorf("counted %d failed changes, and none is kept", c.CaptureFailed)
	}
}

func TestAFailedChangeIsCapturedAgainAfterAMend(t *testing.T) {
	em, store := newEmitter()
	batch := changes(t, comment(1))
	read := func(record []byte) (platform.Change, error) { return streamtest.Changes(batch.Records...)[0], nil }
	// Today's rules refuse it.
	broken := without(t, "discussion_id")
	capture(t, em, broken)
	id := failedChanges(t, store)[0].ID
	if _, err := emithandler.Route(em)(t.Context(), fmt.Appendf(nil, `{"action":"recapture","ids":[%q]}`, id)); err != nil {
		t.Fatal(err)
	}
	if again := failedChanges(t, store); len(again) != 1 || again[0].Attempts != 2 {
		t.Fatalf("after another failure: %+v", again)
	}
	// The mended rules do not.
	for i := range 2 {
		results, err := em.Recapture(t.Context(), []string{id}, read)
		if err != nil || len(results) != 1 || results[0].Captured != (i == 0) {
			t.Fatalf("%+v, %v", results, err)
		}
	}
	if left := failedChanges(t, store); len(left) != 0 {
		t.Errorf("left: %+v", left)
	}
	all := stored(t, store)
	if len(all) != 1 {
		t.Fatalf("%d events are stored", len(all))
	}
	if c := counts(t, store).Hour; c.Captured != 1 || c.CaptureFailed != 1 {
		t.Errorf("counted %d captured, %d failed", c.Captured, c.CaptureFailed)
	}
	// The event has the ID that it would have had at first.
	other, otherStore := newEmitter()
	capture(t, other, batch)
	if want := stored(t, otherStore); want[0].ID != all[0].ID {
		t.Errorf("captured again as %s, at first as %s", all[0].ID, want[0].ID)
	}
}

func TestTheKeptRecordIsReadAsItWasDelivered(t *testing.T) {
	batch := changes(t, comment(1), comment(2), comment(3))
	for i, c := range streamtest.Changes(batch.Records...) {
		var r events.DynamoDBEventRecord
		if err := json.Unmarshal(c.Record, &r); err != nil || r.Change.SequenceNumber != batch.Records[i].Change.SequenceNumber {
			t.Errorf("record %d: %s (%v)", i, c.Record, err)
		}
	}
}

func TestAChangeTooLargeToKeepKeepsItsKey(t *testing.T) {
	em, store := newEmitter()
	batch := without(t, "discussion_id")
	batch.Records[0].Change.NewImage["comment_text"] = events.NewStringAttribute(strings.Repeat("x", platform.MaxKeptRecord))
	capture(t, em, batch)
	f := failedChanges(t, store)[0]
	if f.Kept() || f.RecordBytes <= platform.MaxKeptRecord || f.Key == "" {
		t.Errorf("kept %+v", f)
	}
	results, err := em.Recapture(t.Context(), []string{f.ID}, nil)
	if err != nil || results[0].Captured || !strings.Contains(results[0].Error, "too large") {
		t.Errorf("%+v, %v", results, err)
	}
}

func TestChangesOfUnknownKindsAreCountedByKind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // not at the edge of a bucket
		em, store := newEmitter()
		var log bytes.Buffer
		em.Log = slog.New(slog.NewJSONHandler(&log, nil))
		var batch events.DynamoDBEvent
		for i := range 30 {
			kind := fmt.Sprint("kind ", i)
			if i < 3 {
				kind = "User"
			}
			one := changes(t, comment(i))
			one.Records[0].Change.NewImage["kind"] = events.NewStringAttribute(kind)
			batch.Records = append(batch.Records, one.Records...)
		}
		bare := changes(t, comment(99))
		delete(bare.Records[0].Change.NewImage, "kind")
		batch.Records = append(batch.Records, bare.Records...)
		if failed := capture(t, em, batch); len(failed) != 0 {
			t.Fatal(failed)
		}
		kinds := counts(t, store).UnknownKinds
		var sum int64
		for n := range maps.Values(kinds) {
			sum += n
		}
		if kinds["User"] != 3 || sum != 31 || len(kinds) != 21 || kinds["(other)"] == 0 {
			t.Errorf("counted %v", kinds)
		}
		// The bound holds over batches, because their counts are in one item.
		for i := range 5 {
			one := changes(t, comment(i))
			one.Records[0].Change.NewImage["kind"] = events.NewStringAttribute(fmt.Sprint("another kind ", i))
			capture(t, em, one)
		}
		if kinds := counts(t, store).UnknownKinds; len(kinds) != 21 {
			t.Errorf("counted %v", kinds)
		}
		if !strings.Contains(log.String(), `"User":3`) {
			t.Errorf("log: %s", log.String())
		}
		if len(failedChanges(t, store)) != 0 {
			t.Error("a change of an unknown kind is kept as failed")
		}
	})
}

// The mark begins with the first failure, survives others, and ends when the change is
// captured.
func TestCaptureIsMarkedAsStuckUntilItProceeds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		events, marks := &away{fails: "text 2", seen: map[string]bool{}}, memory.New(time.Now)
		em := emitterOn(events, marks)
		batch := changes(t, comment(1), comment(2), comment(3))
		began := time.Now()
		for range 20 {
			if failed := capture(t, em, batch); len(failed) != 1 {
				t.Fatalf("failures: %v", failed)
			}
			time.Sleep(time.Minute)
		}
		// Another shard of the stream proceeds.
		capture(t, em, changes(t, comment(7)))
		mark, err := marks.ReadStuckCapture(t.Context())
		if err != nil || !mark.Since.Equal(began) || time.Since(mark.FailedAt) != time.Minute || mark.SequenceNumber != batch.Records[1].Change.SequenceNumber {
			t.Errorf("marked %+v, %v", mark, err)
		}
		events.fails = ""
		capture(t, em, batch)
		if mark, err := marks.ReadStuckCapture(t.Context()); err != nil || mark != (platform.StuckCapture{}) {
			t.Errorf("marked %+v, %v, although capture proceeds", mark, err)
		}
		if c := counts(t, marks).Day; c.Captured != 4 {
			t.Errorf("counted %d captured changes, want 4", c.Captured)
		}
	})
}

func TestRecaptureIsACommandOfDirectInvocations(t *testing.T) {
	em, _ := newEmitter()
	call := emithandler.Route(em)
	for payload, want := range map[string]string{
		`{"action":"recapture","ids":[]}`:                      "1 to 100",
		`{"action":"recapture"}`:                               "1 to 100",
		`{"action":"explode"}`:                                 "unknown",
		`{"action":"recapture","ids":5}`:                       "command",
		`{"event":"user.joined_platform","data":{"action":1}}`: "user_id",
	} {
		var refused *emit.Error
		if _, err := call(t.Context(), []byte(payload)); !errors.As(err, &refused) || !strings.Contains(refused.Message, want) {
			t.Errorf("%s: %v, want %q", payload, err, want)
		}
	}
	missing := event.NewID(time.Now())
	answer, err := call(t.Context(), fmt.Appendf(nil, `{"action":"recapture","ids":[%q]}`, missing))
	text, _ := json.Marshal(answer)
	if err != nil || !slices.Equal(text, fmt.Appendf(nil, `{"results":[{"id":%q,"captured":false,"events":0,"error":%q}]}`, missing, platform.ErrNoFailedChange)) {
		t.Errorf("%s, %v", text, err)
	}
}
