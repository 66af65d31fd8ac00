package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tidings-dev/tidings/pkg/admin"
	"github.com/tidings-dev/tidings/pkg/console"
	"github.com/tidings-dev/tidings/pkg/delivery/breaker"
	"github.com/tidings-dev/tidings/pkg/delivery/ratelimit"
	"github.com/tidings-dev/tidings/pkg/delivery/retry"
	"github.com/tidings-dev/tidings/pkg/destination"
	"github.com/tidings-dev/tidings/pkg/destination/builtin"
	"github.com/tidings-dev/tidings/pkg/dispatch"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/local/samtemplate"
	"github.com/tidings-dev/tidings/pkg/ops/jobs"
	"github.com/tidings-dev/tidings/pkg/signature"
)

// adminEndpoints returns the endpoint operations. They check a new URL by what the
// deployment allows; the local runner also allows receivers on this machine.
func (a *app) adminEndpoints(ctx context.Context) (*admin.Endpoints, error) {
	t, err := a.connect(ctx)
	if err != nil {
		return nil, err
	}
	check := func(to destination.Target) error {
		allow := builtin.Loopback
		if a.stack != "" {
			if allow, err = t.allowed(ctx); err != nil {
				return err
			}
		}
		protocols, err := builtin.Open(allow, builtin.Clouds{})
		if err != nil {
			return err
		}
		defer func() { _ = protocols.Close() }() // it has opened nothing
		return protocols.Check(to)
	}
	return &admin.Endpoints{Store: t.store, Catalog: t.types(), Check: check, Now: time.Now}, nil
}

// allowed returns which destinations a deployed stack allows, as its dispatch function
// knows it.
func (t *target) allowed(ctx context.Context) (builtin.Settings, error) {
	name := t.prefix + "dispatch"
	out, err := t.lambda.GetFunctionConfiguration(ctx, &lambda.GetFunctionConfigurationInput{FunctionName: &name, Qualifier: aws.String(samtemplate.Alias)})
	if err != nil {
		return builtin.Settings{}, fmt.Errorf("which URLs the stack allows is in the configuration of %s, which cannot be read: %w", name, err)
	}
	var variables map[string]string
	if out.Environment != nil {
		variables = out.Environment.Variables
	}
	http, err := strconv.ParseBool(variables["ALLOW_HTTP"])
	if err != nil {
		return builtin.Settings{}, fmt.Errorf("the variable ALLOW_HTTP of %s is %q: is it a stack of Tidings?", name, variables["ALLOW_HTTP"])
	}
	return builtin.Settings{AllowHTTP: http, AllowNetworks: variables["ALLOW_NETWORKS"], DestinationTenants: variables["DESTINATION_TENANTS"]}, nil
}

func (a *app) endpointCommand() *cobra.Command {
	c := &cobra.Command{Use: "endpoint", Short: "Manage endpoints: add, set, list, show, disable, enable, rotate-secret, remove"}
	c.AddCommand(a.endpointAdd(), a.endpointSet(), a.endpointList(), a.endpointShow(), a.endpointRemove(), a.endpointRotate(),
		a.endpointSwitch("disable", "Disable an endpoint; its pending deliveries are marked skipped"),
		a.endpointSwitch("enable", "Enable a disabled endpoint"),
		a.endpointSwitch("pause", "Pause an endpoint; its events wait in its backlog, up to its age limit"),
		a.endpointSwitch("resume", "Resume a paused endpoint; its backlog is sent within two minutes"))
	return c
}

