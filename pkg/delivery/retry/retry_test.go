package retry_test

import (
	"strings"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/delivery/retry"
)

var now = time.Date(2026, 1, 29, 12, 0, 0, 0, time.UTC)

func TestDecide(t *testing.T) {
	for name, c := range map[string]struct {
		attempt  retry.Attempt
		policy   retry.Policy
		state    delivery.State
		wait     time.Duration
		disables bool
		says     string
	}{
		"success is delivered":                           {retry.Attempt{Number: 1, Since: now, Outcome: delivery.Outcome{Class: delivery.Success}}, retry.Policy{}, delivery.Delivered, 0, false, ""},
		"success on the last attempt is delivered":       {retry.Attempt{Number: 16, Since: now.Add(-99 * time.Hour), Outcome: delivery.Outcome{Class: delivery.Success}}, retry.Policy{}, delivery.Delivered, 0, false, ""},
		"the first failure is retried after 2 s":         {failed(1, delivery.Answered), retry.Policy{}, delivery.Pending, 2 * time.Second, false, ""},
		"the 10th failure is retried after 1024 s":       {failed(10, delivery.Timeout), retry.Policy{}, delivery.Pending, 1024 * time.Second, false, ""},
		"the backoff is capped at 6 h":                   {failed(15, delivery.Timeout), retry.Policy{}, delivery.Pending, 6 * time.Hour, false, ""},
		"the 40th failure is retried":                    {failed(40, delivery.Answered), retry.Policy{}, delivery.Pending, 6 * time.Hour, false, ""},
		"the 1000th failure is dead":                     {failed(1000, delivery.Answered), retry.Policy{}, delivery.Dead, 0, false, "attempt 1000 of 1000"},
		"max_attempts is respected":                      {failed(2, delivery.Answered), retry.Policy{MaxAttempts: 2}, delivery.Dead, 0, false, "attempt 2 of 2"},
		"410 is dead and disables the endpoint":          {failed(1, delivery.Gone), retry.Policy{}, delivery.Dead, 0, true, "410"},
		"a permanent failure is dead":                    {retry.Attempt{Number: 1, Since: now, Outcome: delivery.Outcome{Class: delivery.Blocked, Permanent: true}}, retry.Policy{}, delivery.Dead, 0, false, "cannot help"},
		"a missing queue is retried":                     {lasting(delivery.Missing, 0), retry.Policy{}, delivery.Pending, 2 * time.Second, false, "missing"},
		"a queue that is missing for 3 minutes is dead":  {lasting(delivery.Missing, 3*time.Minute), retry.Policy{}, delivery.Dead, 0, false, "cannot help"},
		"access that was denied a moment ago is retried": {lasting(delivery.Denied, 3*time.Minute-time.Second), retry.Policy{}, delivery.Pending, 2 * time.Second, false, "denied"},
		"access that is denied for 3 minutes is dead":    {lasting(delivery.Denied, 3*time.Minute), retry.Policy{}, delivery.Dead, 0, false, "cannot help"},
		"a message that is too large is dead at once":    {lasting(delivery.TooLarge, 0), retry.Policy{}, delivery.Dead, 0, false, "cannot help"},
		"a longer Retry-After is respected":              {retryAfter(1, time.Minute), retry.Policy{}, delivery.Pending, time.Minute, false, ""},
		"a shorter Retry-After is ignored":               {retryAfter(10, time.Minute), retry.Policy{}, delivery.Pending, 1024 * time.Second, false, ""},
		"Retry-After is capped":                          {retryAfter(1, 100*time.Hour), retry.Policy{}, delivery.Pending, 6 * time.Hour, false, ""},
		"no retry after more than 72 h":                  {retry.Attempt{Number: 1, Since: now.Add(-72*time.Hour + time.Second), Outcome: delivery.Outcome{Class: delivery.Answered}}, retry.Policy{}, delivery.Dead, 0, false, "72h"},
		"a retry after exactly 72 h":                     {retry.Attempt{Number: 1, Since: now.Add(-72*time.Hour + 2*time.Second), Outcome: delivery.Outcome{Class: delivery.Answered}}, retry.Policy{}, delivery.Pending, 2 * time.Second, false, ""},
		"max_delay is respected":                         {failed(10, delivery.Answered), retry.Policy{MaxDelay: 5 * time.Second}, delivery.Pending, 5 * time.Second, false, ""},
	} {
		t.Run(name, func(t *testing.T) {
			d := retry.Decide(c.attempt, c.policy, now, 0)
			if d.State != c.state || d.DisableEndpoint != c.disables || !strings.Contains(d.Reason, c.says) {
				t.Errorf("decision = %+v", d)
			}
			if d.State == delivery.Pending && !d.At.Equal(now.Add(c.wait)) {
				t.Errorf("retried after %s, want %s", d.At.Sub(now), c.wait)
			}
			if d.State == delivery.Delivered && d.Reason != "" || d.State != delivery.Delivered && d.Reason == "" {
				t.Errorf("reason = %q", d.Reason)
			}
		})
	}
}

