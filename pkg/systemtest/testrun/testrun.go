// Package testrun holds what a test of a running deployment consists of: a run, which
// has its own tenant, endpoint and signing secret, and the webhooks that arrived in it.
// It promises that two runs never see each other's events, and it computes what
// arrived, how fast and how often. It is pure: no I/O, no clock.
package testrun

import (
	"errors"
	"math"
	"slices"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/tidings-dev/tidings/pkg/signature"
)

// MaxTime is the longest time that a run can be open.
const MaxTime = 24 * time.Hour

// ErrNotFound means that no run with this id is open.
var ErrNotFound = errors.New("no such test run is open: it was never opened, was closed, or has expired")

// Run is a test that is under way. Its id is a ULID.
type Run struct {
	ID     string
	Secret signature.Secret
	// ExpiresAt is when the receiver forgets the run and what arrived in it, to the
	// second.
	ExpiresAt time.Time
}

// Tenant returns the tenant of a run's events and endpoint. No other endpoint gets its
// events, and no worker can have a cached list of its endpoints.
func Tenant(id string) string { return "test-" + id }

// ValidID reports whether a text can be the id of a run.
func ValidID(id string) bool {
	_, err := ulid.ParseStrict(id)
	return err == nil
}

// Arrival is a webhook that the receiver verified and stored.
type Arrival struct {
	EventID string `json:"event_id"`
	// Request distinguishes the requests for one event.
	Request string    `json:"request"`
	At      time.Time `json:"at"` // to the millisecond
}

// Key orders a run's arrivals by event and request.
func (a Arrival) Key() string { return a.EventID + "#" + a.Request }

// Page is a part of a run's arrivals, ordered by event and request.
type Page struct {
	Arrivals []Arrival `json:"arrivals"`
	Next     string    `json:"next,omitempty"` // where the next page begins; "" on the last
}

// Received is what arrived of one event.
type Received struct {
	First    time.Time
	Requests int
}

// Collect counts arrivals by event. An arrival that is given twice counts once.
func Collect(arrivals []Arrival) map[string]Received {
	seen := map[[2]string]bool{}
	events := map[string]Received{}
	for _, a := range arrivals {
		if key := [2]string{a.EventID, a.Request}; !seen[key] {
			seen[key] = true
			r := events[a.EventID]
			r.Requests++
			if r.First.IsZero() || a.At.Before(r.First) {
				r.First = a.At
			}
			events[a.EventID] = r
		}
	}
	return events
}

// Figures are the result of a load test. Counts are events.
type Figures struct {
	Accepted   int     `json:"accepted"`
	Received   int     `json:"received"`
	Missing    int     `json:"missing"`    // accepted and not received when the test ended
	Duplicated int     `json:"duplicated"` // received by more than one request
	Unexpected int     `json:"unexpected"` // received although emit had not answered that it accepted them
	Latency    Latency `json:"latency"`
}

// Latency holds percentiles of the time from acceptance to the first arrival, in
// milliseconds. They are 0 if nothing arrived.
type Latency struct {
	P50 float64 `json:"p50_ms"`
	P95 float64 `json:"p95_ms"`
	P99 float64 `json:"p99_ms"`
	Max float64 `json:"max_ms"`
}

// Evaluate compares what emit accepted, as event ids, with what arrived. An event's id
// holds the time of its acceptance by emit's clock, so that latencies do not depend on
// the clock of the machine that runs the test.
func Evaluate(accepted []string, received map[string]Received) (f Figures) {
	var latencies []float64
	expected := map[string]bool{}
	for _, id := range accepted {
		if expected[id] {
			continue
		}
		expected[id] = true
		f.Accepted++
		r, ok := received[id]
		if !ok {
			f.Missing++
			continue
		}
		f.Received++
		if r.Requests > 1 {
			f.Duplicated++
		}
		latencies = append(latencies, Since(id, r.First).Seconds()*1000)
	}
	for id := range received {
		if !expected[id] {
			f.Unexpected++
		}
	}
	slices.Sort(latencies)
	f.Latency = Latency{quantile(latencies, 0.5), quantile(latencies, 0.95), quantile(latencies, 0.99), quantile(latencies, 1)}
	return f
}

// Since returns the time from the acceptance of an event to another time, at least 0.
func Since(eventID string, at time.Time) time.Duration {
	id, err := ulid.ParseStrict(eventID)
	if err != nil {
		return 0
	}
	return max(0, at.Sub(ulid.Time(id.Time())))
}

// quantile returns the smallest value of a sorted list that is not below a share q of it.
func quantile(sorted []float64, q float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[max(0, int(math.Ceil(q*float64(len(sorted))))-1)]
}
