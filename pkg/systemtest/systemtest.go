// Package systemtest tests a running deployment from outside: it emits events, and
// waits for them at the deployment's test receiver. Smoke does it once and checks each
// step; Load does it at a rate and measures. Each run has its own tenant, so that no
// other endpoint gets its events. Both promise to end within the times they are given,
// and to remove their endpoint and their run, also when they fail or are interrupted.
package systemtest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/tidings-dev/tidings/pkg/admin"
	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/emit"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/signature"
	"github.com/tidings-dev/tidings/pkg/systemtest/testreceiver"
	"github.com/tidings-dev/tidings/pkg/systemtest/testrun"
)

// Deliveries reads the state of a delivery.
type Deliveries interface {
	GetDelivery(ctx context.Context, k delivery.Key) (delivery.Delivery, error)
}

// Target is the deployment to test. All fields are required.
type Target struct {
	// Invoke calls a function by its folder's name, such as "emit".
	Invoke     func(ctx context.Context, function string, payload, answer any) error
	Endpoints  *admin.Endpoints
	Deliveries Deliveries
	// ReceiverURL is the URL of the test receiver, as dispatch can reach it.
	ReceiverURL string
	Now         func() time.Time
}

const (
	// cleanUpTime limits the removal of what a run has made.
	cleanUpTime = 15 * time.Second
	// pollTime is the time between two looks at what has changed.
	pollTime = 250 * time.Millisecond

	// receiver is the function that stores webhooks.
	receiver  = "test-receiver"
	eventType = "user.joined_community"
)

// run is a test run that is under way.
type run struct {
	Target
	id       string
	secret   signature.Secret
	endpoint endpoint.Endpoint
}

func (t Target) newRun() *run {
	return &run{Target: t, id: event.NewID(t.Now()), secret: signature.NewSecret()}
}

// open opens the run at the receiver.
func (r *run) open(ctx context.Context, lasts time.Duration) error {
	c := testreceiver.Command{Action: "open", Run: r.id, Secret: r.secret.Reveal(), Seconds: int(lasts.Seconds())}
	return r.Invoke(ctx, receiver, c, new(struct{}))
}

// subscribe adds the run's endpoint.
func (r *run) subscribe(ctx context.Context) (err error) {
	r.endpoint, err = r.Endpoints.Add(ctx, endpoint.Endpoint{
		Tenant: testrun.Tenant(r.id), URL: strings.TrimSuffix(r.ReceiverURL, "/") + "/" + r.id, Description: "test run " + r.id,
		EventTypes: []string{eventType}, Secrets: []endpoint.SigningSecret{{Secret: r.secret}},
	})
	return err
}

// emit publishes the n-th event of the run and returns its id.
func (r *run) emit(ctx context.Context, n int) (string, error) {
	data, err := json.Marshal(map[string]string{"community_id": testrun.Tenant(r.id), "community_name": fmt.Sprint("Event ", n, " of a test run")})
	if err != nil {
		return "", err
	}
	var result emit.Result
	err = r.Invoke(ctx, "emit", emit.Request{Event: eventType, Tenant: testrun.Tenant(r.id), ActorUserID: "tidings-test", Data: data}, &result)
	return result.ID, err
}

// arrivals returns what arrived after a cursor.
func (r *run) arrivals(ctx context.Context, cursor string) (all []testrun.Arrival, err error) {
	for {
		var page testrun.Page
		c := testreceiver.Command{Action: "arrivals", Run: r.id, Cursor: cursor}
		if err := r.Invoke(ctx, receiver, c, &page); err != nil {
			return nil, err
		}
		all = append(all, page.Arrivals...)
		if cursor = page.Next; cursor == "" {
			return all, nil
		}
	}
}

// cleanUp removes the endpoint and closes the run, also after ctx is done. What it
// cannot remove goes away by itself: the run expires, and the receiver then answers
// 410, which disables the endpoint.
func (r *run) cleanUp(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanUpTime)
	defer cancel()
	var failed error
	if r.endpoint.ID != "" {
		if err := r.Endpoints.Store.RemoveEndpoint(ctx, r.endpoint.Tenant, r.endpoint.ID); err != nil && !errors.Is(err, endpoint.ErrNotFound) {
			failed = fmt.Errorf("remove endpoint %s of tenant %s: %w", r.endpoint.ID, r.endpoint.Tenant, err)
		}
	}
	return errors.Join(failed, r.Invoke(ctx, receiver, testreceiver.Command{Action: "close", Run: r.id}, new(struct{})))
}

// pause waits for a moment. It returns the error of a context that is done.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// AtRate starts n calls of do at a rate per second, without waiting for those before,
// and returns when all have returned. A call that is late is made up for. After ctx is
// done it starts no more. It returns the number of calls.
func AtRate(ctx context.Context, perSecond, n int, do func(i int)) (calls int) {
	var running sync.WaitGroup
	defer running.Wait()
	began := time.Now()
	for calls < n {
		due := time.Duration(calls) * time.Second / time.Duration(perSecond)
		if pause(ctx, due-time.Since(began)) != nil || ctx.Err() != nil {
			return calls
		}
		i := calls
		running.Go(func() { do(i) })
		calls++
	}
	return calls
}
