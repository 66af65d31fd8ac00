package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"runtime/pprof"
	"slices"
	"sync"
	"time"

	"charm.land/lipgloss/v2"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/tidings-dev/tidings/pkg/admin"
	"github.com/tidings-dev/tidings/pkg/console"
	"github.com/tidings-dev/tidings/pkg/delivery/breaker"
	"github.com/tidings-dev/tidings/pkg/destination/builtin"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/event/catalog"
	"github.com/tidings-dev/tidings/pkg/local"
	"github.com/tidings-dev/tidings/pkg/local/brokers"
	"github.com/tidings-dev/tidings/pkg/local/dynamoemulator"
	"github.com/tidings-dev/tidings/pkg/local/receiver"
)

// defaultPort is the Invoke API's; the function URLs and the rest follow it.
const defaultPort = 8700

// How far ports lie behind the first.
const (
	receiverPort = 8
	brokersPort  = 10
)

// logName is the functions' log in the state folder.
const logName = "functions.log"

type localFlags struct {
	options  local.Options
	fails    string
	slow     time.Duration
	receiver bool
	brokers  bool
	urls     []string
	file     string
	profile  string
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
	flags.StringVar(&f.options.XRay, "xray", os.Getenv("AWS_XRAY_DAEMON_ADDRESS"), "host:port of an X-Ray daemon that gets the traces; none without it")
	flags.StringVar(&f.fails, "receiver-fails", "0%", "share of requests that the receiver fails")
	flags.DurationVar(&f.slow, "receiver-slow", 0, "how long the receiver takes for each answer")
	flags.BoolVar(&f.receiver, "receiver", true, "run the receiver and an endpoint for it")
	flags.StringArrayVar(&f.urls, "endpoint", nil, "also deliver everything to this URL while it runs (repeatable)")
	flags.StringVar(&f.file, "endpoints", "", "also deliver to the endpoints in this file while it runs: a JSON list of {\"url\", \"types\", \"filter\"}")
	flags.BoolVar(&f.brokers, "all-protocols", false, "also run an SQS, a Pub/Sub and a Kafka, with an endpoint and a consumer for each")
	flags.StringVar(&f.profile, "cpuprofile", "", "write a CPU profile to this file")
	_ = flags.MarkHidden("cpuprofile") // the flag is there
	flags.BoolVar(&f.quiet, "quiet", false, "do not print what the receiver gets")
	return c
}

func (a *app) local(ctx context.Context, f localFlags) error {
	rate, err := receiver.ParseRate(f.fails)
	if err != nil {
		return usage("--receiver-fails %w", err)
	}
	listed, err := endpointsIn(f.file)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(a.stateDir, 0o700); err != nil {
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
	lines := &local.Lines{Out: log}
	defer func() { _ = lines.Flush() }() // the log is where it would be said
	f.options.Log = lines.Logger()
	f.options.Version = version
	f.options.DynamoLog, f.options.Metrics = log, lines

	var started *brokers.Brokers
	if f.brokers {
		port := 0
		if f.options.Port != 0 {
			port = f.options.Port + brokersPort
		}
		if started, err = brokers.Start(ctx, port); err != nil {
			return fmt.Errorf("%w; choose other ports with --port", err)
		}
		defer started.Close()
	}
	f.options.Clouds = clouds(started)
	r := receiver.New(1, receiver.Behaviour{FailRate: rate, Slow: f.slow})
	if f.receiver {
		f.options.Receiver = breakable{r}
	}
	system, err := local.Open(ctx, f.options)
	if err != nil {
		return err
	}
	defer system.Close()

	url := ""
	var wanted []endpoint.Endpoint
	r.Secrets = func() []string { return secrets(ctx, system.Store) }
	if !f.quiet {
		r.Show = show(a.out)
	}
	if f.receiver {
		if url, err = system.Listen(receiverPort, r); err != nil {
			return err
		}
		// Whoever breaks this receiver and mends it wants to see what follows soon.
		wanted = append(wanted, endpoint.Endpoint{URL: url + "/", Breaker: breaker.Policy{OpenFor: 10 * time.Second, MaxOpenFor: time.Minute}})
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
	if err := demoEndpoints(ctx, system.Store, wanted); err != nil {
		return err
	}
	if err := system.WriteNote(url); err != nil {
		return err
	}
	door, err := console.Invite(ctx, system.Store, console.Invitation{Name: operator(), Role: console.Admin, Tenant: a.tenant}, time.Now())
	if err != nil {
		return err
	}
	a.banner(system, url, system.URLs["console"]+door, started)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return system.Run(ctx) })
	if started != nil {
		group.Go(func() error {
			return started.Consume(ctx, func(m brokers.Message) { r.Take(m.Protocol, m.Body, m.Attributes) })
		})
	}
	err = group.Wait()
	fmt.Fprintln(a.out, "\nstopped; what was not delivered yet goes on at the next start")
	return err
}

