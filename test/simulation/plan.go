package simulation

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/delivery/breaker"
	"github.com/tidings-dev/tidings/pkg/delivery/ratelimit"
	"github.com/tidings-dev/tidings/pkg/delivery/retry"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/event/catalog"
	"github.com/tidings-dev/tidings/pkg/signature"
)

// plan is what a seed decides before a run begins. Each kind of fault occurs in some
// runs and not in others, so that kinds are tested alone, too.
type plan struct {
	faults    faults
	busy      time.Duration // duration of the faults and operations
	storms    []storm
	endpoints []planned
	producers []produced
	operators []operation
	streams   []stream // of a load
	hot       []hotPartition
	changes   []change // of the platform's table
	// settle is the limit for coming to rest after the faults: the age limit of the
	// youngest delivery, and a reserve.
	settle  time.Duration
	shards  int
	workers int // batches of deliveries at a time
	// slowWorkers is the same for endpoints that answer slowly.
	slowWorkers int
	maxSkew     time.Duration // maximum error of a clock, in both directions
	// retentionDays is that of all events; 0 for the default.
	retentionDays int
}

// faults are probabilities per input or output.
type faults struct {
	kill, throttle, lose, twice, slow float64
	streamReplay                      float64 // for a batch
	queueDuplicate, queueLate         float64 // for a message
	sendFails                         float64 // for an entry
	sweepTwice, sweepMissed           float64 // for a minute
	stale                             float64 // for a read shortly after a write
}

// storm is a time with higher fault probabilities.
type storm struct {
	from, to time.Time
	times    float64
}

// hotPartition is a time in which DynamoDB throttles a share of the requests to one
// partition: an endpoint's, or one of an index. A write that an index cannot take is
// throttled, too.
type hotPartition struct {
	partition string // see partitions
	from, to  time.Time
	share     float64
}

// partitions are those that a request uses.
func (o *ioCall) partitions() []string {
	list := o.indexes
	if o.key.EndpointID != "" {
		list = append(list, o.key.EndpointID)
		if o.key.EventID != "" && !o.read {
			list = append(list, duePartition(o.key.DueShard()))
		}
	}
	return list
}

// wakePartition is the partition of the index of wake-up times, which has only one.
const wakePartition = "wake"

func duePartition(shard int) string { return fmt.Sprint("due ", shard) }

type planned struct {
	endpoint   endpoint.Endpoint
	behaviours []period
	hopeless   bool // never becomes healthy
}

type produced struct {
	at      time.Time
	request json.RawMessage
	key     string // idempotency key; without one it may not be retried
	copies  int    // producers that publish the same event
}

type operation struct {
	at       time.Time
	what     string // edit, disable, enable, remove, add, replay, replay dead, redrive, close circuit
	endpoint int
}

// faulty decides whether a fault happens now.
func (s *sim) faulty(p float64) bool {
	if p == 0 || s.calm {
		return false
	}
	now := time.Now()
	for _, storm := range s.plan.storms {
		if !now.Before(storm.from) && now.Before(storm.to) {
			p = min(p*storm.times, 0.7)
		}
	}
	return s.rng.Float64() < p
}

// hot reports whether DynamoDB throttles a request because of a partition.
func (s *sim) hot(o *ioCall) bool {
	if s.calm || len(s.plan.hot) == 0 {
		return false
	}
	now, used := time.Now(), o.partitions()
	for _, h := range s.plan.hot {
		if slices.Contains(used, h.partition) && !now.Before(h.from) && now.Before(h.to) {
			return s.chance(h.share)
		}
	}
	return false
}

