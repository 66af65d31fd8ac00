package event_test

import (
	"testing"
	"time"

	"github.com/tidings-dev/tidings/pkg/event"
)

func TestAnEventIsStoredForItsRetention(t *testing.T) {
	made := time.Date(2026, 1, 29, 12, 34, 56, 789e6, time.UTC)
	id := event.NewID(made)
	for name, c := range map[string]struct {
		days int
		late time.Duration
		want int
	}{
		"the default":                          {0, 0, 0},
		"the default, written out":             {30, time.Second, 0},
		"a year":                               {365, 0, 365},
		"a day: until the stream is done":      {1, 0, 2},
		"two days":                             {2, 0, 2},
		"a week":                               {7, 10 * time.Minute, 7},
		"a week, stored a moment late":         {7, 10*time.Minute + time.Millisecond, 8},
		"a week, stored a day late":            {7, 24 * time.Hour, 8},
		"a day, stored more than a day late":   {1, 24*time.Hour + time.Millisecond, 4},
		"29 days that lateness makes 30":       {29, time.Hour, 0},
		"the default, captured again after 20": {0, 20 * 24 * time.Hour, 50},
		"a clock that is behind":               {7, -time.Hour, 7},
	} {
		got := event.StoredDays(id, made.Add(c.late), c.days)
		if got != c.want {
			t.Errorf("%s: kept for %d days, want %d", name, got, c.want)
		}
		if least := made.Add(c.late).Add(event.Retention(c.days)); c.late > 0 && c.late != 10*time.Minute && c.late != time.Second && event.RetainedUntil(id, got).Before(least) {
			t.Errorf("%s: kept until %s, but %d days end at %s", name, event.RetainedUntil(id, got), c.days, least)
		}
	}
	if until := event.RetainedUntil(id, 0); !until.Equal(made.AddDate(0, 0, 30)) {
		t.Errorf("the default retention ends at %s", until)
	}
	if !event.RetainedUntil("x", 3).IsZero() {
		t.Error("what is no event is kept")
	}
}
