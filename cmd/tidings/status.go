package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/tidings-dev/tidings/pkg/ops/health"
	"github.com/tidings-dev/tidings/pkg/ops/stats"
)

// deploymentStatus is what `tidings status --json` prints. Fields are added, never
// renamed or removed.
type deploymentStatus struct {
	At      time.Time `json:"at"`
	Version string    `json:"version"`
	Healthy bool      `json:"healthy"`
	Reasons []string  `json:"reasons"` // why it is unhealthy
	// Metrics are those of the last 24 hours. FailedAttempts and RetriedAttempts count
	// attempts in the same time.
	Metrics         []stats.Metric     `json:"metrics"`
	FailedAttempts  int64              `json:"failed_attempts"`
	RetriedAttempts int64              `json:"retried_attempts"`
	Days            []stats.DayMetrics `json:"days"` // the newest first
}

func (a *app) statusCommand() *cobra.Command {
	days := 7
	c := &cobra.Command{
		Use: "status", Short: "Show whether the deployment is healthy, and its metrics against their targets",
		Long: `Show whether the deployment is healthy, and its five metrics with their targets:
now (the last 24 hours and the last hour) and for each of the last days (UTC).
An exclamation mark follows a day's value that missed its target.

The figures are those of the whole deployment, whatever the tenant.

Exit codes: 0 healthy, 1 unhealthy or the status could not be read, 2 usage error.
A missed target does not change the exit code, because failing receivers do not
make a deployment unhealthy; read "metrics" of --json to check targets.`,
		Args: args(0, "no arguments"),
		RunE: func(c *cobra.Command, _ []string) error {
			if days < 0 || days > health.MaxDays {
				return usagef("--days is %d: use 0 to %d", days, health.MaxDays)
			}
			t, err := a.connectFunctions(c.Context())
			if err != nil {
				return err
			}
			s, err := t.status(c.Context(), days)
			if err != nil {
				return err
			}
			if err := a.printStatus(s); err != nil {
				return err
			}
			if !s.Healthy {
				return errReported
			}
			return nil
		},
	}
	c.Flags().IntVar(&days, "days", days, fmt.Sprintf("number of days to show, today included (0 to %d)", health.MaxDays))
	return c
}

// status asks the health function for the report and for the metrics of the last days.
func (t *target) status(ctx context.Context, days int) (deploymentStatus, error) {
	var report health.Report
	if err := t.invoke(ctx, "health", map[string]any{"action": "report"}, &report); err != nil {
		return deploymentStatus{}, err
	}
	s := deploymentStatus{
		At: report.At, Version: report.Version, Healthy: report.Healthy, Reasons: append([]string{}, report.Reasons...), Metrics: report.Metrics,
		FailedAttempts: report.LastDay.FailedAttempts, RetriedAttempts: report.LastDay.Retried, Days: []stats.DayMetrics{},
	}
	if days == 0 {
		return s, nil
	}
	var past health.DaysReport
	if err := t.invoke(ctx, "health", map[string]any{"action": "days", "days": days}, &past); err != nil {
		return deploymentStatus{}, err
	}
	s.Days = past.Days
	return s, nil
}

// printStatus prints a status in at most 80 columns.
func (a *app) printStatus(s deploymentStatus) error {
	if a.json {
		return a.printJSON(s)
	}
	if s.Healthy {
		fmt.Fprintln(a.out, "healthy")
	} else {
		fmt.Fprintln(a.out, "unhealthy")
		for _, reason := range s.Reasons {
			fmt.Fprintln(a.out, "  "+reason)
		}
	}
	fmt.Fprintln(a.out)
	err := a.table("METRIC\t24 HOURS\tLAST HOUR\tTARGET\tSTATUS", func(row func(...any)) {
		for _, m := range s.Metrics {
			hour := ""
			if m.LastHour != nil {
				hour = m.LastHour.Text(m.Unit)
			}
			row(m.Title, m.Text(m.Unit), hour, m.TargetText(), m.Status.Text())
		}
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(a.out, "\nfailed attempts in 24 hours: %d, of which %d are retried\n", s.FailedAttempts, s.RetriedAttempts)
	if len(s.Days) == 0 {
		return nil
	}
	fmt.Fprintln(a.out)
	return a.table("DAY (UTC)\tSUCCESS\tP95\tFAILED\tBREAKERS OPEN\tCAPTURED", func(row func(...any)) {
		for _, d := range s.Days {
			cells := []any{d.Date}
			for _, m := range d.Metrics {
				text := m.Text(m.Unit)
				if m.Status == stats.Missed {
					text += " !"
				}
				cells = append(cells, text)
			}
			row(cells...)
		}
	})
}
