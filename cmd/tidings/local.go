package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"runtime/pprof"
	"slices"
	"sync"
	"time"

	"charm.land/lipgloss/v2"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/tidings-dev/tidings/pkg/admin"
	"github.com/tidings-dev/tidings/pkg/console"
	"github.com/tidings-dev/tidings/pkg/delivery/breaker"
	"github.com/tidings-dev/tidings/pkg/destination/builtin"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/event/deployed"
	"github.com/tidings-dev/tidings/pkg/local"
	"github.com/tidings-dev/tidings/pkg/local/brokers"
	"github.com/tidings-dev/tidings/pkg/local/dynamoemulator"
	"github.com/tidings-dev/tidings/pkg/local/receiver"
	"github.com/tidings-dev/tidings/pkg/ops/alert"
)

// defaultPort is the port of the Invoke API; the other listeners use the ports after it.
const defaultPort = 8700

// Offsets from the first port.
const (
	receiverOffset = 8
	brokersOffset  = 10
)

// logName is the functions' log file in the state directory.
const logName = "functions.log"

type localFlags struct {
	options  local.Options
	fails    string
	slow     time.Duration
	receiver bool
	brokers  bool
	urls     []string
	tables   []string
	file     string
	profile  string
	quiet    bool
}

func (a *app) localCommand() *cobra.Command {
	var f localFlags
	c := &cobra.Command{
		Use: "local", Short: "Run the whole stack on this machine, with a receiver that prints webhooks", Args: args(0, "no arguments"),
		Long: `Run the whole stack on this machine, with a receiver that prints webhooks.

To send alerts as well, set TIDINGS_SLACK_WEBHOOK_URL and TIDINGS_HEARTBEAT_URL in
the environment; "tidings alert test" shows whether they arrive.`,
		RunE: func(c *cobra.Command, _ []string) error {
			f.options.StateDir = a.stateDir
			return a.local(c.Context(), f)
		},
	}
	flags := c.Flags()
	flags.StringVar(&f.options.Template, "template", "template.yaml", "SAM template that describes the functions, tables, queues and schedules")
	flags.IntVar(&f.options.Port, "port", defaultPort, "first port: the Invoke API, then function URLs and other listeners; 0 selects free ports")
	flags.StringVar(&f.options.DynamoDB, "dynamodb", "", "URL of a running DynamoDB (default: start one)")
	flags.BoolVar(&f.options.Memory, "memory", false, "keep all data in memory, without DynamoDB")
	flags.StringVar(&f.options.XRay, "xray", os.Getenv("AWS_XRAY_DAEMON_ADDRESS"), "host:port of an X-Ray daemon for traces (default: no tracing)")
	flags.StringVar(&f.fails, "receiver-fails", "0%", "share of requests that the receiver answers with 500, such as 30%")
	flags.DurationVar(&f.slow, "receiver-slow", 0, "time that the receiver takes to respond, such as 3s")
	flags.BoolVar(&f.receiver, "receiver", true, "run a receiver and add an endpoint for it")
	flags.StringArrayVar(&f.urls, "endpoint", nil, "also deliver all events to this URL (repeatable)")
	flags.StringVar(&f.file, "endpoints", "", "also deliver to the endpoints in this file: a JSON list of {\"url\", \"types\", \"filter\"}")
	flags.StringArrayVar(&f.tables, "table", nil, "also create this table of yours, as NAME=KEY or NAME=KEY,SORTKEY, and capture its changes by capture rules (repeatable)")
	flags.BoolVar(&f.brokers, "all-protocols", false, "also run SQS, EventBridge, Pub/Sub and Kafka in the process, each with an endpoint and a consumer")
	flags.StringVar(&f.profile, "cpuprofile", "", "write a CPU profile to this file")
	_ = flags.MarkHidden("cpuprofile") // fails only for an unknown flag
	flags.BoolVar(&f.quiet, "quiet", false, "do not print received webhooks")
	return c
}

