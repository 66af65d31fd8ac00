package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"charm.land/lipgloss/v2"
	"github.com/spf13/cobra"

	"github.com/tidings-dev/tidings/pkg/assemble"
	"github.com/tidings-dev/tidings/pkg/catalog"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/local"
	"github.com/tidings-dev/tidings/pkg/receiver"
	"github.com/tidings-dev/tidings/pkg/registry"
)

// defaultPort is the Invoke API's; the function URLs and the rest follow it.
const defaultPort = 8700

// receiverPort is how far the receiver's port lies behind the first.
const receiverPort = 8

// logName is the functions' log in the state folder.
const logName = "functions.log"

type localFlags struct {
	options  local.Options
	fails    string
	slow     time.Duration
	receiver bool
	quiet    bool
}

func (a *app) localCommand() *cobra.Command {
	var f localFlags
	c := &cobra.Command{
		Use: "local", Short: "Run everything on this machine, with a receiver that shows what comes", Args: args(0, "no arguments"),
		RunE: func(c *cobra.Command, _ []string) error {
			f.options.StateDir = a.stateDir
			return a.local(c.Context(), f)
		},
	}
	flags := c.Flags()
	flags.StringVar(&f.options.Template, "template", "template.yaml", "where tables, triggers and schedules are described")
	flags.IntVar(&f.options.Port, "port", defaultPort, "the first port: Invoke API, then function URLs and the rest; 0 takes free ones")
	flags.StringVar(&f.options.DynamoDB, "dynamodb", "", "URL of a DynamoDB to use instead of starting one")
	flags.BoolVar(&f.options.Memory, "memory", false, "keep everything in memory, without a DynamoDB")
	flags.StringVar(&f.fails, "receiver-fails", "0%", "share of requests that the receiver fails")
	flags.DurationVar(&f.slow, "receiver-slow", 0, "how long the receiver takes for each answer")
	flags.BoolVar(&f.receiver, "receiver", true, "run the receiver and an endpoint for it")
	flags.BoolVar(&f.quiet, "quiet", false, "do not print what the receiver gets")
	return c
}

func (a *app) local(ctx context.Context, f localFlags) error {
	rate, err := receiver.ParseRate(f.fails)
	if err != nil {
		return usage("--receiver-fails %w", err)
	}
	if err := os.MkdirAll(a.stateDir, 0o700); err != nil {
		return err
	}
	log, err := os.OpenFile(filepath.Join(a.stateDir, logName), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	f.options.Log = slog.New(slog.NewJSONHandler(log, nil))
	f.options.DynamoLog = log

	system, err := local.Open(ctx, f.options)
	if err != nil {
		return err
	}
	defer system.Close()

	url := ""
	if f.receiver {
		r := receiver.New(1, receiver.Behaviour{FailRate: rate, Slow: f.slow})
		r.Secrets = func() []string { return secrets(ctx, system.Store) }
		if !f.quiet {
			r.Show = show(a.out)
		}
		if url, err = system.Listen(receiverPort, r); err != nil {
			return err
		}
		if err := demoEndpoint(ctx, system.Store, url); err != nil {
			return err
		}
	}
	if err := system.WriteNote(url); err != nil {
		return err
	}
	a.banner(system, url)
	err = system.Run(ctx)
	fmt.Fprintln(a.out, "\nstopped; what was not delivered yet goes on at the next start")
	return err
}

// secrets returns all secrets, so that the receiver can verify for whichever
// endpoint points at it.
func secrets(ctx context.Context, store local.Store) []string {
	list, err := store.ListEndpoints(ctx, event.DefaultTenant)
	if err != nil {
		return nil // the webhook is then shown as not verified
	}
	var texts []string
	for _, e := range list {
		for _, s := range e.Secrets {
			texts = append(texts, s.Secret.Reveal())
		}
	}
	return texts
}

// demoEndpoint adds an endpoint for the receiver, unless one points at it.
func demoEndpoint(ctx context.Context, store local.Store, url string) error {
	list, err := store.ListEndpoints(ctx, event.DefaultTenant)
	if err != nil {
		return err
	}
	for _, e := range list {
		if e.URL == url+"/" {
			return nil
		}
	}
	destinations, err := assemble.Destinations(assemble.ThisMachine)
	if err != nil {
		return err
	}
	r := &registry.Registry{Store: store, Types: catalog.Default().Types(), Check: destinations.Check, Now: time.Now}
	_, err = r.Add(ctx, endpoint.Endpoint{Tenant: event.DefaultTenant, URL: url + "/", Description: "the receiver of tidings local"})
	return err
}

func (a *app) banner(s *local.System, receiverURL string) {
	store := "memory; all is gone when it stops"
	if s.DynamoURL != "" {
		store = s.DynamoURL + "  DynamoDB"
	}
	lipgloss.Fprintln(a.out, lipgloss.NewStyle().Bold(true).Render("Tidings runs on this machine."))
	fmt.Fprintln(a.out)
	_ = a.fields("  emit", s.URLs["emit"]+"  function URL: POST events here", "  invoke", s.InvokeURL+"  Lambda's Invoke API",
		"  store", store, "  receiver", receiverURL, "  log", filepath.Join(a.stateDir, logName))
	fmt.Fprintf(a.out, `
Try, in another shell:

  curl -s %s -d '{"event":"user.joined_community","actor_user_id":"u_1042","data":{"community_id":"c_7","community_name":"Gophers Berlin"}}'
  bin/tidings delivery list

Webhooks that the receiver gets show here. Ctrl-C stops.

`, s.URLs["emit"])
}

// show prints a line for each webhook.
func show(out io.Writer) func(receiver.Webhook) {
	good := lipgloss.NewStyle().Foreground(lipgloss.Green)
	bad := lipgloss.NewStyle().Foreground(lipgloss.Red)
	faint := lipgloss.NewStyle().Faint(true)
	var mu sync.Mutex
	return func(w receiver.Webhook) {
		mark := good.Render("✓ verified    ")
		if !w.Verified {
			mark = bad.Render("✗ not verified")
		}
		answer := good.Render(fmt.Sprint(w.Status))
		if w.Status >= 300 {
			answer = bad.Render(fmt.Sprint(w.Status))
		}
		note := ""
		if w.Attempt > 1 {
			note = fmt.Sprintf("  attempt %d", w.Attempt)
		}
		if w.Duplicate {
			note += "  (again)"
		}
		mu.Lock()
		defer mu.Unlock()
		lipgloss.Fprintln(out, fmt.Sprintf("%s  %s  %s  %-27s  %s%s", w.Began.Format("15:04:05.000"), mark, answer, w.Type, faint.Render(w.ID), note))
	}
}
