package dynamoitem

import (
	"strings"
	"time"

	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/platform"
)

// FailedChanges is the partition of the failed changes. They are in Deliveries, whose sort
// key orders them by time and whose TTL deletes them, under an id that no endpoint can
// have. One partition accepts about 1,000 small changes per second; beyond that, the
// stream waits. The items contain data of the platform's users, as those of Events do.
const FailedChanges = "capture-failed"

// FailedChangeKey is the key of a failed change.
func FailedChangeKey(id string) Item { return Item{EndpointID: S(FailedChanges), EventID: S(id)} }

// failedRecord is the stream's record of a failed change.
const failedRecord = "record"

// FailedChangeAttributes are the attributes of a failed change without its record.
var FailedChangeAttributes = []string{
	EventID, Tenant, "item_key", Kind, "operation", EventType, Reason, "stream", "sequence_number", "at", "first_seen", "last_tried", Attempts, "record_bytes", RetentionDays,
}

// EncodeFailedChange returns the item of a failed change.
func EncodeFailedChange(f platform.FailedChange) Item {
	item := FailedChangeKey(f.ID)
	item[Attempts], item["record_bytes"] = N(int64(f.Attempts)), N(int64(f.RecordBytes))
	item[ExpiresAt] = Seconds(f.FirstSeen.Add(event.Retention(f.RetentionDays)))
	if f.RetentionDays > 0 {
		item[RetentionDays] = N(int64(f.RetentionDays))
	}
	for name, text := range map[string]string{
		Tenant: f.Tenant, "item_key": f.Key, Kind: f.Kind, "operation": string(f.Operation), EventType: f.EventType, Reason: f.Reason,
		"stream": f.Stream, "sequence_number": f.SequenceNumber, failedRecord: string(f.Record),
	} {
		put(item, name, strings.ToValidUTF8(text, "\uFFFD"))
	}
	for name, t := range map[string]time.Time{"at": f.At, "first_seen": f.FirstSeen, "last_tried": f.LastTried} {
		putTime(item, name, t)
	}
	return item
}

// DecodeFailedChange reads what EncodeFailedChange wrote, with or without the record.
func DecodeFailedChange(item Item) (platform.FailedChange, error) {
	r := reader{item: item}
	r.must(EventID, Reason, Attempts)
	f := platform.FailedChange{
		ID: r.s(EventID), Tenant: r.s(Tenant), Key: r.s("item_key"), Kind: r.s(Kind), Operation: platform.Operation(r.s("operation")),
		EventType: r.s(EventType), Reason: r.s(Reason), Stream: r.s("stream"), SequenceNumber: r.s("sequence_number"),
		At: r.millis("at"), FirstSeen: r.millis("first_seen"), LastTried: r.millis("last_tried"),
		Attempts: int(r.n(Attempts)), RecordBytes: int(r.n("record_bytes")), RetentionDays: int(r.n(RetentionDays)),
	}
	if record := r.s(failedRecord); record != "" {
		f.Record = []byte(record)
	}
	return f, r.err
}

// StuckCaptureKey is the Control key of the mark that capture is stuck.
const StuckCaptureKey = "capture#stuck"

// EncodeStuckCapture returns the item of the mark. It expires a day after its last write,
// as the stream's records do.
func EncodeStuckCapture(s platform.StuckCapture) Item {
	item := Item{Key: S(StuckCaptureKey), Since: Millis(s.Since), "failed_at": Millis(s.FailedAt), ExpiresAt: Seconds(s.FailedAt.Add(24 * time.Hour))}
	put(item, "sequence_number", s.SequenceNumber)
	putTime(item, "change_at", s.ChangeAt)
	return item
}

// DecodeStuckCapture reads what EncodeStuckCapture wrote.
func DecodeStuckCapture(item Item) (platform.StuckCapture, error) {
	r := reader{item: item}
	r.must(Since, "failed_at")
	return platform.StuckCapture{
		Since: r.millis(Since), FailedAt: r.millis("failed_at"), ChangeAt: r.millis("change_at"), SequenceNumber: r.s("sequence_number"),
	}, r.err
}
