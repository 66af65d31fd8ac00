package main

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/tidings-dev/tidings/pkg/aws/awsconfig"
	"github.com/tidings-dev/tidings/pkg/local"
)

// Every command ends if the service that it calls never answers.
func TestNoCommandHangsWithItsService(t *testing.T) {
	const endpoint, event, job = "ep_01JD0000000000000000000000", "01JD0000000000000000000000", "job_01JD0000000000000000000000"
	commands := map[string][]string{
		"endpoint add":           {"https://example.com/"},
		"endpoint list":          nil,
		"endpoint show":          {endpoint},
		"endpoint set":           {endpoint, "--rate-per-minute", "5"},
		"endpoint disable":       {endpoint},
		"endpoint enable":        {endpoint},
		"endpoint pause":         {endpoint},
		"endpoint resume":        {endpoint},
		"endpoint rotate-secret": {endpoint},
		"endpoint remove":        {endpoint},
		"event list":             nil,
		"event find":             {event},
		"event show":             {event},
		"explain":                {event, endpoint},
		"recover":                {"--endpoint", endpoint, "--since", "1h"},
		"erase":                  {"--subject", "u_1042"},
		"job list":               nil,
		"job show":               {job},
		"job wait":               {job},
		"job cancel":             {job},
		"emit":                   {"user.posted_comment", "--data", `{"discussion_id":"d","comment_id":"c","comment_text":"hi"}`},
		"delivery list":          nil,
		"delivery show":          {endpoint, event},
		"delivery replay":        {endpoint, event},
		"circuit list":           nil,
		"circuit close":          {endpoint},
		"redrive":                nil,
		"capture list":           nil,
		"capture show":           {"x"},
		"capture redrive":        {"x"},
		"capture remove":         {"x"},
		"capture kinds":          nil,
		"capture verify":         nil,
		"capture apply":          {filepath.Join("..", "..", "examples", "shop", "rules")},
		"capture rules":          nil,
		"capture remove-rules":   {"shipped"},
		"type list":              nil,
		"type show":              {"user.joined_community"},
		"type test":              {"user.joined_community"},
		"type apply":             {filepath.Join("..", "..", "pkg", "event", "catalog", "schemas")},
		"type diff":              {filepath.Join("..", "..", "pkg", "event", "catalog", "schemas")},
		"type deprecate":         {"user.joined_community"},
		"type remove":            {"user.joined_community"},
		"type tenants":           nil,
		"type undefined":         {"allow"},
		"test":                   {endpoint},
		"console login":          nil,
		"console open":           nil,
		"console revoke":         nil,
		"smoke":                  nil,
		"load":                   {"--rate", "1", "--seconds", "1"},
		"status":                 nil,
		"alert test":             nil,
		"doctor":                 nil,
	}
	onlyStack := []string{"console open", "doctor"}
	// These call no service that can hang: they are local, or run a runner of their own.
	offline := []string{"local", "play", "capture test"}

	over := make(chan struct{})
	service := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-over:
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(service.Close)
	t.Cleanup(func() { close(over) })
	for name, value := range map[string]string{
		"AWS_ENDPOINT_URL": service.URL, "AWS_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s",
		"AWS_CONFIG_FILE": os.DevNull, "AWS_SHARED_CREDENTIALS_FILE": os.DevNull, "AWS_MAX_ATTEMPTS": "1",
	} {
		t.Setenv(name, value)
	}
	dir := t.TempDir()
	text, err := json.Marshal(local.RunnerInfo{InvokeURL: service.URL, DynamoURL: service.URL, Stack: local.StackName, URLs: map[string]string{"console": service.URL}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, local.RunnerInfoFile), text, 0o600); err != nil {
		t.Fatal(err)
	}

	var each func(c *cobra.Command, name string)
	each = func(c *cobra.Command, name string) {
		for _, sub := range c.Commands() {
			each(sub, strings.TrimSpace(name+" "+sub.Name()))
		}
		if !c.Runnable() || name == "" || slices.Contains(offline, name) {
			return
		}
		arguments, ok := commands[name]
		if !ok {
			t.Errorf("%q is not in the table", name)
			return
		}
		for target, flags := range map[string][]string{"a stack": {"--stack", "tidings"}, "the local runner": {"--state-dir", dir}} {
			if slices.Contains(onlyStack, name) && target != "a stack" {
				continue
			}
			t.Run(name+" with "+target, func(t *testing.T) {
				t.Parallel()
				var out, errOut bytes.Buffer
				a := &app{in: strings.NewReader(""), out: &out, err: &errOut, limits: awsconfig.Limits{Others: 50 * time.Millisecond, LongPoll: 50 * time.Millisecond}}
				if code := a.run(t.Context(), slices.Concat(flags, strings.Fields(name), arguments)); code != exitFailed || !strings.Contains(out.String()+errOut.String(), "no response within") {
					t.Errorf("exit code %d, want %d:\n%s%s", code, exitFailed, out.String(), errOut.String())
				}
			})
		}
	}
	each((&app{}).command(), "")
}
