package play_test

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tidings-dev/tidings/pkg/emit/capture/rules"
	"github.com/tidings-dev/tidings/pkg/event/validate"
	"github.com/tidings-dev/tidings/pkg/local/play"
	"github.com/tidings-dev/tidings/pkg/platform"
	"github.com/tidings-dev/tidings/pkg/platform/discussions"
	"github.com/tidings-dev/tidings/pkg/store/dynamoitem"
	"github.com/tidings-dev/tidings/pkg/store/memory"
	"github.com/tidings-dev/tidings/test/streamtest"
)

var start = time.Date(2026, 1, 29, 0, 0, 0, 0, time.UTC)

func plan(t *testing.T, seed uint64, members int, hours float64) []play.Step {
	t.Helper()
	steps, err := play.Plan(play.Options{Seed: seed, Members: members, Hours: hours, Speed: 600, Start: start, Run: "test"})
	if err != nil {
		t.Fatal(err)
	}
	return steps
}

func TestAPlanDependsOnlyOnItsOptions(t *testing.T) {
	if !reflect.DeepEqual(plan(t, 7, 200, 24), plan(t, 7, 200, 24)) {
		t.Error("two plans of one seed differ")
	}
	if reflect.DeepEqual(plan(t, 7, 200, 24), plan(t, 8, 200, 24)) {
		t.Error("two seeds give one plan")
	}
}

// Plans of every size contain all event types, in time order, and no user acts before
// signing up or joining.
func TestEveryPlanHasAllEventTypes(t *testing.T) {
	// Small communities need more seeds: fewer events occur by chance.
	for size, seeds := range map[int]uint64{5: 60, 12: 30, 60: 10, 500: 3} {
		for seed := range seeds {
			steps := plan(t, seed, size, 24)
			means := map[string]int{}
			users, joined, open := map[string]bool{}, map[string]bool{}, map[string]platform.Discussion{}
			first := map[platform.Key]bool{}
			for i, s := range steps {
				if i > 0 && s.At.Before(steps[i-1].At) {
					t.Fatalf("size %d, seed %d: step %d is out of order", size, seed, i)
				}
				if s.At.Before(start) || s.At.After(start.Add(24*time.Hour/600)) {
					t.Fatalf("size %d, seed %d: a step at %s", size, seed, s.At)
				}
				means[s.EventType]++
				ok := true
				switch r := s.Put.(type) {
				case nil:
				case platform.User:
					users[r.ID] = true
				case platform.Referral:
					ok = users[r.ReferrerID] && users[r.ReferredUserID] && r.ReferrerID != r.ReferredUserID
				case platform.Membership:
					ok = users[r.UserID] && (r.AddedBy == "" || users[r.AddedBy])
					joined[r.UserID+r.CommunityID] = true
				case platform.Registration:
					ok = users[r.UserID]
				case platform.Discussion:
					open[r.ID] = r
				case platform.Comment:
					d, there := open[r.DiscussionID]
					ok = there && joined[r.UserID+d.CommunityID]
				case platform.Flag:
					ok = users[r.UserID] && users[r.FlaggedUserID] && r.UserID != r.FlaggedUserID
				}
				if !ok {
					t.Errorf("size %d, seed %d: refers to a missing record: %+v", size, seed, s.Put)
				}
				if s.Put != nil {
					key := s.Put.Key()
					if _, changes := s.Put.(platform.Registration); first[key] && !changes {
						t.Errorf("size %d, seed %d: %v is written twice", size, seed, key)
					}
					first[key] = true
				}
			}
			for _, eventType := range validate.Default().Types() {
				if means[eventType] == 0 {
					t.Errorf("size %d, seed %d: no %s", size, seed, eventType)
				}
			}
		}
	}
}

