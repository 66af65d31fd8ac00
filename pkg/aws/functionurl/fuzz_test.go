package functionurl_test

import (
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"testing"

	"github.com/aws/aws-lambda-go/events"

	"github.com/tidings-dev/tidings/pkg/aws/functionurl"
	"github.com/tidings-dev/tidings/test/jsontest"
)

// FuzzRequest checks that for any payload the handler gets the client's body and a
// path, and the client gets the handler's body; and that a payload that is not a
// request does not reach the handler.
func FuzzRequest(f *testing.F) {
	for _, seed := range []string{
		`{"rawPath":"/a%2Fb","rawQueryString":"a=1&b=%zz","headers":{"host":"x","cookie":"a=b"},"cookies":["c=d","e=f"],"requestContext":{"http":{"method":"GET","sourceIp":"192.0.2.1","protocol":"HTTP/1.1"}}}`,
		`{"rawPath":"//evil.example/x","requestContext":{"http":{"method":"POST"}},"body":"Grüße \u2028"}`, `{"rawPath":"no/slash","requestContext":{"http":{"method":"HEAD"}},"body":"eA==","isBase64Encoded":true}`,
		`{"requestContext":{"http":{"method":"PUT"}},"body":"/wD+","isBase64Encoded":true}`, `{"requestContext":{"http":{"method":"GET"}},"body":"%","isBase64Encoded":true}`, `{"rawPath":"/%zz","requestContext":{"http":{"method":"a b"}}}`,
		`{}`, `null`, `[]`, `{"requestContext":{"http":{"method":""}}}`, `{"rawPath":"/../..//x/.","requestContext":{"http":{"method":"OPTIONS","protocol":"HTTP/9.9"}},"headers":{"\n":"\r\n"}}`, `{"rawPath":"*","requestContext":{"http":{"method":"CONNECT"}}}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		payload, ok := jsontest.Comparable(payload, requestFields...)
		if !ok {
			return // Lambda uses one spelling
		}
		served, malformed := 0, false
		var body []byte
		mux := http.NewServeMux()
		mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
			served++
			if r.URL.Path == "" || r.Host != "" && r.Header.Get("Host") != "" || r.RequestURI == "" {
				t.Errorf("the handler got %+v", r)
			}
			var err error
			if body, err = io.ReadAll(r.Body); err != nil {
				malformed = true
				return
			}
			if int64(len(body)) != r.ContentLength {
				t.Errorf("%d bytes, and a length of %d", len(body), r.ContentLength)
			}
			_, _ = w.Write(body)
		})
		answer, err := functionurl.Handler(mux)(t.Context(), payload)
		if err != nil {
			if served != 0 || answer != nil || len(err.Error()) > 1024 {
				t.Errorf("refused with %d bytes, %d requests served", len(err.Error()), served)
			}
			return
		}
		out, ok := answer.(events.LambdaFunctionURLResponse)
		if !ok || out.StatusCode < 200 || out.StatusCode > 599 {
			t.Fatalf("answered %+v", answer)
		}
		if _, err := json.Marshal(out); err != nil {
			t.Fatal(err)
		}
		if served == 0 {
			return // the mux redirected to the clean path, or the method is empty
		}
		var in events.LambdaFunctionURLRequest
		if err := json.Unmarshal(payload, &in); err != nil {
			t.Fatalf("served what is no request: %v", err)
		}
		if _, err := base64.StdEncoding.DecodeString(in.Body); malformed && in.IsBase64Encoded && err != nil {
			return
		}
		if want := decoded(t, in.Body, in.IsBase64Encoded); want != string(body) {
			t.Errorf("the handler got %q, the client sent %q", body, want)
		}
		if got := decoded(t, out.Body, out.IsBase64Encoded); in.RequestContext.HTTP.Method != http.MethodHead && got != string(body) {
			t.Errorf("the client got %q, the handler wrote %q", got, body)
		}
	})
}

func decoded(t *testing.T, body string, encoded bool) string {
	t.Helper()
	if !encoded {
		return body
	}
	text, err := base64.StdEncoding.DecodeString(body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
