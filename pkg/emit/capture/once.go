package capture

import (
	"crypto/sha256"
	"fmt"
	"time"

	"github.com/tidings-dev/tidings/pkg/event"
)

// JoinWindow is how far apart two records of one join can be: a platform can write a
// membership in the user's partition and in the community's, and both are in the
// stream. Two joins of one user and one community within it are one event.
const JoinWindow = time.Minute

// onceDigest marks reservations of captured events, so that a producer's key that
// happens to be the same is not taken for one.
const onceDigest = "captured"

// Once returns the event with the keys by which it is recognised if another record states
// the same fact within JoinWindow. The parts identify the fact.
func (c Captured) Once(parts ...string) Captured {
	c.OnceKeys = onceKeys(c.Event.Type, c.recorded, parts...)
	return c
}

// onceKeys are the idempotency keys of a fact. Time is divided into buckets of
// JoinWindow, and each bucket has a key that it shares with the one before it. A record
// reserves the two keys of its bucket, in order of time. Two records within JoinWindow
// are in one bucket or in two neighbours, so they share a key, and the first
// to reserve it decides.
//
// The buckets are of the records' own times. Neither the order in which shards are read
// nor how late they are read changes the result.
func onceKeys(eventType string, at time.Time, parts ...string) []string {
	bucket := at.Unix() / int64(JoinWindow/time.Second)
	var fact []byte
	for n, part := range parts {
		if n < len(parts)-1 {
			fact = fmt.Appendf(fact, "%d %s ", len(part), part)
		} else {
			fact = append(fact, part...)
		}
	}
	who := sha256.Sum256(fact)
	return []string{
		fmt.Sprintf("captured/%s/%x/%d", eventType, who[:16], bucket),
		fmt.Sprintf("captured/%s/%x/%d", eventType, who[:16], bucket+1),
	}
}

// Reservation is what a captured event reserves its keys with.
func (c Captured) Reservation() event.Reservation {
	return event.Reservation{EventID: c.Event.ID, Digest: onceDigest}
}

// IsSame reports whether the event that holds one of the keys is this one, captured
// from another record: both were recorded within JoinWindow.
func (c Captured) IsSame(holds event.Reservation) bool {
	at, err := event.IDTime(holds.EventID)
	return err == nil && holds.Digest == onceDigest && at.Sub(c.recorded).Abs() <= JoinWindow
}
