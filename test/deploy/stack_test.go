//go:build rig

package deploy_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/lambda"

	"github.com/tidings-dev/tidings/pkg/console"
	"github.com/tidings-dev/tidings/pkg/ops/health"
	"github.com/tidings-dev/tidings/pkg/systemtest"
	"github.com/tidings-dev/tidings/test/ministack"
)

// stack is a stack on the emulator, used with somebody's credentials.
type stack struct {
	t        *testing.T
	emulator *ministack.Emulator
	root     string
	name     string
}

// step does a step of the test, ends the test if it failed, and prints how long it took.
func step(t *testing.T, name string, do func()) {
	t.Helper()
	from := time.Now()
	do()
	if t.Failed() {
		t.FailNow()
	}
	fmt.Printf("%6.1f s  %s\n", time.Since(from).Seconds(), name)
}

// as returns the stack for somebody else.
func (s *stack) as(e *ministack.Emulator) *stack {
	other := *s
	other.emulator = e
	return &other
}

// deploy deploys what was built with the parameters of an environment of samconfig.toml
// and these. extra are further variables for tools/github/deploy.py.
func (s *stack) deploy(built, environment string, parameters map[string]string, extra ...string) {
	s.t.Helper()
	if err := s.emulator.Deploy(s.t.Context(), built, environment, parameters, extra...); err != nil {
		s.t.Fatalf("%v\n%s", err, s.emulator.Tail())
	}
}

// tables returns the tables of a stack. Of names that begin with its name, those of the
// other stacks are not its own.
func (s *stack) tables() (found []string) {
	s.t.Helper()
	list, err := dynamodb.NewFromConfig(s.emulator.Access()).ListTables(s.t.Context(), nil)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, table := range list.TableNames {
		if strings.HasPrefix(table, s.name+"-") && !strings.HasPrefix(table, stackName) && !strings.HasPrefix(table, prodStack) {
			found = append(found, table)
		}
	}
	return found
}

// run runs the CLI on the stack and returns its output and its exit code.
func (s *stack) run(in string, args ...string) (out []byte, complaint string, code int) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 10*time.Minute)
	defer cancel()
	c := exec.CommandContext(ctx, filepath.Join(s.root, "bin", "tidings"), append([]string{"--stack", s.name}, args...)...)
	c.Dir, c.Env, c.Stdin = s.root, s.emulator.Environment(), strings.NewReader(in)
	var errOut bytes.Buffer
	c.Stderr = &errOut
	out, err := c.Output()
	if err != nil && c.ProcessState == nil {
		s.t.Fatalf("%v (make bin/tidings builds it)", err)
	}
	return out, errOut.String(), c.ProcessState.ExitCode()
}

