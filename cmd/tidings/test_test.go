package main

import (
	"encoding/json"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/pkg/console"
	"github.com/tidings-dev/tidings/pkg/local/receiver"
	"github.com/tidings-dev/tidings/pkg/signature"
	"github.com/tidings-dev/tidings/pkg/testsend"
)

func TestTestPrintsTheReport(t *testing.T) {
	t.Parallel()
	x := newTool(t)
	secret := signature.NewSecret()
	r := receiver.New(1, receiver.Behaviour{})
	r.Secrets = func() []string { return []string{secret.Reveal()} }
	server := httptest.NewServer(r)
	defer server.Close()
	var added console.WithSecret
	out, _ := x.do(0, secret.Reveal(), "endpoint", "add", server.URL+"/hooks", "--secret-stdin", "--json")
	if err := json.Unmarshal([]byte(out), &added); err != nil {
		t.Fatal(err)
	}

	out, _ = x.do(0, "", "test", added.ID)
	for _, says := range []string{
		"✓ delivered  204", "user.joined_community (the catalog's sample)", "POST /hooks", "webhook-signature: v1,", "tidings-test: true", `"community_id": "c_7"`,
		"fingerprint " + secret.Fingerprint(), "HTTP/1.1 204 No Content", "first byte", "total",
	} {
		if !strings.Contains(out, says) {
			t.Errorf("report without %q:\n%s", says, out)
		}
	}
	if strings.Contains(out, secret.Reveal()) || strings.Contains(out, "\x1b[") {
		t.Errorf("report contains the secret or escape sequences:\n%s", out)
	}

	var report testsend.Report
	x.json(&report, "test", added.ID, "--type", "user.posted_comment", "--data", `{"discussion_id":"d","comment_id":"c","comment_text":"<hi>"}`)
	if report.Verdict != testsend.Delivered || report.Sample || !strings.Contains(report.Request.Body, `"comment_text":"<hi>"`) {
		t.Errorf("report = %+v", report)
	}
	if out, _ = x.do(0, secret.Reveal()+"\n", "test", server.URL+"/hooks", "--secret-stdin", "--timeout", "2s"); !strings.Contains(out, "✓ delivered") {
		t.Errorf("a URL:\n%s", out)
	}

	// Not delivered: exit code 1, and no message besides the report.
	out, errOut := x.do(1, "", "test", "http://127.0.0.1:1/hooks")
	for _, says := range []string{"✗ not delivered", "refused the connection on port 1", "[connection_refused]", "would be retried", "failed here"} {
		if !strings.Contains(out, says) {
			t.Errorf("report without %q:\n%s", says, out)
		}
	}
	if errOut != "" {
		t.Errorf("also prints %q", errOut)
	}
	out, _ = x.do(1, "", "test", server.URL+"/hooks", "--json")
	if err := json.Unmarshal([]byte(out), &report); err != nil || report.Hint == nil || report.Hint.Code != testsend.HintUnauthorized {
		t.Errorf("report = %s, %v", out, err)
	}

	// A test stores no delivery.
	if out, _ := x.do(0, "", "delivery", "list"); !strings.Contains(out, "no deliveries") {
		t.Errorf("deliveries:\n%s", out)
	}
}

func TestWrapKeepsLongWords(t *testing.T) {
	if got := strings.Join(wrap("see "+strings.Repeat("x", 20)+" and more of it", 10), "|"); got != "see|xxxxxxxxxxxxxxxxxxxx|and more|of it" {
		t.Errorf("wrapped: %s", got)
	}
	if got := millis(float64((12340 * time.Millisecond).Milliseconds())); got != "12.3 s" {
		t.Errorf("millis = %s", got)
	}
}
