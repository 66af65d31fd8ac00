package verifydeploy_test

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tidings-dev/tidings/pkg/local"
	"github.com/tidings-dev/tidings/pkg/local/dynamoemulator"
	"github.com/tidings-dev/tidings/pkg/local/process"
	"github.com/tidings-dev/tidings/pkg/local/samtemplate"
	"github.com/tidings-dev/tidings/test/lambdaemulator"
)

// runsOn checks that a binary is static and built for the architecture.
func runsOn(binary, architecture string) error {
	f, err := elf.Open(binary)
	if err != nil {
		return err
	}
	defer f.Close()
	want := map[string]elf.Machine{"arm64": elf.EM_AARCH64, "x86_64": elf.EM_X86_64}[architecture]
	if f.Machine != want {
		return fmt.Errorf("%s is built for %s, not for %s", binary, f.Machine, want)
	}
	if libraries, err := f.ImportedLibraries(); err != nil || len(libraries) > 0 {
		return fmt.Errorf("%s needs the libraries %v, which Lambda's provided.al2023 may not have (%w)", binary, libraries, err)
	}
	return nil
}

// answerTime is the limit for one answer, on a busy machine.
const answerTime = time.Minute

// variables returns a function's environment variables in a deployment.
type variables func(*lambdaemulator.Deployment, *samtemplate.Function) (map[string]string, error)

// emulate runs every function with every sample event, each time in a new
// process and on tables of its own, and compares the answers with those in
// events/answers.
func (v *verifier) emulate(ctx context.Context) error { return v.invokeAll(ctx, "verify", deployed) }

// invokeAll does what emulate does, with any environment. The name distinguishes its
// stacks.
func (v *verifier) invokeAll(ctx context.Context, stacks string, environment variables) error {
	architecture, err := host()
	if err != nil {
		return err
	}
	emulators, err := filepath.Glob(filepath.Join(v.project, "tools", "sam", ".cache", "sam", "lib", "python*", "site-packages", "samcli", "local", "rapid", "aws-lambda-rie-"+architecture))
	if err != nil || len(emulators) != 1 {
		return errors.Join(err, fmt.Errorf("the SAM CLI's package has %d emulators for %s, want 1", len(emulators), architecture))
	}
	dynamo, err := dynamoemulator.Start(ctx, dynamoemulator.Options{})
	if err != nil {
		return err
	}
	defer dynamo.Stop()
	samples, err := filepath.Glob(filepath.Join(v.project, "events", "*.json"))
	if err != nil {
		return err
	}
	var wrong []error
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight|tabwriter.DiscardEmptyColumns)
	fmt.Fprintln(table, "EVENT\tINIT\tFIRST ANSWER\tSECOND\tANSWER\t")
	for _, sample := range samples {
		try := func(n int) (result, error) {
			return v.invoke(ctx, emulators[0], v.built(architecture), dynamo.URL, sample, fmt.Sprintf("%s%d", stacks, n), environment)
		}
		r, err := try(0)
		for n := 1; errors.Is(err, errPort) && n < 3; n++ {
			r, err = try(n)
		}
		if err != nil {
			wrong = append(wrong, fmt.Errorf("%s: %w", filepath.Base(sample), err))
			continue
		}
		verdict := "as expected"
		if r.diff != "" {
			verdict = "DIFFERS"
			wrong = append(wrong, fmt.Errorf("%s: the answer differs from events/answers (-want +got):\n%s", filepath.Base(sample), r.diff))
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t\n", strings.TrimSuffix(filepath.Base(sample), ".json"), millis(r.init), millis(r.first), millis(r.second), verdict)
	}
	fmt.Println()
	if err := table.Flush(); err != nil {
		return err
	}
	fmt.Println("\nINIT is the emulator's report. FIRST ANSWER is the first request to a new process, init included. SECOND is the next request to the same process.")
	if len(wrong) > 0 {
		return errors.Join(append(wrong, errors.New("if the new answers are correct: make verify-deploy UPDATE=-update"))...)
	}
	return nil
}

func millis(d time.Duration) string {
	return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000)
}

