package delivery_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/event"
)

// Settle, Park and Replay refuse as Claim does, to the instant.
func TestATransitionIsRefusedUntilItsTime(t *testing.T) {
	settle := func(d *delivery.Delivery, at time.Time) (delivery.Delivery, *delivery.Refusal) {
		return delivery.Settle{Key: claim().Key, State: delivery.Skipped, Now: at}.Apply(d)
	}
	park := func(d *delivery.Delivery, at time.Time) (delivery.Delivery, *delivery.Refusal) {
		return delivery.Park{Key: claim().Key, Attempts: 1, InBacklog: true, DueAt: at, Now: at}.Apply(d)
	}
	stale := func(d *delivery.Delivery, at time.Time) (delivery.Delivery, *delivery.Refusal) {
		return delivery.Park{Key: claim().Key, Attempts: 2, InBacklog: true, DueAt: at, Now: at}.Apply(d)
	}
	replay := func(d *delivery.Delivery, at time.Time) (delivery.Delivery, *delivery.Refusal) {
		return delivery.Replay{Key: claim().Key, Now: at, DueAt: at}.Apply(*d)
	}
	since := func(before time.Time) func(*delivery.Delivery, time.Time) (delivery.Delivery, *delivery.Refusal) {
		return func(d *delivery.Delivery, at time.Time) (delivery.Delivery, *delivery.Refusal) {
			return delivery.Settle{Key: claim().Key, State: delivery.Dead, SinceBefore: before, Now: at}.Apply(d)
		}
	}
	ends := now.Add(time.Second) // the lease, and the wait, of in
	for name, c := range map[string]struct {
		apply   func(*delivery.Delivery, time.Time) (delivery.Delivery, *delivery.Refusal)
		current *delivery.Delivery
		at      time.Time
		cause   delivery.Cause // "" if it is not refused
		until   time.Time
	}{
		"settle: none yet":              {settle, nil, now, "", time.Time{}},
		"settle: settled":               {settle, in(delivery.Delivered), now, delivery.CauseSettled, time.Time{}},
		"settle: in flight":             {settle, in(delivery.InFlight), ends.Add(-1), delivery.CauseInFlight, ends},
		"settle: an expired lease":      {settle, in(delivery.InFlight), ends, "", time.Time{}},
		"settle: pending":               {settle, in(delivery.Pending), now, "", time.Time{}},
		"settle: as old as it must be":  {since(time.Time{}.Add(1)), in(delivery.Pending), now, "", time.Time{}},
		"settle: replayed":              {since(now.Add(-1)), &delivery.Delivery{State: delivery.Pending, Since: now}, now, delivery.CauseSuperseded, time.Time{}},
		"settle: replayed at that time": {since(now), &delivery.Delivery{State: delivery.Pending, Since: now}, now, "", time.Time{}},
		"park: settled":                 {park, in(delivery.Dead), now, delivery.CauseSettled, time.Time{}},
		"park: in flight":               {park, in(delivery.InFlight), ends.Add(-1), delivery.CauseInFlight, ends},
		"park: an expired lease":        {park, in(delivery.InFlight), ends, "", time.Time{}},
		"park: with a stale item":       {stale, in(delivery.Pending), ends, delivery.CauseSuperseded, time.Time{}},
		"park: an expired lease, stale": {stale, in(delivery.InFlight), ends, "", time.Time{}},
		"park: before its time":         {park, in(delivery.Pending), ends.Add(-1), delivery.CauseEarly, ends},
		"park: at its time":             {park, in(delivery.Pending), ends, "", time.Time{}},
		"park: a record that expired":   {park, nil, now, delivery.CauseSuperseded, time.Time{}},
		"replay: in flight":             {replay, in(delivery.InFlight), now, delivery.CauseInFlight, ends},
		"replay: pending":               {replay, in(delivery.Pending), now, delivery.CauseEarly, ends},
		"replay: dead":                  {replay, in(delivery.Dead), now, "", time.Time{}},
	} {
		_, refused := c.apply(c.current, c.at)
		var cause delivery.Cause
		var until time.Time
		if refused != nil {
			cause, until = refused.Cause, refused.Until
		}
		if cause != c.cause || !until.Equal(c.until) {
			t.Errorf("%s: refused by %q until %s, want %q until %s", name, cause, until, c.cause, c.until)
		}
	}
}

func TestAParkedDeliveryHasTheFieldsOfItsWait(t *testing.T) {
	due, slot := now.Add(time.Hour), now.Add(time.Minute)
	for name, c := range map[string]struct {
		park delivery.Park
		want func(*delivery.Delivery)
	}{
		"in the backlog": {delivery.Park{InBacklog: true}, func(d *delivery.Delivery) { d.InBacklog = true }},
		"for a slot":     {delivery.Park{Slot: slot}, func(d *delivery.Delivery) { d.Slot, d.NextAttemptAt = slot, slot }},
	} {
		p := c.park
		p.Key, p.Attempts, p.Now, p.DueAt, p.Reason = claim().Key, 3, now, due, "waits"
		want := full(delivery.InFlight)
		want.State, want.DueAt, want.Reason, want.ClaimID, want.LeaseUntil = delivery.Pending, due, "waits", "", time.Time{}
		want.UpdatedAt, want.ExpiresAt = now, now.Add(event.Retention(0))
		c.want(&want)
		got, refused := p.Apply(ptr(full(delivery.InFlight)))
		if diff := cmp.Diff(want, got); refused != nil || diff != "" {
			t.Errorf("%s: %v, -want +got:\n%s", name, refused, diff)
		}
	}
}

