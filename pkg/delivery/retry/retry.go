// Package retry decides what follows an attempt: delivered, retried at a certain time,
// or dead. It has no I/O, clock or random source of its own. It promises that no retry
// is scheduled in the past or before a receiver's Retry-After (up to MaxDelay), and
// that every delivery ends: by success, by the number of its attempts or by its age.
package retry

import (
	"fmt"
	"slices"
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery"
)

// Policy says how an endpoint's failed deliveries are retried. A zero field means its
// default.
type Policy struct {
	MaxAttempts int           // total number of attempts; 1 to 1,000, by default as many as fit into MaxAge, at most 1,000
	MaxAge      time.Duration // no attempt begins later than this after acceptance; 1 min to 14 days, default 72 h
	MaxDelay    time.Duration // maximum backoff, also for Retry-After; 1 s to 24 h, default 6 h
}

// The defaults of a Policy.
const (
	// DefaultMaxAttempts is never reached with the other defaults: 25 to 30 attempts fit
	// into 72 hours. It bounds the cost of a policy with a short MaxDelay.
	DefaultMaxAttempts = 1000
	DefaultMaxAge      = 72 * time.Hour
	DefaultMaxDelay    = 6 * time.Hour
)

// Validate checks the bounds that Policy documents.
func (p Policy) Validate() error {
	switch {
	case p.MaxAttempts < 0 || p.MaxAttempts > DefaultMaxAttempts:
		return fmt.Errorf("retry.max_attempts is %d; it must be 1 to %d (0 for as many as fit into max_age)", p.MaxAttempts, DefaultMaxAttempts)
	case p.MaxAge != 0 && (p.MaxAge < time.Minute || p.MaxAge > 14*24*time.Hour):
		return fmt.Errorf("retry.max_age is %s; it must be 1m to 336h (0 for the default, %s)", p.MaxAge, DefaultMaxAge)
	case p.MaxDelay != 0 && (p.MaxDelay < time.Second || p.MaxDelay > 24*time.Hour):
		return fmt.Errorf("retry.max_delay is %s; it must be 1s to 24h (0 for the default, %s)", p.MaxDelay, DefaultMaxDelay)
	}
	return nil
}

func (p Policy) orDefaults() Policy {
	if p.MaxAttempts == 0 {
		p.MaxAttempts = DefaultMaxAttempts
	}
	if p.MaxAge == 0 {
		p.MaxAge = DefaultMaxAge
	}
	if p.MaxDelay == 0 {
		p.MaxDelay = DefaultMaxDelay
	}
	return p
}

// AttemptLimit is MaxAttempts or its default.
func (p Policy) AttemptLimit() int { return p.orDefaults().MaxAttempts }

// AgeLimit is MaxAge or its default.
func (p Policy) AgeLimit() time.Duration { return p.orDefaults().MaxAge }

// Attempt is an attempt that has ended.
type Attempt struct {
	Number  int       // since acceptance or replay, starting at 1
	Since   time.Time // when the event was accepted or last replayed
	Outcome delivery.Outcome
	// SameSince is when the first of the latest attempts began that all ended with this
	// class. Zero means this attempt.
	SameSince time.Time
}

// Persistence is how long a missing destination or a denied access must have lasted until
// it is permanent. A queue that is created again, a broker that has just restarted
// (KAFKA-19964) and a permission that propagates look the same for a moment.
const Persistence = 3 * time.Minute

// permanent reports whether a retry cannot help.
func (a Attempt) permanent(now time.Time) bool {
	if !a.Outcome.Permanent {
		return false
	}
	if a.Outcome.Class != delivery.Missing && a.Outcome.Class != delivery.Denied {
		return true
	}
	return !a.SameSince.IsZero() && now.Sub(a.SameSince) >= Persistence
}

// SameSince returns when the first of the latest attempts began that all ended with this
// class; zero if there is none. Attempts that sent nothing do not count.
func SameSince(history []delivery.Attempt, c delivery.Class) (since time.Time) {
	for _, a := range slices.Backward(history) {
		switch a.Class {
		case c:
			since = a.At
		case delivery.CalledOff:
		default:
			return since
		}
	}
	return since
}

// Decision is what follows an attempt.
type Decision struct {
	State delivery.State // Delivered, Pending or Dead
	At    time.Time      // Pending: when the next attempt may begin
	// Reason is the failure and its consequence in one sentence; empty for Delivered.
	Reason string
	// DisableEndpoint is set if the receiver responded 410 Gone.
	DisableEndpoint bool
}

// Decide decides what follows an attempt that ended now. random, in [0,1), is the
// jitter that spreads the retries of deliveries that failed together.
func Decide(a Attempt, p Policy, now time.Time, random float64) Decision {
	o := a.Outcome
	switch o.Class {
	case delivery.Success:
		return Decision{State: delivery.Delivered}
	case delivery.CalledOff: // nothing was sent, so no backoff
		return Decision{State: delivery.Pending, At: now, Reason: o.Error}
	}
	p = p.orDefaults()
	reason := o.Error
	if reason == "" {
		reason = string(o.Class)
	}
	dead := func(because string) Decision {
		return Decision{State: delivery.Dead, Reason: reason + because, DisableEndpoint: o.Class == delivery.Gone}
	}
	switch {
	case o.Class == delivery.Gone:
		return dead(" (410: the endpoint is disabled)")
	case a.permanent(now):
		return dead(" (a retry cannot help)")
	case a.Number >= p.MaxAttempts:
		return dead(fmt.Sprintf(" (attempt %d of %d)", a.Number, p.MaxAttempts))
	}
	wait := Backoff(a.Number, p.MaxDelay, random)
	if hint := min(o.RetryAfter, p.MaxDelay); hint > wait {
		wait = hint
	}
	at := now.Add(wait)
	if at.After(a.Since.Add(p.MaxAge)) {
		return dead(fmt.Sprintf(" (the next attempt would be later than %s after acceptance)", p.MaxAge))
	}
	return Decision{State: delivery.Pending, At: at, Reason: reason}
}

// Backoff returns how long to wait after the given attempt (starting at 1) has failed:
// 2^attempt seconds, at most limit, minus up to a quarter of jitter. The jitter only
// shortens the wait, so that the maximum holds.
func Backoff(attempt int, limit time.Duration, random float64) time.Duration {
	wait := limit
	if attempt < 32 {
		wait = min(limit, time.Second<<attempt)
	}
	return wait - time.Duration(random*float64(wait)/4)
}
