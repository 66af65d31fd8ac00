package console

import (
	"context"
	"net/http"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tidings-dev/tidings/pkg/delivery/breaker"
	"github.com/tidings-dev/tidings/pkg/ops/stats"
)

// MaxDays is the largest number of days of Metrics.
const MaxDays = 30

// Metrics are the deployment's metrics with their targets. They cover all tenants.
type Metrics struct {
	At      time.Time          `json:"at"`
	Metrics []stats.Metric     `json:"metrics" nullable:"false" doc:"Of the last 24 hours"`
	Days    []stats.DayMetrics `json:"days" nullable:"false" doc:"The last days, the newest first; today is included"`
}

// Metrics returns the metrics of the last 24 hours and of each of the last days.
func (o *Operations) Metrics(ctx context.Context, days int) (Metrics, error) {
	var summary stats.Summary
	var circuits []breaker.State
	var past []stats.Day
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() (err error) { summary, err = o.Statistics.Summary(ctx); return err })
	group.Go(func() (err error) { circuits, err = o.Breakers.ListCircuits(ctx, time.Time{}); return err })
	group.Go(func() (err error) { past, err = o.History.Last(ctx, days); return err })
	if err := group.Wait(); err != nil {
		return Metrics{}, err
	}
	open := len(slices.DeleteFunc(circuits, func(s breaker.State) bool { return s.Phase != breaker.Open }))
	return Metrics{At: summary.At, Metrics: o.Targets.Now(summary, open), Days: o.Targets.Days(past)}, nil
}

// metricRow is a metric on the page, with its status on each of the last days.
type metricRow struct {
	stats.Metric
	Days                []metricDay // the oldest first
	OK, Missed, Unknown int         // numbers of days by status
}

// metricDay is one mark of a row.
type metricDay struct {
	Date string
	stats.Reading
}

// rows arranges the metrics for the page.
func (m Metrics) rows() []metricRow {
	var rows []metricRow
	for i, metric := range m.Metrics {
		row := metricRow{Metric: metric}
		for _, day := range slices.Backward(m.Days) {
			reading := day.Metrics[i].Reading
			row.Days = append(row.Days, metricDay{day.Date, reading})
			switch reading.Status {
			case stats.OK:
				row.OK++
			case stats.Missed:
				row.Missed++
			default:
				row.Unknown++
			}
		}
		rows = append(rows, row)
	}
	return rows
}

func (c *Console) showMetrics(r *http.Request, _ Session) (page, error) {
	m, err := c.Operations.Metrics(r.Context(), MaxDays)
	data := struct {
		Rows []metricRow
		Days []stats.DayMetrics
	}{m.rows(), m.Days}
	return page{Template: "metrics", Title: "Metrics", Nav: "metrics", Data: data}, err
}