// tidings runs a command that must succeed, and decodes its JSON if into is not nil.
func (s *stack) tidings(into any, args ...string) string {
	s.t.Helper()
	if into != nil {
		args = append(args, "--json")
	}
	out, complaint, code := s.run("", args...)
	if code != 0 {
		s.t.Fatalf("tidings %s exits with %d\n%s%s", strings.Join(args, " "), code, out, complaint)
	}
	if into != nil {
		if err := json.Unmarshal(out, into); err != nil {
			s.t.Fatalf("tidings %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	return string(out)
}

// endpoint adds an endpoint for a path of the receiver.
func (s *stack) endpoint(r *receiver, path string, settings ...string) (id string) {
	s.t.Helper()
	var added console.WithSecret
	s.tidings(&added, append([]string{"endpoint", "add", r.url + path}, settings...)...)
	r.know(path, added.Secret)
	return added.ID
}

// smoke runs `tidings smoke`.
func (s *stack) smoke(args ...string) (report systemtest.SmokeReport, code int) {
	s.t.Helper()
	out, complaint, code := s.run("", append([]string{"smoke", "--json", "--receiver-url", s.testReceiver()}, args...)...)
	if err := json.Unmarshal(out, &report); err != nil {
		s.t.Fatalf("tidings smoke exits with %d and prints no report: %v\n%s%s", code, err, out, complaint)
	}
	return report, code
}

// testReceiver is the URL of the stack's test receiver on the emulator. The one in the
// stack's outputs does not exist in DNS.
func (s *stack) testReceiver() string {
	s.t.Helper()
	url, err := s.emulator.FunctionURL(s.t.Context(), s.name+"-test-receiver")
	if err != nil {
		s.t.Fatal(err)
	}
	return url
}

// call makes a request to a function URL, signed with the caller's credentials or not.
func (s *stack) call(signed bool, function, method, path, body string, headers map[string]string) (int, []byte) {
	s.t.Helper()
	host, err := s.emulator.FunctionHost(s.t.Context(), s.name+"-"+function)
	if err != nil {
		s.t.Fatal(err)
	}
	q, err := http.NewRequestWithContext(s.t.Context(), method, s.emulator.URL+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	q.Host = host
	if body != "" {
		q.Header.Set("Content-Type", "application/json")
	}
	if signed {
		identity, err := s.emulator.Access().Credentials.Retrieve(s.t.Context())
		if err != nil {
			s.t.Fatal(err)
		}
		sum := sha256.Sum256([]byte(body))
		digest := hex.EncodeToString(sum[:])
		q.Header.Set("X-Amz-Content-Sha256", digest)
		if err := v4.NewSigner().SignHTTP(s.t.Context(), identity, q, digest, "lambda", ministack.Region, time.Now()); err != nil {
			s.t.Fatal(err)
		}
	}
	for name, value := range headers { // the emulator needs none of them signed
		q.Header.Set(name, value)
	}
	client := &http.Client{Timeout: time.Minute, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	answer, err := client.Do(q)
	if err != nil {
		s.t.Fatal(err)
	}
	defer answer.Body.Close()
	out, err := io.ReadAll(answer.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return answer.StatusCode, out
}

// swept reports whether a sweep of the stack has run.
func (s *stack) swept() bool {
	s.t.Helper()
	var report health.Report
	status, body := s.call(false, "health", http.MethodGet, "/report", "", map[string]string{"Authorization": "Bearer " + firstToken[0]})
	if err := json.Unmarshal(body, &report); err != nil {
		s.t.Fatalf("the health report: %d %s", status, body)
	}
	return report.LastSweep.At != nil
}

// live returns the configuration of a function's version that is live.
func (s *stack) live(function string) *lambda.GetFunctionConfigurationOutput {
	s.t.Helper()
	out, err := lambda.NewFromConfig(s.emulator.Access()).GetFunctionConfiguration(s.t.Context(), &lambda.GetFunctionConfigurationInput{
		FunctionName: aws.String(s.name + "-" + function), Qualifier: aws.String("live"),
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return out
}

// waitTime is the limit of a wait for the stack: some of its schedules run every minute,
// and a busy machine is slow.
const waitTime = 5 * time.Minute

// until waits until something is so.
func (s *stack) until(what string, so func() bool) {
	s.t.Helper()
	for end := time.Now().Add(waitTime); !so(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			s.t.Fatalf("after %s: not %s\n%s", waitTime, what, s.emulator.Tail())
		}
	}
}

// delivered waits until a path has accepted verified webhooks of n events of a type.
func (s *stack) delivered(r *receiver, path, event string, n int) {
	s.t.Helper()
	s.until(fmt.Sprintf("%d webhooks %q at %s", n, event, path), func() bool { return len(r.ids(path, event)) >= n })
}

// changed returns parameters with some of them changed.
func changed(all, change map[string]string) map[string]string {
	all = maps.Clone(all)
	maps.Copy(all, change)
	return all
}

// expectGaps fails if the emulator can do without an edit of the template.
func expectGaps(t *testing.T, e *ministack.Emulator) {
	t.Helper()
	if _, err := e.Python(t.Context(), "tools/ministack/gaps.py"); err != nil {
		t.Error(err)
	}
}