func (a *app) endpointAdd() *cobra.Command {
	var e endpoint.Endpoint
	var filter, backfill string
	var secret, ed25519, dryRun bool
	var auth authFlags
	c := &cobra.Command{
		Use: "add URL", Short: "Add an endpoint and print its signing secret, once",
		Long: "Add an endpoint and print its signing secret, once.\n\nThe URL's scheme selects the protocol: https, sqs, eventbridge,\npubsub or kafka.\ndocs/destinations.md has an example for each.",
		Example: `  tidings endpoint add https://crm.example.com/hooks --types 'user.*'
  tidings endpoint add https://crm.example.com/hooks --backfill 14d --dry-run
  tidings endpoint add https://crm.example.com/hooks --backfill 14d
  tidings endpoint add https://crm.example.com/hooks --filter '{"data":{"status":["success"]}}'
  tidings endpoint add https://crm.example.com/hooks --api-key X-Api-Key=@key.txt
  tidings endpoint add https://crm.example.com/hooks --format cloudevents --exclude-fields data.user_name
  tidings endpoint add 'sqs://123456789012/webhooks-orders?region=eu-central-1' --role-arn arn:aws:iam::123456789012:role/webhooks-tidings
  tidings endpoint add 'eventbridge://tidings-webhooks-crm?region=eu-central-1'
  tidings endpoint add pubsub://my-project/community-events --ordered
  tidings endpoint add 'kafka://b1.example.com:9093,b2.example.com:9093/community?tls=true&sasl=scram-sha-512' --credentials tidings/default/kafka`,
		Args: args(1, "one URL"),
		RunE: func(c *cobra.Command, given []string) error {
			span, err := jobs.ParseSpan(backfill)
			if err != nil {
				return usagef("--backfill: %w", err)
			}
			r, err := a.adminEndpoints(c.Context())
			if err != nil {
				return err
			}
			e.Tenant, e.URL = a.tenant, given[0]
			if filter != "" {
				e.Filter = json.RawMessage(filter)
			}
			if err := auth.checkAdd(); err != nil {
				return err
			}
			authenticate, err := a.readAuth(auth, secret)
			if err != nil {
				return err
			}
			e.Auth = authenticate(nil)
			switch {
			case secret && ed25519:
				return usagef("--secret-stdin and --ed25519 cannot be combined")
			case secret:
				text, err := io.ReadAll(a.in)
				if err != nil {
					return err
				}
				s, err := signature.ParseSecret(strings.TrimSpace(string(text)))
				if err != nil {
					return err
				}
				e.Secrets = []endpoint.SigningSecret{{Secret: s}}
			case ed25519:
				e.Secrets = []endpoint.SigningSecret{{Secret: signature.NewEd25519()}}
			}
			if dryRun {
				return a.countBackfill(c.Context(), r, e, span)
			}
			added, err := r.Add(c.Context(), e)
			if err != nil {
				return unreachable(err)
			}
			v := console.ShowSecret(added, time.Now())
			if span > 0 {
				j, err := a.startBackfill(c.Context(), added, span)
				if err != nil { // it must not hide the secret
					v.BackfillError = err.Error()
				} else {
					v.Backfill = &j
				}
			}
			return a.showSecret(v, "added", !secret)
		},
	}
	f := c.Flags()
	f.StringVar(&backfill, "backfill", "", "send the events of the past too: days such as 14d, or a duration such as 36h")
	f.BoolVar(&dryRun, "dry-run", false, "add nothing: check the settings, and count the events that --backfill would send")
	f.StringSliceVar(&e.EventTypes, "types", []string{"*"}, "event types to deliver: exact names, prefixes such as user.*, or *")
	f.StringVar(&filter, "filter", "", "EventBridge event pattern that the event's JSON must match")
	f.StringVar(&e.Description, "description", "", "description")
	f.StringVar(&e.RoleARN, "role-arn", "", "SQS and MSK: IAM role to assume; the external id is the tenant")
	f.StringVar(&e.Credentials, "credentials", "", "Kafka: name of the Secrets Manager secret with user name and password, tidings/<tenant>/…")
	f.BoolVar(&e.Ordered, "ordered", false, "Pub/Sub: deliver the events of one subject in order")
	f.BoolVar(&e.Traceparent, "traceparent", false, "send the W3C traceparent header (an attribute on brokers)")
	auth.add(f)
	shapeFlags(f, &e.Shape)
	oldNamesFlag(f, &e)
	typeVersionsFlag(f, &e)
	ruleFlags(f, &e)
	f.BoolVar(&secret, "secret-stdin", false, "read the signing secret (whsec_…) from standard input instead of generating one")
	f.BoolVar(&ed25519, "ed25519", false, "sign with an Ed25519 key (v1a) instead of a shared secret; the official libraries do not verify it (docs/receiving.md)")
	return c
}

