package emit_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/events"

	"github.com/tidings-dev/tidings/pkg/emit"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/platform"
	"github.com/tidings-dev/tidings/pkg/store/dynamoitem"
	"github.com/tidings-dev/tidings/test/streamtest"
)

// minute is the beginning of one of the buckets of time by which joins are compared.
var minute = time.Date(2026, 1, 29, 12, 34, 0, 0, time.UTC)

// joinAt is the change that inserts a membership, in the user's partition or in the
// community's.
func joinAt(at time.Time, inCommunity bool) platform.Change {
	m := platform.Membership{UserID: "u", CommunityID: "c"}
	if inCommunity {
		m.AddedBy = "o"
	}
	return insertion(m, at)
}

func insertion(r platform.Record, at time.Time) platform.Change {
	key := r.Key()
	return streamtest.Changes(events.DynamoDBEventRecord{
		EventID: key.PK + key.SK + at.String(), EventName: "INSERT", EventSourceArn: "stream",
		Change: events.DynamoDBStreamRecord{
			ApproximateCreationDateTime: events.SecondsEpochTime{Time: at}, SequenceNumber: fmt.Sprint(at.UnixNano(), key),
			Keys: dynamoitem.Image(dynamoitem.PlatformKey(key)), NewImage: dynamoitem.Image(dynamoitem.EncodeRecord(r)),
		},
	})[0]
}

// interrupting runs a function before a reservation.
type interrupting struct {
	emit.Keys
	before int // reservations until the function runs
	run    func()
}

func (i *interrupting) ReserveKey(ctx context.Context, tenant, key string, r event.Reservation, expires time.Time) (event.Reservation, error) {
	if i.before--; i.before == -1 {
		i.run()
	}
	return i.Keys.ReserveKey(ctx, tenant, key, r, expires)
}

// A join that is written in both places is one event if the writes are at most a minute
// apart: wherever in the minute they are, in whichever order they are read, and also if
// one is read while the other one is being stored.
func TestAJoinWrittenTwiceIsOneEvent(t *testing.T) {
	if testing.Short() {
		t.Skip("runs many schedules")
	}
	for apart := range 125 {
		for _, second := range []int{0, 1, 29, 30, 58, 59} {
			a := joinAt(minute.Add(time.Duration(second)*time.Second), false)
			b := joinAt(minute.Add(time.Duration(second+apart)*time.Second), true)
			want := 1
			if apart > 60 {
				want = 2
			}
			for _, order := range [][2]platform.Change{{a, b}, {b, a}} {
				for reservations := range 3 {
					em, store := newEmitter()
					em.Keys = &interrupting{Keys: store, before: reservations, run: func() {
						capturing(t, emitterOn(store, store), order[1])
					}}
					capturing(t, em, order[0])
					capturing(t, em, order[1]) // a duplicate, unless it was not yet captured
					capturing(t, em, order[0])
					if got := len(stored(t, store)); got != want {
						t.Fatalf("from second %d, %d s apart, read after %d reservations: %d events, want %d", second, apart, reservations, got, want)
					}
				}
			}
		}
	}
}

func capturing(t *testing.T, em *emit.Emitter, batch ...platform.Change) {
	t.Helper()
	if failed := em.Capture(t.Context(), batch); len(failed) != 0 {
		t.Errorf("failures: %v", failed)
	}
}

// If a batch has both records, the event names who added the member, in whichever order
// they are. A failure of one of them is reported from the first record on.
func TestAJoinInOneBatchNamesTheOrganiser(t *testing.T) {
	self, added := joinAt(minute, false), joinAt(minute.Add(time.Second), true)
	for range 20 {
		for _, batch := range [][]platform.Change{{self, added}, {added, self}} {
			em, store := newEmitter()
			capturing(t, em, batch...)
			all := stored(t, store)
			if len(all) != 1 {
				t.Fatalf("%d events", len(all))
			}
			if e, err := event.Decode(all[0].Body); err != nil || string(e.Data) != `{"community_id":"c","added_by":"o"}` {
				t.Fatalf("%s, %v", all[0].Body, err)
			}
			for at := range 4 {
				em, store = newEmitter()
				em.Keys = &failing{Keys: store, at: at}
				if failed := em.Capture(t.Context(), batch); len(failed) != 1 || at < 2 && failed[0] != batch[0].SequenceNumber {
					t.Fatalf("reservation %d fails: %v", at, failed)
				}
				capturing(t, em, batch...)
				if got := len(stored(t, store)); got != 1 {
					t.Fatalf("reservation %d fails: %d events", at, got)
				}
			}
		}
	}
}

