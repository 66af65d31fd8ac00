package storetest

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/ops/stats"
	"github.com/tidings-dev/tidings/pkg/signature"
)

func readStatistics(t *testing.T, s Store, buckets []time.Time) stats.Record {
	t.Helper()
	records, sweep, err := s.ReadStatistics(t.Context(), buckets)
	if err != nil {
		t.Fatal(err)
	}
	parts := []stats.Record{{Sweep: sweep}}
	for bucket, r := range records {
		for _, m := range r.Minutes {
			if !stats.Bucket(m.At).Equal(bucket) {
				t.Errorf("the bucket of %s holds %s", bucket, m.At)
			}
		}
		parts = append(parts, r)
	}
	return stats.Merge(parts...)
}

// statistics compares the statistics that batches add with those that are read.
func statistics(t *testing.T, s Store) {
	ctx := t.Context()
	read := func(from, to time.Time) stats.Record {
		t.Helper()
		return readStatistics(t, s, stats.Buckets(from, to))
	}
	same(t, read(start, start.Add(time.Hour)), stats.Record{})

	full := stats.Batch{
		ID: "one", At: start, Worked: true, LastEvent: start.Add(-time.Second),
		Counts:    stats.Counts{Accepted: 1, Queued: 2, Attempts: 30, Delivered: 20, Failed: 10, Retried: 6, Dead: 4, Skipped: 5, Captured: 7, CaptureFailed: 3},
		Latencies: []time.Duration{time.Millisecond, time.Second, time.Minute, time.Hour, 1000 * time.Hour},
	}
	for range 2 { // the second call repeats the first
		if err := s.AddStatistics(ctx, full); err != nil {
			t.Fatal(err)
		}
	}
	minute := start.Truncate(time.Minute)
	want := stats.Record{
		Minutes:   []stats.Minute{{At: minute, Counts: full.Totals()}},
		LastEvent: full.LastEvent, LastBatch: start,
	}
	same(t, read(start, start), want)

	// Each disabled endpoint is counted once.
	off := []stats.Endpoint{{Tenant: "t1", ID: "ep_1"}, {Tenant: "t2", ID: "ep_1"}}
	for i := range 2 {
		b := stats.Batch{ID: fmt.Sprint("off ", i), At: start, Disabled: []stats.Endpoint{off[1], off[i], off[1]}}
		if err := s.AddStatistics(ctx, b); err != nil {
			t.Fatal(err)
		}
	}
	want.Disabled = off
	same(t, read(start, start), want)
	// Kinds are foreign text.
	kinds := map[string]int64{"User": 2, "(none)": 1, "a #kind: é": 5}
	for i := range 2 {
		if err := s.AddStatistics(ctx, stats.Batch{ID: fmt.Sprint("kinds ", i), At: start, UnknownKinds: kinds}); err != nil {
			t.Fatal(err)
		}
	}
	want.UnknownKinds = map[string]int64{"User": 4, "(none)": 2, "a #kind: é": 10}
	same(t, read(start, start), want)
	// A type without a definition is seen last in the bucket of its last batch.
	for i, at := range []time.Time{start, start.Add(stats.BucketTime), start} {
		b := stats.Batch{ID: fmt.Sprint("types ", i), At: at, UndefinedTypes: map[string]int64{"order.payd": 2, stats.OtherNames: 1}}
		if err := s.AddStatistics(ctx, b); err != nil {
			t.Fatal(err)
		}
	}
	types := func(n, others int64, last time.Time) map[string]stats.Seen {
		return map[string]stats.Seen{"order.payd": {Count: n, Last: stats.Bucket(last)}, stats.OtherNames: {Count: others, Last: stats.Bucket(last)}}
	}
	want.UndefinedTypes = types(4, 2, start)
	same(t, read(start, start), want)
	same(t, read(start, start.Add(stats.BucketTime)).UndefinedTypes, types(6, 3, start.Add(stats.BucketTime)))
	if got := must[map[stats.Endpoint]string](t)(s.DisabledEndpoints(ctx, nil)); len(got) != 0 {
		t.Errorf("of no endpoints %v are disabled", got)
	}
	for _, e := range off {
		if err := s.AddEndpoint(ctx, endpoint.Endpoint{Tenant: e.Tenant, ID: e.ID, URL: "https://x.example", EventTypes: []string{"*"}, Status: endpoint.Enabled,
			Secrets: []endpoint.SigningSecret{{Secret: signature.NewSecret()}}, CreatedAt: start, UpdatedAt: start}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.DisableEndpoint(ctx, "t2", "ep_1", "gone", start); err != nil {
		t.Fatal(err)
	}
	asked := append(off, stats.Endpoint{Tenant: "t1", ID: "ep_removed"})
	same(t, must[map[stats.Endpoint]string](t)(s.DisabledEndpoints(ctx, asked)), map[stats.Endpoint]string{off[1]: "gone"})

	// Other batches add to the same minute, the next minute, and the next bucket.
	for i, at := range []time.Time{start, start, start.Add(time.Minute), start.Add(stats.BucketTime)} {
		b := stats.Batch{ID: fmt.Sprint("other ", i), At: at, Counts: stats.Counts{Skipped: 1}, Latencies: []time.Duration{time.Second}}
		if err := s.AddStatistics(ctx, b); err != nil {
			t.Fatal(err)
		}
	}
	one := stats.Batch{Counts: stats.Counts{Skipped: 1}, Latencies: []time.Duration{time.Second}}.Totals()
	want.Minutes = []stats.Minute{
		{At: minute, Counts: full.Totals().Add(one).Add(one)},
		{At: minute.Add(time.Minute), Counts: one},
		{At: minute.Add(stats.BucketTime), Counts: one},
	}
	want.UndefinedTypes = types(6, 3, start.Add(stats.BucketTime))
	same(t, read(start, start.Add(stats.BucketTime)), want)

	want.Minutes, want.UndefinedTypes = want.Minutes[:2], types(4, 2, start)
	same(t, read(start, start), want)
	if r := read(start.Add(-24*time.Hour), start.Add(-stats.BucketTime)); len(r.Minutes) != 0 {
		t.Errorf("the day before has %+v", r.Minutes)
	}

	// No shard and no minute is lost.
	day := start.Add(48 * time.Hour)
	var all []stats.Minute
	for m := range 90 {
		at := day.Add(time.Duration(m) * time.Minute)
		bound, finite := stats.Bound(m % len(stats.Histogram{}))
		if !finite {
			bound = 5000 * time.Hour
		}
		b := stats.Batch{ID: fmt.Sprint("minute ", m), At: at, Counts: stats.Counts{Attempts: int64(m + 1)}, Latencies: []time.Duration{bound}}
		if err := s.AddStatistics(ctx, b); err != nil {
			t.Fatal(err)
		}
		all = append(all, stats.Minute{At: at.Truncate(time.Minute), Counts: b.Totals()})
	}
	same(t, read(day, day.Add(90*time.Minute)).Minutes, all)

	// A whole day can be read, however full it is.
	if r := read(day.Add(-23*time.Hour), day.Add(2*time.Hour)); len(r.Minutes) != len(all) {
		t.Errorf("a day has %d minutes, want %d", len(r.Minutes), len(all))
	}
}

// days tests that a day replaces the one that it was computed from, and no other.
func days(t *testing.T, s Store) {
	ctx := t.Context()
	today := stats.Midnight(start)
	dates := []time.Time{today, today.Add(-24 * time.Hour), today.Add(-48 * time.Hour)}
	read := func(want ...stats.Day) {
		t.Helper()
		byDate := map[time.Time]stats.Day{}
		for _, d := range want {
			byDate[d.Date] = d
		}
		same(t, must[map[time.Time]stats.Day](t)(s.ReadDays(ctx, dates)), byDate)
	}
	put := func(d stats.Day, was time.Time, want bool) {
		t.Helper()
		if stored, err := s.PutDay(ctx, d, was); err != nil || stored != want {
			t.Errorf("put %s over %s: %v, %v; want %v", d.Date.Format(time.DateOnly), was, stored, err, want)
		}
	}
	read()
	full := stats.Batch{
		Counts:    stats.Counts{Accepted: 1, Queued: 2, Attempts: 30, Delivered: 20, Failed: 10, Retried: 6, Dead: 4, Skipped: 5, Captured: 7, CaptureFailed: 3},
		Latencies: []time.Duration{time.Millisecond, time.Second, time.Minute, time.Hour, 1000 * time.Hour},
	}.Totals()
	first := stats.Day{Date: today, Counts: full, OpenCircuits: 2, At: start}
	put(first, start.Add(-time.Hour), false) // there is none from an hour ago
	put(first, time.Time{}, true)
	put(first, time.Time{}, true) // repeated
	read(first)
	second := stats.Day{Date: today, Counts: stats.Counts{Delivered: 1}, At: start.Add(time.Minute), Complete: true}
	put(second, time.Time{}, false)
	put(second, start.Add(-time.Second), false)
	read(first)
	put(second, first.At, true)
	put(second, first.At, true) // repeated
	put(stats.Day{Date: today, At: start.Add(time.Second)}, first.At, false)
	before := stats.Day{Date: dates[1], At: start, Complete: true} // a day without counts
	put(before, time.Time{}, true)
	read(second, before)

	var stored atomic.Int32
	var running sync.WaitGroup
	for i := range 16 {
		running.Go(func() {
			ok, err := s.PutDay(ctx, stats.Day{Date: today, At: start.Add(time.Hour + time.Duration(i)*time.Second)}, second.At)
			if err != nil {
				t.Error(err)
			}
			if ok {
				stored.Add(1)
			}
		})
	}
	running.Wait()
	if stored.Load() != 1 {
		t.Errorf("%d of 16 writers over one day have stored", stored.Load())
	}
}

func concurrentStatistics(t *testing.T, s Store) {
	const workers, each = 8, 20
	var running sync.WaitGroup
	for w := range workers {
		running.Go(func() {
			for i := range each {
				b := stats.Batch{ID: fmt.Sprint(w, " ", i), At: start, Counts: stats.Counts{Attempts: 10}, Latencies: slices.Repeat([]time.Duration{time.Second}, 10)}
				if err := s.AddStatistics(t.Context(), b); err != nil {
					t.Error(err)
				}
			}
		})
	}
	running.Wait()
	r := readStatistics(t, s, stats.Buckets(start, start))
	if len(r.Minutes) != 1 || r.Minutes[0].Attempts != 10*workers*each || r.Minutes[0].Latency.Total() != 10*workers*each {
		t.Errorf("%+v, want %d attempts", r.Minutes, 10*workers*each)
	}
}

func sweeps(t *testing.T, s Store) {
	ctx := t.Context()
	read := func() stats.Sweep {
		t.Helper()
		return readStatistics(t, s, nil).Sweep
	}
	same(t, read(), stats.Sweep{})
	for _, want := range []stats.Sweep{
		{At: start, Done: true, Due: 1, Queued: 2, Overdue: 3, OldestDue: start.Add(-time.Hour), Retrying: 4, More: true},
		{At: start.Add(time.Minute)},
	} {
		if err := s.NoteSweep(ctx, want); err != nil {
			t.Fatal(err)
		}
		same(t, read(), want)
	}

	// Deliveries that are not due yet are counted, up to a limit.
	const n = 40
	for range n {
		c := newClaim()
		c.EndpointID, c.EventID = endpoint.NewID(start), event.NewID(start)
		claimed := must[delivery.Delivery](t)(s.Claim(ctx, c))
		pending := delivery.Conclusion{State: delivery.Pending, NextAt: start.Add(time.Minute), DueAt: start.Add(time.Hour), Now: start,
			Attempt: delivery.Attempt{Number: 1, At: start, Class: delivery.Timeout}}
		if err := s.Complete(ctx, pending.Apply(claimed)); err != nil {
			t.Fatal(err)
		}
	}
	count := func(after time.Time, limit int) (sum int, more bool) {
		t.Helper()
		for shard := range delivery.DueShards {
			n, m, err := s.CountDue(ctx, shard, after, limit)
			if err != nil {
				t.Fatal(err)
			}
			sum, more = sum+n, more || m
		}
		return sum, more
	}
	if got, more := count(start.Add(time.Hour-time.Millisecond), n+1); got != n || more {
		t.Errorf("%d wait, more: %v; want %d", got, more, n)
	}
	if got, more := count(start.Add(time.Hour), n); got != 0 || more {
		t.Errorf("%d wait past their due time, more: %v", got, more)
	}
	if got, more := count(start, 1); got > delivery.DueShards || got == 0 || !more {
		t.Errorf("%d counted with a limit of 1 a shard, more: %v", got, more)
	}
}

// documents tests the versions of documents.
func documents(t *testing.T, s Store) {
	ctx := t.Context()
	const name = "alerts"
	if stored, err := s.WriteDocument(ctx, "other", []byte("of another name"), 0, "a"); err != nil || !stored {
		t.Error(stored, err)
	}
	read := func(want string, wantVersion int) {
		t.Helper()
		document, version, err := s.ReadDocument(ctx, name)
		if err != nil || string(document) != want || version != wantVersion {
			t.Errorf("read %q, version %d, %v; want %q, %d", document, version, err, want, wantVersion)
		}
	}
	write := func(document string, was int, writer string, want bool) {
		t.Helper()
		if stored, err := s.WriteDocument(ctx, name, []byte(document), was, writer); err != nil || stored != want {
			t.Errorf("write %q over version %d: %v, %v; want %v", document, was, stored, err, want)
		}
	}
	read("", 0)
	write("too early", 1, "a", false)
	write("one", 0, "a", true)
	read("one", 1)
	write("one", 0, "a", true) // repeated
	write("another one", 0, "b", false)
	write("two", 1, "b", true)
	write("late", 1, "a", false)
	write("very late", 0, "a", false)
	read("two", 2)

	var stored atomic.Int32
	var running sync.WaitGroup
	for i := range 16 {
		running.Go(func() {
			ok, err := s.WriteDocument(ctx, name, []byte("three"), 2, fmt.Sprint("writer ", i))
			if err != nil {
				t.Error(err)
			}
			if ok {
				stored.Add(1)
			}
		})
	}
	running.Wait()
	if stored.Load() != 1 {
		t.Errorf("%d of 16 writers over one version have stored", stored.Load())
	}
	read("three", 3)
}
