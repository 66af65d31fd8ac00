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

// The console's binary: the login page for a stranger, the API for a session that
// was made beside it.
func TestConsoleAsDeployed(t *testing.T) {
	client, stack := dynamotest.New(t)
	f := start(t, "console", environment(stack, "console", *client.Options().BaseEndpoint))
	store := dynamo.New(client, local.Tables(stack.Name))
	token, err := console.Token(t.Context(), store, console.Invitation{Name: "ci", Role: console.Viewer, Tenant: "default"}, time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	ask := func(change func(*events.LambdaFunctionURLRequest)) events.LambdaFunctionURLResponse {
		t.Helper()
		var request events.LambdaFunctionURLRequest
		if err := json.Unmarshal(event(t, "console-function-url"), &request); err != nil {
			t.Fatal(err)
		}
		change(&request)
		payload, err := json.Marshal(request)
		if err != nil {
			t.Fatal(err)
		}
		var answer events.LambdaFunctionURLResponse
		a := f.invoke(t, payload)
		if a.failure != nil {
			t.Fatal(a.failure.Message)
		}
		if err := json.Unmarshal(a.body, &answer); err != nil {
			t.Fatal(err)
		}
		return answer
	}
	to := func(path string) func(*events.LambdaFunctionURLRequest) {
		return func(r *events.LambdaFunctionURLRequest) { r.RawPath, r.RequestContext.HTTP.Path = path, path }
	}
	if a := ask(to("/login")); a.StatusCode != 200 || !strings.Contains(a.Body, "tidings console login") || a.Headers["Strict-Transport-Security"] == "" {
		t.Errorf("the login page: %d %v %s", a.StatusCode, a.Headers, a.Body)
	}
	if a := ask(to("/")); a.StatusCode != 303 || a.Headers["Location"] != "/login" {
		t.Errorf("a stranger: %d %v", a.StatusCode, a.Headers)
	}
	for _, path := range []string{"/api/overview", "/api/deliveries", "/api/discussions", "/api/circuits", "/api/audit"} {
		a := ask(func(r *events.LambdaFunctionURLRequest) {
			to(path)(r)
			r.Headers["x-tidings-session"] = token
		})
		if a.StatusCode != 200 {
			t.Errorf("%s: %d %s", path, a.StatusCode, a.Body)
		}
	}
	a := ask(func(r *events.LambdaFunctionURLRequest) {
		to("/assets/uplot.js")(r)
		r.Headers["accept-encoding"] = "gzip, br"
	})
	if a.StatusCode != 200 || !a.IsBase64Encoded || a.Headers["Content-Encoding"] != "gzip" {
		t.Errorf("an asset: %d, base64 %v, %v", a.StatusCode, a.IsBase64Encoded, a.Headers)
	}
}
