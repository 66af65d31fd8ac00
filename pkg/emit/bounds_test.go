package emit_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-lambda-go/events"

	"github.com/tidings-dev/tidings/pkg/emit"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/platform"
	"github.com/tidings-dev/tidings/pkg/store/dynamoitem"
	"github.com/tidings-dev/tidings/pkg/store/memory"
	"github.com/tidings-dev/tidings/test/streamtest"
)

// What is exactly at a limit is accepted, and one more is refused.
func TestLimitsAreInclusive(t *testing.T) {
	joinedWith := func(field string, n int) string {
		return fmt.Sprintf(`{"event":"user.joined_community",%q:%q,"data":{"community_id":"c"}}`, field, strings.Repeat("k", n))
	}
	list := func(n int, more string) string {
		return `{"events":[` + strings.Repeat(joined+",", n-1) + joined + `]` + more + `}`
	}
	for name, c := range map[string]struct {
		at, over string
		refused  emit.Error // what is over; only Code and Field are compared
	}{
		"actor":           {joinedWith("actor_user_id", 256), joinedWith("actor_user_id", 257), emit.Error{Code: emit.InvalidField, Field: "actor_user_id"}},
		"request id":      {joinedWith("request_id", 256), joinedWith("request_id", 257), emit.Error{Code: emit.InvalidField, Field: "request_id"}},
		"idempotency key": {joinedWith("idempotency_key", 256), joinedWith("idempotency_key", 257), emit.Error{Code: emit.InvalidField, Field: "idempotency_key"}},
		"list":            {list(emit.MaxList, ""), list(emit.MaxList+1, ""), emit.Error{Code: emit.TooMany, Field: "events"}},
	} {
		em, _ := newEmitter()
		if _, err := em.Invoke(t.Context(), []byte(c.at)); err != nil {
			t.Errorf("%s: at the limit: %v", name, err)
		}
		var refused *emit.Error
		if _, err := em.Invoke(t.Context(), []byte(c.over)); !errors.As(err, &refused) || refused.Code != c.refused.Code || refused.Field != c.refused.Field {
			t.Errorf("%s: over the limit: %v", name, err)
		}
	}
	// A list at the limit is refused for its error, not for its length.
	em, _ := newEmitter()
	var refused *emit.Error
	if _, err := em.Invoke(t.Context(), []byte(list(emit.MaxList, `,"x":1`))); !errors.As(err, &refused) || refused.Field != "x" {
		t.Errorf("a list at the limit with an unknown field: %v", err)
	}
	// A name at the limit is repeated in whole; a longer one is cut, and says so.
	for n, want := range map[int]string{256: strings.Repeat("n", 256), 257: strings.Repeat("n", 256) + "…"} {
		if _, err := em.Invoke(t.Context(), fmt.Appendf(nil, `{%q:1}`, strings.Repeat("n", n))); !errors.As(err, &refused) || refused.Field != want {
			t.Errorf("an unknown field with a name of %d bytes: %v", n, err)
		}
	}
}

func TestSpaceAroundThePayloadDoesNotCount(t *testing.T) {
	for _, payload := range []string{joined, `[` + joined + `]`, `{"events":[` + joined + `]}`} {
		em, store := newEmitter()
		if _, err := em.Invoke(t.Context(), []byte("\r\n\t "+payload+" \n")); err != nil || len(stored(t, store)) != 1 {
			t.Errorf("%s: %v, %d events are stored", payload, err, len(stored(t, store)))
		}
	}
}

func TestOnlyPostIsAllowed(t *testing.T) {
	em, store := newEmitter()
	for _, method := range []string{http.MethodGet, http.MethodPut, http.MethodDelete} {
		w := httptest.NewRecorder()
		em.ServeHTTP(w, httptest.NewRequest(method, "/", strings.NewReader(joined)))
		if w.Code != http.StatusMethodNotAllowed || w.Result().Header.Get("Allow") != http.MethodPost {
			t.Errorf("%s: %d, Allow: %q", method, w.Code, w.Result().Header.Get("Allow"))
		}
	}
	if n := len(stored(t, store)); n != 0 {
		t.Errorf("%d events are stored", n)
	}
}

// The header Content-Length is the client's, and must not decide how much is allocated.
func TestAContentLengthAllocatesNothing(t *testing.T) {
	em, _ := newEmitter()
	r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(joined))
	r.ContentLength = 1 << 50
	w := httptest.NewRecorder()
	em.ServeHTTP(w, r)
	if w.Code != http.StatusAccepted {
		t.Errorf("status %d: %s", w.Code, w.Body)
	}
}

func TestAKeyThatCannotBeReservedStoresNothing(t *testing.T) {
	em, store := newEmitter()
	em.Keys = &failing{Keys: store}
	r := emit.Request{Event: "user.joined_community", Data: []byte(`{"community_id":"c"}`), IdempotencyKey: "k"}
	if got := em.Emit(t.Context(), r); got.Error == nil || got.Error.Code != emit.Unavailable || got.ID != "" {
		t.Errorf("got %+v", got)
	}
	if n := len(stored(t, store)); n != 0 {
		t.Errorf("%d events are stored", n)
	}
}