// Two shards read the two records at the same time.
func TestShardsAgreeOnAJoin(t *testing.T) {
	for n := range 200 {
		em, store := newEmitter()
		at := minute.Add(time.Duration(n%60) * time.Second)
		var shards sync.WaitGroup
		for _, change := range []platform.Change{joinAt(at, false), joinAt(at.Add(30*time.Second), true)} {
			for range 2 { // delivered twice, too
				shards.Go(func() { em.Capture(context.Background(), []platform.Change{change}) })
			}
		}
		shards.Wait()
		if got := len(stored(t, store)); got != 1 {
			t.Fatalf("%d events", got)
		}
	}
}

// A later join of the same user is another event, also if the first one's records are
// delivered again afterwards. So is that of another user, community or tenant.
func TestLaterAndOtherJoinsAreEvents(t *testing.T) {
	em, store := newEmitter()
	var all []platform.Change
	for hour := range 5 {
		at := minute.Add(time.Duration(hour) * time.Hour)
		all = append(all, joinAt(at, false), joinAt(at.Add(59*time.Second), true))
	}
	for _, m := range []platform.Membership{
		{UserID: "u2", CommunityID: "c"}, {UserID: "u", CommunityID: "c2"}, {UserID: "u c", CommunityID: "c"}, {UserID: "u", CommunityID: "c c"},
		{UserID: "u", CommunityID: "c", Common: platform.Common{Tenant: "acme"}},
	} {
		all = append(all, insertion(m, minute.Add(time.Second)))
	}
	for seed := range uint64(20) {
		shuffled := slices.Clone(all)
		rand.New(rand.NewPCG(seed, 1)).Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		for _, change := range shuffled {
			capturing(t, em, change)
		}
		if got := len(stored(t, store)); got != len(all)-5 {
			t.Fatalf("seed %d: %d events, want %d", seed, got, len(all)-5)
		}
	}
}

// The keys are looked up before the event is stored. If they cannot be, the stream
// delivers the record again, and the second time gives the same event.
func TestAJoinWhoseKeysCannotBeReservedIsRetried(t *testing.T) {
	for fails := range 2 {
		em, store := newEmitter()
		keys := &failing{Keys: store, at: fails}
		em.Keys = keys
		change := joinAt(minute, false)
		if failed := em.Capture(t.Context(), []platform.Change{change}); len(failed) != 1 || len(stored(t, store)) != 0 {
			t.Errorf("failures: %v", failed)
		}
		capturing(t, em, change)
		capturing(t, em, joinAt(minute.Add(time.Minute), true))
		if got := len(stored(t, store)); got != 1 {
			t.Errorf("%d events", got)
		}
	}
}

// failing fails one reservation.
type failing struct {
	emit.Keys
	at int
}

func (f *failing) ReserveKey(ctx context.Context, tenant, key string, r event.Reservation, expires time.Time) (event.Reservation, error) {
	if f.at--; f.at == -1 {
		return r, context.DeadlineExceeded
	}
	return f.Keys.ReserveKey(ctx, tenant, key, r, expires)
}

// A producer's key that happens to be the same does not swallow a join.
func TestAProducersKeyIsNotTakenForAJoin(t *testing.T) {
	em, store := newEmitter()
	seen := &recording{Keys: store}
	em.Keys = seen
	capturing(t, em, joinAt(minute, false))
	if len(seen.keys) != 2 {
		t.Fatalf("keys: %v", seen.keys)
	}
	em, store = newEmitter()
	for _, key := range seen.keys {
		if len(key) > 256 {
			t.Errorf("a key of %d bytes", len(key))
		}
		if r := em.Emit(t.Context(), emit.Request{Event: "user.joined_community", Data: []byte(`{"community_id":"c"}`), IdempotencyKey: key}); r.Error != nil {
			t.Fatal(r.Error)
		}
	}
	capturing(t, em, joinAt(minute, false))
	if got := len(stored(t, store)); got != 3 {
		t.Errorf("%d events", got)
	}
}

// recording records the keys.
type recording struct {
	emit.Keys
	keys []string
}

func (r *recording) ReserveKey(ctx context.Context, tenant, key string, e event.Reservation, expires time.Time) (event.Reservation, error) {
	r.keys = append(r.keys, key)
	return r.Keys.ReserveKey(ctx, tenant, key, e, expires)
}
