package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tidings-dev/tidings/pkg/admin"
	"github.com/tidings-dev/tidings/pkg/console"
	"github.com/tidings-dev/tidings/pkg/delivery/breaker"
	"github.com/tidings-dev/tidings/pkg/delivery/ratelimit"
	"github.com/tidings-dev/tidings/pkg/delivery/retry"
	"github.com/tidings-dev/tidings/pkg/destination/builtin"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/event/catalog"
	"github.com/tidings-dev/tidings/pkg/signature"
)

// registry returns the endpoints' registry. On a runner on this machine
// receivers may be on it too; a deployment's own guard decides at every attempt.
func (a *app) registry(ctx context.Context) (*admin.Endpoints, error) {
	t, err := a.connect(ctx)
	if err != nil {
		return nil, err
	}
	var allow builtin.Settings
	if a.stack == "" {
		allow = builtin.Loopback
	}
	protocols, err := builtin.Open(allow, builtin.Clouds{})
	if err != nil {
		return nil, err
	}
	return &admin.Endpoints{Store: t.store, Types: catalog.Default().Types(), Check: protocols.Check, Now: time.Now}, nil
}

func (a *app) endpointCommand() *cobra.Command {
	c := &cobra.Command{Use: "endpoint", Short: "Who receives: add, set, list, show, disable, enable, rotate-secret, remove"}
	c.AddCommand(a.endpointAdd(), a.endpointSet(), a.endpointList(), a.endpointShow(), a.endpointRemove(), a.endpointRotate(),
		a.endpointSwitch("disable", "Take an endpoint out of service; what waits for it ends as skipped"),
		a.endpointSwitch("enable", "Put an endpoint into service again"))
	return c
}