// counting counts the writes that are under way at the same time.
type counting struct {
	emit.Events
	mu        sync.Mutex
	now, most int
}

func (c *counting) add(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now += n
	c.most = max(c.most, c.now)
}

func (c *counting) PutEvent(ctx context.Context, e event.Accepted) error {
	c.add(1)
	defer c.add(-1)
	time.Sleep(time.Second)
	return c.Events.PutEvent(ctx, e)
}

// Changes of different items are stored sixteen at a time.
func TestCaptureWritesSixteenAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.New(time.Now)
		counts := &counting{Events: store}
		var batch []platform.Record
		for i := range 40 {
			batch = append(batch, comment(i))
		}
		if failed := capture(t, emitterOn(counts, store), changes(t, batch...)); len(failed) != 0 {
			t.Fatalf("failures: %v", failed)
		}
		if counts.most != 16 {
			t.Errorf("%d writes at the same time", counts.most)
		}
	})
}

func TestAFailedChangeNamesItsTenantAndEventType(t *testing.T) {
	for name, c := range map[string]struct {
		change       func(*platform.Comment)
		tenant, kind string
	}{
		"an event that the catalog refuses": {func(c *platform.Comment) { c.ID, c.Tenant = strings.Repeat("m", 300), "acme" }, "acme", "user.posted_comment"},
		"a tenant that cannot be one":       {func(c *platform.Comment) { c.Tenant = "no/tenant" }, "", "user.posted_comment"},
	} {
		em, store := newEmitter()
		one := comment(1)
		c.change(&one)
		capture(t, em, changes(t, one))
		list := failedChanges(t, store)
		if len(list) != 1 || list[0].Tenant != c.tenant || list[0].EventType != c.kind {
			t.Errorf("%s: kept %+v", name, list)
		}
	}
}

// tracer records the subsegments that end.
type tracer struct {
	mu   sync.Mutex
	ends []string
}

func (r *tracer) Begin(name, header string) (string, func(string, map[string]any)) {
	return header, func(mark string, _ map[string]any) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.ends = append(r.ends, name+": "+mark)
	}
}

// A stored event that is captured again is no fault; one that cannot be stored is.
func TestCapturedEventsAreTraced(t *testing.T) {
	const header = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1"
	ctx := context.WithValue(t.Context(), "x-amzn-trace-id", header) //nolint:staticcheck // SA1029: the key is the Lambda runtime's
	puts := &away{seen: map[string]bool{}}
	em := emitterOn(puts, memory.New(time.Now))
	traced := &tracer{}
	em.Tracer = traced
	batch := streamtest.Changes(changes(t, comment(1)).Records...)
	em.Capture(ctx, batch)
	em.Capture(ctx, batch)
	puts.fails = "text 1"
	em.Capture(ctx, batch)
	if want := []string{"capture event: ", "capture event: ", "capture event: fault"}; !slices.Equal(traced.ends, want) {
		t.Errorf("subsegments: %q, want %q", traced.ends, want)
	}
	if len(puts.put) != 1 || !strings.Contains(puts.put[0], `"trace_id":"1-5759e988-bd862e3fe1be46a994272793"`) {
		t.Errorf("stored %s", puts.put)
	}
}

// The first record of a join reserves the id of the event and is lost before it stores it.
// The second one stores the event under that id, which is in its body too.
func TestAJoinWhoseFirstRecordWasLostHasTheReservedID(t *testing.T) {
	puts, keys := &away{fails: "community_id", seen: map[string]bool{}}, memory.New(time.Now)
	em := emitterOn(puts, keys)
	if failed := em.Capture(t.Context(), []platform.Change{joinAt(minute, false)}); len(failed) != 1 {
		t.Fatalf("failures: %v", failed)
	}
	puts.fails = ""
	capturing(t, em, joinAt(minute.Add(time.Second), true))
	if len(puts.put) != 1 || len(puts.seen) != 1 {
		t.Fatalf("stored %v", puts.put)
	}
	e, err := event.Decode([]byte(puts.put[0]))
	if err != nil || !puts.seen[e.ID] {
		t.Errorf("stored as %v, with the body %s, %v", puts.seen, puts.put[0], err)
	}
}

// Of two records of a join that both name an organiser, the first one counts; of two of one
// item, the order is that of the table.
func TestAnOrganiserDoesNotReplaceAnother(t *testing.T) {
	record := func(key, by string, at time.Time) platform.Change {
		change := insertion(platform.Membership{UserID: "u", CommunityID: "c", AddedBy: by}, at)
		change.Key = key
		return change
	}
	for name, c := range map[string]struct {
		batch []platform.Change
		want  string
	}{
		"two organisers":    {[]platform.Change{record("1", "o", minute), record("2", "p", minute.Add(time.Second))}, `{"community_id":"c","added_by":"o"}`},
		"one item":          {[]platform.Change{record("1", "", minute), record("1", "o", minute.Add(time.Second))}, `{"community_id":"c"}`},
		"no organiser":      {[]platform.Change{record("1", "", minute), record("2", "", minute.Add(time.Second))}, `{"community_id":"c"}`},
		"the second has it": {[]platform.Change{record("1", "", minute), record("2", "o", minute.Add(time.Second))}, `{"community_id":"c","added_by":"o"}`},
	} {
		em, store := newEmitter()
		capturing(t, em, c.batch...)
		all := stored(t, store)
		if len(all) != 1 {
			t.Fatalf("%s: %d events", name, len(all))
		}
		if e, err := event.Decode(all[0].Body); err != nil || string(e.Data) != c.want {
			t.Errorf("%s: %s, %v", name, all[0].Body, err)
		}
	}
}

