package main

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/tidings-dev/tidings/pkg/console"
	"github.com/tidings-dev/tidings/test/dynamotest"
)

// deployedStack stands for a deployed stack: its tables, and Lambda's answer about dispatch. It
// returns a tool for the commands of that stack.
func deployedStack(t *testing.T, variables *map[string]string) *stackTool {
	t.Helper()
	db, stack := dynamotest.New(t)
	aws := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path := "/2015-03-31/functions/" + stack.Name + "-dispatch/configuration"
		if r.URL.Path != path || r.URL.Query().Get("Qualifier") != "live" {
			t.Errorf("asked for %s", r.URL)
		}
		if *variables == nil {
			w.Header().Set("X-Amzn-ErrorType", "AccessDeniedException")
			w.WriteHeader(http.StatusForbidden)
			_, _ = io.WriteString(w, `{"Message":"not authorized"}`)
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"Environment": map[string]any{"Variables": *variables}})
	}))
	t.Cleanup(aws.Close)
	for name, value := range map[string]string{
		"AWS_ENDPOINT_URL_DYNAMODB": *db.Options().BaseEndpoint, "AWS_ENDPOINT_URL_LAMBDA": aws.URL, "AWS_REGION": "us-east-1",
		"AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local", "AWS_CONFIG_FILE": "/dev/null", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
	} {
		t.Setenv(name, value)
	}
	return &stackTool{tool{t, t.TempDir()}, stack.Name}
}

type stackTool struct {
	tool
	stack string
}

func (x *stackTool) do(wantCode int, args ...string) (out, errOut string) {
	x.t.Helper()
	return x.tool.do(wantCode, "", append([]string{"--stack", x.stack}, args...)...)
}

func TestAnEndpointOfAStackIsCheckedByWhatTheStackAllows(t *testing.T) {
	allow := map[string]string{"ALLOW_HTTP": "false", "ALLOW_NETWORKS": ""}
	x := deployedStack(t, &allow)
	const url = "http://10.1.2.3/hooks"
	if _, errOut := x.do(1, "endpoint", "add", url); !strings.Contains(errOut, "https") {
		t.Errorf("the stack allows no http: %s", errOut)
	}
	allow = map[string]string{"ALLOW_HTTP": "true", "ALLOW_NETWORKS": "10.0.0.0/8"}
	if _, errOut := x.do(1, "endpoint", "add", "http://192.168.1.1/"); !strings.Contains(errOut, "192.168.1.1") {
		t.Errorf("the stack does not allow this network: %s", errOut)
	}
	out, _ := x.do(0, "endpoint", "add", url, "--json")
	var added console.WithSecret
	if err := json.Unmarshal([]byte(out), &added); err != nil || added.ID == "" {
		t.Fatalf("%v\n%s", err, out)
	}
	const queue = "sqs://webhooks-acme?region=us-east-1"
	if _, errOut := x.do(1, "--tenant", "acme", "endpoint", "add", queue); !strings.Contains(errOut, "DestinationTenants") {
		t.Errorf("the stack gives this tenant no queue: %s", errOut)
	}
	allow["DESTINATION_TENANTS"] = "*=sqs://webhooks-{tenant}"
	x.do(0, "--tenant", "acme", "endpoint", "add", queue)
	// Everything else can be done whatever the stack allows now, without asking it.
	allow = nil
	for _, args := range [][]string{{"set", added.ID, "--timeout", "5s"}, {"disable", added.ID}, {"enable", added.ID}, {"rotate-secret", added.ID}, {"show", added.ID}, {"list"}, {"remove", added.ID}} {
		x.do(0, append([]string{"endpoint"}, args...)...)
	}
	if _, errOut := x.do(1, "endpoint", "add", "https://example.com/"); !strings.Contains(errOut, "-dispatch, which cannot be read") {
		t.Errorf("without permission: %s", errOut)
	}
}