// oldNamesFlag adds the flag for renamed event types.
func oldNamesFlag(f *pflag.FlagSet, e *endpoint.Endpoint) {
	f.BoolVar(&e.OldNames, "old-names", false, "deliver renamed event types under their old names (user.joined_platform as user.welcome_email_sent)")
}

// shapeFlags adds the flags for the body of requests.
func shapeFlags(f *pflag.FlagSet, s *endpoint.Shape) {
	f.StringVar((*string)(&s.Format), "format", "", "how the event is written: tidings, cloudevents or cloudevents-binary (default tidings)")
	f.BoolVar(&s.Thin, "thin", false, "of the data, send only the fields id, *_id and *_ids")
	f.StringSliceVar(&s.Include, "include-fields", nil, "the only fields to send besides id, event, timestamp and idempotency_key, such as data.customer.id")
	f.StringSliceVar(&s.Exclude, "exclude-fields", nil, "fields not to send, such as data.customer.email")
	f.StringVar(&s.Method, "method", "", "HTTP: POST, PUT or PATCH (default POST)")
	f.StringVar(&s.ContentType, "content-type", "", "media type of the body (default: that of the format)")
}

// typeVersionsFlag adds the flag for the versions of event types.
func typeVersionsFlag(f *pflag.FlagSet, e *endpoint.Endpoint) {
	f.StringToIntVar(&e.TypeVersions, "type-version", nil, "deliver a version of an event type, such as order.paid=1 (default: the newest when the endpoint was added)")
}

// ruleFlags adds the flags for an endpoint's delivery settings.
func ruleFlags(f *pflag.FlagSet, e *endpoint.Endpoint) {
	f.DurationVar(&e.Timeout, "timeout", endpoint.DefaultTimeout, "timeout of one attempt, 1s to 30s")
	f.IntVar(&e.Retry.MaxAttempts, "max-attempts", 0, fmt.Sprintf("maximum number of attempts, 1 to %d (0: as many as fit into the maximum age)", retry.DefaultMaxAttempts))
	f.DurationVar(&e.Retry.MaxAge, "max-age", 0, fmt.Sprintf("maximum age of an event for a further attempt, 1m to 336h (0: %s)", retry.DefaultMaxAge))
	f.DurationVar(&e.Retry.MaxDelay, "max-delay", 0, fmt.Sprintf("maximum backoff between attempts, 1s to 24h (0: %s)", retry.DefaultMaxDelay))
	f.IntVar(&e.Limit.PerMinute, "rate-per-minute", 0, fmt.Sprintf("rate limit in attempts per minute, 1 to %d (0: no limit)", ratelimit.MaxPerMinute))
	f.IntVar(&e.Limit.Burst, "burst", 0, "burst size of the rate limit, 1 to 10000 (0: the limit of five seconds)")
	f.IntVar(&e.Breaker.Failures, "breaker-failures", 0, fmt.Sprintf("consecutive failures that open the circuit breaker, 1 to 100 (0: %d)", breaker.DefaultFailures))
	f.DurationVar(&e.Breaker.FailingFor, "breaker-failing-for", 0, fmt.Sprintf("minimum time from the first to the last of these failures, 1ms to 1h (0: %s)", breaker.DefaultFailingFor))
	f.DurationVar(&e.Breaker.OpenFor, "breaker-open-for", 0, fmt.Sprintf("time that the circuit breaker stays open before the first probe, 1s to 1h (0: %s)", breaker.DefaultOpenFor))
	f.DurationVar(&e.Breaker.MaxOpenFor, "breaker-max-open-for", 0, fmt.Sprintf("maximum open time; every failed probe doubles it, up to 24h (0: %s)", breaker.DefaultMaxOpenFor))
	f.DurationVar(&e.Breaker.DisableAfter, "disable-after", 0, fmt.Sprintf("disable the endpoint after failing for this long without a success, 1h to 720h (0: %s)", breaker.DefaultDisableAfter))
}