// A day of 500 members has a plausible number of events of each type.
func TestADayHasPlausibleNumbers(t *testing.T) {
	means := map[string]int{}
	hours := map[int]int{}
	for _, s := range plan(t, 1, 500, 24) {
		means[s.EventType]++
		hours[int(s.Played.Hours())]++
	}
	for eventType, bounds := range map[string][2]int{
		"user.joined_platform": {500, 500}, "user.joined_community": {500, 3000}, "user.registered_event": {150, 2500}, "user.cancelled_registration": {5, 250},
		"user.posted_comment": {300, 5000}, "user.flagged_comment": {3, 200}, "user.referred_user": {50, 200}, "discussion.extended": {5, 150},
	} {
		if n := means[eventType]; n < bounds[0] || n > bounds[1] {
			t.Errorf("%d events of type %s, want %d to %d", n, eventType, bounds[0], bounds[1])
		}
	}
	if hours[4] >= hours[17] {
		t.Errorf("%d steps at 4:00, %d at 17:00; want fewer at night", hours[4], hours[17])
	}
}

func TestInvalidOptionsAreErrors(t *testing.T) {
	for says, o := range map[string]play.Options{
		"members": {Members: 1, Hours: 1, Speed: 1}, "hours": {Members: 10, Speed: 1}, "speed": {Members: 10, Hours: 1},
	} {
		if _, err := play.Plan(o); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%+v: %v", o, err)
		}
	}
}

func closer(s *memory.Store) func(context.Context) (int, error) {
	c := &discussions.Closer{Store: s, Log: slog.New(slog.DiscardHandler), Now: time.Now}
	return func(ctx context.Context) (int, error) {
		got, err := c.Close(ctx)
		return got.Closed, err
	}
}

// Capture finds exactly the events of the report in the table's stream.
func TestTheReportMatchesTheCapturedEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memory.New(time.Now)
		steps, err := play.Plan(play.Options{Seed: 3, Members: 80, Hours: 24, Speed: 600, Start: time.Now(), Run: "a"})
		if err != nil {
			t.Fatal(err)
		}
		began, hours := time.Now(), 0
		p := &play.Player{Platform: s, Close: closer(s), Progress: func(time.Duration, play.Report) { hours++ }}
		report, err := p.Play(t.Context(), steps)
		if err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took != 24*time.Hour/600 || hours != 24 || report.Steps != len(steps) || report.Refused != 0 || report.Behind != 0 {
			t.Errorf("played %d of %d steps in %s, %d hours: %+v", report.Steps, len(steps), took, hours, report)
		}
		got := map[string]int{}
		records, err := s.Records(t.Context(), dynamoitem.Platform, "", 1_000_000)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range streamtest.Changes(records...) {
			list, err := rules.Shipped().Events(r)
			if err != nil {
				t.Error(err)
			}
			for _, c := range list {
				if err := validate.Default().Validate(c.Event.Type, c.Event.Data); err != nil {
					t.Error(err)
				}
				got[c.Event.Type]++
			}
		}
		if diff := cmp.Diff(report.Events, got); diff != "" {
			t.Errorf("played (-), captured (+):\n%s", diff)
		}
		if len(got) != len(validate.Default().Types()) {
			t.Errorf("played: %v", slices.Sorted(maps.Keys(got)))
		}
		// Discussions that end after the simulation stay open for hours.
		page, err := s.ListDiscussions(t.Context(), platform.Query{Tenant: "default", View: platform.ViewOpen})
		if err != nil || len(page.Discussions) == 0 || time.Until(page.Discussions[0].ExpiresAt) <= 0 {
			t.Errorf("open: %+v, %v", page, err)
		}
	})
}

type broken struct{ *memory.Store }

func (broken) DeleteRecord(context.Context, platform.Key) error { return errors.New("away") }

func TestPlayStopsAtAFailedWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memory.New(time.Now)
		steps, err := play.Plan(play.Options{Seed: 3, Members: 80, Hours: 24, Speed: 600, Start: time.Now(), Run: "a"})
		if err != nil {
			t.Fatal(err)
		}
		report, err := (&play.Player{Platform: broken{s}, Close: closer(s)}).Play(t.Context(), steps)
		if err == nil || err.Error() != "away" || report.Steps == 0 || report.Steps >= len(steps) {
			t.Errorf("%+v, %v", report, err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := (&play.Player{Platform: s, Close: closer(s)}).Play(ctx, steps); !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled: %v", err)
		}
	})
}
