package stats_test

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidings-dev/tidings/pkg/ops/stats"
	"github.com/tidings-dev/tidings/pkg/store/memory"
)

// deployment has a store and evaluators that record its days.
type deployment struct {
	t     *testing.T
	store *memory.Store
	// writes and reads count the calls for days.
	writes, reads int
}

func (d *deployment) ReadDays(ctx context.Context, dates []time.Time) (map[time.Time]stats.Day, error) {
	d.reads++
	return d.store.ReadDays(ctx, dates)
}

func (d *deployment) PutDay(ctx context.Context, day stats.Day, was time.Time) (bool, error) {
	d.writes++
	return d.store.PutDay(ctx, day, was)
}

// process returns the history of a new process.
func (d *deployment) process() *stats.History {
	return &stats.History{Reader: &stats.Reader{Source: d.store, Now: time.Now}, Days: d, Now: time.Now}
}

func (d *deployment) count(c stats.Counts) {
	d.t.Helper()
	if err := d.store.AddStatistics(d.t.Context(), stats.Batch{ID: time.Now().String(), At: time.Now(), Counts: c}); err != nil {
		d.t.Fatal(err)
	}
}

func (d *deployment) record(h *stats.History, open int) {
	d.t.Helper()
	if err := h.Record(d.t.Context(), open); err != nil {
		d.t.Fatal(err)
	}
}

// last returns what a reader sees of the last days.
func (d *deployment) last(n int) []stats.Day {
	d.t.Helper()
	list, err := d.process().Last(d.t.Context(), n)
	if err != nil {
		d.t.Fatal(err)
	}
	return list
}

// run starts a test at the beginning of a day.
func run(t *testing.T, test func(d *deployment)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Until(stats.Midnight(time.Now()).Add(24 * time.Hour)))
		test(&deployment{t: t, store: memory.New(time.Now)})
	})
}

// step is the time between two evaluations of these tests; perDay is how many a day has.
const (
	step   = 5 * time.Minute
	perDay = int64(24 * time.Hour / step)
)

// runFor records for a while and counts a delivery before each.
func (d *deployment) runFor(h *stats.History, length time.Duration) {
	for end := time.Now().Add(length); time.Now().Before(end); time.Sleep(step) {
		d.count(stats.Counts{Delivered: 1})
		d.record(h, 0)
	}
}

func TestADayHasTheCountsOfAllItsBatches(t *testing.T) {
	run(t, func(d *deployment) {
		h := d.process()
		d.runFor(h, 3*24*time.Hour)
		d.record(h, 0)
		list := d.last(5)
		for i, want := range []int64{0, perDay, perDay, perDay, 0} {
			if list[i].Delivered != want || list[i].Complete != (i > 1 && i < 4) || list[i].At.IsZero() != (i == 4) {
				t.Errorf("%s: %d deliveries, complete: %v, summed up %s; want %d", list[i].Date.Format(time.DateOnly), list[i].Delivered, list[i].Complete, list[i].At, want)
			}
		}
		// It is complete ten minutes after its end.
		time.Sleep(10 * time.Minute)
		d.record(h, 0)
		if y := d.last(2)[1]; !y.Complete || y.Delivered != perDay {
			t.Errorf("yesterday: %+v", y)
		}
		if daily := d.writes / 3; daily > 24*6+2 {
			t.Errorf("%d writes a day, want one every ten minutes", daily)
		}
	})
}

func TestADayIsNotCountedTwice(t *testing.T) {
	run(t, func(d *deployment) {
		for range 50 { // each process is new, two record at once
			d.count(stats.Counts{Dead: 1})
			d.record(d.process(), 0)
			d.record(d.process(), 0)
			time.Sleep(7 * time.Minute)
		}
		stored, err := d.store.ReadDays(t.Context(), []time.Time{stats.Midnight(time.Now())})
		if got := stored[stats.Midnight(time.Now())]; err != nil || got.Dead != 50 {
			t.Errorf("stored %+v, %v; want 50 dead", got, err)
		}
	})
}

func TestALateEvaluationGetsTheDaysRight(t *testing.T) {
	for _, started := range []time.Duration{0, 11 * time.Hour, 23*time.Hour + 55*time.Minute} {
		for _, down := range []time.Duration{3 * time.Hour, 24 * time.Hour} {
			run(t, func(d *deployment) {
				h := d.process()
				d.runFor(h, started)
				for end := time.Now().Add(down); time.Now().Before(end); time.Sleep(step) {
					d.count(stats.Counts{Delivered: 1})
				}
				h = d.process()
				d.runFor(h, 48*time.Hour-started-down+11*time.Minute)
				d.record(h, 0)
				for i, day := range d.last(3)[1:] {
					if day.Delivered != perDay || !day.Complete {
						t.Errorf("down for %s from %s: %d days ago has %d deliveries, complete: %v; want %d", down, started, i+1, day.Delivered, day.Complete, perDay)
					}
				}
			})
		}
	}
}

func TestADayKeepsTheMostOpenCircuitBreakers(t *testing.T) {
	run(t, func(d *deployment) {
		h := d.process()
		for _, open := range []int{0, 3, 1, 0} {
			d.record(h, open)
			time.Sleep(time.Minute)
		}
		h = d.process() // its predecessor ended
		d.record(h, 1)
		if got := d.last(1)[0].OpenCircuits; got != 3 {
			t.Errorf("%d open, want 3", got)
		}
		time.Sleep(24 * time.Hour)
		d.record(h, 1)
		if list := d.last(2); list[0].OpenCircuits != 1 || list[1].OpenCircuits != 3 || !list[1].Complete {
			t.Errorf("today %d, yesterday %d open, want 1 and 3", list[0].OpenCircuits, list[1].OpenCircuits)
		}
	})
}

func TestAnIdleDayIsWrittenTwice(t *testing.T) {
	run(t, func(d *deployment) {
		h := d.process()
		for range 10 * 24 * 60 {
			d.record(h, 0)
			time.Sleep(time.Minute)
		}
		if d.writes > 2*10 || d.reads > 10 {
			t.Errorf("ten days cost %d writes and %d reads, want 20 and 10", d.writes, d.reads)
		}
	})
}

func TestMetricsOfDays(t *testing.T) {
	date := time.Date(2026, 11, 29, 0, 0, 0, 0, time.UTC)
	got := targets.Days([]stats.Day{
		{Date: date, At: date.Add(time.Hour), Counts: stats.Counts{Delivered: 1, Dead: 1}, OpenCircuits: 2},
		{Date: date.Add(-24 * time.Hour), At: date.Add(time.Hour), Complete: true},
		{Date: date.Add(-48 * time.Hour)},
	})
	var rows []string
	for _, day := range got {
		row := day.Date
		for _, m := range day.Metrics {
			row += ", " + m.Text(m.Unit) + " " + m.Status.Text()
		}
		rows = append(rows, row)
	}
	want := []string{
		"2026-11-29, 50 % missed, – no data, 1 ok, 2 missed, – no data",
		"2026-11-28, – no data, – no data, 0 ok, 0 ok, – no data",
		"2026-11-27, – no data, – no data, – no data, – no data, – no data",
	}
	if !slices.Equal(rows, want) {
		t.Errorf("the days are\n%q\nwant\n%q", rows, want)
	}
}