// nonEmpty returns the values of a list flag: --include-fields= gives one that is empty.
func nonEmpty(list []string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(text string) bool { return text == "" })
}

// endpointSet changes only the settings whose flags are given.
func (a *app) endpointSet() *cobra.Command {
	var wanted endpoint.Endpoint
	var auth authFlags
	c := &cobra.Command{
		Use: "set ENDPOINT", Short: "Change an endpoint's timeout, retries, rate limit, circuit breaker, authentication, body, old names or versions",
		Example: `  tidings endpoint set ep_01J… --rate-per-minute 600 --burst 20
  tidings endpoint set ep_01J… --bearer env:CRM_TOKEN
  tidings endpoint set ep_01J… --rate-per-minute 0`,
		Args: args(1, "an endpoint id"),
	}
	shapeFlags(c.Flags(), &wanted.Shape)
	oldNamesFlag(c.Flags(), &wanted)
	typeVersionsFlag(c.Flags(), &wanted)
	ruleFlags(c.Flags(), &wanted)
	auth.add(c.Flags())
	c.Flags().BoolVar(&auth.none, "no-auth", false, "remove all authentication but the signature; with other flags, before they are applied")
	c.RunE = func(c *cobra.Command, given []string) error {
		authenticate, err := a.readAuth(auth, false)
		if err != nil {
			return err
		}
		changes := map[string]func(*endpoint.Endpoint){
			"format":               func(e *endpoint.Endpoint) { e.Shape.Format = wanted.Shape.Format },
			"thin":                 func(e *endpoint.Endpoint) { e.Shape.Thin = wanted.Shape.Thin },
			"include-fields":       func(e *endpoint.Endpoint) { e.Shape.Include = nonEmpty(wanted.Shape.Include) },
			"exclude-fields":       func(e *endpoint.Endpoint) { e.Shape.Exclude = nonEmpty(wanted.Shape.Exclude) },
			"method":               func(e *endpoint.Endpoint) { e.Shape.Method = wanted.Shape.Method },
			"content-type":         func(e *endpoint.Endpoint) { e.Shape.ContentType = wanted.Shape.ContentType },
			"old-names":            func(e *endpoint.Endpoint) { e.OldNames = wanted.OldNames },
			"type-version":         func(e *endpoint.Endpoint) { pinVersions(e, wanted.TypeVersions) },
			"timeout":              func(e *endpoint.Endpoint) { e.Timeout = wanted.Timeout },
			"max-attempts":         func(e *endpoint.Endpoint) { e.Retry.MaxAttempts = wanted.Retry.MaxAttempts },
			"max-age":              func(e *endpoint.Endpoint) { e.Retry.MaxAge = wanted.Retry.MaxAge },
			"max-delay":            func(e *endpoint.Endpoint) { e.Retry.MaxDelay = wanted.Retry.MaxDelay },
			"rate-per-minute":      func(e *endpoint.Endpoint) { e.Limit.PerMinute = wanted.Limit.PerMinute },
			"burst":                func(e *endpoint.Endpoint) { e.Limit.Burst = wanted.Limit.Burst },
			"breaker-failures":     func(e *endpoint.Endpoint) { e.Breaker.Failures = wanted.Breaker.Failures },
			"breaker-failing-for":  func(e *endpoint.Endpoint) { e.Breaker.FailingFor = wanted.Breaker.FailingFor },
			"breaker-open-for":     func(e *endpoint.Endpoint) { e.Breaker.OpenFor = wanted.Breaker.OpenFor },
			"breaker-max-open-for": func(e *endpoint.Endpoint) { e.Breaker.MaxOpenFor = wanted.Breaker.MaxOpenFor },
			"disable-after":        func(e *endpoint.Endpoint) { e.Breaker.DisableAfter = wanted.Breaker.DisableAfter },
		}
		var named []func(*endpoint.Endpoint)
		c.Flags().Visit(func(f *pflag.Flag) {
			if change, ok := changes[f.Name]; ok {
				named = append(named, change)
			}
		})
		if auth.given() {
			named = append(named, func(e *endpoint.Endpoint) { e.Auth = authenticate(e.Auth) })
		}
		if len(named) == 0 {
			return usagef("tidings endpoint set needs at least one setting; `tidings endpoint set --help` lists them")
		}
		r, err := a.adminEndpoints(c.Context())
		if err != nil {
			return err
		}
		e, err := r.Change(c.Context(), a.tenant, given[0], func(e *endpoint.Endpoint) {
			for _, change := range named {
				change(e)
			}
		})
		if err != nil {
			return a.endpointError(given[0], err)
		}
		return a.showEndpoint(e)
	}
	return c
}

