package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery/breaker"
)

// dayRate is how many events a second a day brings.
const dayRate = 50

// hangs is how many deliveries of one endpoint must hang at the same time. Some
// more are emitted.
const hangs, hangBurst = 300, 350

// Of the thousand endpoints, each twentieth is dead on a bad day; five get the same
// events, so that two processors bear fanning out to them.
const manyEndpoints, deadEvery, sharing = 1000, 20, 5

// opening is how many events of each discussion come before what is measured: as
// many as failures open a circuit, and one.
const opening = breaker.DefaultFailures + 1

// spell is what the healthy endpoints of one stretch of a day saw.
type spell struct {
	p50, p95, p99 float64 // ms
	deliveries    int
	hanging       int // the fewest that hung while it lasted
	asked         int // attempts at endpoints that always fail
}

func spellOf(latencies []float64) spell {
	slices.Sort(latencies)
	return spell{p50: quantile(latencies, 0.5), p95: quantile(latencies, 0.95), p99: quantile(latencies, 0.99), deliveries: len(latencies)}
}

// compared are a kind of bad day's spells beside the good ones that they took turns
// with.
type compared struct{ good, bad []spell }

// add adds the day to a table: both lines, and each bad spell beside its good one.
func (c compared) add(t *Table, good, bad string) (p50, p95 Cell) {
	column := func(of func(spell) float64, spells []spell) (all []float64) {
		for _, s := range spells {
			all = append(all, of(s))
		}
		return all
	}
	p50s, p95s := func(s spell) float64 { return s.p50 }, func(s spell) float64 { return s.p95 }
	ratio := func(f func(spell) float64) Cell {
		var all []float64
		for i := range c.bad {
			all = append(all, f(c.bad[i])/f(c.good[i]))
		}
		return of(all...)
	}
	row := func(name string, spells []spell, p50, p95 Cell) {
		n := 0
		for _, s := range spells {
			n += s.deliveries
		}
		t.add(name, of(column(p50s, spells)...), of(column(p95s, spells)...), of(column(func(s spell) float64 { return s.p99 }, spells)...), p50, p95, of(float64(n)))
	}
	p50, p95 = ratio(p50s), ratio(p95s)
	row(good, c.good, of(), of())
	row(bad, c.bad, p50, p95)
	return p50, p95
}

// measureDays plays bad days beside good ones, in turns, and asks the healthy
// endpoints.
func measureDays(ctx context.Context, r *Report, o options) error {
	t := r.table("days", "Bad days: 50 events/s to the whole runner on the memory store, what the healthy endpoints see", "day",
		"p50 ms", "p95 ms", "p99 ms", "p50, of the good day's", "p95, of the good day's", "deliveries measured")
	rounds, span := 4, 5*time.Second
	if o.short {
		rounds, span = 1, 3*time.Second
	}
	progress := func(what string, n int, good, bad spell) {
		fmt.Fprintf(os.Stderr, "  %s, round %d: p50 %s and %s ms, p95 %s and %s ms\n", what, n+1, number(good.p50), number(bad.p50), number(good.p95), number(bad.p95))
	}

	tenth, err := failingDays(ctx, o, rounds+1, span, progress)
	if err != nil {
		return fmt.Errorf("a day on which a tenth fails: %w", err)
	}
	_, p95 := tenth.add(t, "3 endpoints, all well", "… 10 % of the third's events fail once")
	r.atMost(1.2, p95.Median, "", "10 % failing: p95 of the healthy endpoints, relative to a good period")

	var hanging compared
	var seen []float64
	for n := range max(rounds-1, 1) {
		good, bad, err := hangingDay(ctx, o, span)
		if err != nil {
			return fmt.Errorf("a day on which an endpoint hangs: %w", err)
		}
		hanging.good, hanging.bad = append(hanging.good, good), append(hanging.bad, bad)
		seen = append(seen, float64(bad.hanging))
		progress(fmt.Sprintf("an endpoint hangs (%d requests at least)", bad.hanging), n, good, bad)
	}
	fewest := of(seen...)
	p50, _ := hanging.add(t, "2 endpoints, all well", fmt.Sprintf("… %s deliveries of a third hang", fewest))
	r.atMost(2, p50.Median, "", "a hanging endpoint: p50 of the others, relative to a good period")
	r.over(hangs-1, fewest.Min, "deliveries", "… of which hung meanwhile, at least")

	var many compared
	var asked []float64
	for n := range rounds {
		var spells [2]spell
		for i, bad := range []bool{false, true} {
			s, err := manyDay(ctx, o, span+time.Second, bad)
			if err != nil {
				return fmt.Errorf("a day of a thousand endpoints: %w", err)
			}
			spells[i] = s
		}
		many.good, many.bad = append(many.good, spells[0]), append(many.bad, spells[1])
		asked = append(asked, float64(spells[1].asked))
		progress("50 of 1,000 endpoints are dead", n, spells[0], spells[1])
	}
	_, p95 = many.add(t, "1,000 endpoints, all well", "… 50 are dead: they refuse connections, or answer 503")
	r.atMost(1.2, p95.Median, "", "50 of 1,000 endpoints dead: p95 of the healthy ones, relative to a good period")

	t.Notes = []string{
		"Good and bad periods of a few seconds alternate; a ratio compares a bad period with the good one before it. 10 % failing: both periods are in one process, and the third endpoint gets as many events in the good period. " +
			"Hanging: after the good period, a burst goes to the hanging endpoint alone; the bad period is measured while these deliveries hang. The table has the minimum number of hanging deliveries.",
		fmt.Sprintf("1,000 endpoints: each event matches the filters of %d endpoints (one filter for each of %d discussions), so there are %d deliveries a second; one event in four has a dead endpoint among five. "+
			"Before the measurement, each discussion has had %d events, and the circuits of the dead endpoints have opened: the 25 that answer 503 got %s requests during it. "+
			"Each period has its own process, and begins when the warm-up's deliveries to healthy endpoints are complete.", sharing, manyEndpoints/sharing, dayRate*sharing, opening, of(asked...)),
	}
	return nil
}

