package systemtest_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidings-dev/tidings/pkg/admin"
	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/destination"
	"github.com/tidings-dev/tidings/pkg/emit"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/event/catalog"
	"github.com/tidings-dev/tidings/pkg/ops/health"
	"github.com/tidings-dev/tidings/pkg/signature"
	"github.com/tidings-dev/tidings/pkg/store/memory"
	"github.com/tidings-dev/tidings/pkg/systemtest"
	"github.com/tidings-dev/tidings/pkg/systemtest/testreceiver"
)

// deployment delivers each event a second after it was emitted, as the fields say.
type deployment struct {
	store    *memory.Store
	receiver *testreceiver.Receiver
	began    time.Time

	unhealthyFor time.Duration
	lose         bool // deliver nothing
	twice        bool // deliver everything twice
	refuse       error

	mu      sync.Mutex
	emitted int
}

func deploy() *deployment {
	d := &deployment{store: memory.New(time.Now), began: time.Now()}
	d.receiver = &testreceiver.Receiver{Store: d.store, Log: slog.New(slog.DiscardHandler), Now: time.Now}
	return d
}

func (d *deployment) target() systemtest.Target {
	return systemtest.Target{
		Invoke: d.invoke, Deliveries: d, ReceiverURL: "https://receiver.example/", Now: time.Now,
		Endpoints: &admin.Endpoints{Store: d.store, Catalog: catalog.Default(), Check: func(destination.Target) error { return nil }, Now: time.Now},
	}
}

func (d *deployment) invoke(ctx context.Context, function string, payload, answer any) error {
	text, err := json.Marshal(payload)
	if err != nil {
		return err
	}
	var out any
	switch function {
	case "test-receiver":
		out, err = d.receiver.Handle(ctx, text)
	case "emit":
		out, err = d.emit(ctx, payload.(emit.Request))
	case "health":
		report := health.Report{Version: "v1.2.3"}
		if report.Healthy = time.Since(d.began) >= d.unhealthyFor; !report.Healthy {
			report.Reasons = []string{"no sweep has run"}
		}
		out = report
	}
	if err != nil {
		return err
	}
	if text, err = json.Marshal(out); err != nil {
		return err
	}
	return json.Unmarshal(text, answer)
}

func (d *deployment) emit(ctx context.Context, r emit.Request) (emit.Result, error) {
	d.mu.Lock()
	d.emitted++
	d.mu.Unlock()
	if d.refuse != nil {
		return emit.Result{}, d.refuse
	}
	id := event.NewID(time.Now())
	list, err := d.store.ListEndpoints(ctx, r.Tenant)
	if err != nil || len(list) != 1 {
		return emit.Result{}, fmt.Errorf("%d endpoints (%w)", len(list), err)
	}
	times := 1
	if d.twice {
		times = 2
	}
	for range times {
		go func() {
			time.Sleep(time.Second)
			if !d.lose {
				d.deliver(list[0], id)
			}
		}()
	}
	return emit.Result{ID: id}, nil
}

func (d *deployment) deliver(e endpoint.Endpoint, id string) {
	body := []byte(`{}`)
	r := httptest.NewRequest(http.MethodPost, e.URL, bytes.NewReader(body))
	r.Header.Set(signature.HeaderID, id)
	r.Header.Set(signature.HeaderTimestamp, fmt.Sprint(time.Now().Unix()))
	r.Header.Set(signature.HeaderSignature, signature.Sign([]signature.Secret{e.Secrets[0].Secret}, id, time.Now(), body))
	d.receiver.ServeHTTP(httptest.NewRecorder(), r)
}

func (d *deployment) GetDelivery(context.Context, delivery.Key) (delivery.Delivery, error) {
	if d.lose {
		return delivery.Delivery{State: delivery.Pending, Attempts: 3, Reason: "the receiver answered 503"}, nil
	}
	return delivery.Delivery{State: delivery.Delivered, Attempts: 1}, nil
}

// left fails the test if a run has left anything behind.
func (d *deployment) left(t *testing.T, run string) {
	t.Helper()
	if list, err := d.store.ListEndpoints(context.Background(), "test-"+run); err != nil || len(list) > 0 {
		t.Errorf("%d endpoints are left (%v)", len(list), err)
	}
	if _, err := d.store.GetTestRun(context.Background(), run); err == nil {
		t.Error("the run is still open")
	}
}

var limits = systemtest.SmokeOptions{ReceiveTime: time.Minute, HealthTime: 3 * time.Minute}

func TestSmokeWaitsForTheWebhookAndForHealth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := deploy()
		d.unhealthyFor = time.Minute // until the first sweep
		var steps []string
		o := limits
		o.Step = func(s systemtest.Step) { steps = append(steps, s.Name) }
		report := d.target().Smoke(t.Context(), o)
		if !report.OK || report.LatencyMS != 1000 || report.Version != "v1.2.3" || len(report.Steps) != 7 || len(steps) != 7 {
			t.Errorf("%+v", report)
		}
		d.left(t, report.Run)
	})
}