func (a *app) endpointAdd() *cobra.Command {
	var e endpoint.Endpoint
	var filter string
	var secret, ed25519 bool
	c := &cobra.Command{
		Use: "add URL", Short: "Add an endpoint and show its secret, once",
		Long: "The URL's scheme chooses the protocol; docs/destinations.md has a worked example for each.",
		Example: `  tidings endpoint add https://crm.example.com/hooks --types 'user.*'
  tidings endpoint add https://crm.example.com/hooks --filter '{"data":{"status":["success"]}}'
  tidings endpoint add 'sqs://123456789012/webhooks-orders?region=eu-central-1' --role-arn arn:aws:iam::123456789012:role/webhooks-tidings
  tidings endpoint add pubsub://my-project/community-events --ordered
  tidings endpoint add 'kafka://b1.example.com:9093,b2.example.com:9093/community?tls=true&sasl=scram-sha-512' --credentials tidings/default/kafka`,
		Args: args(1, "one URL"),
		RunE: func(c *cobra.Command, given []string) error {
			r, err := a.registry(c.Context())
			if err != nil {
				return err
			}
			e.Tenant, e.URL = a.tenant, given[0]
			if filter != "" {
				e.Filter = json.RawMessage(filter)
			}
			switch {
			case secret && ed25519:
				return usage("--secret-stdin and --ed25519 exclude each other")
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
			added, err := r.Add(c.Context(), e)
			if err != nil {
				return unreachable(err)
			}
			return a.showSecret(added, "added", !secret)
		},
	}
	f := c.Flags()
	f.StringSliceVar(&e.EventTypes, "types", []string{"*"}, "event types: exact, user.*, or *")
	f.StringVar(&filter, "filter", "", "an EventBridge event pattern over the body")
	f.StringVar(&e.Description, "description", "", "what it is, for people")
	f.StringVar(&e.RoleARN, "role-arn", "", "SQS and MSK: the AWS role to assume, with the tenant as external id")
	f.StringVar(&e.Credentials, "credentials", "", "Kafka: the name of the secret with user name and password, tidings/<tenant>/…")
	f.BoolVar(&e.Ordered, "ordered", false, "Pub/Sub: keep the order of events about one subject")
	f.BoolVar(&e.Traceparent, "traceparent", false, "send the W3C traceparent header (an attribute on brokers)")
	ruleFlags(f, &e)
	f.BoolVar(&secret, "secret-stdin", false, "read the signing secret (whsec_…) from standard input instead of making one")
	f.BoolVar(&ed25519, "ed25519", false, "sign with an Ed25519 key (v1a) instead of a shared secret")
	return c
}

// ruleFlags are the rules that an endpoint may have of its own.
func ruleFlags(f *pflag.FlagSet, e *endpoint.Endpoint) {
	f.DurationVar(&e.Timeout, "timeout", endpoint.DefaultTimeout, "how long a whole attempt may take, 1s to 30s")
	f.IntVar(&e.Retry.MaxAttempts, "max-attempts", 0, fmt.Sprintf("attempts in all, 1 to 30 (0: %d)", retry.DefaultMaxAttempts))
	f.DurationVar(&e.Retry.MaxAge, "max-age", 0, fmt.Sprintf("nothing is attempted later, 1m to 336h (0: %s)", retry.DefaultMaxAge))
	f.DurationVar(&e.Retry.MaxDelay, "max-delay", 0, fmt.Sprintf("longest wait between attempts, 1s to 24h (0: %s)", retry.DefaultMaxDelay))
	f.IntVar(&e.Limit.PerMinute, "rate-per-minute", 0, fmt.Sprintf("at most so many attempts a minute, 1 to %d (0: no limit)", ratelimit.MaxPerMinute))
	f.IntVar(&e.Limit.Burst, "burst", 0, "of which so many may begin at once, 1 to 10000 (0: five seconds' worth)")
	f.IntVar(&e.Breaker.Failures, "breaker-failures", 0, fmt.Sprintf("failures in a row that open the circuit, 1 to 100 (0: %d)", breaker.DefaultFailures))
	f.DurationVar(&e.Breaker.OpenFor, "breaker-open-for", 0, fmt.Sprintf("how long it stays open until a probe, 1s to 1h (0: %s)", breaker.DefaultOpenFor))
	f.DurationVar(&e.Breaker.MaxOpenFor, "breaker-max-open-for", 0, fmt.Sprintf("each failed probe doubles that, up to this, at most 24h (0: %s)", breaker.DefaultMaxOpenFor))
	f.DurationVar(&e.Breaker.DisableAfter, "disable-after", 0, fmt.Sprintf("an endpoint that has only failed for so long is disabled, 1h to 720h (0: %s)", breaker.DefaultDisableAfter))
}

// endpointSet changes the rules that are named, and leaves the others.
func (a *app) endpointSet() *cobra.Command {
	var wanted endpoint.Endpoint
	c := &cobra.Command{
		Use: "set ENDPOINT", Short: "Change an endpoint's rules: retries, rate limit, circuit breaker",
		Example: `  tidings endpoint set ep_01J… --rate-per-minute 600 --burst 20
  tidings endpoint set ep_01J… --rate-per-minute 0`,
		Args: args(1, "an endpoint's id"),
	}
	ruleFlags(c.Flags(), &wanted)
	c.RunE = func(c *cobra.Command, given []string) error {
		changes := map[string]func(*endpoint.Endpoint){
			"timeout":              func(e *endpoint.Endpoint) { e.Timeout = wanted.Timeout },
			"max-attempts":         func(e *endpoint.Endpoint) { e.Retry.MaxAttempts = wanted.Retry.MaxAttempts },
			"max-age":              func(e *endpoint.Endpoint) { e.Retry.MaxAge = wanted.Retry.MaxAge },
			"max-delay":            func(e *endpoint.Endpoint) { e.Retry.MaxDelay = wanted.Retry.MaxDelay },
			"rate-per-minute":      func(e *endpoint.Endpoint) { e.Limit.PerMinute = wanted.Limit.PerMinute },
			"burst":                func(e *endpoint.Endpoint) { e.Limit.Burst = wanted.Limit.Burst },
			"breaker-failures":     func(e *endpoint.Endpoint) { e.Breaker.Failures = wanted.Breaker.Failures },
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
		if len(named) == 0 {
			return usage("tidings endpoint set: name at least one rule; `tidings endpoint set --help` lists them")
		}
		r, err := a.registry(c.Context())
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

// showSecret prints an endpoint whose secret was just made: the one time that it
// is shown. What an Ed25519 endpoint's receiver needs is the public key.
func (a *app) showSecret(e endpoint.Endpoint, what string, made bool) error {
	v := console.ShowSecret(e, time.Now())
	if !made {
		v.Secret = "" // its owner has it
	}
	if a.json {
		return a.printJSON(v)
	}
	if err := a.fields("endpoint", e.ID+" "+what, "url", e.URL, "types", strings.Join(e.EventTypes, ", "), "filter", string(e.Filter), "secret", v.Secret, "public key", v.PublicKey); err != nil {
		return err
	}
	if v.Secret != "" {
		fmt.Fprintln(a.out, "\nThe secret is shown this once. Receivers verify the webhook-signature header with it.")
	}
	return nil
}

func (a *app) endpointList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "All endpoints of the tenant", Args: args(0, "no arguments"),
		RunE: func(c *cobra.Command, _ []string) error {
			r, err := a.registry(c.Context())
			if err != nil {
				return err
			}
			list, err := r.Store.ListEndpoints(c.Context(), a.tenant)
			if err != nil {
				return unreachable(err)
			}
			if a.json {
				views := []console.Endpoint{}
				for _, e := range list {
					views = append(views, console.ViewEndpoint(e, time.Now()))
				}
				return a.printJSON(views)
			}
			if len(list) == 0 {
				fmt.Fprintln(a.out, "no endpoints yet: `tidings endpoint add URL` adds one")
				return nil
			}
			return a.table("ENDPOINT\tSTATUS\tTYPES\tURL", func(row func(...any)) {
				for _, e := range list {
					row(e.ID, e.Status, strings.Join(e.EventTypes, ","), e.URL)
				}
			})
		},
	}
}

func (a *app) endpointShow() *cobra.Command {
	return &cobra.Command{
		Use: "show ENDPOINT", Short: "One endpoint, without its secrets", Args: args(1, "an endpoint's id"),
		RunE: func(c *cobra.Command, given []string) error {
			r, err := a.registry(c.Context())
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
		replaced = append(replaced, strings.TrimSpace(s.PublicKey+" signs until "+moment(s.ExpiresAt)))
	}
	attempts := ""
	if v.MaxAttempts > 0 {
		attempts = fmt.Sprint(v.MaxAttempts)
	}
	role, ordered, traceparent := "", "", ""
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
		"types", strings.Join(v.EventTypes, ", "), "filter", string(v.Filter), "role", role, "credentials", v.Credentials, "ordered", ordered, "traceparent", traceparent,
		"timeout", fmt.Sprintf("%gs", v.Timeout),
		"max attempts", attempts, "max age", v.MaxAge, "max delay", v.MaxDelay,
		"rate limit", rateLimit(e.Limit), "breaker", circuitRules(e.Breaker),
		"public key", v.PublicKey, "replaced secret", strings.Join(replaced, ", "), "created", moment(v.CreatedAt), "updated", moment(v.UpdatedAt))
}

// rateLimit says a limit in words, "" where there is none.
func rateLimit(l ratelimit.Limit) string {
	switch {
	case !l.On():
		return ""
	case l.Burst == 0:
		return fmt.Sprintf("%d a minute", l.PerMinute)
	}
	return fmt.Sprintf("%d a minute, %d at once", l.PerMinute, l.Burst)
}

// circuitRules says what a policy has beyond the defaults.
func circuitRules(p breaker.Policy) string {
	var parts []string
	if p.Failures > 0 {
		parts = append(parts, fmt.Sprintf("opens after %d failures", p.Failures))
	}
	for _, d := range []struct {
		says string
		time time.Duration
	}{{"for %s", p.OpenFor}, {"at most for %s", p.MaxOpenFor}, {"disabled after %s", p.DisableAfter}} {
		if d.time > 0 {
			parts = append(parts, fmt.Sprintf(d.says, d.time))
		}
	}
	return strings.Join(parts, ", ")
}

func (a *app) endpointError(id string, err error) error {
	if errors.Is(err, endpoint.ErrNotFound) {
		return fmt.Errorf("tenant %s has no endpoint %s: `tidings endpoint list` shows what it has", a.tenant, id)
	}
	return unreachable(err)
}

func (a *app) endpointSwitch(word, short string) *cobra.Command {
	var reason string
	c := &cobra.Command{
		Use: word + " ENDPOINT", Short: short, Args: args(1, "an endpoint's id"),
		RunE: func(c *cobra.Command, given []string) error {
			r, err := a.registry(c.Context())
			if err != nil {
				return err
			}
			var e endpoint.Endpoint
			if word == "enable" {
				e, err = r.Enable(c.Context(), a.tenant, given[0])
			} else {
				e, err = r.Disable(c.Context(), a.tenant, given[0], reason)
			}
			if err != nil {
				return a.endpointError(given[0], err)
			}
			return a.showEndpoint(e)
		},
	}
	if word == "disable" {
		c.Flags().StringVar(&reason, "reason", "by an operator", "why, for whoever looks at it later")
	}
	return c
}

func (a *app) endpointRotate() *cobra.Command {
	var overlap time.Duration
	c := &cobra.Command{
		Use: "rotate-secret ENDPOINT", Short: "Make a new secret and show it, once; the old one signs beside it for a while",
		Args: args(1, "an endpoint's id"),
		RunE: func(c *cobra.Command, given []string) error {
			r, err := a.registry(c.Context())
			if err != nil {
				return err
			}
			e, err := r.RotateSecret(c.Context(), a.tenant, given[0], overlap)
			if err != nil {
				return a.endpointError(given[0], err)
			}
			return a.showSecret(e, "has a new secret", true)
		},
	}
	c.Flags().DurationVar(&overlap, "overlap", endpoint.RotationOverlap, "how long the old secret goes on signing")
	return c
}

func (a *app) endpointRemove() *cobra.Command {
	return &cobra.Command{
		Use: "remove ENDPOINT", Short: "Forget an endpoint; what waits for it ends as skipped", Args: args(1, "an endpoint's id"),
		RunE: func(c *cobra.Command, given []string) error {
			r, err := a.registry(c.Context())
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
