package breaker_test

import (
	"testing"
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery/breaker"
)

// step makes a step of the drain.
func step(s breaker.State, now time.Time, last string, sent int, done bool) breaker.State {
	return s.Advance(breaker.Step{Scan: s.Drain.Scan(now), Last: last, Sent: sent, Done: done, Next: now.Add(2 * time.Second)}, now)
}

func TestADrainDoublesItsRateWhileAnswersAreGood(t *testing.T) {
	s := breaker.State{}.Close(start)
	now := start
	var rates []int
	for range 40 {
		now = now.Add(time.Second)
		s = step(s, now, s.Drain.Cursor+"x", 1, false)
		if n := len(rates); n == 0 || rates[n-1] != s.Drain.Rate {
			rates = append(rates, s.Drain.Rate)
		}
	}
	want := []int{10, 20, 40, 80, 160, 320}
	if len(rates) != len(want) || rates[5] != breaker.MaxRate || now.Sub(start) < 5*breaker.DoubleEvery {
		t.Errorf("rates %v, want %v", rates, want)
	}
	// A bad second halves it once, and the next doubling is five seconds after that.
	s, first := s.AnsweredBadly(now)
	s, again := s.AnsweredBadly(now.Add(900 * time.Millisecond))
	if !first || again || s.Drain.Rate != 160 {
		t.Errorf("after bad answers: %+v", s.Drain)
	}
	if s = step(s, now.Add(4900*time.Millisecond), "y", 1, false); s.Drain.Rate != 160 {
		t.Errorf("doubled too early: %+v", s.Drain)
	}
	if s = step(s, now.Add(5*time.Second), "z", 1, false); s.Drain.Rate != 320 {
		t.Errorf("not doubled: %+v", s.Drain)
	}
	for i := range 20 {
		s, _ = s.AnsweredBadly(now.Add(time.Duration(6+i) * time.Second))
	}
	if s.Drain.Rate != 1 {
		t.Errorf("after only bad answers the rate is %d, want 1", s.Drain.Rate)
	}
	if _, changed := (breaker.State{}).AnsweredBadly(now); changed {
		t.Error("a bad answer changes a closed breaker that has no backlog")
	}
}

func TestADrainEndsOnlyWhenNothingCanBeLeft(t *testing.T) {
	s, _ := breaker.State{EndpointID: "e"}.Hold(start)
	if s.Phase != breaker.Draining || s.WakeAt.IsZero() {
		t.Fatalf("held: %+v", s)
	}
	// The index does not show the delivery yet.
	if s = step(s, start.Add(2*time.Second), "", 0, true); s.Phase != breaker.Draining || s.WakeAt.IsZero() {
		t.Errorf("ended after two seconds: %+v", s)
	}
	// What was queued has time to be claimed, then everything is looked at again.
	s = step(s, start.Add(12*time.Second), "a", 1, true)
	s = step(s, start.Add(14*time.Second), "", 0, true)
	if want := start.Add(22 * time.Second); s.Drain.Cursor != "a" || !s.WakeAt.Equal(want) || s.Drain.Behind {
		t.Errorf("wakes at %s, want %s: %+v", s.WakeAt, want, s.Drain)
	}
	if scan := s.Drain.Scan(start.Add(22 * time.Second)); scan.After != "" || scan.Cursor != "a" {
		t.Errorf("does not look again: %+v", scan)
	}
	// Another delivery comes: the end is put off.
	s, changed := s.Hold(start.Add(21 * time.Second))
	if !changed {
		t.Error("a new delivery does not put off the end")
	}
	if _, again := s.Hold(start.Add(22 * time.Second)); again {
		t.Error("each delivery writes")
	}
	if s = step(s, start.Add(22*time.Second), "", 0, true); s.Phase != breaker.Draining || !s.WakeAt.Equal(start.Add(41*time.Second)) {
		t.Errorf("ended a second after a delivery came: %+v", s)
	}
	if s = step(s, start.Add(41*time.Second), "", 0, true); s != (breaker.State{EndpointID: "e"}) {
		t.Errorf("not ended: %+v", s)
	}
}

// Under a low limit, slots are minutes ahead. What has one is queued once.
func TestADeliveryWithASlotAheadIsNotLost(t *testing.T) {
	s, _ := breaker.State{}.Hold(start)
	slot := start.Add(2 * time.Minute)
	s = s.Advance(breaker.Step{Scan: s.Drain.Scan(start), Last: "b", Sent: 2, Slot: slot, Next: start.Add(time.Minute)}, start)
	s = s.Advance(breaker.Step{Scan: s.Drain.Scan(start.Add(time.Minute)), Next: slot}, start.Add(time.Minute)) // marks b
	for _, at := range []time.Duration{0, breaker.IndexLag - time.Second} {
		if scan := s.Drain.Scan(slot.Add(at)); scan.After != "b" || scan.UpTo != "" {
			t.Errorf("%s after the slot: %+v", at, scan)
		}
	}
	if scan := s.Drain.Scan(slot.Add(breaker.IndexLag)); scan.After != "" {
		t.Errorf("after the last slot, the step reads from %+v, want the whole backlog", scan)
	}
	s = s.Advance(breaker.Step{Scan: breaker.Scan{Cursor: "b", After: "b"}, Last: "c", Sent: 1, Slot: slot.Add(time.Minute), Next: slot}, slot)
	if scan := s.Drain.Scan(slot.Add(breaker.Unclaimed - time.Second)); scan.UpTo != "" {
		t.Errorf("within a minute of its slot, b counts as lost: %+v", scan)
	}
	if scan := s.Drain.Scan(slot.Add(breaker.Unclaimed)); scan.UpTo != "b" {
		t.Errorf("a minute after its slot, b does not count as lost: %+v", scan)
	}
}

func TestADrainReturnsToWhatWasQueuedAndStillWaits(t *testing.T) {
	s, _ := breaker.State{}.Hold(start)
	s = step(s, start.Add(time.Second), "b", 5, false)
	for at := 2 * time.Second; at < breaker.Unclaimed; at += 2 * time.Second {
		s = step(s, start.Add(at), "c", 5, false)
	}
	s = step(s, start.Add(breaker.Unclaimed), "d", 5, false) // marks d
	for at := breaker.Unclaimed + 2*time.Second; at < 2*breaker.Unclaimed; at += 2 * time.Second {
		s = step(s, start.Add(at), "d", 5, false)
	}
	if scan := s.Drain.Scan(start.Add(2*breaker.Unclaimed - time.Second)); scan.UpTo != "" || scan.After != "d" {
		t.Errorf("%+v before a minute is over", scan)
	}
	if scan := s.Drain.Scan(start.Add(2 * breaker.Unclaimed)); scan.UpTo != "d" || scan.After != "d" {
		t.Errorf("%+v, want what is not later than d", scan)
	}
	// A step of a worker that was overtaken changes nothing.
	late := breaker.Step{Scan: breaker.Scan{Cursor: "b", After: "b"}, Last: "c", Next: start}
	if after := s.Advance(late, start.Add(time.Hour)); after != s {
		t.Errorf("an overtaken step: %+v", after)
	}
	open := s
	for i := range 6 {
		open, _ = open.RecordFailure(breaker.Policy{}, "c", "x", start.Add(time.Duration(i)*10*time.Second))
	}
	if open.Phase != breaker.Open || open.Drain != (breaker.Drain{}) {
		t.Errorf("opened: %+v", open)
	}
	if held, changed := open.Hold(start); changed || held.Phase != breaker.Open {
		t.Errorf("a delivery that waits for an open circuit changes it: %+v", held)
	}
}
