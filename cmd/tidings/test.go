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

// errReported makes run exit with 1 without a message: the report is printed already.
var errReported = errors.New("the test failed")

func (a *app) testCommand() *cobra.Command {
	var r testsend.Request
	var data string
	var secret bool
	var timeout time.Duration
	c := &cobra.Command{
		Use: "test ENDPOINT|URL", Short: "Send one signed test event and show the request, the response and the timing",
		Long: `Send one signed test event to an endpoint, or to a URL without an endpoint. The
test bypasses the queue, the circuit breaker and the rate limit. It prints the
exact request, the response, the timing and advice on a failure. It stores no
event and no delivery.

Exit codes: 0 delivered, 1 not delivered, 2 usage error.`,
		Example: `  tidings test ep_01J…
  tidings test ep_01J… --type user.posted_comment --data @comment.json
  tidings test https://crm.example.com/hooks --secret-stdin < secret.txt
  tidings test 'sqs://123456789012/webhooks-orders?region=eu-central-1'`,
		Args: args(1, "an endpoint id or a URL"),
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
				return usagef("--secret-stdin and --data - both read standard input")
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
					return usagef("--data is not valid JSON")
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
				err = errReported
			}
			return err
		},
	}
	f := c.Flags()
	f.StringVar(&r.Event, "type", "", "event type (default: one that the endpoint subscribes to)")
	f.StringVar(&data, "data", "", "event data: JSON, @FILE, or - for standard input (default: the catalog's sample)")
	f.BoolVar(&secret, "secret-stdin", false, "with a URL: read the signing secret (whsec_…) from standard input instead of generating one")
	f.StringVar(&r.RoleARN, "role-arn", "", "with a URL, SQS and MSK: IAM role to assume")
	f.StringVar(&r.Credentials, "credentials", "", "with a URL, Kafka: name of the Secrets Manager secret with user name and password")
	f.BoolVar(&r.Ordered, "ordered", false, "with a URL, Pub/Sub: send an ordering key")
	f.DurationVar(&timeout, "timeout", 10*time.Second, "with a URL: timeout of the attempt, 1s to 30s")
	return c
}

// printReport prints a report as text.
func printReport(out io.Writer, r testsend.Report) {
	var (
		good    = lipgloss.NewStyle().Foreground(lipgloss.Green)
		bad     = lipgloss.NewStyle().Foreground(lipgloss.Red)
		advice  = lipgloss.NewStyle().Foreground(lipgloss.Yellow)
		heading = lipgloss.NewStyle().Bold(true)
		faint   = lipgloss.NewStyle().Faint(true)
	)
	print := func(text string) { fmt.Fprintln(out, text) }
	block := func(style lipgloss.Style, text string) {
		for line := range strings.SplitSeq(strings.TrimRight(text, "\n"), "\n") {
			print("    " + paint(style, strings.ReplaceAll(line, "\t", "  ")))
		}
	}
	plain := lipgloss.NewStyle()

	verdict := paint(good.Bold(true), "✓ delivered")
	if r.Verdict != testsend.Delivered {
		verdict = paint(bad.Bold(true), "✗ not delivered")
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
	print(paint(faint, fmt.Sprintf("%s%s  event %s  over %s", r.Event, sample, r.EventID, r.Protocol)))
	if r.Hint != nil {
		print("")
		for i, line := range wrap(r.Hint.Text, 96) {
			mark := "  "
			if i == 0 {
				mark = "→ "
			}
			print(paint(advice, mark+line))
		}
		print(paint(faint, "  "+map[testsend.Consequence]string{
			testsend.ConsequenceRetried: "A delivery would be retried.", testsend.ConsequenceDeadLetter: "A delivery would become a dead letter immediately.",
			testsend.ConsequenceRetriedBriefly: "A delivery would be retried for three minutes and then become a dead letter.",
			testsend.ConsequenceDisabled:       "A delivery would disable the endpoint.",
		}[r.Consequence]+"  ["+string(r.Hint.Code)+"]"))
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

	print("\n" + paint(heading, "Request"))
	block(plain, requestLine(r))
	for _, f := range r.Request.Headers {
		block(plain, paint(faint, f.Name+":")+" "+f.Value)
	}
	print("")
	block(plain, indentJSON(r.Request.Body))
	print("\n" + paint(heading, "Signature") + paint(faint, "  id.timestamp.body"))
	block(faint, r.Request.Signature.Base)
	for _, s := range r.Request.Signature.By {
		who := s.Secret + "  fingerprint " + s.Fingerprint
		if s.PublicKey != "" {
			who = s.PublicKey
		}
		block(plain, who+"  →  "+s.Signature)
	}

	print("\n" + paint(heading, "Response"))
	if r.Response == nil {
		block(faint, "none: "+r.Error)
	} else {
		if r.Response.Status != 0 {
			block(plain, strings.TrimSpace(r.Response.Proto+" "+what))
		}
		for _, f := range r.Response.Headers {
			block(plain, paint(faint, f.Name+":")+" "+f.Value)
		}
		if r.Response.Body != "" {
			print("")
			block(plain, r.Response.Body)
		}
		if r.Response.Truncated {
			block(faint, "… truncated")
		}
	}

	print("\n" + paint(heading, "Timing"))
	longest := max(r.Timings.Total, 0.01)
	for _, p := range []struct {
		name  string
		phase destination.Phase
		ms    float64
	}{
		{"DNS", destination.PhaseDNS, r.Timings.DNS}, {"connect", destination.PhaseConnect, r.Timings.Connect}, {"TLS", destination.PhaseTLS, r.Timings.TLS},
		{"first byte", destination.PhaseResponse, r.Timings.FirstByte}, {"total", "", r.Timings.Total},
	} {
		if p.ms == 0 {
			continue
		}
		bar, end := strings.Repeat("▇", max(1, int(30*p.ms/longest))), ""
		style := good
		if r.Verdict != testsend.Delivered && r.Timings.Ended == p.phase {
			style, end = bad, paint(bad, "  failed here")
		}
		print(fmt.Sprintf("    %-10s  %9s  %s%s", p.name, millis(p.ms), paint(style, bar), end))
	}
}

// requestLine is the HTTP method and path, or a broker's operation and address.
func requestLine(r testsend.Report) string {
	u, err := url.Parse(r.Request.To)
	if r.Protocol != "http" || err != nil {
		return strings.TrimSpace(r.Request.Method + " " + r.Request.To)
	}
	return r.Request.Method + " " + u.RequestURI()
}

// indentJSON indents a JSON body and returns anything else unchanged. The exact bytes
// are part of the signed text, which is printed unchanged.
func indentJSON(body string) string {
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

// wrap breaks a text between words, into lines of at most width characters.
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
