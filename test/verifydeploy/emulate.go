package main

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

	"github.com/tidings-dev/tidings/pkg/local/dynamoemulator"
	"github.com/tidings-dev/tidings/pkg/local/process"
	"github.com/tidings-dev/tidings/pkg/local/samtemplate"
	"github.com/tidings-dev/tidings/test/lambdaemulator"
)

// runsOn checks that a binary is static and for the architecture.
func runsOn(binary, architecture string) error {
	f, err := elf.Open(binary)
	if err != nil {
		return err
	}
	defer f.Close()
	want := map[string]elf.Machine{"arm64": elf.EM_AARCH64, "x86_64": elf.EM_X86_64}[architecture]
	if f.Machine != want {
		return fmt.Errorf("%s is for %s, not for %s", binary, f.Machine, want)
	}
	if libraries, err := f.ImportedLibraries(); err != nil || len(libraries) > 0 {
		return fmt.Errorf("%s needs %v: Lambda's provided.al2023 has no more than it brings (%w)", binary, libraries, err)
	}
	return nil
}

// answerTime is how long a function may take for a sample, on a busy machine.
const answerTime = time.Minute

// emulate runs every function with every sample event, each time in a new
// process and on tables of its own, and compares the answers with those in
// events/answers.
func (v *verifier) emulate(ctx context.Context) error {
	architecture, err := host()
	if err != nil {
		return err
	}
	emulators, err := filepath.Glob(filepath.Join(v.project, "tools", "sam", ".cache", "sam", "lib", "python*", "site-packages", "samcli", "local", "rapid", "aws-lambda-rie-"+architecture))
	if err != nil || len(emulators) != 1 {
		return errors.Join(err, fmt.Errorf("the SAM CLI's package holds %d emulators for %s", len(emulators), architecture))
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
		r, err := v.invoke(ctx, emulators[0], v.built(architecture), dynamo.URL, sample, 0)
		for try := 1; errors.Is(err, errPort) && try < 3; try++ {
			r, err = v.invoke(ctx, emulators[0], v.built(architecture), dynamo.URL, sample, try)
		}
		if err != nil {
			wrong = append(wrong, fmt.Errorf("%s: %w", filepath.Base(sample), err))
			continue
		}
		verdict := "as expected"
		if r.diff != "" {
			verdict = "DIFFERS"
			wrong = append(wrong, fmt.Errorf("%s: the answer is not the one in events/answers (-want +got):\n%s", filepath.Base(sample), r.diff))
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t\n", strings.TrimSuffix(filepath.Base(sample), ".json"), millis(r.init), millis(r.first), millis(r.second), verdict)
	}
	fmt.Println()
	if err := table.Flush(); err != nil {
		return err
	}
	fmt.Println("\nINIT is from the emulator's report, FIRST ANSWER a new process's from the request on (init included), SECOND the same process's next.")
	if len(wrong) > 0 {
		return errors.Join(append(wrong, errors.New("where the new answers are right: make verify-deploy UPDATE=-update"))...)
	}
	return nil
}

func millis(d time.Duration) string {
	return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000)
}

// result is what invoking one sample showed.
type result struct {
	init, first, second time.Duration
	diff                string
}

// log keeps what the emulator and the function print.
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

// errPort says that somebody else took a port between its choice and its use.
var errPort = errors.New("the emulator could not start")

// invoke starts the sample's function under the emulator and invokes it twice.
func (v *verifier) invoke(ctx context.Context, emulator, built, dynamoURL, sample string, try int) (r result, err error) {
	payload, err := os.ReadFile(sample)
	if err != nil {
		return r, err
	}
	name := strings.TrimSuffix(filepath.Base(sample), ".json")
	stage, err := lambdaemulator.Open(ctx, v.project, fmt.Sprintf("verify%d-%s", try, name), dynamoURL)
	if err != nil {
		return r, err
	}
	defer stage.Close()
	// Where a sample names a receiver, the stage has one.
	given := payload
	payload = bytes.ReplaceAll(given, []byte("https://crm.example.com/hooks"), []byte(stage.Receiver+"/200"))
	f := stage.Stack.ForSample(name)
	if f == nil {
		return r, errors.New("belongs to no function: its name begins with one's folder")
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
	c.Env = environment(stage, f)
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
	seen, err := marshal(map[string]any{"answer": normalise(answer, given), "webhooks": stage.Received.Load()})
	if err != nil {
		return r, err
	}
	if r.diff, err = v.compare(name, seen); err != nil {
		return r, err
	}
	_, r.second, err = ask()
	return r, err
}

func environment(stage *lambdaemulator.Stage, f *samtemplate.Function) (list []string) {
	variables := stage.Environment(f)
	variables["AWS_LAMBDA_FUNCTION_NAME"] = f.Name
	variables["AWS_LAMBDA_FUNCTION_TIMEOUT"] = fmt.Sprint(int(f.Timeout.Seconds()))
	// Nobody collects traces here.
	variables["AWS_XRAY_CONTEXT_MISSING"] = "IGNORE_ERROR"
	for name, value := range variables {
		list = append(list, name+"="+value)
	}
	return list
}

// report is the emulator's line about the init phase.
var report = regexp.MustCompile(`INIT REPORT\(durationMs: ([0-9.]+)\)`)

// initTime reads the init phase's time from what the emulator printed.
func initTime(output *log) (time.Duration, error) {
	m := report.FindStringSubmatch(output.String())
	if m == nil {
		return 0, fmt.Errorf("the emulator reported no init time:\n%s", output)
	}
	return time.ParseDuration(m[1] + "ms")
}

// compare holds an answer against the golden one, or writes it.
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

// What an answer holds that is another the next time, and what stands for it.
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

// measured are the names of numbers that are another the next time.
var measured = regexp.MustCompile(`(_ms|_at|_seconds|Ms|At)$`)

// normalise returns an answer as it can be compared: without what is another the
// next time. What the request gave stays as it is.
func normalise(answer, payload []byte) any {
	v, err := decode(answer)
	if err != nil {
		return steady(string(answer), payload)
	}
	return walk(v, "", payload)
}

// decode keeps numbers as they are written.
func decode(text []byte) (v any, err error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	err = d.Decode(&v)
	return v, err
}

// marshal returns the text of a golden file.
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
		// A function URL's answer holds the body as text.
		if name == "body" && strings.HasPrefix(v, "{") {
			if inner, err := decode([]byte(v)); err == nil {
				return walk(inner, name, payload)
			}
		}
		return steady(v, payload)
	}
	return v
}

// title is what is kept of a page.
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