func newPlan(r *rand.Rand, start time.Time) plan {
	some := func(p, of float64) float64 {
		if r.Float64() >= of {
			return 0
		}
		return p * math.Exp(3*(r.Float64()-0.5)) // 0.2 to 4.5 times
	}
	upTo := func(d time.Duration) time.Duration { return time.Duration(r.Int64N(int64(d))) }
	p := plan{
		busy:        time.Hour + time.Duration(r.ExpFloat64()*float64(24*time.Hour)),
		shards:      1 + r.IntN(3),
		workers:     2 + r.IntN(5),
		slowWorkers: 2,
	}
	p.busy, p.settle = min(p.busy, 96*time.Hour), 100*time.Hour
	long := r.Float64() < 0.02
	if long { // longer than the retention, with the longest age limits
		p.busy, p.settle = time.Duration(20+r.IntN(25))*24*time.Hour, 16*24*time.Hour
	}
	if r.Float64() > 0.1 {
		p.faults = faults{
			kill: some(0.002, 0.7), throttle: some(0.01, 0.6), lose: some(0.004, 0.6), twice: some(0.01, 0.5), slow: some(0.003, 0.5),
			streamReplay: some(0.1, 0.5), queueDuplicate: some(0.03, 0.6), queueLate: some(0.03, 0.5), sendFails: some(0.02, 0.5),
			sweepTwice: some(0.05, 0.5), sweepMissed: some(0.05, 0.5), stale: some(0.4, 0.5),
		}
		if r.Float64() < 0.5 {
			p.maxSkew = upTo(2400 * time.Millisecond)
		}
		for range r.IntN(4) {
			from := start.Add(upTo(p.busy))
			p.storms = append(p.storms, storm{from, from.Add(upTo(20 * time.Minute)), 5 + 30*r.Float64()})
		}
	}

	tenants := []string{event.DefaultTenant, "other"}[:1+r.IntN(2)]
	for i := range 1 + r.IntN(5) {
		p.endpoints = append(p.endpoints, newEndpoint(r, i, tenants[r.IntN(len(tenants))], start, p.busy))
		if long {
			lasting(r, &p.endpoints[i], start, p.busy)
		}
	}

	if p.faults != (faults{}) && r.Float64() < 0.3 {
		for range 1 + r.IntN(3) {
			from := start.Add(upTo(p.busy))
			partition := p.endpoints[r.IntN(len(p.endpoints))].endpoint.ID
			switch r.IntN(4) {
			case 0:
				partition = duePartition(r.IntN(delivery.DueShards))
			case 1:
				partition = wakePartition
			}
			p.hot = append(p.hot, hotPartition{partition, from, from.Add(upTo(30 * time.Minute)), 0.3 + 0.65*r.Float64()})
		}
	}

	// Events are published one by one and in bursts.
	for n := 4 + r.IntN(60); n > 0; {
		at := start.Add(upTo(p.busy))
		burst := 1
		if r.Float64() < 0.3 {
			burst += r.IntN(25)
		}
		for range min(burst, n) {
			at = at.Add(upTo(2 * time.Second))
			one := produced{at: at, copies: 1}
			number := len(p.producers)
			if r.Float64() < 0.7 {
				one.key = fmt.Sprintf("key-%d", number)
				if r.Float64() < 0.2 {
					one.copies = 2 + r.IntN(2)
				}
			}
			kind, data := "user.joined_community", fmt.Sprintf(`{"community_id":"c_%d","community_name":"Gophers %d"}`, r.IntN(3), number)
			if r.Float64() < 0.4 {
				kind, data = "user.posted_comment", fmt.Sprintf(`{"discussion_id":"d_%d","comment_id":"k_%d","comment_text":"<ü & %d>"}`, r.IntN(3), number, number)
			}
			one.request = json.RawMessage(fmt.Sprintf(`{"event":%q,"tenant":%q,"data":%s,"idempotency_key":%q}`, kind, tenants[r.IntN(len(tenants))], data, one.key))
			p.producers = append(p.producers, one)
			n--
		}
	}
	slices.SortStableFunc(p.producers, func(a, b produced) int { return a.at.Compare(b.at) })

	if r.Float64() < 0.08 && !long {
		newLoad(r, &p, start)
		return p
	}

	if r.Float64() < 0.4 {
		p.changes = newChanges(r, tenants, start, p.busy)
	}

	if r.Float64() < 0.6 {
		for range r.IntN(12) {
			at := start.Add(upTo(p.busy))
			if r.Float64() < 0.5 { // while events are published
				at = p.producers[r.IntN(len(p.producers))].at.Add(upTo(5 * time.Second))
			}
			what := []string{"edit", "edit", "disable", "blink", "pause", "enable", "enable", "remove", "add", "replay", "replay", "replay", "replay dead", "redrive", "close circuit"}[r.IntN(15)]
			one := operation{at: at, endpoint: r.IntN(len(p.endpoints)), what: what}
			if what == "blink" { // disable and enable again
				one.what = "disable"
				p.operators = append(p.operators, operation{at: at.Add(upTo(20 * time.Second)), endpoint: one.endpoint, what: "enable"})
			}
			if what == "pause" {
				p.operators = append(p.operators, operation{at: at.Add(upTo(2 * time.Hour)), endpoint: one.endpoint, what: "enable"})
			}
			p.operators = append(p.operators, one)
		}
	}
	if r.Float64() < 0.3 || long && r.Float64() < 0.5 { // shorter than most age limits
		p.retentionDays = 1 + r.IntN(3)
	}
	return p
}