// result is the outcome of one sample.
type result struct {
	init, first, second time.Duration
	diff                string
}

// log collects the output of the emulator and the function.
type log struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// errPort means that another process took the port before the emulator did.
var errPort = errors.New("the emulator could not start")

// invoke starts the sample's function in the emulator and invokes it twice.
func (v *verifier) invoke(ctx context.Context, emulator, built, dynamoURL, sample, stack string, environment variables) (r result, err error) {
	payload, err := os.ReadFile(sample)
	if err != nil {
		return r, err
	}
	name := strings.TrimSuffix(filepath.Base(sample), ".json")
	deployment, err := lambdaemulator.Open(ctx, v.project, stack+"-"+name, dynamoURL)
	if err != nil {
		return r, err
	}
	defer deployment.Close()
	// Where a sample names a receiver, the deployment has one.
	given := payload
	payload = bytes.ReplaceAll(given, []byte("https://crm.example.com/hooks"), []byte(deployment.Receiver+"/200"))
	payload = bytes.ReplaceAll(payload, []byte("table/tidings-Platform/"), []byte("table/"+local.Tables(deployment.Stack.Name).Platform+"/"))
	f := deployment.Stack.ForSample(name)
	if f == nil {
		return r, errors.New("no function for this sample: its name must begin with a function's folder")
	}
	runtimeAPI, err := process.FreePort()
	if err != nil {
		return r, err
	}
	port, err := process.FreePort()
	if err != nil {
		return r, err
	}
	address := fmt.Sprintf("127.0.0.1:%d", port)
	output := &log{}
	c := exec.Command(emulator, "--runtime-interface-emulator-address", address,
		"--runtime-api-address", fmt.Sprintf("127.0.0.1:%d", runtimeAPI), filepath.Join(built, f.LogicalID, "bootstrap"))
	set, err := environment(deployment, f)
	if err != nil {
		return r, err
	}
	for name, value := range set {
		c.Env = append(c.Env, name+"="+value)
	}
	c.Stdout, c.Stderr = output, output
	process, err := process.Start(c)
	if err != nil {
		return r, err
	}
	defer process.Stop()
	err = process.Ready(ctx, answerTime, func(ctx context.Context) error {
		connection, err := new(net.Dialer).DialContext(ctx, "tcp", address)
		if err != nil {
			return err
		}
		return connection.Close()
	})
	if err != nil {
		return r, fmt.Errorf("%w: %w\n%s", errPort, err, output)
	}
	ask := func() (answer []byte, took time.Duration, err error) {
		ctx, cancel := context.WithTimeout(ctx, answerTime)
		defer cancel()
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+address+"/2015-03-31/functions/function/invocations", bytes.NewReader(payload))
		if err != nil {
			return nil, 0, err
		}
		began := time.Now()
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			if strings.Contains(output.String(), "rapid.startRuntimeAPI") {
				err = fmt.Errorf("%w: %w", errPort, err)
			}
			return nil, 0, fmt.Errorf("%w\n%s", err, output)
		}
		defer response.Body.Close()
		answer, err = io.ReadAll(response.Body)
		return answer, time.Since(began), err
	}
	answer, first, err := ask()
	if err != nil {
		return r, err
	}
	r.first = first
	if r.init, err = initTime(output); err != nil {
		return r, err
	}
	seen, err := marshal(map[string]any{"answer": normalise(answer, given), "webhooks": deployment.Received.Load()})
	if err != nil {
		return r, err
	}
	if r.diff, err = v.compare(name, seen); err != nil {
		return r, err
	}
	_, r.second, err = ask()
	return r, err
}

// deployed returns the environment that Lambda gives to a deployed function.
func deployed(deployment *lambdaemulator.Deployment, f *samtemplate.Function) (map[string]string, error) {
	variables := deployment.Environment(f)
	variables["AWS_LAMBDA_FUNCTION_NAME"] = f.Name
	variables["AWS_LAMBDA_FUNCTION_TIMEOUT"] = fmt.Sprint(int(f.Timeout.Seconds()))
	// There is no X-Ray daemon.
	variables["AWS_XRAY_CONTEXT_MISSING"] = "IGNORE_ERROR"
	return variables, nil
}