// A record that was made without the event's type gets it; one that has a type keeps it.
func TestTheEventTypeIsStoredOnce(t *testing.T) {
	for name, apply := range map[string]func(*delivery.Delivery) (delivery.Delivery, *delivery.Refusal){
		"claim":  func(d *delivery.Delivery) (delivery.Delivery, *delivery.Refusal) { return claim().Apply(d) },
		"settle": delivery.Settle{Key: claim().Key, EventType: "x", State: delivery.Dead, Now: now}.Apply,
		"park":   delivery.Park{Key: claim().Key, EventType: "x", Now: now}.Apply,
	} {
		for had, want := range map[string]string{"": "x", "y": "y"} {
			if d, refused := apply(&delivery.Delivery{Key: claim().Key, State: delivery.Pending, EventType: had}); refused != nil || d.EventType != want {
				t.Errorf("%s of a delivery with type %q: %q, %v", name, had, d.EventType, refused)
			}
		}
	}
}

func TestARefusalSaysUntilWhen(t *testing.T) {
	for until, want := range map[time.Time]bool{now: true, {}: false} {
		if text := (&delivery.Refusal{Cause: delivery.CauseEarly, Until: until}).Error(); strings.Contains(text, "until "+now.Format(time.RFC3339)) != want || strings.Contains(text, "until") != want {
			t.Errorf("until %s: %s", until, text)
		}
	}
}

func TestAPageHasAHundredDeliveriesByDefault(t *testing.T) {
	for limit, want := range map[int]int{-1: 100, 0: 100, 1: 1, 250: 250} {
		if got := (delivery.Query{Limit: limit}).PageSize(); got != want {
			t.Errorf("a limit of %d: %d", limit, got)
		}
	}
}

func TestBoundsIncludeTheFirstAndTheLastEvent(t *testing.T) {
	whole := delivery.Query{EndpointID: "ep"}
	if first, last, err := whole.Bounds(); err != nil || first != strings.Repeat("0", 26) || last != "7"+strings.Repeat("Z", 25) {
		t.Errorf("an unbounded query: %s to %s, %v", first, last, err)
	}
	if _, _, err := (delivery.Query{From: now, To: now.Add(-time.Second)}).Bounds(); err == nil {
		t.Error("a range that ends before it begins is accepted")
	}
	q := delivery.Query{EndpointID: "ep", From: now, To: now}
	first, last := event.IDRange(now, now)
	second := first[:25] + "1"
	for name, c := range map[string]struct {
		after, last string // "" for an error
	}{
		"the last event":         {last, last[:25] + "Y"},
		"the second":             {second, first},
		"one after the range":    {event.NewID(now.Add(time.Millisecond)), ""},
		"one before the range":   {event.NewID(now.Add(-time.Millisecond)), ""},
		"a text that is no id":   {"x", ""},
		"the first of the range": {first, ""}, // nothing is left
	} {
		q.Cursor = q.CursorAfter(c.after)
		f, l, err := q.Bounds()
		if (err == nil) != (c.last != "") || err == nil && (f != first || l != c.last) {
			t.Errorf("after %s: %s to %s, %v", name, f, l, err)
		}
	}
}

func TestACursorNamesItsEvent(t *testing.T) {
	id := event.NewID(now)
	for cursor, want := range map[string]string{delivery.Query{}.CursorAfter(id): id, delivery.Query{}.CursorAfter("x"): "", "%%%": ""} {
		if got, err := delivery.CursorEvent(cursor); got != want || (err == nil) != (want != "") {
			t.Errorf("cursor %s: %q, %v", cursor, got, err)
		}
	}
}

// A query is filtered if a store cannot look up what matches: a state that no index has, an
// event type or a status.
func TestAQueryIsFilteredByWhatNoIndexHas(t *testing.T) {
	for name, c := range map[string]struct {
		q    delivery.Query
		want bool
	}{
		"any":                       {delivery.Query{}, false},
		"an indexed state":          {delivery.Query{State: delivery.Dead}, false},
		"another state":             {delivery.Query{State: delivery.Delivered}, true},
		"an event type":             {delivery.Query{EventType: "user.joined_community"}, true},
		"a status":                  {delivery.Query{Status: delivery.Statuses{Min: 500, Max: 500}}, true},
		"an indexed state and type": {delivery.Query{State: delivery.Dead, EventType: "user.joined_community"}, true},
	} {
		if got := c.q.Filtered(); got != c.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

func TestAStatusIsBetween100And599(t *testing.T) {
	for text, want := range map[string]delivery.Statuses{
		"": {}, "100": {Min: 100, Max: 100}, "599": {Min: 599, Max: 599}, "500..500": {Min: 500, Max: 500}, "100..599": {Min: 100, Max: 599},
	} {
		if got, err := delivery.ParseStatuses(text); err != nil || got != want {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{"99", "600", "501..500", "99..200", "500..600", "x", "500..x", "x..500", "500..", "..500", "-500", "500..99999999999999999999"} {
		if got, err := delivery.ParseStatuses(text); err == nil {
			t.Errorf("%q: %+v", text, got)
		}
	}
}
