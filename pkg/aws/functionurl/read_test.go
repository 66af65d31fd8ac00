package functionurl_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/aws/aws-lambda-go/events"

	"github.com/tidings-dev/tidings/pkg/aws/functionurl"
	"github.com/tidings-dev/tidings/test/jsontest"
)

// requestFields are the names that encoding/json would know in any case.
var requestFields = []string{"version", "rawPath", "rawQueryString", "cookies", "headers", "queryStringParameters", "requestContext", "body", "isBase64Encoded",
	"accountId", "requestId", "authorizer", "apiId", "domainName", "domainPrefix", "time", "timeEpoch", "http", "method", "path", "protocol", "sourceIp", "userAgent",
	"iam", "accessKey", "callerId", "userArn", "userId"}

// FuzzReadRequest checks that a request is read as encoding/json reads it.
func FuzzReadRequest(f *testing.F) {
	for _, seed := range []string{
		`{"version":"2.0","rawPath":"/a","rawQueryString":"b=c","cookies":["x=y","z"],"headers":{"host":"h","b":null},"queryStringParameters":{"b":"c"},"body":"{\"a\":1}","isBase64Encoded":false}`,
		`{"requestContext":{"accountId":"1","requestId":"2","apiId":"3","domainName":"4","domainPrefix":"5","time":"6","timeEpoch":7,"http":{"method":"POST","path":"/","protocol":"HTTP/1.1","sourceIp":"192.0.2.1","userAgent":"u"},"authorizer":{"iam":{"accessKey":"a","accountId":"b","callerId":"c","userArn":"d","userId":"e"}}}}`,
		`{"requestContext":{"authorizer":null,"http":null,"timeEpoch":1.5}}`, `{"headers":null,"cookies":null}`, `{"headers":[]}`, `{"cookies":[1]}`, `{"isBase64Encoded":"true"}`, `null`, `[]`, `{}x`, ``, "{\"body\":\"\xff\",\"rawPath\":\"\\ud800\"}",
	} {
		f.Add([]byte(seed))
	}
	samples, err := filepath.Glob("../../../events/*-function-url.json")
	if err != nil || len(samples) < 3 {
		f.Fatal(samples, err)
	}
	for _, name := range samples {
		text, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		payload, ok := jsontest.Comparable(payload, requestFields...)
		if !ok {
			return // Lambda uses one spelling
		}
		var want events.LambdaFunctionURLRequest
		wrong := json.Unmarshal(payload, &want)
		got, err := functionurl.ReadRequest(payload)
		if (err == nil) != (wrong == nil) {
			t.Fatalf("%s is read with %v; encoding/json says %v", payload, err, wrong)
		}
		if len(got.Headers) == 0 && len(want.Headers) == 0 {
			got.Headers, want.Headers = nil, nil // none are none
		}
		if err == nil && js(t, got) != js(t, want) {
			t.Errorf("%s is read as\n%s, by encoding/json as\n%s", payload, js(t, got), js(t, want))
		}
	})
}
