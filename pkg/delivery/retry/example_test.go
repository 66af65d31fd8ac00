package retry_test

import (
	"fmt"
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/delivery/retry"
)

func ExampleDecide() {
	accepted := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	unavailable := delivery.Outcome{Class: delivery.Answered, Status: 503, Error: "503 Service Unavailable", RetryAfter: time.Minute}
	gone := delivery.Outcome{Class: delivery.Gone, Status: 410, Error: "410 Gone", Permanent: true}

	d := retry.Decide(retry.Attempt{Number: 1, Since: accepted, Outcome: unavailable}, retry.Policy{}, accepted, 0)
	fmt.Println(d.State, d.At.Sub(accepted))

	d = retry.Decide(retry.Attempt{Number: 2, Since: accepted, Outcome: gone}, retry.Policy{}, accepted, 0)
	fmt.Println(d.State, d.DisableEndpoint)
	// Output:
	// pending 1m0s
	// dead true
}