// about filters a discussion's events.
func about(discussion string) json.RawMessage {
	return json.RawMessage(fmt.Sprintf(`{"data":{"discussion_id":[%q]}}`, discussion))
}

// stage is a runner and a receiver.
type stage struct {
	to     *receiver
	runner *runner
}

func newStage(ctx context.Context, o options, endpoints func(base string) []wish) (*stage, error) {
	to, err := startReceiver()
	if err != nil {
		return nil, err
	}
	runner, err := startRunner(ctx, o.binary, true, endpoints(to.url))
	if err != nil {
		to.stop()
		return nil, err
	}
	return &stage{to, runner}, nil
}

func (s *stage) stop() {
	s.runner.stop()
	s.to.stop()
}

// spell emits events for a while and waits until each has come to so many healthy
// endpoints.
func (s *stage) spell(span time.Duration, discussion func(n int) string, healthy func(n int) int) (spell, error) {
	if err := s.to.reset(); err != nil {
		return spell{}, err
	}
	n, err := s.runner.load(dayRate, span, discussion)
	if err != nil {
		return spell{}, err
	}
	want := healthy(n)
	for end := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		report, err := s.to.report()
		if err != nil {
			return spell{}, err
		}
		seen := report["ok"]
		if seen != nil && len(seen.First) >= want {
			got := spellOf(seen.First)
			if failing := report["fail"]; failing != nil {
				got.asked = failing.Tries
			}
			return got, nil
		}
		if time.Now().After(end) {
			return spell{}, fmt.Errorf("the healthy endpoints did not get their %d deliveries in a minute", want)
		}
	}
}

// failingDays plays good and bad spells in turns to three endpoints, of which the
// third fails a tenth of its events, once each, on a bad day.
func failingDays(ctx context.Context, o options, rounds int, span time.Duration, progress func(string, int, spell, spell)) (c compared, err error) {
	s, err := newStage(ctx, o, func(base string) []wish {
		return append(everything(base+"/ok/1", base+"/ok/2"), wish{URL: base + "/third/1", Filter: about("good")}, wish{URL: base + "/tenth/1", Filter: about("bad")})
	})
	if err != nil {
		return c, err
	}
	defer s.stop()
	one := func(span time.Duration, which string) (spell, error) {
		got, err := s.spell(span, func(int) string { return which }, func(n int) int { return 2 * n })
		if err != nil {
			return got, err
		}
		// What failed comes again two seconds later; the next spell is to be its own.
		return got, s.to.wait(got.deliveries/2*3, time.Minute)
	}
	for n := range rounds + 1 {
		length := span
		if n == 0 {
			length = time.Second // connections and caches
		}
		good, err := one(length, "good")
		if err != nil {
			return c, err
		}
		bad, err := one(length, "bad")
		if err != nil {
			return c, err
		}
		if n > 0 {
			c.good, c.bad = append(c.good, good), append(c.bad, bad)
			progress("10 % fail", n-1, good, bad)
		}
	}
	return c, nil
}

