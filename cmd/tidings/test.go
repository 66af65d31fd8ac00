package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"charm.land/lipgloss/v2"
	"github.com/spf13/cobra"

	"github.com/tidings-dev/tidings/pkg/destination"
	"github.com/tidings-dev/tidings/pkg/testsend"
)

// errNotDelivered ends a test that has been reported already.
var errNotDelivered = errors.New("the test was not delivered")

func (a *app) testCommand() *cobra.Command {
	var r testsend.Request
	var data string
	var secret bool
	var timeout time.Duration
	c := &cobra.Command{
		Use: "test ENDPOINT|URL", Short: "Send one signed sample now and show everything that happens",
		Long: `Sends one signed event to an endpoint, or to a URL that is none yet, now: past
the queue, the circuit breaker and the rate limit, and shows the exact request,
the answer, where the time went, and what to do about a failure. It leaves no
event and no delivery behind.

Exit codes: 0 delivered, 1 not delivered, 2 the command's words are wrong.`,
		Example: `  tidings test ep_01J…
  tidings test ep_01J… --type user.posted_comment --data @comment.json
  tidings test https://crm.example.com/hooks --secret-stdin < secret.txt
  tidings test 'sqs://123456789012/webhooks-orders?region=eu-central-1'`,
		Args: args(1, "an endpoint's id, or a URL"),
		RunE: func(c *cobra.Command, given []string) error {
			r.Tenant = a.tenant
			if strings.Contains(given[0], "://") {
				r.URL = given[0]
			} else {
				r.EndpointID = given[0]
			}
			if c.Flags().Changed("timeout") {
				r.TimeoutSeconds = timeout.Seconds()
			}
			if secret && data == "-" {
				return usage("--secret-stdin and --data - both read standard input")
			}
			if secret {
				text, err := io.ReadAll(a.in)
				if err != nil {
					return err
				}
				r.Secret = strings.TrimSpace(string(text))
			}
			if data != "" {
				text, err := a.text(data)
				if err != nil {
					return err
				}
				if !json.Valid(text) {
					return usage("--data is not JSON")
				}
				r.Data = text
			}
			t, err := a.connect(c.Context())
			if err != nil {
				return err
			}
			var report testsend.Report
			if err := t.invoke(c.Context(), "test-webhook", r, &report); err != nil {
				return err
			}
			if a.json {
				err = a.printJSON(report)
			} else {
				printReport(a.out, report)
			}
			if err == nil && report.Verdict != testsend.Delivered {
				err = errNotDelivered
			}
			return err
		},
	}
	f := c.Flags()
	f.StringVar(&r.Event, "type", "", "the event's type; one that the endpoint takes without it")
	f.StringVar(&data, "data", "", "the event's data: JSON, @FILE, or - for standard input; the catalog's sample without it")
	f.BoolVar(&secret, "secret-stdin", false, "of a URL: read the signing secret (whsec_…) from standard input instead of making one")
	f.StringVar(&r.RoleARN, "role-arn", "", "of a URL, SQS and MSK: the AWS role to assume")
	f.StringVar(&r.Credentials, "credentials", "", "of a URL, Kafka: the name of the secret with user name and password")
	f.BoolVar(&r.Ordered, "ordered", false, "of a URL, Pub/Sub: with an ordering key")
	f.DurationVar(&timeout, "timeout", 10*time.Second, "of a URL: how long the whole attempt may take, 1s to 30s")
	return c
}