// pinVersions changes the versions of the event types that are named. 0 takes away what was
// set.
func pinVersions(e *endpoint.Endpoint, wanted map[string]int) {
	all := maps.Clone(e.TypeVersions)
	if all == nil {
		all = map[string]int{}
	}
	maps.Copy(all, wanted)
	maps.DeleteFunc(all, func(_ string, version int) bool { return version == 0 })
	e.TypeVersions = all
}

// showSecret prints an endpoint with its new signing secret. A secret that the
// operator supplied (generated is false) is not printed.
func (a *app) showSecret(v console.WithSecret, what string, generated bool) error {
	if !generated {
		v.Secret = ""
	}
	if a.json {
		return a.printJSON(v)
	}
	if err := a.fields("endpoint", v.ID+" "+what, "url", v.URL, "types", strings.Join(v.EventTypes, ", "), "filter", string(v.Filter), "secret", v.Secret, "public key", v.PublicKey); err != nil {
		return err
	}
	if v.Secret != "" {
		fmt.Fprintln(a.out, "\nThe secret is shown only once. Receivers verify the webhook-signature header with it.")
	}
	if v.Backfill != nil {
		fmt.Fprintf(a.out, "\nThe events since %s are being sent: `tidings job wait %s` follows it.\n", formatTime(v.Backfill.From), v.Backfill.ID)
	}
	if v.BackfillError != "" {
		fmt.Fprintf(a.err, "the endpoint was added, but past events are not being sent: %s\n`tidings recover --endpoint %s --since …` sends them\n", v.BackfillError, v.ID)
	}
	return nil
}

// countBackfill says what adding an endpoint would send, and adds nothing.
func (a *app) countBackfill(ctx context.Context, r *admin.Endpoints, e endpoint.Endpoint, span time.Duration) error {
	if err := r.Validate(ctx, e); err != nil {
		return unreachable(err)
	}
	t, err := a.connect(ctx)
	if err != nil {
		return err
	}
	now, shown := time.Now(), time.Now()
	b := console.Backfill{From: now, To: now}
	if span > 0 {
		b, err = console.CountBackfill(ctx, t.store, t.store, e, now.Add(-span), now, func(b console.Backfill) bool {
			if time.Since(shown) >= shownEvery {
				shown = time.Now()
				fmt.Fprintf(a.err, "counted back to %s …\n", formatTime(b.Until))
			}
			return true
		})
		if err != nil {
			return unreachable(err)
		}
	}
	if a.json {
		return a.printJSON(b)
	}
	fmt.Fprintln(a.out, "the settings are valid; nothing was added")
	if span > 0 {
		fmt.Fprintln(a.out, b.Text())
	}
	return nil
}

// startBackfill starts the job that sends a new endpoint the past.
func (a *app) startBackfill(ctx context.Context, e endpoint.Endpoint, span time.Duration) (console.Job, error) {
	t, err := a.connect(ctx)
	if err != nil {
		return console.Job{}, err
	}
	now := time.Now()
	var j jobs.Job
	err = t.invoke(ctx, "dispatch", dispatch.Command{
		Action: "start_job", Kind: jobs.Backfill, JobID: jobs.NewID(now), By: by(), Tenant: a.tenant, EndpointID: e.ID, From: now.Add(-span), To: now,
	}, &j)
	return console.ViewJob(j, e.Limit), err
}