// keptOnly has failed changes that cannot be marked as failed again.
type keptOnly struct{ *memory.Store }

func (keptOnly) FailAgain(context.Context, platform.FailedChange, string, time.Time) error {
	return errors.New("throttled")
}

func TestRecaptureTakesAHundredChanges(t *testing.T) {
	em, _ := newEmitter()
	for n, allowed := range map[int]bool{1: true, emit.MaxRecaptures: true, 0: false, emit.MaxRecaptures + 1: false} {
		results, err := em.Recapture(t.Context(), make([]string, n), nil)
		if (err == nil) != allowed || allowed && len(results) != n {
			t.Errorf("%d changes: %d results, %v", n, len(results), err)
		}
	}
}

// A failed change is removed only when its events are stored.
func TestAFailedChangeStaysUntilItIsCaptured(t *testing.T) {
	batch := changes(t, comment(1))
	good := func([]byte) (platform.Change, error) { return streamtest.Changes(batch.Records...)[0], nil }
	broken := func([]byte) (platform.Change, error) {
		return streamtest.Changes(without(t, "discussion_id").Records...)[0], nil
	}
	puts, store := &away{seen: map[string]bool{}}, memory.New(time.Now)
	em := emitterOn(puts, store)
	capture(t, em, without(t, "discussion_id"))
	id := failedChanges(t, store)[0].ID
	recapture := func(read func([]byte) (platform.Change, error)) emit.Recaptured {
		t.Helper()
		results, err := em.Recapture(t.Context(), []string{id}, read)
		if err != nil {
			t.Fatal(err)
		}
		return results[0]
	}

	puts.fails = "text 1"
	if got := recapture(good); got.Captured || !strings.Contains(got.Error, "throttled") {
		t.Errorf("an event that cannot be stored: %+v", got)
	}
	em.Kept = keptOnly{store}
	if got := recapture(broken); got.Captured || !strings.Contains(got.Error, "throttled") || !strings.Contains(got.Error, "discussion_id") {
		t.Errorf("a failure that cannot be stored: %+v", got)
	}
	em.Kept = store
	if got := recapture(broken); got.Captured || strings.Contains(got.Error, "throttled") || !strings.Contains(got.Error, "discussion_id") {
		t.Errorf("a failure: %+v", got)
	}
	if n := len(failedChanges(t, store)); n != 1 {
		t.Fatalf("%d failed changes are left", n)
	}
	// The event was stored meanwhile, and counts.
	puts.fails = ""
	capture(t, em, batch)
	if got := recapture(good); !got.Captured || got.Events != 1 || len(puts.put) != 1 {
		t.Errorf("captured again: %+v, stored %v", got, puts.put)
	}
	if n := len(failedChanges(t, store)); n != 0 {
		t.Errorf("%d failed changes are left", n)
	}
}

// A discussion that is captured again is indexed, unless it cannot be read.
func TestARecapturedDiscussionIsIndexed(t *testing.T) {
	const end = "2026-02-01T10:00:00Z"
	change := func(after dynamoitem.Item) platform.Change {
		return streamtest.Changes(discussionChange("INSERT", "1", nil, after))[0]
	}
	for name, c := range map[string]struct {
		after   dynamoitem.Item
		indexed []string
		refused string
	}{
		"mended":         {openItem(end), []string{`{"thread":{"N":"7"}}: d_1 open ` + end}, ""},
		"still broken":   {openItem("soon"), nil, "the discussion is not indexed"},
		"something else": {dynamoitem.Item{"kind": dynamoitem.S("user"), "user_id": dynamoitem.S("u_1")}, nil, ""},
	} {
		em, store := newEmitter()
		index := &recordingIndex{}
		em.Discussions = index
		capture(t, em, events.DynamoDBEvent{Records: []events.DynamoDBEventRecord{discussionChange("INSERT", "1", nil, openItem("soon"))}})
		list := failedChanges(t, store)
		if len(list) != 1 {
			t.Fatalf("%s: %d failed changes", name, len(list))
		}
		results, err := em.Recapture(t.Context(), []string{list[0].ID}, func(record []byte) (platform.Change, error) {
			if !bytes.Contains(record, []byte("soon")) {
				t.Errorf("%s: read %s", name, record)
			}
			return change(c.after), nil
		})
		if err != nil || !strings.Contains(results[0].Error, c.refused) || results[0].Captured != (c.refused == "") || !slices.Equal(index.got, c.indexed) {
			t.Errorf("%s: %+v, %v; indexed %q", name, results, err, index.got)
		}
	}
}