// printReport prints a report for people.
func printReport(out io.Writer, r testsend.Report) {
	var (
		good    = lipgloss.NewStyle().Foreground(lipgloss.Green)
		bad     = lipgloss.NewStyle().Foreground(lipgloss.Red)
		advice  = lipgloss.NewStyle().Foreground(lipgloss.Yellow)
		heading = lipgloss.NewStyle().Bold(true)
		faint   = lipgloss.NewStyle().Faint(true)
	)
	print := func(text string) { lipgloss.Fprintln(out, text) }
	block := func(style lipgloss.Style, text string) {
		for line := range strings.SplitSeq(strings.TrimRight(text, "\n"), "\n") {
			print("    " + style.Render(strings.ReplaceAll(line, "\t", "  ")))
		}
	}
	plain := lipgloss.NewStyle()

	verdict := good.Bold(true).Render("✓ delivered")
	if r.Verdict != testsend.Delivered {
		verdict = bad.Bold(true).Render("✗ not delivered")
	}
	what := string(r.Outcome)
	if r.Status != 0 {
		what = strings.TrimSpace(fmt.Sprintf("%d %s", r.Status, http.StatusText(r.Status)))
	}
	print(fmt.Sprintf("%s  %s  in %s", verdict, what, millis(r.Timings.Total)))
	sample := ""
	if r.Sample {
		sample = " (the catalog's sample)"
	}
	print(faint.Render(fmt.Sprintf("%s%s  event %s  over %s", r.Event, sample, r.EventID, r.Protocol)))
	if r.Hint != nil {
		print("")
		for i, line := range wrap(r.Hint.Text, 96) {
			mark := "  "
			if i == 0 {
				mark = "→ "
			}
			print(advice.Render(mark + line))
		}
		print(faint.Render("  " + map[testsend.Consequence]string{
			testsend.ThenRetried: "A delivery would be tried again.", testsend.ThenDead: "A delivery would be a dead letter at once.",
			testsend.ThenDisabled: "A delivery would disable the endpoint.",
		}[r.Then] + "  [" + string(r.Hint.Code) + "]"))
	}
	for _, note := range r.Notes {
		for i, line := range wrap(note, 94) {
			mark := "  "
			if i == 0 {
				mark = "! "
			}
			print(mark + line)
		}
	}

	print("\n" + heading.Render("Request"))
	block(plain, requestLine(r))
	for _, f := range r.Request.Headers {
		block(plain, faint.Render(f.Name+":")+" "+f.Value)
	}
	print("")
	block(plain, pretty(r.Request.Body))
	print("\n" + heading.Render("Signed") + faint.Render("  id.timestamp.body"))
	block(faint, r.Request.Signature.Base)
	for _, s := range r.Request.Signature.By {
		who := s.Secret + "  fingerprint " + s.Fingerprint
		if s.PublicKey != "" {
			who = s.PublicKey
		}
		block(plain, who+"  →  "+s.Signature)
	}

	print("\n" + heading.Render("Answer"))
	if r.Answer == nil {
		block(faint, "none: "+r.Error)
	} else {
		if r.Answer.Status != 0 {
			block(plain, strings.TrimSpace(r.Answer.Proto+" "+what))
		}
		for _, f := range r.Answer.Headers {
			block(plain, faint.Render(f.Name+":")+" "+f.Value)
		}
		if r.Answer.Body != "" {
			print("")
			block(plain, r.Answer.Body)
		}
		if r.Answer.Cut {
			block(faint, "… and more")
		}
	}

	print("\n" + heading.Render("Time"))
	longest := max(r.Timings.Total, 0.01)
	for _, p := range []struct {
		name  string
		phase destination.Phase
		ms    float64
	}{
		{"DNS", destination.PhaseName, r.Timings.DNS}, {"connect", destination.PhaseConnect, r.Timings.Connect}, {"TLS", destination.PhaseTLS, r.Timings.TLS},
		{"first byte", destination.PhaseAnswer, r.Timings.FirstByte}, {"total", "", r.Timings.Total},
	} {
		if p.ms == 0 {
			continue
		}
		bar, end := strings.Repeat("▇", max(1, int(30*p.ms/longest))), ""
		style := good
		if r.Verdict != testsend.Delivered && r.Timings.Ended == p.phase {
			style, end = bad, bad.Render("  it ended here")
		}
		print(fmt.Sprintf("    %-10s  %9s  %s%s", p.name, millis(p.ms), style.Render(bar), end))
	}
}

// requestLine is the request's first line, or a broker's operation.
func requestLine(r testsend.Report) string {
	u, err := url.Parse(r.Request.To)
	if r.Protocol != "http" || err != nil {
		return strings.TrimSpace(r.Request.Method + " " + r.Request.To)
	}
	return r.Request.Method + " " + u.RequestURI()
}

// pretty indents JSON, for the eye: what was sent stands whole in what was signed.
func pretty(body string) string {
	var buf bytes.Buffer
	if json.Indent(&buf, []byte(body), "", "  ") != nil {
		return body
	}
	return buf.String()
}

func millis(ms float64) string {
	switch {
	case ms >= 10_000:
		return fmt.Sprintf("%.1f s", ms/1000)
	case ms >= 100:
		return fmt.Sprintf("%.0f ms", ms)
	}
	return fmt.Sprintf("%.1f ms", ms)
}

// wrap breaks a text into lines of at most so many characters, between words.
func wrap(text string, width int) []string {
	var lines []string
	line := ""
	for word := range strings.FieldsSeq(text) {
		if line != "" && len([]rune(line))+1+len([]rune(word)) > width {
			lines, line = append(lines, line), ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	return append(lines, line)
}
