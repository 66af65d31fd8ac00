package console

import (
	"context"
	"math"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tidings-dev/tidings/pkg/ops/stats"
)

// Overview summarizes the deployment. The figures cover all tenants, the circuit
// breakers only the session's tenant.
type Overview struct {
	At        time.Time `json:"at"`
	Hour      Figures   `json:"hour"`
	Day       Figures   `json:"day"`
	Waiting   int       `json:"waiting" doc:"Deliveries pending a retry at the last sweep"`
	More      bool      `json:"more_waiting" doc:"The sweep stopped counting; there are more"`
	QueueAge  int64     `json:"queue_age_ms" doc:"How long the oldest due delivery is overdue"`
	LastSweep time.Time `json:"last_sweep_at,omitzero"`
	LastEvent time.Time `json:"last_event_at,omitzero"`
	Circuits  []Circuit `json:"circuits" nullable:"false" doc:"Circuit breakers that are not closed"`
	Minutes   []Minute  `json:"minutes" nullable:"false" doc:"The last hour, by minute"`
}

// Figures are counts over a period.
type Figures struct {
	Accepted      int64    `json:"accepted" doc:"Events accepted"`
	Delivered     int64    `json:"delivered"`
	Failed        int64    `json:"failed" doc:"Failed attempts"`
	Retried       int64    `json:"retried" doc:"Failed attempts that are retried"`
	Dead          int64    `json:"dead" doc:"Dead letters"`
	Skipped       int64    `json:"skipped"`
	Captured      int64    `json:"captured" doc:"Changes of the platform's table that became an event"`
	CaptureFailed int64    `json:"capture_failed" doc:"Changes that should have become an event and could not"`
	Capture       *float64 `json:"capture_rate,omitempty" doc:"captured / (captured + capture_failed), rounded down; absent if there are none"`
	Success       *float64 `json:"success_rate,omitempty" doc:"Share of settled deliveries that were delivered; absent if none settled"`
	P50           *float64 `json:"p50_ms,omitempty" doc:"Estimated time from acceptance to delivery"`
	P95           *float64 `json:"p95_ms,omitempty"`
}

// Minute is one minute of the chart.
type Minute struct {
	At        time.Time `json:"at"`
	Delivered int64     `json:"delivered"`
	Failed    int64     `json:"failed"`
}

func figures(c stats.Counts) Figures {
	f := Figures{Accepted: c.Accepted, Delivered: c.Delivered, Failed: c.Failed, Retried: c.Retried, Dead: c.Dead, Skipped: c.Skipped,
		Captured: c.Captured, CaptureFailed: c.CaptureFailed}
	if rate, ok := c.CaptureRate(); ok {
		rate = math.Floor(rate*1e4+1e-9) / 1e4
		f.Capture = &rate
	}
	if rate, ok := c.SuccessRate(); ok {
		f.Success = &rate
	}
	for q, into := range map[float64]**float64{.5: &f.P50, .95: &f.P95} {
		if d, ok := c.Latency.Quantile(q); ok {
			ms := float64(d.Microseconds()) / 1000
			*into = &ms
		}
	}
	return f
}

// Overview returns the figures, the chart and the circuit breakers.
func (o *Operations) Overview(ctx context.Context, who Session) (Overview, error) {
	summary, err := o.Statistics.Summary(ctx)
	if err != nil {
		return Overview{}, err
	}
	series, err := o.Statistics.Series(ctx, time.Hour)
	if err != nil {
		return Overview{}, err
	}
	v := Overview{
		At: summary.At, Hour: figures(summary.Hour), Day: figures(summary.Day), Waiting: summary.Sweep.Retrying, More: summary.Sweep.More,
		LastSweep: summary.Sweep.At, LastEvent: summary.LastEvent, Minutes: []Minute{},
	}
	if oldest := summary.Sweep.OldestDue; !oldest.IsZero() {
		v.QueueAge = max(summary.Sweep.At.Sub(oldest), 0).Milliseconds()
	}
	for _, m := range series {
		v.Minutes = append(v.Minutes, Minute{At: m.At, Delivered: m.Delivered, Failed: m.Failed})
	}
	v.Circuits, err = o.ListCircuits(ctx, who)
	return v, err
}

func (c *Console) overview(r *http.Request, who Session) (page, error) {
	var data struct {
		Overview
		Endpoints []endpointSummary
		Latest    []Delivery
	}
	group, ctx := errgroup.WithContext(r.Context())
	group.Go(func() (err error) {
		data.Overview, err = c.Operations.Overview(ctx, who)
		return err
	})
	group.Go(func() (err error) {
		data.Endpoints, err = c.endpointSummaries(ctx, who)
		return err
	})
	group.Go(func() error {
		latest, err := c.Operations.ListDeliveries(ctx, who, DeliveryFilter{Limit: 8})
		data.Latest = latest.Deliveries
		return err
	})
	err := group.Wait()
	return page{Template: "overview", Title: "Overview", Nav: "overview", Data: data}, err
}