func (a *app) endpointList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the tenant's endpoints", Args: args(0, "no arguments"),
		RunE: func(c *cobra.Command, _ []string) error {
			r, err := a.adminEndpoints(c.Context())
			if err != nil {
				return err
			}
			list, err := r.Store.ListEndpoints(c.Context(), a.tenant)
			if err != nil {
				return unreachable(err)
			}
			t, err := a.connect(c.Context())
			if err != nil {
				return err
			}
			views, err := console.ViewEndpoints(c.Context(), t.store, list, time.Now())
			if err != nil {
				return unreachable(err)
			}
			if a.json {
				return a.printJSON(views)
			}
			if len(list) == 0 {
				fmt.Fprintln(a.out, "no endpoints: add one with `tidings endpoint add URL`")
				return nil
			}
			return a.table("ENDPOINT\tSTATUS\tTYPES\tURL", func(row func(...any)) {
				for _, v := range views {
					status := string(v.Status)
					if !v.SlowSince.IsZero() {
						status += ", slow for " + time.Since(v.SlowSince).Round(time.Second).String()
					}
					row(v.ID, status, strings.Join(v.EventTypes, ","), v.URL)
				}
			})
		},
	}
}

func (a *app) endpointShow() *cobra.Command {
	return &cobra.Command{
		Use: "show ENDPOINT", Short: "Show an endpoint, without its secrets", Args: args(1, "an endpoint id"),
		RunE: func(c *cobra.Command, given []string) error {
			r, err := a.adminEndpoints(c.Context())
			if err != nil {
				return err
			}
			e, err := r.Store.GetEndpoint(c.Context(), a.tenant, given[0])
			if err != nil {
				return a.endpointError(given[0], err)
			}
			return a.showEndpoint(e)
		},
	}
}

func (a *app) showEndpoint(e endpoint.Endpoint) error {
	v := console.ViewEndpoint(e, time.Now())
	if a.json {
		return a.printJSON(v)
	}
	var replaced []string
	for _, s := range v.Replaced {
		replaced = append(replaced, strings.TrimSpace(s.PublicKey+" valid until "+formatTime(s.ExpiresAt)))
	}
	attempts := ""
	if v.MaxAttempts > 0 {
		attempts = fmt.Sprint(v.MaxAttempts)
	}
	role, ordered, traceparent, names := "", "", "", ""
	var pinned []string
	for _, name := range slices.Sorted(maps.Keys(v.TypeVersions)) {
		pinned = append(pinned, fmt.Sprintf("%s=%d", name, v.TypeVersions[name]))
	}
	if v.OldNames {
		names = "old names of renamed types"
	}
	if v.Traceparent {
		traceparent = "sent"
	}
	if v.RoleARN != "" {
		role = v.RoleARN + " (external id " + v.Tenant + ")"
	}
	if v.Ordered {
		ordered = "by subject"
	}
	return a.fields("endpoint", v.ID, "status", v.Status, "reason", v.StatusReason, "url", v.URL, "description", v.Description,
		"types", strings.Join(v.EventTypes, ", "), "filter", string(v.Filter), "role", role, "credentials", v.Credentials, "auth", strings.Join(v.Auth.Ways(), ", "), "ordered", ordered, "traceparent", traceparent, "body", v.Body(), "names", names, "versions", strings.Join(pinned, ", "),
		"timeout", fmt.Sprintf("%gs", v.Timeout),
		"max attempts", attempts, "max age", v.MaxAge, "max delay", v.MaxDelay,
		"rate limit", rateLimit(e.Limit), "circuit breaker", breakerPolicy(e.Breaker),
		"public key", v.PublicKey, "replaced secret", strings.Join(replaced, ", "), "created", formatTime(v.CreatedAt), "updated", formatTime(v.UpdatedAt))
}

// rateLimit formats a rate limit, "" for none.
func rateLimit(l ratelimit.Limit) string {
	switch {
	case !l.Enabled():
		return ""
	case l.Burst == 0:
		return fmt.Sprintf("%d per minute", l.PerMinute)
	}
	return fmt.Sprintf("%d per minute, burst %d", l.PerMinute, l.Burst)
}