func (a *app) local(ctx context.Context, f localFlags) error {
	rate, err := receiver.ParseRate(f.fails)
	if err != nil {
		return usagef("--receiver-fails %w", err)
	}
	// From the environment, because command lines are visible to other users.
	f.options.Alerts = alert.Secret{SlackWebhookURL: os.Getenv("TIDINGS_SLACK_WEBHOOK_URL"), HeartbeatURL: os.Getenv("TIDINGS_HEARTBEAT_URL")}
	if err := f.options.Alerts.Check(); err != nil {
		return fmt.Errorf("TIDINGS_SLACK_WEBHOOK_URL or TIDINGS_HEARTBEAT_URL: %w", err)
	}
	listed, err := readEndpoints(f.file)
	if err != nil {
		return err
	}
	for _, text := range f.tables {
		table, err := local.ParseOwnTable(text)
		if err != nil {
			return usagef("--table: %w", err)
		}
		f.options.OwnTables = append(f.options.OwnTables, table)
	}
	if err := local.OpenStateDir(a.stateDir); err != nil {
		return err
	}
	if f.profile != "" {
		profile, err := os.Create(f.profile)
		if err != nil {
			return err
		}
		defer profile.Close()
		if err := pprof.StartCPUProfile(profile); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	log, err := os.OpenFile(filepath.Join(a.stateDir, logName), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	buffered := &local.LogWriter{Out: log}
	defer func() { _ = buffered.Flush() }() // a failed write could only be reported in this log
	f.options.Log = buffered.Logger()
	f.options.Version = version
	f.options.DynamoLog, f.options.Metrics = log, buffered

	var started *brokers.Brokers
	if f.brokers {
		port := 0
		if f.options.Port != 0 {
			port = f.options.Port + brokersOffset
		}
		if started, err = brokers.Start(ctx, port); err != nil {
			return fmt.Errorf("%w; choose other ports with --port", err)
		}
		defer started.Close()
	}
	f.options.Clouds = cloudClients(started)
	r := receiver.New(1, receiver.Behaviour{FailRate: rate, Slow: f.slow})
	if f.receiver {
		f.options.Receiver = demoReceiver{r}
	}
	system, err := local.Open(ctx, f.options)
	if err != nil {
		return err
	}
	defer system.Close()

	url := ""
	var wanted []endpoint.Endpoint
	r.Secrets = func() []string { return signingSecrets(ctx, system.Store) }
	if !f.quiet {
		r.OnWebhook = printWebhooks(a.out)
	}
	if f.receiver {
		if url, err = system.Listen(receiverOffset, r); err != nil {
			return err
		}
		// A short open time: a developer who breaks and repairs this receiver should see the recovery soon.
		wanted = append(wanted, endpoint.Endpoint{URL: url + "/", Breaker: breaker.Policy{FailingFor: time.Second, MaxOpenFor: time.Minute}})
	}
	for _, u := range f.urls {
		wanted = append(wanted, endpoint.Endpoint{URL: u})
	}
	wanted = append(wanted, listed...)
	if started != nil {
		for _, d := range started.Destinations(event.DefaultTenant) {
			wanted = append(wanted, endpoint.Endpoint{URL: d.URL, Credentials: d.Credentials, Ordered: d.Ordered})
		}
	}
	if err := syncEndpoints(ctx, system.Store, wanted); err != nil {
		return err
	}
	if err := system.WriteRunnerInfo(url); err != nil {
		return err
	}
	loginPath, err := console.Invite(ctx, system.Store, console.Invitation{Name: operator(), Role: console.Operator, Tenant: a.tenant}, time.Now())
	if err != nil {
		return err
	}
	a.printBanner(system, url, system.URLs["console"]+loginPath, started)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return system.Run(ctx) })
	if started != nil {
		group.Go(func() error {
			return started.Consume(ctx, func(m brokers.Message) { r.Record(m.Protocol, m.Body, m.Attributes) })
		})
	}
	err = group.Wait()
	fmt.Fprintln(a.out, "\nstopped; pending deliveries resume at the next start")
	return err
}

// readEndpoints reads the file of --endpoints; an empty path gives none. The fields
// are named like the flags of `tidings endpoint add`.
func readEndpoints(path string) (list []endpoint.Endpoint, err error) {
	if path == "" {
		return nil, nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, usagef("--endpoints: %w", err)
	}
	var entries []struct {
		URL    string          `json:"url"`
		Types  []string        `json:"types"`
		Filter json.RawMessage `json:"filter"`
	}
	in := json.NewDecoder(bytes.NewReader(text))
	in.DisallowUnknownFields()
	if err := in.Decode(&entries); err != nil {
		return nil, usagef("--endpoints: %s is not a JSON list of {\"url\", \"types\", \"filter\"}: %w", path, err)
	}
	if _, err := in.Token(); err != io.EOF {
		return nil, usagef("--endpoints: %s has data after the JSON list", path)
	}
	for _, e := range entries {
		list = append(list, endpoint.Endpoint{URL: e.URL, EventTypes: e.Types, Filter: e.Filter, Description: fileDescription})
	}
	return list, nil
}