func failed(n int, c delivery.Class) retry.Attempt {
	return retry.Attempt{Number: n, Since: now, Outcome: delivery.Outcome{Class: c}}
}

// lasting is a permanent failure that began d ago.
func lasting(c delivery.Class, d time.Duration) retry.Attempt {
	a := failed(1, c)
	a.Outcome.Permanent, a.SameSince = true, now.Add(-d)
	return a
}

func TestSameSince(t *testing.T) {
	at := func(minute int, c delivery.Class) delivery.Attempt {
		return delivery.Attempt{At: now.Add(time.Duration(minute) * time.Minute), Class: c}
	}
	for name, c := range map[string]struct {
		history []delivery.Attempt
		want    time.Time
	}{
		"no attempt":                  {nil, time.Time{}},
		"another class":               {[]delivery.Attempt{at(1, delivery.Missing), at(2, delivery.Timeout)}, time.Time{}},
		"the first of the latest":     {[]delivery.Attempt{at(1, delivery.Missing), at(2, delivery.Timeout), at(3, delivery.Missing), at(4, delivery.Missing)}, now.Add(3 * time.Minute)},
		"attempts that were not made": {[]delivery.Attempt{at(1, delivery.Missing), at(2, delivery.CalledOff), at(3, delivery.Missing)}, now.Add(time.Minute)},
	} {
		if got := retry.SameSince(c.history, delivery.Missing); !got.Equal(c.want) {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

func retryAfter(n int, d time.Duration) retry.Attempt {
	a := failed(n, delivery.Throttled)
	a.Outcome.RetryAfter = d
	return a
}

// A lone event is attempted until it is 72 hours old, whatever the traffic.
func TestAttemptsGoOnUntilTheAgeLimit(t *testing.T) {
	for _, random := range []float64{0, 0.5, 0.999999} {
		at, attempts := now, 0
		for {
			attempts++
			d := retry.Decide(retry.Attempt{Number: attempts, Since: now, Outcome: delivery.Outcome{Class: delivery.Answered}}, retry.Policy{}, at, random)
			if d.State == delivery.Dead {
				break
			}
			at = d.At
		}
		if age := at.Sub(now); age < retry.DefaultMaxAge-retry.DefaultMaxDelay || attempts < 20 || attempts > 30 {
			t.Errorf("jitter %g: %d attempts, the last after %s", random, attempts, age)
		}
	}
}

func TestBackoffIsShortenedByAtMostAQuarter(t *testing.T) {
	for n := 1; n <= 30; n++ {
		full := min(time.Second<<n, retry.DefaultMaxDelay)
		if got := retry.Backoff(n, retry.DefaultMaxDelay, 0); got != full {
			t.Errorf("after attempt %d: %s, want %s", n, got, full)
		}
		if got := retry.Backoff(n, retry.DefaultMaxDelay, 0.999999); got < full*3/4 || got >= full {
			t.Errorf("after attempt %d with full jitter: %s, want a quarter less than %s", n, got, full)
		}
	}
	if got := retry.Backoff(1000, time.Hour, 0); got != time.Hour {
		t.Errorf("after attempt 1000: %s", got)
	}
}

func TestPolicyBounds(t *testing.T) {
	for name, c := range map[string]struct {
		policy retry.Policy
		ok     bool
	}{
		"defaults":          {retry.Policy{}, true},
		"minimum":           {retry.Policy{MaxAttempts: 1, MaxAge: time.Minute, MaxDelay: time.Second}, true},
		"maximum":           {retry.Policy{MaxAttempts: 1000, MaxAge: 336 * time.Hour, MaxDelay: 24 * time.Hour}, true},
		"negative attempts": {retry.Policy{MaxAttempts: -1}, false},
		"1001 attempts":     {retry.Policy{MaxAttempts: 1001}, false},
		"age of 1 s":        {retry.Policy{MaxAge: time.Second}, false},
		"age of 1 year":     {retry.Policy{MaxAge: 8760 * time.Hour}, false},
		"delay of 1 ms":     {retry.Policy{MaxDelay: time.Millisecond}, false},
		"delay of 2 days":   {retry.Policy{MaxDelay: 48 * time.Hour}, false},
	} {
		if err := c.policy.Validate(); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}
