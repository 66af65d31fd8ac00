package local_test

import (
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/lambda"

	"github.com/tidings-dev/tidings/pkg/local"
	"github.com/tidings-dev/tidings/pkg/local/receiver"
)

// Every port of the runner refuses other hosts and origins, and permits no origin. The AWS
// APIs refuse calls without this run's access key, the health report those without its
// token.
func TestSecurityEveryPortOfTheRunnerIsGuarded(t *testing.T) {
	w := newWorld(t, local.Options{}, receiver.Behaviour{})
	ports := map[string]string{"invoke": w.InvokeURL, "sqs": w.SQSURL, "dynamodb": w.DynamoURL}
	for name, url := range w.URLs {
		ports[name] = url
	}
	if len(ports) < 8 || ports["dynamodb"] == "" {
		t.Fatalf("the ports are %v", ports)
	}
	ask := func(method, url string, change func(*http.Request)) (*http.Response, string) {
		r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		change(r)
		response, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		return response, string(body)
	}
	signed := func(key string) func(*http.Request) {
		return func(r *http.Request) {
			r.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential="+key+"/20261130/us-east-1/dynamodb/aws4_request, SignedHeaders=host, Signature=x")
			r.Header.Set("X-Amz-Target", "DynamoDB_20120810.ListTables")
			r.Header.Set("Content-Type", "application/x-amz-json-1.0")
		}
	}
	for name, url := range ports {
		for what, change := range map[string]func(*http.Request){
			"a rebound host":       func(r *http.Request) { r.Host = "attacker.example" },
			"another origin":       func(r *http.Request) { r.Header.Set("Origin", "http://127.0.0.1:1") },
			"an origin of a frame": func(r *http.Request) { r.Header.Set("Origin", "null") },
			"another site":         func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site") },
		} {
			for _, method := range []string{"POST", "GET", "OPTIONS"} {
				response, body := ask(method, url, func(r *http.Request) { signed(w.Access.Key)(r); change(r) })
				if response.StatusCode != http.StatusForbidden || !strings.HasPrefix(body, "refused: ") {
					t.Errorf("%s to %s with %s: %d %.80s", method, name, what, response.StatusCode, body)
				}
			}
		}
		response, _ := ask("POST", url, signed(w.Access.Key))
		for header := range response.Header {
			if strings.HasPrefix(header, "Access-Control-") {
				t.Errorf("%s permits other origins: %s", name, header)
			}
		}
	}
	for _, name := range []string{"invoke", "sqs", "dynamodb"} {
		for what, change := range map[string]func(*http.Request){"no key": func(*http.Request) {}, "another key": signed("local"), "an empty key": signed(""), "a part of the key": signed(w.Access.Key[:10])} {
			if response, body := ask("POST", ports[name]+"/2015-03-31/functions/emit/invocations", change); response.StatusCode != http.StatusForbidden || !strings.Contains(body, "access key") {
				t.Errorf("%s with %s: %d %.100s", name, what, response.StatusCode, body)
			}
		}
	}
	for token, want := range map[string]int{"": 401, "local": 401, w.Access.HealthToken: 200} {
		if response, _ := ask("GET", ports["health"]+"/report", func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+token) }); response.StatusCode != want {
			t.Errorf("the health report with the token %q: %d, want %d", token, response.StatusCode, want)
		}
	}

	// The AWS SDK gets in with the key.
	info := local.RunnerInfo{InvokeURL: w.InvokeURL, DynamoURL: w.DynamoURL, Access: w.Access}
	if out, err := info.DynamoDB().ListTables(t.Context(), &dynamodb.ListTablesInput{}); err != nil || len(out.TableNames) < 6 {
		t.Errorf("the SDK with the key: %v", err)
	}
	if _, err := info.Lambda().Invoke(t.Context(), &lambda.InvokeInput{FunctionName: aws.String("emit"), InvocationType: "DryRun"}); err != nil {
		t.Errorf("the SDK with the key: %v", err)
	}
	stranger := dynamodb.New(dynamodb.Options{Region: "us-east-1", BaseEndpoint: &w.DynamoURL, Credentials: credentials.NewStaticCredentialsProvider("local", "local", ""), RetryMaxAttempts: 1})
	if _, err := stranger.ListTables(t.Context(), &dynamodb.ListTablesInput{}); err == nil {
		t.Error("the SDK with another key is let in")
	}
}

// Two runs have different secrets, and a run's are long enough not to be guessed.
func TestSecurityTheSecretsAreOfOneRun(t *testing.T) {
	a, b := newWorld(t, local.Options{}, receiver.Behaviour{}), newWorld(t, local.Options{}, receiver.Behaviour{})
	if a.Access.Key == b.Access.Key || a.Access.HealthToken == b.Access.HealthToken || len(a.Access.Key) < 26 || len(a.Access.HealthToken) < 26 {
		t.Errorf("%+v and %+v", a.Access, b.Access)
	}
}

// Nobody else can read the state directory, also if an earlier version or a person made it
// readable.
func TestSecurityTheStateDirectoryIsPrivate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	old := filepath.Join(dir, "old.queue")
	if err := os.WriteFile(old, []byte("{}"), 0o644); err != nil {
		t.Fatal(err)
	}
	for path, mode := range map[string]os.FileMode{dir: 0o755, old: 0o644} { // whatever the umask is
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	system, err := local.Open(t.Context(), local.Options{Template: "../../template.yaml", StateDir: dir, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer system.Close()
	if err := system.WriteRunnerInfo(""); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the directory: %v, %v", info.Mode(), err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) < 4 {
		t.Fatalf("%d files, %v", len(entries), err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: %v, %v", e.Name(), info.Mode(), err)
		}
	}
	text, err := os.ReadFile(filepath.Join(dir, local.RunnerInfoFile))
	var info local.RunnerInfo
	if err != nil || json.Unmarshal(text, &info) != nil || info.Access != system.Access {
		t.Errorf("the state file has %+v, %v", info.Access, err)
	}
}