// signingSecrets returns the secrets of all endpoints: any of them may point at the
// receiver.
func signingSecrets(ctx context.Context, store local.Store) []string {
	list, err := store.ListEndpoints(ctx, event.DefaultTenant)
	if err != nil {
		return nil // the webhook is then printed as not verified
	}
	var texts []string
	for _, e := range list {
		for _, s := range e.Secrets {
			texts = append(texts, s.Secret.Reveal())
		}
	}
	return texts
}

// cloudClients configures SQS, EventBridge, Pub/Sub and Secrets Manager for the runner's
// destinations: the in-process brokers, or the emulators that the environment names.
// It never falls back to a real cloud, so a local run sends nothing there.
func cloudClients(brokers *brokers.Brokers) builtin.Clouds {
	c := builtin.Clouds{
		Config:         dynamoemulator.Config(),
		SQS:            os.Getenv("AWS_ENDPOINT_URL_SQS"),
		EventBridge:    os.Getenv("AWS_ENDPOINT_URL_EVENTBRIDGE"),
		PubSubEmulator: os.Getenv("PUBSUB_EMULATOR_HOST"),
		Secrets:        noSecrets{},
	}
	if brokers != nil {
		c.SQS, c.EventBridge, c.PubSubEmulator, c.Secrets = brokers.SQS, brokers.EventBridge, brokers.PubSub, brokers
	}
	const unreachable = "127.0.0.1:1"
	if c.SQS == "" {
		c.SQS = "http://" + unreachable
	}
	if c.EventBridge == "" {
		c.EventBridge = "http://" + unreachable
	}
	if c.PubSubEmulator == "" {
		c.PubSubEmulator = unreachable
	}
	return c
}

// noSecrets is an empty secret store.
type noSecrets struct{}

func (noSecrets) Secret(_ context.Context, name string) (string, error) {
	return "", fmt.Errorf("secret %s does not exist in the local runner", name)
}

// These descriptions mark endpoints that belong to the runner. A restart keeps what
// an operator changed in an endpoint from a flag; for an endpoint from the file, the
// file decides the event types and the filter.
const (
	flagDescription = "added by tidings local"
	fileDescription = "added by tidings local --endpoints"
)

// syncEndpoints adds the wanted endpoints that are missing and removes those of an
// earlier run that are no longer wanted. Several wanted endpoints may have the same
// URL. An endpoint that an operator added for a wanted URL replaces the runner's own.
func syncEndpoints(ctx context.Context, store local.Store, wanted []endpoint.Endpoint) error {
	protocols, err := builtin.Open(builtin.Loopback, builtin.Clouds{})
	if err != nil {
		return err
	}
	r := &admin.Endpoints{Store: store, Catalog: &deployed.Live{Source: store, Now: time.Now, Log: slog.New(slog.DiscardHandler)}, Check: protocols.Check, Now: time.Now}
	list, err := store.ListEndpoints(ctx, event.DefaultTenant)
	if err != nil {
		return err
	}
	missing := slices.Clone(wanted)
	for i, w := range missing {
		w.Tenant, w.Description = event.DefaultTenant, cmp.Or(w.Description, flagDescription)
		if len(w.EventTypes) == 0 {
			w.EventTypes = []string{"*"}
		}
		if err := r.Validate(ctx, w); err != nil {
			return fmt.Errorf("endpoint %d of %d from the flags: %w", i+1, len(wanted), err)
		}
		missing[i] = w
	}
	others := map[string]bool{} // URLs of endpoints that operators added
	var unmatched []endpoint.Endpoint
	for _, e := range list {
		if e.Description != flagDescription && e.Description != fileDescription {
			others[e.URL] = true
			continue
		}
		// Exact matches first: several endpoints may have the same URL.
		at := slices.IndexFunc(missing, func(w endpoint.Endpoint) bool {
			return w.URL == e.URL && w.Description == e.Description && sameEvents(w, e)
		})
		if at < 0 {
			unmatched = append(unmatched, e)
		} else {
			missing = slices.Delete(missing, at, at+1)
		}
	}
	for _, e := range unmatched {
		at := slices.IndexFunc(missing, func(w endpoint.Endpoint) bool { return w.URL == e.URL })
		if at < 0 {
			err = r.Remove(ctx, e.Tenant, e.ID)
		} else {
			w := missing[at]
			missing = slices.Delete(missing, at, at+1)
			if w.Description == fileDescription || e.Description == fileDescription {
				_, err = r.Change(ctx, e.Tenant, e.ID, func(e *endpoint.Endpoint) {
					e.EventTypes, e.Filter, e.Description = w.EventTypes, w.Filter, w.Description
				})
			}
		}
		if err != nil {
			return err
		}
	}
	for _, w := range missing {
		if others[w.URL] {
			continue
		}
		if _, err := r.Add(ctx, w); err != nil {
			return err
		}
	}
	return nil
}

