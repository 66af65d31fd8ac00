package main

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tidings-dev/tidings/pkg/local/play"
	"github.com/tidings-dev/tidings/pkg/platform/discussions"
)

func (a *app) playCommand() *cobra.Command {
	var o play.Options
	speed := "600x"
	c := &cobra.Command{
		Use: "play", Short: "Simulate a day of a community in the platform table", Args: args(0, "no arguments"),
		Long: `Generate a community and write its day to the platform table, as the platform
would: users sign up, join, register, pay, cancel, comment, flag comments and refer
others; discussions expire and are extended. The same seed gives the same day. At the
end it prints how many events of each type receivers must get.`,
		Example: `  tidings play --members 500 --hours 24 --speed 600x
  tidings play --members 20 --hours 2 --speed 3600x --seed 7
  tidings --stack tidings play --members 100`,
		RunE: func(c *cobra.Command, _ []string) error {
			var err error
			if o.Speed, err = parseSpeed(speed); err != nil {
				return usagef("--speed %w", err)
			}
			if !c.Flags().Changed("seed") {
				o.Seed = rand.Uint64N(1_000_000)
			}
			return a.play(c.Context(), o)
		},
	}
	f := c.Flags()
	f.IntVar(&o.Members, "members", 500, "number of members at the end")
	f.Float64Var(&o.Hours, "hours", 24, "simulated hours")
	f.StringVar(&speed, "speed", speed, "speed relative to real time: at 600x a day takes 2 minutes 24 seconds")
	f.Uint64Var(&o.Seed, "seed", 0, "seed; the same seed repeats a simulation (default: random)")
	return c
}

// parseSpeed parses 600x or 600.
func parseSpeed(text string) (float64, error) {
	speed, err := strconv.ParseFloat(strings.TrimSuffix(text, "x"), 64)
	if err != nil || !(speed > 0) {
		return 0, fmt.Errorf("must be a positive number such as 600x, not %q", text)
	}
	return speed, nil
}

func (a *app) play(ctx context.Context, o play.Options) error {
	o.Tenant = a.tenant
	// In the future, so that the first steps are not late.
	o.Start = time.Now().Add(100 * time.Millisecond)
	o.Run = strconv.FormatInt(o.Start.UnixMilli(), 36)
	plan, err := play.Plan(o)
	if err != nil {
		return usageError{err}
	}
	t, err := a.connect(ctx)
	if err != nil {
		return err
	}
	if !a.json {
		fmt.Fprintf(a.out, "%d members, %g hours at %gx (%s), %d changes, seed %d\n\n", o.Members, o.Hours, o.Speed,
			time.Duration(o.Hours/o.Speed*float64(time.Hour)).Round(time.Second), len(plan), o.Seed)
	}
	player := &play.Player{Platform: t.store, Close: func(ctx context.Context) (int, error) {
		var closed discussions.Closed
		err := t.invoke(ctx, "close-discussions", discussions.Command{Action: "close"}, &closed)
		return closed.Closed, err
	}}
	if !a.json {
		player.Progress = func(played time.Duration, sofar play.Report) {
			late := ""
			if sofar.Behind > time.Second {
				late = fmt.Sprintf("   up to %s late", sofar.Behind.Round(100*time.Millisecond))
			}
			fmt.Fprintf(a.out, "%02d:%02d  %3.0f %%  %6d changes  %6d events%s\n", int(played.Hours()), int(played.Minutes())%60,
				100*played.Hours()/o.Hours, sofar.Steps, sofar.Total(), late)
		}
	}
	report, err := player.Play(ctx, plan)
	if err != nil {
		return unreachable(err)
	}
	if a.json {
		return a.printJSON(struct {
			play.Report
			Seed uint64 `json:"seed"`
			Run  string `json:"run"`
		}{report, o.Seed, o.Run})
	}
	fmt.Fprintln(a.out)
	if err := a.table("EVENT TYPE\tEVENTS", func(row func(...any)) {
		for _, name := range slices.Sorted(maps.Keys(report.Events)) {
			row(name, report.Events[name])
		}
		row("total", report.Total())
	}); err != nil {
		return err
	}
	if report.Refused > 0 {
		fmt.Fprintf(a.out, "\n%d extensions refused: the discussion was already closed\n", report.Refused)
	}
	return nil
}
