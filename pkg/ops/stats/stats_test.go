package stats_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/tidings-dev/tidings/pkg/ops/stats"
	"github.com/tidings-dev/tidings/pkg/store/memory"
)

func TestOneMinuteIsAHistogramBound(t *testing.T) {
	var h stats.Histogram
	for i := range h {
		bound, finite := stats.Bound(i)
		if !finite {
			if i != len(h)-1 {
				t.Errorf("bin %d of %d has no bound", i, len(h))
			}
			continue
		}
		if bound == time.Minute {
			return
		}
	}
	t.Error("no bound is one minute")
}

func TestQuantilesAreWithinAFactorOfTwo(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		list := rapid.SliceOfN(rapid.Int64Range(int64(8*time.Millisecond), int64(60*time.Hour)), 1, 200).Draw(t, "durations")
		var h stats.Histogram
		for _, d := range list {
			h.Count(time.Duration(d))
		}
		slices.Sort(list)
		for _, q := range []float64{0.01, 0.5, 0.95, 0.99, 1} {
			want := float64(list[max(int(math.Ceil(q*float64(len(list))))-1, 0)])
			got, ok := h.Quantile(q)
			if !ok || float64(got) > 2*want || float64(got) < want/2 {
				t.Fatalf("quantile %g of %v = %s, want about %s", q, list, got, time.Duration(want))
			}
		}
	})
}

func TestQuantilesAtTheBounds(t *testing.T) {
	var h stats.Histogram
	if _, ok := h.Quantile(0.5); ok {
		t.Error("an empty histogram has a median")
	}
	h.Count(0)
	if d, ok := h.Quantile(0.5); !ok || d > 8*time.Millisecond {
		t.Errorf("the median of 0 is %s", d)
	}
	h = stats.Histogram{}
	h.Count(1000 * time.Hour)
	if d, ok := h.Quantile(0.99); !ok || d < 60*time.Hour {
		t.Errorf("a duration above every bound is estimated as %s", d)
	}
	h = stats.Histogram{}
	for range 95 {
		h.Count(59 * time.Second)
	}
	for range 5 {
		h.Count(time.Hour)
	}
	if d, _ := h.Quantile(0.95); d > time.Minute {
		t.Errorf("95 of 100 below a minute, p95 = %s", d)
	}
}

func TestRates(t *testing.T) {
	if _, ok := (stats.Counts{}).SuccessRate(); ok {
		t.Error("a success rate without deliveries")
	}
	c := stats.Counts{Attempts: 10, Delivered: 3, Failed: 7, Dead: 1}
	success, _ := c.SuccessRate()
	failure, _ := c.FailureRate()
	if success != 0.75 || failure != 0.7 {
		t.Errorf("success %g, failure %g", success, failure)
	}
}

// The last hour is the current minute and the 59 before it; the last day likewise.
func TestSummaryWindows(t *testing.T) {
	now := time.Date(2026, 1, 29, 12, 34, 56, 0, time.UTC)
	minute := func(t time.Time) stats.Minute { return stats.Minute{At: t, Counts: stats.Counts{Attempts: 1}} }
	at := func(s string) time.Time { v, _ := time.Parse(time.RFC3339, s); return v }
	s := stats.Summarize(stats.Record{Minutes: []stats.Minute{
		minute(at("2026-01-28T12:34:00Z")), // too old
		minute(at("2026-01-28T12:35:00Z")),
		minute(at("2026-01-29T11:34:00Z")), // in the last day only
		minute(at("2026-01-29T11:35:00Z")),
		minute(at("2026-01-29T12:34:00Z")),
		minute(at("2026-01-29T12:35:00Z")), // a clock that is ahead
	}}, now)
	if s.Hour.Attempts != 2 || s.Day.Attempts != 4 {
		t.Errorf("hour %d, day %d; want 2 and 4", s.Hour.Attempts, s.Day.Attempts)
	}
}

// source counts reads.
type source struct {
	stats.Source
	reads, buckets int
	err            error
}

func (s *source) ReadStatistics(ctx context.Context, buckets []time.Time) (map[time.Time]stats.Record, stats.Sweep, error) {
	if s.err != nil {
		return nil, stats.Sweep{}, s.err
	}
	s.reads++
	s.buckets += len(buckets)
	return s.Source.ReadStatistics(ctx, buckets)
}

func TestClosedBucketsAreReadOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.New(time.Now)
		counting := &source{Source: store}
		cached := &stats.Reader{Source: counting, Now: time.Now}
		for n := range 30 * 60 {
			b := stats.Batch{ID: fmt.Sprint(n), At: time.Now(), Worked: true, Counts: stats.Counts{Attempts: 1, Delivered: 1}, Latencies: []time.Duration{time.Second}}
			if err := store.AddStatistics(t.Context(), b); err != nil {
				t.Fatal(err)
			}
			if n%13 == 0 {
				fresh := &stats.Reader{Source: store, Now: time.Now}
				want, err := fresh.Summary(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				got, err := cached.Summary(t.Context())
				if err != nil || !reflect.DeepEqual(got, want) {
					t.Fatalf("minute %d: %+v, %v; want %+v", n, got, err, want)
				}
				if least := min(int64(n)+1, 1440); want.Day.Attempts != least || !want.LastBatch.Equal(time.Now()) {
					t.Fatalf("minute %d: %d attempts in a day, want %d", n, want.Day.Attempts, least)
				}
			}
			time.Sleep(time.Minute)
		}
		if each := float64(counting.buckets-145) / float64(counting.reads); each > 4 {
			t.Errorf("%.1f buckets per read: closed buckets are read again", each)
		}
		series, err := cached.Series(t.Context(), time.Hour)
		if err != nil || len(series) != 60 || series[0].Attempts != 1 || series[59].Attempts != 0 {
			t.Errorf("%d minutes, %v", len(series), err)
		}
		counting.err = errors.New("store unavailable")
		if _, err := cached.Summary(t.Context()); err == nil {
			t.Error("no error from an unavailable store")
		}
	})
}