// sameEvents reports whether two endpoints subscribe to the same events.
func sameEvents(a, b endpoint.Endpoint) bool {
	return slices.Equal(a.EventTypes, b.EventTypes) && bytes.Equal(a.Filter, b.Filter)
}

// demoReceiver lets the console change the receiver's behaviour.
type demoReceiver struct{ *receiver.Receiver }

func (d demoReceiver) Behaviour() console.Behaviour {
	now := d.Receiver.Behaviour()
	out := console.Behaviour{FailPercent: int(math.Round(now.FailRate * 100)), FailStatus: now.FailStatus, SlowSeconds: int(now.Slow.Seconds())}
	if out.FailStatus == 0 {
		out.FailStatus = http.StatusInternalServerError
	}
	return out
}

func (d demoReceiver) SetBehaviour(to console.Behaviour) {
	d.Receiver.SetBehaviour(receiver.Behaviour{
		FailRate: float64(to.FailPercent) / 100, FailStatus: to.FailStatus, Slow: time.Duration(to.SlowSeconds) * time.Second,
	})
}

func (a *app) printBanner(s *local.System, receiverURL, login string, brokers *brokers.Brokers) {
	store := "in memory; all data is lost on exit"
	if s.DynamoURL != "" {
		store = s.DynamoURL + "  DynamoDB"
	}
	var sqs, bridge, pubsub, kafka string
	if brokers != nil {
		sqs, bridge, pubsub, kafka = brokers.SQS, brokers.EventBridge, brokers.PubSub, brokers.Kafka+"  SASL SCRAM-SHA-512"
	}
	fmt.Fprintln(a.out, paint(lipgloss.NewStyle().Bold(true), "Tidings is running on this machine."))
	fmt.Fprintln(a.out)
	_ = a.fields("  console", login+"  one-time login link; `tidings console login` creates another",
		"  emit", s.URLs["emit"]+"  function URL; POST events here", "  invoke", s.InvokeURL+"  Lambda Invoke API",
		"  health", s.URLs["health"]+"  function URL; GET / for the status, GET /report with the bearer token "+s.Access.HealthToken+" for details",
		"  access key", s.Access.Key+"  AWS_ACCESS_KEY_ID for the Invoke API, DynamoDB and SQS, with any AWS_SECRET_ACCESS_KEY",
		"  store", store, "  receiver", receiverURL, "  sqs", sqs, "  eventbridge", bridge, "  pub/sub", pubsub, "  kafka", kafka, "  log", filepath.Join(a.stateDir, logName))
	fmt.Fprintf(a.out, `
Try it in another shell:

  curl -s %s -d '{"event":"user.joined_community","actor_user_id":"u_1042","data":{"community_id":"c_7","community_name":"Gophers Berlin"}}'
  bin/tidings delivery list

Received webhooks are printed below. Press Ctrl-C to stop.

`, s.URLs["emit"])
}

// printWebhooks returns a function that prints one line for each webhook.
func printWebhooks(out io.Writer) func(receiver.Webhook) {
	good := lipgloss.NewStyle().Foreground(lipgloss.Green)
	bad := lipgloss.NewStyle().Foreground(lipgloss.Red)
	faint := lipgloss.NewStyle().Faint(true)
	var mu sync.Mutex
	return func(w receiver.Webhook) {
		mark := paint(good, "✓ verified    ")
		switch {
		case w.Unsigned:
			mark = paint(faint, "– unsigned")
		case !w.Verified:
			mark = paint(bad, "✗ not verified")
		}
		answer := paint(good, fmt.Sprint(w.Status))
		if w.Status >= 300 {
			answer = paint(bad, fmt.Sprint(w.Status))
		}
		note := ""
		if w.Attempt > 1 {
			note = fmt.Sprintf("  attempt %d", w.Attempt)
		}
		if w.Duplicate {
			note += "  (duplicate)"
		}
		mu.Lock()
		defer mu.Unlock()
		fmt.Fprintf(out, "%s  %-6s  %s  %s  %-27s  %s%s\n", w.Began.Format("15:04:05.000"), w.Via, mark, answer, cell(w.Type), paint(faint, cell(w.ID)), note)
	}
}