func newEndpoint(r *rand.Rand, number int, tenant string, start time.Time, busy time.Duration) planned {
	secret, err := signature.ParseSecret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	if err != nil {
		panic(err) // a constant
	}
	one := planned{endpoint: endpoint.Endpoint{
		Tenant: tenant, ID: fmt.Sprintf("ep_%d", number+1), URL: "https://receiver.example/hook", EventTypes: []string{"*"},
		Secrets: []endpoint.SigningSecret{{Secret: secret}}, Status: endpoint.Enabled, CreatedAt: start, UpdatedAt: start,
	}}
	shape(r, &one.endpoint)
	// Healthy and failing periods alternate.
	behaviours := []behaviour{refuses, refuses, hangs, fails, fails, throttles, flaps, flaps, slow, slow, lies, overloaded}
	if r.Float64() < 0.1 {
		behaviours = append(behaviours, unwilling)
	}
	trouble := r.Float64()
	for at := start; at.Before(start.Add(busy)); {
		if r.Float64() < trouble {
			one.behaviours = append(one.behaviours, period{at, behaviours[r.IntN(len(behaviours))]})
			at = at.Add(time.Duration(r.ExpFloat64() * float64([]time.Duration{20 * time.Second, 10 * time.Minute, 3 * time.Hour, 20 * time.Hour}[r.IntN(4)])))
		}
		one.behaviours = append(one.behaviours, period{at, up})
		at = at.Add(time.Minute + time.Duration(r.ExpFloat64()*float64(2*time.Hour)))
	}
	one.behaviours = slices.DeleteFunc(one.behaviours, func(p period) bool { return p.from.After(start.Add(busy)) })
	if one.hopeless = r.Float64() < 0.1; one.hopeless {
		one.behaviours = append(one.behaviours, period{start.Add(busy), []behaviour{refuses, fails, hangs, throttles}[r.IntN(4)]})
	} else {
		one.behaviours = append(one.behaviours, period{start.Add(busy), up})
	}
	return one
}

// lasting makes an endpoint one that is down for weeks, and whose deliveries may be old.
func lasting(r *rand.Rand, p *planned, start time.Time, busy time.Duration) {
	p.endpoint.Retry.MaxAge = time.Duration(3+r.IntN(12)) * 24 * time.Hour
	p.endpoint.Breaker.DisableAfter = 30 * 24 * time.Hour
	p.behaviours = []period{{start, up}}
	for at := start.Add(time.Duration(r.Int64N(int64(busy / 2)))); at.Before(start.Add(busy)); {
		p.behaviours = append(p.behaviours, period{at, []behaviour{refuses, fails, hangs, overloaded}[r.IntN(4)]})
		at = at.Add(time.Duration(r.ExpFloat64() * float64(15*24*time.Hour)))
		p.behaviours = append(p.behaviours, period{at, up})
		at = at.Add(time.Duration(r.ExpFloat64() * float64(3*24*time.Hour)))
	}
	slices.SortStableFunc(p.behaviours, func(a, b period) int { return a.from.Compare(b.from) })
}

// shape gives an endpoint random settings.
func shape(r *rand.Rand, e *endpoint.Endpoint) {
	e.EventTypes, e.Filter = []string{"*"}, nil
	if r.Float64() < 0.2 {
		e.EventTypes = []string{"user.posted_comment"}
	}
	if r.Float64() < 0.2 {
		e.Filter = json.RawMessage(`{"data":{"community_id":["c_1","c_2"]}}`)
	}
	e.Timeout, e.Retry, e.Breaker = 0, retry.Policy{}, breaker.Policy{}
	if r.Float64() < 0.5 {
		e.Timeout = time.Second + time.Duration(r.Int64N(int64(29*time.Second)))
	}
	if r.Float64() < 0.5 {
		e.Retry = retry.Policy{MaxAttempts: 1 + r.IntN(20)}
		if r.Float64() < 0.5 {
			e.Retry.MaxDelay = time.Duration(math.Exp(r.Float64()*10) * float64(time.Second)).Truncate(time.Second) // to 6 h
		}
		if r.Float64() < 0.3 {
			e.Retry.MaxAge = time.Minute + time.Duration(r.ExpFloat64()*float64(8*time.Hour)).Truncate(time.Second)
		}
	}
	if r.Float64() < 0.4 {
		e.Breaker = breaker.Policy{Failures: 1 + r.IntN(10), FailingFor: time.Duration(math.Exp(r.Float64()*12)) * time.Millisecond, OpenFor: time.Second + time.Duration(r.Int64N(int64(20*time.Minute))).Truncate(time.Second)}
		if r.Float64() < 0.2 {
			e.Breaker.DisableAfter = time.Hour + time.Duration(r.ExpFloat64()*float64(5*time.Hour)).Truncate(time.Second)
		}
	}
	if first := e.Version == 0; first || r.Float64() < 0.3 {
		e.Limit = ratelimit.Limit{}
		if r.Float64() < 0.4 {
			e.Limit = ratelimit.Limit{PerMinute: 2 + int(math.Exp(r.Float64()*6))}
			if r.Float64() < 0.5 {
				e.Limit.Burst = 1 + r.IntN(20)
			}
			for e.Limit.Validate() != nil {
				e.Limit.Burst++
			}
		}
	}
	if err := e.Validate(catalog.Default()); err != nil {
		panic(fmt.Sprintf("simulation: %v", err))
	}
}
