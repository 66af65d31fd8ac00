package delivery_test

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tidings-dev/tidings/pkg/delivery"
)

var now = time.Date(2026, 1, 29, 12, 0, 0, 0, time.UTC)

const lease = 25 * time.Second

func claim() delivery.Claim {
	return delivery.Claim{Key: delivery.Key{EndpointID: "ep", EventID: "ev"}, Tenant: "t", EventType: "x", Accepted: now.Add(-time.Minute), ID: "me", Now: now, Lease: lease}
}

func in(state delivery.State) *delivery.Delivery {
	return &delivery.Delivery{Key: claim().Key, State: state, Attempts: 1, ClaimID: "other", LeaseUntil: now.Add(time.Second), NextAttemptAt: now.Add(time.Second)}
}

func TestClaim(t *testing.T) {
	for name, c := range map[string]struct {
		current  *delivery.Delivery
		change   func(*delivery.Claim)
		cause    delivery.Cause // "" if the claim succeeds
		attempts int
	}{
		"no record yet":            {nil, nil, "", 1},
		"an expired record":        {nil, func(c *delivery.Claim) { c.Attempts = 1 }, delivery.CauseSuperseded, 0},
		"delivered":                {in(delivery.Delivered), nil, delivery.CauseSettled, 1},
		"dead":                     {in(delivery.Dead), nil, delivery.CauseSettled, 1},
		"skipped":                  {in(delivery.Skipped), nil, delivery.CauseSettled, 1},
		"another worker's lease":   {in(delivery.InFlight), nil, delivery.CauseInFlight, 1},
		"an expired lease":         {in(delivery.InFlight), func(c *delivery.Claim) { c.Now = now.Add(time.Second) }, "", 2},
		"the same claim, repeated": {in(delivery.InFlight), func(c *delivery.Claim) { c.ID = "other" }, "", 1},
		"a retry that is not due":  {in(delivery.Pending), func(c *delivery.Claim) { c.Attempts = 1 }, delivery.CauseEarly, 1},
		"a retry that is due":      {in(delivery.Pending), func(c *delivery.Claim) { c.Attempts, c.Now = 1, now.Add(time.Second) }, "", 2},
		"a retry, claimed with a stale work item": {in(delivery.Pending), func(c *delivery.Claim) { c.Now = now.Add(time.Second) }, delivery.CauseSuperseded, 1},
	} {
		t.Run(name, func(t *testing.T) {
			cl := claim()
			if c.change != nil {
				c.change(&cl)
			}
			d, refusal := cl.Apply(c.current)
			var cause delivery.Cause
			if refusal != nil {
				cause = refusal.Cause
			}
			if cause != c.cause || d.Attempts != c.attempts {
				t.Errorf("%+v, refusal %v; want cause %q and %d attempts", d, refusal, c.cause, c.attempts)
			}
			if refusal == nil && (d.State != delivery.InFlight || d.ClaimID != cl.ID) {
				t.Errorf("claimed: %+v", d)
			}
			if refusal == nil && c.attempts > 1 && !d.LeaseUntil.Equal(cl.Now.Add(lease)) {
				t.Errorf("lease until %s", d.LeaseUntil)
			}
		})
	}
}

func TestAttemptsWithoutConclusionAreLostInTheHistory(t *testing.T) {
	d := delivery.Delivery{State: delivery.InFlight, Attempts: 4, History: []delivery.Attempt{{Number: 1, Class: delivery.Answered}}}
	k := delivery.Conclusion{State: delivery.Delivered, Attempt: delivery.Attempt{Number: 4, Class: delivery.Success}}
	got := k.Apply(d).History
	if len(got) != 4 || got[1].Class != delivery.Lost || got[1].Number != 2 || got[2].Class != delivery.Lost || got[3].Class != delivery.Success {
		t.Errorf("history = %+v", got)
	}
	if len(d.History) != 1 {
		t.Error("Apply changed its input")
	}
}

func TestHistoryKeepsTheLatestAttempts(t *testing.T) {
	var d delivery.Delivery
	for n := 1; n <= 30; n++ {
		d = delivery.Conclusion{State: delivery.Pending, Attempt: delivery.Attempt{Number: n}}.Apply(d)
	}
	if len(d.History) != delivery.MaxHistory || d.History[delivery.MaxHistory-1].Number != 30 {
		t.Errorf("history = %+v", d.History)
	}
}

// After any sequence of transitions: the number of attempts has not decreased, a
// settled delivery is not in the due index, and only a claim has begun an attempt.
func TestRandomTransitions(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		var d *delivery.Delivery
		at := now
		for range rapid.IntRange(1, 30).Draw(r, "transitions") {
			at = at.Add(time.Duration(rapid.IntRange(0, 40).Draw(r, "seconds")) * time.Second)
			before := d
			move := rapid.SampledFrom([]string{"claim", "conclude", "skip", "replay"}).Draw(r, "transition")
			switch move {
			case "claim":
				c := claim()
				c.Now, c.ID = at, rapid.SampledFrom([]string{"a", "b"}).Draw(r, "worker")
				if d != nil {
					c.Attempts = d.Attempts
				}
				if after, refusal := c.Apply(d); refusal == nil {
					d = &after
				}
			case "conclude":
				if d != nil && d.State == delivery.InFlight {
					k := delivery.Conclusion{State: rapid.SampledFrom([]delivery.State{delivery.Delivered, delivery.Dead, delivery.Pending}).Draw(r, "verdict"),
						NextAt: at.Add(time.Second), DueAt: at.Add(time.Minute), Now: at, Attempt: delivery.Attempt{Number: d.Attempts}}
					after := k.Apply(*d)
					d = &after
				}
			case "skip":
				if after, refusal := (delivery.Settle{Key: claim().Key, State: delivery.Skipped, Now: at, Reason: "gone"}).Apply(d); refusal == nil {
					d = &after
				}
			case "replay":
				if d != nil {
					if after, refusal := (delivery.Replay{Key: d.Key, Now: at, DueAt: at.Add(time.Minute)}).Apply(*d); refusal == nil {
						d = &after
					}
				}
			}
			if d == nil {
				continue
			}
			was := 0
			if before != nil {
				was = before.Attempts
			}
			if d.Attempts < was || d.Attempts > was && move != "claim" {
				r.Fatalf("%s: attempts went from %d to %d", move, was, d.Attempts)
			}
			if d.State.Settled() && (!d.DueAt.IsZero() || !d.LeaseUntil.IsZero()) {
				r.Fatalf("settled, but due or leased: %+v", d)
			}
			if d.State == delivery.Pending && d.DueAt.IsZero() {
				r.Fatalf("pending, but not in the due index: %+v", d)
			}
		}
	})
}

func TestQueryCursor(t *testing.T) {
	q := delivery.Query{EndpointID: "ep", Cursor: "%%%"}
	if _, _, err := q.Bounds(); err == nil {
		t.Error("a malformed cursor is accepted")
	}
	q.Cursor = q.CursorAfter("01J9Z8Q4X7RABCDEFGHJKMNPQ0")
	_, last, err := q.Bounds()
	if err != nil || last != "01J9Z8Q4X7RABCDEFGHJKMNPPZ" {
		t.Errorf("the page after …Q0 ends at %s, %v; want …PZ", last, err)
	}
}
