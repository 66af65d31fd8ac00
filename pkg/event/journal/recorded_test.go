package journal_test

import (
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/event/journal"
)

func TestRecordedIsWhatWasPut(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := &shelf{items: map[string]journal.Item{}, page: rapid.IntRange(1, 3).Draw(t, "items per read")}
		random := rand.New(rand.NewPCG(2, uint64(rapid.Uint32().Draw(t, "seed"))))
		want := map[string]bool{}
		var ids []string
		for range rapid.IntRange(0, 12).Draw(t, "batches") {
			var batch []journal.Entry
			recorded := random.IntN(3) > 0
			for range rapid.IntRange(1, 8).Draw(t, "events") {
				e := entry(start.Add(time.Duration(random.IntN(60_000))*time.Millisecond), "a", "", "")
				batch, ids = append(batch, e), append(ids, e.ID)
				want[e.ID] = recorded
			}
			if recorded {
				s.put(journal.Pack("t", batch)...)
			} else {
				s.put(journal.Pack("other", batch)...)
			}
		}
		random.Shuffle(len(ids), func(a, b int) { ids[a], ids[b] = ids[b], ids[a] })
		got, err := journal.Recorded(t.Context(), s, "t", ids)
		if err != nil || len(got) != len(want) {
			t.Fatalf("%d events, want %d; error %v", len(got), len(want), err)
		}
		for id, is := range want {
			if got[id] != is {
				t.Errorf("%s is recorded: %v, want %v", id, got[id], is)
			}
		}
	})
}

// An item holds events of up to ten seconds.
func TestTheOldestEventOfALongItemIsRecorded(t *testing.T) {
	s := &shelf{items: map[string]journal.Item{}, page: 1}
	oldest, newest := entry(start, "a", "", ""), entry(start.Add(10*time.Second), "a", "", "")
	items := journal.Pack("t", []journal.Entry{oldest, newest})
	if len(items) != 1 {
		t.Fatalf("%d items, want one", len(items))
	}
	s.put(items...)
	got, err := journal.Recorded(t.Context(), s, "t", []string{oldest.ID, newest.ID, oldest.ID})
	if err != nil || !got[oldest.ID] || !got[newest.ID] {
		t.Errorf("%v, %v; want both", got, err)
	}
	if _, err := journal.Recorded(t.Context(), s, "t", []string{event.NewID(start), "x"}); err == nil || errors.Is(err, event.ErrNotFound) {
		t.Errorf("an ID that is none: %v", err)
	}
}