// endpointsIn reads the file of --endpoints; none where there is no file. Its names
// are those of `tidings endpoint add`.
func endpointsIn(path string) (list []endpoint.Endpoint, err error) {
	if path == "" {
		return nil, nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, usage("--endpoints: %w", err)
	}
	var entries []struct {
		URL    string          `json:"url"`
		Types  []string        `json:"types"`
		Filter json.RawMessage `json:"filter"`
	}
	in := json.NewDecoder(bytes.NewReader(text))
	in.DisallowUnknownFields()
	if err := in.Decode(&entries); err != nil {
		return nil, usage("--endpoints: %s holds no JSON list of endpoints with url, types and filter: %w", path, err)
	}
	if _, err := in.Token(); err != io.EOF {
		return nil, usage("--endpoints: something follows the list in %s", path)
	}
	for _, e := range entries {
		list = append(list, endpoint.Endpoint{URL: e.URL, EventTypes: e.Types, Filter: e.Filter, Description: fileDescription})
	}
	return list, nil
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

// clouds are what the runner's destinations are reached through: the brokers in
// the process, or an emulator that the environment names. Never a cloud: what is
// tried on this machine stays on it.
func clouds(brokers *brokers.Brokers) builtin.Clouds {
	c := builtin.Clouds{
		Config:         aws.Config{Region: dynamoemulator.Region, Credentials: credentials.NewStaticCredentialsProvider("local", "local", "")},
		SQS:            os.Getenv("AWS_ENDPOINT_URL_SQS"),
		PubSubEmulator: os.Getenv("PUBSUB_EMULATOR_HOST"),
		Secrets:        noSecrets{},
	}
	if brokers != nil {
		c.SQS, c.PubSubEmulator, c.Secrets = brokers.SQS, brokers.PubSub, brokers
	}
	const nowhere = "127.0.0.1:1"
	if c.SQS == "" {
		c.SQS = "http://" + nowhere
	}
	if c.PubSubEmulator == "" {
		c.PubSubEmulator = nowhere
	}
	return c
}

// noSecrets is a secret store without any.
type noSecrets struct{}

func (noSecrets) Secret(_ context.Context, name string) (string, error) {
	return "", fmt.Errorf("there is no secret %s on this machine", name)
}

// These mark the runner's own endpoints. What somebody changes of one that a flag
// names stays changed; for those of the file, the file says which events they get.
const (
	demoDescription = "of tidings local"
	fileDescription = "of tidings local --endpoints"
)

// demoEndpoints adds the runner's own endpoints, unless they are there, and
// removes those of an earlier run that nobody wants now. Of two with one URL each
// is an endpoint.
func demoEndpoints(ctx context.Context, store local.Store, wanted []endpoint.Endpoint) error {
	protocols, err := builtin.Open(builtin.Loopback, builtin.Clouds{})
	if err != nil {
		return err
	}
	r := &admin.Endpoints{Store: store, Types: catalog.Default().Types(), Check: protocols.Check, Now: time.Now}
	list, err := store.ListEndpoints(ctx, event.DefaultTenant)
	if err != nil {
		return err
	}
	missing := slices.Clone(wanted)
	for i, w := range missing {
		w.Tenant, w.Description = event.DefaultTenant, cmp.Or(w.Description, demoDescription)
		if len(w.EventTypes) == 0 {
			w.EventTypes = []string{"*"}
		}
		if err := r.Validate(w); err != nil {
			return fmt.Errorf("endpoint %d of %d that the flags name: %w", i+1, len(wanted), err)
		}
		missing[i] = w
	}
	others := map[string]bool{}
	var ours []endpoint.Endpoint
	for _, e := range list {
		if e.Description != demoDescription && e.Description != fileDescription {
			others[e.URL] = true
			continue
		}
		// First, so that of several with one URL none takes another's place.
		at := slices.IndexFunc(missing, func(w endpoint.Endpoint) bool {
			return w.URL == e.URL && w.Description == e.Description && sameEvents(w, e)
		})
		if at < 0 {
			ours = append(ours, e)
		} else {
			missing = slices.Delete(missing, at, at+1)
		}
	}
	for _, e := range ours {
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

// sameEvents tells whether two endpoints get the same events.
func sameEvents(a, b endpoint.Endpoint) bool {
	return slices.Equal(a.EventTypes, b.EventTypes) && bytes.Equal(a.Filter, b.Filter)
}

// breakable is the receiver as the console may change it.
type breakable struct{ *receiver.Receiver }

func (b breakable) Behaviour() console.Behaviour {
	now := b.Receiver.Behaviour()
	out := console.Behaviour{FailPercent: int(math.Round(now.FailRate * 100)), FailStatus: now.FailStatus, SlowSeconds: int(now.Slow.Seconds())}
	if out.FailStatus == 0 {
		out.FailStatus = http.StatusInternalServerError
	}
	return out
}

func (b breakable) SetBehaviour(to console.Behaviour) {
	b.Receiver.Behave(receiver.Behaviour{
		FailRate: float64(to.FailPercent) / 100, FailStatus: to.FailStatus, Slow: time.Duration(to.SlowSeconds) * time.Second,
	})
}

func (a *app) banner(s *local.System, receiverURL, door string, brokers *brokers.Brokers) {
	store := "memory; all is gone when it stops"
	if s.DynamoURL != "" {
		store = s.DynamoURL + "  DynamoDB"
	}
	var sqs, pubsub, kafka string
	if brokers != nil {
		sqs, pubsub, kafka = brokers.SQS+"  in this process", brokers.PubSub+"  in this process", brokers.Kafka+"  in this process, with SCRAM-SHA-512"
	}
	lipgloss.Fprintln(a.out, lipgloss.NewStyle().Bold(true).Render("Tidings runs on this machine."))
	fmt.Fprintln(a.out)
	_ = a.fields("  console", door+"  open it once; `tidings console login` makes another", "  emit", s.URLs["emit"]+"  function URL: POST events here", "  invoke", s.InvokeURL+"  Lambda's Invoke API",
		"  health", s.URLs["health"]+"  function URL: whether all is well; /report with the token \""+local.Token+"\": how it is",
		"  store", store, "  receiver", receiverURL, "  sqs", sqs, "  pub/sub", pubsub, "  kafka", kafka, "  log", filepath.Join(a.stateDir, logName))
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
		lipgloss.Fprintln(out, fmt.Sprintf("%s  %-6s  %s  %s  %-27s  %s%s", w.Began.Format("15:04:05.000"), w.Via, mark, answer, w.Type, faint.Render(w.ID), note))
	}
}