// breakerPolicy formats the settings that differ from the defaults.
func breakerPolicy(p breaker.Policy) string {
	var parts []string
	if p.Failures > 0 || p.FailingFor > 0 {
		opens := fmt.Sprintf("opens after %d failures", cmp.Or(p.Failures, breaker.DefaultFailures))
		if p.FailingFor > 0 {
			opens += fmt.Sprintf(" that span %s", p.FailingFor)
		}
		parts = append(parts, opens)
	}
	for _, d := range []struct {
		format string
		time   time.Duration
	}{{"open for %s", p.OpenFor}, {"open for at most %s", p.MaxOpenFor}, {"disables the endpoint after %s", p.DisableAfter}} {
		if d.time > 0 {
			parts = append(parts, fmt.Sprintf(d.format, d.time))
		}
	}
	return strings.Join(parts, ", ")
}

func (a *app) endpointError(id string, err error) error {
	if errors.Is(err, endpoint.ErrNotFound) {
		return fmt.Errorf("tenant %s has no endpoint %s: `tidings endpoint list` lists its endpoints", a.tenant, id)
	}
	if errors.Is(err, admin.ErrDisabled) {
		return fmt.Errorf("endpoint %s is disabled, so it cannot be paused or resumed: `tidings endpoint enable %s` enables it", id, id)
	}
	return unreachable(err)
}

func (a *app) endpointSwitch(verb, short string) *cobra.Command {
	var reason string
	c := &cobra.Command{
		Use: verb + " ENDPOINT", Short: short, Args: args(1, "an endpoint id"),
		RunE: func(c *cobra.Command, given []string) error {
			r, err := a.adminEndpoints(c.Context())
			if err != nil {
				return err
			}
			var e endpoint.Endpoint
			switch verb {
			case "disable":
				e, err = r.Disable(c.Context(), a.tenant, given[0], reason)
			case "pause":
				e, err = r.Pause(c.Context(), a.tenant, given[0], reason)
			case "resume":
				e, err = r.Resume(c.Context(), a.tenant, given[0])
			default:
				e, err = r.Enable(c.Context(), a.tenant, given[0])
			}
			if err != nil {
				return a.endpointError(given[0], err)
			}
			return a.showEndpoint(e)
		},
	}
	if verb == "disable" || verb == "pause" {
		c.Flags().StringVar(&reason, "reason", "by an operator", "reason, shown with the endpoint and in the audit log")
	}
	return c
}

func (a *app) endpointRotate() *cobra.Command {
	var overlap time.Duration
	c := &cobra.Command{
		Use: "rotate-secret ENDPOINT", Short: "Generate a new signing secret and print it, once; the old one stays valid for --overlap",
		Args: args(1, "an endpoint id"),
		RunE: func(c *cobra.Command, given []string) error {
			r, err := a.adminEndpoints(c.Context())
			if err != nil {
				return err
			}
			e, err := r.RotateSecret(c.Context(), a.tenant, given[0], overlap)
			if err != nil {
				return a.endpointError(given[0], err)
			}
			return a.showSecret(console.ShowSecret(e, time.Now()), "has a new secret", true)
		},
	}
	c.Flags().DurationVar(&overlap, "overlap", endpoint.RotationOverlap, "time that webhooks are also signed with the old secret")
	return c
}

func (a *app) endpointRemove() *cobra.Command {
	return &cobra.Command{
		Use: "remove ENDPOINT", Short: "Delete an endpoint; its pending deliveries are marked skipped", Args: args(1, "an endpoint id"),
		RunE: func(c *cobra.Command, given []string) error {
			r, err := a.adminEndpoints(c.Context())
			if err != nil {
				return err
			}
			if err := r.Remove(c.Context(), a.tenant, given[0]); err != nil {
				return a.endpointError(given[0], err)
			}
			if a.json {
				return a.printJSON(map[string]string{"removed": given[0]})
			}
			fmt.Fprintln(a.out, given[0], "removed")
			return nil
		},
	}
}