// report matches the emulator's log line about the init phase.
var report = regexp.MustCompile(`INIT REPORT\(durationMs: ([0-9.]+)\)`)

// initTime returns the duration of the init phase from the emulator's output.
func initTime(output *log) (time.Duration, error) {
	m := report.FindStringSubmatch(output.String())
	if m == nil {
		return 0, fmt.Errorf("no init duration in the emulator's output:\n%s", output)
	}
	return time.ParseDuration(m[1] + "ms")
}

// compare compares an answer with the expected one, or writes it.
func (v *verifier) compare(name, answer string) (diff string, err error) {
	path := filepath.Join(v.project, "events", "answers", name+".json")
	if v.update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return "", err
		}
		return "", os.WriteFile(path, []byte(answer), 0o644)
	}
	golden, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	return cmp.Diff(string(golden), answer), nil
}

// Parts of an answer that differ between runs, and their replacements.
var passing = []struct {
	pattern *regexp.Regexp
	stands  string
}{
	{regexp.MustCompile(`\b[0-7][0-9A-HJKMNP-TV-Z]{25}\b`), "<id>"},
	{regexp.MustCompile(`\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b`), "<uuid>"},
	{regexp.MustCompile(`\b20[0-9]{2}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]+)?)?(Z| UTC)?`), "<time>"},
	{regexp.MustCompile(`[A-Z][a-z]{2}, [0-9]{2} [A-Z][a-z]{2} 20[0-9]{2} [0-9:]{8} GMT`), "<time>"},
	{regexp.MustCompile(`v1,[A-Za-z0-9+/=]{44}`), "v1,<signature>"},
	{regexp.MustCompile(`\b1[0-9]{9}\b`), "<seconds>"},
	{regexp.MustCompile(`127\.0\.0\.1:[0-9]+`), "127.0.0.1"},
	{regexp.MustCompile(`\b[0-9.]+(ns|µs|ms|s|m|h)\b`), "<duration>"},
}

// measured matches the names of numbers that differ between runs.
var measured = regexp.MustCompile(`(_ms|_at|_seconds|Ms|At)$`)

// normalise replaces the parts of an answer that differ between runs, except those
// that come from the request.
func normalise(answer, payload []byte) any {
	v, err := decode(answer)
	if err != nil {
		return steady(string(answer), payload)
	}
	return walk(v, "", payload)
}

// decode decodes JSON without changing numbers.
func decode(text []byte) (v any, err error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	err = d.Decode(&v)
	return v, err
}

// marshal encodes an expected answer.
func marshal(v any) (string, error) {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	err := e.Encode(v)
	return b.String(), err
}

func walk(v any, name string, payload []byte) any {
	switch v := v.(type) {
	case map[string]any:
		for key, of := range v {
			v[key] = walk(of, key, payload)
		}
	case []any:
		for i := range v {
			v[i] = walk(v[i], name, payload)
		}
	case json.Number:
		if measured.MatchString(name) {
			return "<number>"
		}
	case string:
		if name == "fingerprint" {
			return "<fingerprint>"
		}
		// In a function URL's answer the body is a string.
		if name == "body" && strings.HasPrefix(v, "{") {
			if inner, err := decode([]byte(v)); err == nil {
				return walk(inner, name, payload)
			}
		}
		return steady(v, payload)
	}
	return v
}

// title matches the only part of a page that is compared.
var title = regexp.MustCompile(`(?s)<title>(.*?)</title>`)

func steady(text string, payload []byte) string {
	if strings.HasPrefix(strings.ToLower(strings.TrimSpace(text)), "<!doctype html") {
		if m := title.FindStringSubmatch(text); m != nil {
			text = "a page: " + m[1]
		}
	}
	for _, p := range passing {
		text = p.pattern.ReplaceAllStringFunc(text, func(found string) string {
			if bytes.Contains(payload, []byte(found)) {
				return found
			}
			return p.stands
		})
	}
	return text
}
