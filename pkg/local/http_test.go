package local_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"

	"github.com/tidings-dev/tidings/pkg/local"
	"github.com/tidings-dev/tidings/pkg/local/dynamoemulator"
)

func TestTheSDKIsAClientOfTheInvokeAPI(t *testing.T) {
	called := make(chan string, 1)
	f := function(func(_ context.Context, in json.RawMessage) (any, error) {
		switch string(in) {
		case `"fail"`:
			return nil, errors.New("data.x: is missing")
		case `"panic"`:
			panic("oh")
		}
		select {
		case called <- string(in):
		default:
		}
		return map[string]json.RawMessage{"echo": in}, nil
	})
	server := httptest.NewServer(local.InvokeAPI([]*local.Function{f}))
	defer server.Close()
	client := lambda.NewFromConfig(dynamoemulator.Config(), func(o *lambda.Options) {
		o.BaseEndpoint = &server.URL
		o.RetryMaxAttempts = 1
	})
	for _, name := range []string{"f", "stack-f", f.ARN} {
		out, err := client.Invoke(t.Context(), &lambda.InvokeInput{FunctionName: &name, Payload: []byte(`{"a":1}`)})
		if err != nil || string(out.Payload) != `{"echo":{"a":1}}` || out.FunctionError != nil || aws.ToString(out.ExecutedVersion) != "$LATEST" {
			t.Errorf("%s: %+v, %v", name, out, err)
		}
	}
	for payload, says := range map[string]string{`"fail"`: "data.x: is missing", `"panic"`: "oh"} {
		out, err := client.Invoke(t.Context(), &lambda.InvokeInput{FunctionName: aws.String("f"), Payload: []byte(payload)})
		if err != nil || aws.ToString(out.FunctionError) != "Unhandled" || !strings.Contains(string(out.Payload), `"errorMessage":"`+says) {
			t.Errorf("%s: %+v, %v", payload, out, err)
		}
	}
	var missing *types.ResourceNotFoundException
	if _, err := client.Invoke(t.Context(), &lambda.InvokeInput{FunctionName: aws.String("nobody")}); !errors.As(err, &missing) || !strings.Contains(err.Error(), "the functions are f") {
		t.Errorf("an unknown function: %v", err)
	}
	var malformed *types.InvalidRequestContentException
	if _, err := client.Invoke(t.Context(), &lambda.InvokeInput{FunctionName: aws.String("f"), Payload: []byte(`{`)}); !errors.As(err, &malformed) {
		t.Errorf("no JSON: %v", err)
	}
	for len(called) > 0 {
		<-called
	}
	out, err := client.Invoke(t.Context(), &lambda.InvokeInput{FunctionName: aws.String("f"), InvocationType: types.InvocationTypeEvent, Payload: []byte(`"later"`)})
	if err != nil || out.StatusCode != 202 || <-called != `"later"` {
		t.Errorf("asynchronous: %+v, %v", out, err)
	}
	out, err = client.Invoke(t.Context(), &lambda.InvokeInput{FunctionName: aws.String("f"), InvocationType: types.InvocationTypeDryRun})
	if err != nil || out.StatusCode != 204 {
		t.Errorf("dry run: %+v, %v", out, err)
	}
}

func TestAFunctionURLGivesTheFunctionPayloadTwo(t *testing.T) {
	var got events.LambdaFunctionURLRequest
	answer := any(events.LambdaFunctionURLResponse{StatusCode: 202, Headers: map[string]string{"X-A": "b"}, Body: "aGk=", IsBase64Encoded: true, Cookies: []string{"c=d"}})
	f := function(func(_ context.Context, in events.LambdaFunctionURLRequest) (any, error) {
		got = in
		if in.RawPath == "/fail" {
			return nil, errors.New("secret inner life")
		}
		return answer, nil
	})
	server := httptest.NewServer(local.FunctionURL(f))
	defer server.Close()
	post := func(path, body string) (*http.Response, string) {
		t.Helper()
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Add("X-Twice", "1")
		request.Header.Add("X-Twice", "2")
		request.Header.Set("Cookie", "a=b")
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		text, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		return response, string(text)
	}
	response, body := post("/p%20q?x=1&x=2", "hello")
	if response.StatusCode != 202 || body != "hi" || response.Header.Get("X-A") != "b" || response.Header.Get("Set-Cookie") != "c=d" {
		t.Errorf("answer = %+v %q", response, body)
	}
	if got.Version != "2.0" || got.RawPath != "/p%20q" || got.QueryStringParameters["x"] != "1,2" || got.Headers["x-twice"] != "1,2" ||
		len(got.Cookies) != 1 || got.Body != "hello" || got.IsBase64Encoded || got.RequestContext.HTTP.Method != "POST" || got.RequestContext.RequestID == "" {
		t.Errorf("request = %+v", got)
	}
	if post("/", "\xff"); got.Body != "/w==" || !got.IsBase64Encoded {
		t.Errorf("a binary body came as %q", got.Body)
	}
	if response, body := post("/fail", ""); response.StatusCode != 502 || strings.Contains(body, "secret") {
		t.Errorf("a failing function answers %d %s", response.StatusCode, body)
	}
	if response, _ := post("/", strings.Repeat("x", 7<<20)); response.StatusCode != 413 {
		t.Errorf("7 MB are answered %d", response.StatusCode)
	}
	answer = map[string]string{"plain": "object"}
	if response, body := post("/", ""); response.StatusCode != 200 || body != `{"plain":"object"}` {
		t.Errorf("an answer without a status: %d %s", response.StatusCode, body)
	}
}
