package functions_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/events"

	"github.com/tidings-dev/tidings/pkg/console"
	"github.com/tidings-dev/tidings/pkg/local"
	"github.com/tidings-dev/tidings/pkg/store/dynamo"
	"github.com/tidings-dev/tidings/test/dynamotest"
)

func TestConsoleServesLoginAPIAndAssets(t *testing.T) {
	t.Parallel()
	client, stack := dynamotest.New(t)
	f := start(t, "console", environment(stack, "console", *client.Options().BaseEndpoint))
	store := dynamo.New(client, local.Tables(stack.Name))
	token, err := console.Token(t.Context(), store, console.Invitation{Name: "ci", Role: console.Viewer, Tenant: "default"}, time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	send := func(change func(*events.LambdaFunctionURLRequest)) events.LambdaFunctionURLResponse {
		t.Helper()
		var request events.LambdaFunctionURLRequest
		if err := json.Unmarshal(sample(t, "console-function-url"), &request); err != nil {
			t.Fatal(err)
		}
		change(&request)
		payload, err := json.Marshal(request)
		if err != nil {
			t.Fatal(err)
		}
		var response events.LambdaFunctionURLResponse
		got := f.invoke(t, payload)
		if got.failure != nil {
			t.Fatal(got.failure.Message)
		}
		if err := json.Unmarshal(got.body, &response); err != nil {
			t.Fatal(err)
		}
		return response
	}
	get := func(path string) func(*events.LambdaFunctionURLRequest) {
		return func(r *events.LambdaFunctionURLRequest) { r.RawPath, r.RequestContext.HTTP.Path = path, path }
	}
	if got := send(get("/login")); got.StatusCode != 200 || !strings.Contains(got.Body, "tidings console login") || got.Headers["Strict-Transport-Security"] == "" {
		t.Errorf("GET /login: %d %v %s", got.StatusCode, got.Headers, got.Body)
	}
	if got := send(get("/")); got.StatusCode != 303 || got.Headers["Location"] != "/login" {
		t.Errorf("GET / without a session: %d %v", got.StatusCode, got.Headers)
	}
	for _, path := range []string{"/api/overview", "/api/deliveries", "/api/discussions", "/api/circuits", "/api/audit"} {
		got := send(func(r *events.LambdaFunctionURLRequest) {
			get(path)(r)
			r.Headers["x-tidings-session"] = token
		})
		if got.StatusCode != 200 {
			t.Errorf("GET %s: %d %s", path, got.StatusCode, got.Body)
		}
	}
	got := send(func(r *events.LambdaFunctionURLRequest) {
		get("/assets/uplot.js")(r)
		r.Headers["accept-encoding"] = "gzip, br"
	})
	if got.StatusCode != 200 || !got.IsBase64Encoded || got.Headers["Content-Encoding"] != "gzip" {
		t.Errorf("GET /assets/uplot.js: %d, base64 %v, %v", got.StatusCode, got.IsBase64Encoded, got.Headers)
	}
}
