package discussions_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidings-dev/tidings/pkg/emit"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/event/validate"
	"github.com/tidings-dev/tidings/pkg/platform"
	"github.com/tidings-dev/tidings/pkg/platform/discussions"
	"github.com/tidings-dev/tidings/pkg/store/dynamoitem"
	"github.com/tidings-dev/tidings/pkg/store/memory"
	"github.com/tidings-dev/tidings/test/streamtest"
)

var quiet = slog.New(slog.DiscardHandler)

func open(t *testing.T, s *memory.Store, id string, ends time.Time) {
	t.Helper()
	err := s.PutRecord(t.Context(), platform.Discussion{Common: platform.Common{Tenant: event.DefaultTenant}, ID: id, Status: platform.Open, ExpiresAt: ends.Truncate(time.Millisecond)})
	if err != nil {
		t.Fatal(err)
	}
}

// autoClosed captures a store's platform stream with emit and returns the number of
// discussion.auto_closed events per discussion.
func autoClosed(t *testing.T, s *memory.Store) map[string]int {
	t.Helper()
	records, err := s.Records(t.Context(), dynamoitem.Platform, "", 1_000_000)
	if err != nil {
		t.Fatal(err)
	}
	em := &emit.Emitter{Catalog: validate.Default(), Events: s, Keys: s, Failed: s, Stuck: s, Statistics: s, Log: quiet, Now: time.Now}
	if answer := em.Capture(t.Context(), streamtest.Changes(records...)); len(answer) != 0 {
		t.Fatalf("captured: %+v", answer)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // Records returns the stored records without waiting for more
	counts := map[string]int{}
	stored, err := s.Records(ctx, dynamoitem.Events, "", 1_000_000)
	if err != nil && !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	for _, r := range stored {
		a, err := dynamoitem.EventFromImage(r.Change.NewImage)
		if err != nil {
			t.Fatal(err)
		}
		e, err := event.Decode(a.Body)
		if err != nil || e.Type != "discussion.auto_closed" {
			t.Errorf("stored %s, %v", a.Body, err)
		}
		counts[validate.Default().Subject(e.Type, e.Data)]++
	}
	return counts
}

func TestConcurrentInvocationsCloseEachDiscussionOnce(t *testing.T) {
	if testing.Short() {
		t.Skip("closes thousands of discussions")
	}
	const n = 10_000
	s := memory.New(time.Now)
	over := time.Now().Add(-time.Minute)
	for i := range n {
		open(t, s, fmt.Sprint("d_", i), over)
	}
	open(t, s, "young", time.Now().Add(time.Hour))
	c := &discussions.Closer{Store: s, Log: quiet, Now: time.Now}
	var both [2]discussions.Closed
	var running sync.WaitGroup
	for i := range both {
		running.Go(func() {
			var err error
			if both[i], err = c.Close(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	running.Wait()
	if both[0].Closed+both[1].Closed != n || !both[0].Done || !both[1].Done || both[0].Failed+both[1].Failed != 0 {
		t.Errorf("closed %+v", both)
	}
	again, err := c.Handle(t.Context(), json.RawMessage(`{}`))
	if err != nil || again != (discussions.Closed{Done: true}) {
		t.Errorf("again: %+v, %v", again, err)
	}
	counts := autoClosed(t, s)
	if len(counts) != n {
		t.Errorf("%d discussions have an event, want %d", len(counts), n)
	}
	for id, k := range counts {
		if k != 1 || id == "young" {
			t.Fatalf("%s has %d events", id, k)
		}
	}
}

// slow delays each closing, and can make one fail.
type slow struct {
	*memory.Store
	takes time.Duration
	fails string
}

func (s slow) CloseDiscussion(ctx context.Context, c platform.Closing) (platform.Discussion, error) {
	time.Sleep(s.takes)
	if s.fails != "" && c.ID == s.fails {
		return platform.Discussion{}, errors.New("throttled")
	}
	return s.Store.CloseDiscussion(ctx, c)
}

func TestNextInvocationClosesTheRest(t *testing.T) {
	if testing.Short() {
		t.Skip("closes thousands of discussions")
	}
	synctest.Test(t, func(t *testing.T) {
		const n = 5000
		s := memory.New(time.Now)
		for i := range n {
			open(t, s, fmt.Sprint("d_", i), time.Now())
		}
		c := &discussions.Closer{Store: slow{Store: s, takes: time.Second}, Log: quiet, Now: time.Now}
		total, rounds := 0, 0
		for done := false; !done; rounds++ {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			got, err := c.Close(ctx)
			if err != nil || ctx.Err() != nil {
				t.Fatalf("%+v, %v, %v", got, err, ctx.Err())
			}
			cancel()
			total, done = total+got.Closed, got.Done
			if rounds > 10 {
				t.Fatal("not done after 10 invocations")
			}
		}
		if total != n || rounds < 2 {
			t.Errorf("%d closed in %d invocations", total, rounds)
		}
		if counts := autoClosed(t, s); len(counts) != n {
			t.Errorf("%d discussions have an event", len(counts))
		}
	})
}

func TestFailureDoesNotStopTheOthers(t *testing.T) {
	s := memory.New(time.Now)
	for i := range 20 {
		open(t, s, fmt.Sprint("d_", i), time.Now().Add(-time.Second))
	}
	got, err := (&discussions.Closer{Store: slow{Store: s, fails: "d_7"}, Log: quiet, Now: time.Now}).Close(t.Context())
	if err != nil || got != (discussions.Closed{Closed: 19, Failed: 1}) {
		t.Errorf("closed %+v, %v", got, err)
	}
	got, err = (&discussions.Closer{Store: s, Log: quiet, Now: time.Now}).Close(t.Context())
	if err != nil || got != (discussions.Closed{Closed: 1, Done: true}) {
		t.Errorf("the next invocation closed %+v, %v", got, err)
	}
}

// extends extends each discussion just before it is closed.
type extends struct{ *memory.Store }

func (e extends) CloseDiscussion(ctx context.Context, c platform.Closing) (platform.Discussion, error) {
	_, err := e.ExtendDiscussion(ctx, platform.Extension{Tenant: event.DefaultTenant, ID: c.ID, To: c.At.Add(time.Hour), By: "admin", At: c.At})
	if err != nil {
		return platform.Discussion{}, err
	}
	return e.Store.CloseDiscussion(ctx, c)
}

func TestExtensionBeforeClosingWins(t *testing.T) {
	s := memory.New(time.Now)
	open(t, s, "d", time.Now().Add(-time.Second))
	got, err := (&discussions.Closer{Store: extends{s}, Log: quiet, Now: time.Now}).Close(t.Context())
	if err != nil || got != (discussions.Closed{Spared: 1, Done: true}) {
		t.Errorf("closed %+v, %v", got, err)
	}
	if d, err := s.GetDiscussion(t.Context(), event.DefaultTenant, "d"); err != nil || d.Status != platform.Open {
		t.Errorf("discussion %+v, %v", d, err)
	}
}

func TestUnknownCommandsAreRejected(t *testing.T) {
	c := &discussions.Closer{Store: memory.New(time.Now), Log: quiet, Now: time.Now}
	for payload, says := range map[string]string{"": "", "{}": "", `{"action":"close"}`: "", `{"action":"index"}`: "", `{"action":"open"}`: "the actions are close and index", `[]`: "command"} {
		_, err := c.Handle(t.Context(), json.RawMessage(payload))
		if (err == nil) != (says == "") || err != nil && !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", payload, err)
		}
	}
}

// A platform that closes its discussions itself still wants them in the console.
func TestTheActionIndexClosesNothing(t *testing.T) {
	s := memory.New(time.Now)
	open(t, s, "d", time.Now().Add(-time.Hour))
	c := &discussions.Closer{Store: s, Log: quiet, Now: time.Now}
	got, err := c.Handle(t.Context(), json.RawMessage(`{"action":"index"}`))
	if err != nil || got != (discussions.Closed{Done: true}) {
		t.Errorf("%+v, %v", got, err)
	}
	if d, err := s.GetDiscussion(t.Context(), event.DefaultTenant, "d"); err != nil || d.Status != platform.Open {
		t.Errorf("the discussion is %+v, %v", d, err)
	}
}
