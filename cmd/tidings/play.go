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
		Use: "play", Short: "Play a day of an invented community on the platform's table", Args: args(0, "no arguments"),
		Long: `Play invents a community and writes its day to the platform's table, as the
platform would: people sign up, join, register, pay, cancel, talk, complain,
bring others; discussions expire and are extended. The same seed is the same day.
What it prints at the end is how many events of each type must arrive.`,
		Example: `  tidings play --members 500 --hours 24 --speed 600x
  tidings play --members 20 --hours 2 --speed 3600x --seed 7
  tidings --stack tidings play --members 100`,
		RunE: func(c *cobra.Command, _ []string) error {
			var err error
			if o.Speed, err = parseSpeed(speed); err != nil {
				return usage("--speed %w", err)
			}
			if !c.Flags().Changed("seed") {
				o.Seed = rand.Uint64N(1_000_000)
			}
			return a.play(c.Context(), o)
		},
	}
	f := c.Flags()
	f.IntVar(&o.Members, "members", 500, "how many people there are in the end")
	f.Float64Var(&o.Hours, "hours", 24, "how long the play is, in its own hours")
	f.StringVar(&speed, "speed", speed, "how much faster than life: at 600x a day takes 2 minutes 24 seconds")
	f.Uint64Var(&o.Seed, "seed", 0, "the same one is the same play; without it, another each time")
	return c
}

// parseSpeed reads 600x, or 600.
func parseSpeed(text string) (float64, error) {
	speed, err := strconv.ParseFloat(strings.TrimSuffix(text, "x"), 64)
	if err != nil || !(speed > 0) {
		return 0, fmt.Errorf("%q is not a speed such as 600x", text)
	}
	return speed, nil
}

func (a *app) play(ctx context.Context, o play.Options) error {
	o.Tenant = a.tenant
	// A moment from now, so that the first steps are not late.
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
		fmt.Fprintf(a.out, "%d people, %g hours at %gx (%s), %d changes; seed %d\n\n", o.Members, o.Hours, o.Speed,
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
				late = fmt.Sprintf("   up to %s behind", sofar.Behind.Round(100*time.Millisecond))
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
	if err := a.table("EVENT\tTIMES", func(row func(...any)) {
		for _, name := range slices.Sorted(maps.Keys(report.Events)) {
			row(name, report.Events[name])
		}
		row("in all", report.Total())
	}); err != nil {
		return err
	}
	if report.Refused > 0 {
		fmt.Fprintf(a.out, "\n%d extensions came too late: their discussions were closed\n", report.Refused)
	}
	return nil
}