func TestSmokeFailsInTimeAndCleansUp(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*deployment)
		failed string // step
		says   string
		after  time.Duration
	}{
		"the event is refused": {func(d *deployment) { d.refuse = errors.New("throttled") }, "emit an event", "throttled", 0},
		"nothing arrives":      {func(d *deployment) { d.lose = true }, "receive the webhook", "has not arrived after 1m0s; the delivery is pending after 3 attempts: the receiver answered 503", time.Minute},
		"it stays unhealthy":   {func(d *deployment) { d.unhealthyFor = time.Hour }, "check the deployment's health", "unhealthy: no sweep has run after 3m0s", 3*time.Minute + time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := deploy()
				c.change(d)
				began := time.Now()
				report := d.target().Smoke(t.Context(), limits)
				at := slices.IndexFunc(report.Steps, func(s systemtest.Step) bool { return !s.OK })
				if report.OK || at < 0 || report.Steps[at].Name != c.failed || !strings.Contains(report.Steps[at].Error, c.says) {
					t.Errorf("%+v; want %q to fail with %q", report, c.failed, c.says)
				}
				if took := time.Since(began); took < c.after || took > c.after+time.Second {
					t.Errorf("it took %s, want %s", took, c.after)
				}
				d.left(t, report.Run)
			})
		})
	}
}

var offered = systemtest.LoadOptions{Rate: 50, Time: 10 * time.Second, WaitTime: time.Minute}

func TestLoadMeasuresWhatArrives(t *testing.T) {
	for name, c := range map[string]struct {
		change                      func(*deployment)
		received, missing, repeated int
		ok                          bool
		after                       time.Duration
	}{
		"all":        {func(*deployment) {}, 500, 0, 0, true, 11 * time.Second},
		"all, twice": {func(d *deployment) { d.twice = true }, 500, 0, 500, true, 11 * time.Second},
		"nothing":    {func(d *deployment) { d.lose = true }, 0, 500, 0, false, 70 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := deploy()
				c.change(d)
				began := time.Now()
				looks := 0
				o := offered
				o.Progress = func(systemtest.LoadReport) { looks++ }
				report, err := d.target().Load(t.Context(), o)
				if err != nil {
					t.Fatal(err)
				}
				if report.Accepted != 500 || report.Received != c.received || report.Missing != c.missing || report.Duplicated != c.repeated || report.OK() != c.ok {
					t.Errorf("%+v", report)
				}
				if c.received > 0 && (report.Latency.P50 != 1000 || report.Latency.Max != 1000) {
					t.Errorf("latency %+v, want a second", report.Latency)
				}
				if took := time.Since(began); took < c.after-100*time.Millisecond || took > c.after+2*time.Second {
					t.Errorf("it took %s, want %s", took, c.after)
				}
				if looks < 10 {
					t.Errorf("%d lines of progress in more than ten seconds", looks)
				}
				d.left(t, report.Run)
			})
		})
	}
}

func TestLoadReportsRefusedEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := deploy()
		d.refuse = errors.New("throttled")
		report, err := d.target().Load(t.Context(), offered)
		if err != nil || report.Refused != 500 || report.Accepted != 0 || report.RefusedBecause != "throttled" || report.OK() {
			t.Errorf("%v, %+v", err, report)
		}
	})
}

func TestAnInterruptedLoadTestReportsWhatItHas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := deploy()
		ctx, stop := context.WithTimeout(t.Context(), 3*time.Second)
		defer stop()
		report, err := d.target().Load(ctx, offered)
		if err != nil || !report.Interrupted || report.OK() || report.Accepted < 140 || report.Accepted > 151 || report.Missing != 0 {
			t.Errorf("%v, %+v", err, report)
		}
		d.left(t, report.Run)
	})
}

func TestLoadReportsWhatItMeasuredAlthoughItCannotCleanUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := deploy()
		target := d.target()
		target.Endpoints.Store = kept{d.store}
		report, err := target.Load(t.Context(), offered)
		if err == nil || !strings.Contains(err.Error(), "remove endpoint ep_") || report.Received != 500 {
			t.Errorf("%v, %+v", err, report)
		}
	})
}

// kept is a store from which endpoints cannot be removed.
type kept struct{ admin.Store }

func (kept) RemoveEndpoint(context.Context, string, string) error { return errors.New("throttled") }

func TestLoadRefusesWhatIsOutOfRange(t *testing.T) {
	for _, o := range []systemtest.LoadOptions{{}, {Rate: 501, Time: time.Minute}, {Rate: 1, Time: 2 * time.Hour}, {Rate: 1, Time: time.Minute, WaitTime: -1}} {
		if _, err := deploy().target().Load(t.Context(), o); err == nil {
			t.Errorf("%+v is accepted", o)
		}
	}
}

func TestAtRateStartsCallsOnTimeHoweverLongTheyTake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		var mu sync.Mutex
		var at []time.Duration
		n := systemtest.AtRate(t.Context(), 4, 4, func(int) {
			mu.Lock()
			at = append(at, time.Since(began))
			mu.Unlock()
			time.Sleep(time.Hour)
		})
		slices.Sort(at)
		if want := []time.Duration{0, 250 * time.Millisecond, 500 * time.Millisecond, 750 * time.Millisecond}; n != 4 || !slices.Equal(at, want) {
			t.Errorf("%d calls at %v, want %v", n, at, want)
		}
		if took := time.Since(began); took < time.Hour {
			t.Errorf("it returned after %s, before its calls had", took)
		}
	})
}

func TestAtRateStartsNothingAfterTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 850*time.Millisecond)
		defer cancel()
		if n := systemtest.AtRate(ctx, 10, 1000, func(int) {}); n != 9 {
			t.Errorf("%d calls in 0.85 s at 10 per second, want 9", n)
		}
	})
}