// hangingDay measures two endpoints on their own, and then while hundreds of a
// third one's deliveries hang.
func hangingDay(ctx context.Context, o options, span time.Duration) (good, bad spell, err error) {
	comments := []string{"user.posted_comment"}
	s, err := newStage(ctx, o, func(base string) []wish {
		return []wish{{URL: base + "/ok/1", Types: comments}, {URL: base + "/ok/2", Types: comments}, {URL: base + "/hang/1", Types: []string{"user.flagged_comment"}}}
	})
	if err != nil {
		return good, bad, err
	}
	defer s.stop()
	healthy := func(n int) int { return 2 * n }
	if _, err := s.spell(time.Second, some, healthy); err != nil {
		return good, bad, err
	}
	if good, err = s.spell(span, some, healthy); err != nil {
		return good, bad, err
	}
	flag := `{"event":"user.flagged_comment","data":{"comment_id":"c_1","flagged_user_id":"u_1","reason":"spam"}}`
	if err := s.runner.post([]byte("[" + strings.Repeat(flag+",", hangBurst-1) + flag + "]")); err != nil {
		return good, bad, err
	}
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		n, err := s.to.hanging()
		if err != nil {
			return good, bad, err
		}
		if n >= hangs {
			break
		}
		if time.Now().After(end) {
			break // how many there were is said
		}
	}
	stop, fewest := make(chan struct{}), make(chan int)
	go func() {
		least := hangBurst
		for {
			if n, err := s.to.hanging(); err == nil {
				least = min(least, n)
			}
			select {
			case <-time.After(50 * time.Millisecond):
			case <-stop:
				fewest <- least
				return
			}
		}
	}()
	bad, err = s.spell(span, some, healthy)
	close(stop)
	bad.hanging = <-fewest
	return good, bad, err
}

// topic is the discussion of the n-th event, and the one that the n-th endpoint is
// told of.
func topic(n int) string { return fmt.Sprintf("d_%d", n%(manyEndpoints/sharing)) }

// dead tells of the thousand which are dead on a bad day: of those that share a
// discussion, which are i, i+200 …, never more than one.
func dead(i int) bool { return (i*sharing/manyEndpoints+i)%deadEvery == deadEvery-1 }

// manyDay measures a thousand endpoints, of which each twentieth is dead on a bad
// day: half of them refuse connections, half answer 503.
func manyDay(ctx context.Context, o options, span time.Duration, bad bool) (spell, error) {
	const nobody = "http://127.0.0.1:1" // a port that nobody has opened
	if response, err := http.Get(nobody); err == nil {
		_ = response.Body.Close()
		return spell{}, fmt.Errorf("somebody listens at %s", nobody)
	}
	s, err := newStage(ctx, o, func(base string) (list []wish) {
		for i := range manyEndpoints {
			url := fmt.Sprintf("%s/ok/%d", base, i)
			switch {
			case dead(i) && !bad:
				url = fmt.Sprintf("%s/well/%d", base, i)
			case dead(i) && i/deadEvery%2 == 0:
				url = fmt.Sprintf("%s/%d", nobody, i)
			case dead(i):
				url = fmt.Sprintf("%s/fail/%d", base, i)
			}
			list = append(list, wish{URL: url, Filter: about(topic(i))})
		}
		return list
	})
	if err != nil {
		return spell{}, err
	}
	defer s.stop()
	healthy := func(n int) (count int) {
		each := map[string]int{}
		for i := range manyEndpoints {
			if !dead(i) {
				each[topic(i)]++
			}
		}
		for i := range n {
			count += each[topic(i)]
		}
		return count
	}
	if err := s.to.reset(); err != nil {
		return spell{}, err
	}
	before := opening * manyEndpoints / sharing
	if err := s.runner.flood(before, topic); err != nil {
		return spell{}, err
	}
	good := healthy(before)
	if !bad {
		good = before * sharing
	}
	if err := s.to.wait(good, time.Minute); err != nil {
		return spell{}, err
	}
	return s.spell(span, topic, healthy)
}
