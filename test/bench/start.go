package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/tidings-dev/tidings/pkg/local"
	"github.com/tidings-dev/tidings/pkg/local/dynamoemulator"
	"github.com/tidings-dev/tidings/pkg/local/process"
	"github.com/tidings-dev/tidings/test/lambdaemulator"
)

// packageInit finds the milliseconds of each package in GODEBUG=inittrace=1.
var packageInit = regexp.MustCompile(`(?m)^init \S+ @\S+ ms, ([0-9.]+) ms clock.*\n?`)

// samples are the events that functions are started with: their commonest.
var samples = []string{"emit-function-url", "emit-platform-stream", "dispatch-stream", "dispatch-sqs", "dispatch-sweep", "health-evaluate", "console-function-url", "test-webhook-endpoint", "close-discussions"}

// measureStart builds each function as it is deployed and starts it under a Runtime
// API, with a sample event, on a stack of its own each time.
func measureStart(ctx context.Context, r *Report, o options) error {
	dir, err := os.MkdirTemp("", "tidings-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	dynamo, err := dynamoemulator.Start(ctx, dynamoemulator.Options{})
	if err != nil {
		return err
	}
	defer dynamo.Stop()
	t := r.table("start", "Start of each function (binary as deployed, this machine's architecture)", "first event",
		"binary, MB", "zip, MB", "package init, ms", "process start to ready, ms", "process start to first answer, ms", "second answer, ms")
	t.Notes = []string{"The functions' binaries under Lambda's Runtime API, a new process each time, with the samples of events/ on the local DynamoDB, a local queue and a local receiver. Ready is when the function asks for its first invocation. " +
		"Clients are built at their first use, so the first answer includes opening connections, which on AWS needs TLS handshakes. After its init phase, a function with 512 MB has 0.29 of a processor."}
	rounds := 7
	if o.short {
		rounds = 2
	}
	built := map[string][2]Cell{}
	for _, sample := range samples {
		var inits, ready, first, second []float64
		var sizes [2]Cell
		for round := range rounds {
			s, size, err := startSample(ctx, dir, dynamo.URL, sample, round, built)
			if err != nil {
				return fmt.Errorf("%s: %w", sample, err)
			}
			sizes = size
			inits, ready, first, second = append(inits, s.inits), append(ready, s.ready), append(first, s.first), append(second, s.second)
		}
		t.add(sample, sizes[0], sizes[1], of(inits...), of(ready...), of(first...), of(second...))
		fmt.Fprintf(os.Stderr, "  %s: first answer %s ms, second %s ms\n", sample, of(first...), of(second...))
	}
	return nil
}

// startSample starts the sample's function once. built has the sizes of what has
// been built already, by the function.
func startSample(ctx context.Context, dir, dynamoURL, sample string, round int, built map[string][2]Cell) (s started, sizes [2]Cell, err error) {
	stage, err := lambdaemulator.Open(ctx, ".", fmt.Sprintf("bench%d-%s", round, sample), dynamoURL)
	if err != nil {
		return s, sizes, err
	}
	defer stage.Close()
	f := stage.Stack.ForSample(sample)
	if f == nil {
		return s, sizes, fmt.Errorf("it belongs to no function")
	}
	binary := filepath.Join(dir, f.Folder)
	if sizes, err = builtOnce(ctx, binary, f.Folder, built); err != nil {
		return s, sizes, err
	}
	payload, err := os.ReadFile(filepath.Join("events", sample+".json"))
	if err != nil {
		return s, sizes, err
	}
	payload = bytes.ReplaceAll(payload, []byte("https://crm.example.com/hooks"), []byte(stage.Receiver+"/200"))
	payload = bytes.ReplaceAll(payload, []byte("table/tidings-Platform/"), []byte("table/"+local.Tables(stage.Stack.Name).Platform+"/"))
	environment := stage.Environment(f)
	environment["AWS_LAMBDA_FUNCTION_NAME"] = f.Name
	environment["AWS_XRAY_CONTEXT_MISSING"] = "IGNORE_ERROR" // nobody collects traces here
	s, err = startOnce(ctx, binary, environment, payload)
	return s, sizes, err
}

func builtOnce(ctx context.Context, binary, folder string, built map[string][2]Cell) (sizes [2]Cell, err error) {
	if sizes, ok := built[folder]; ok {
		return sizes, nil
	}
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-tags", "lambda.norpc", "-ldflags", "-s -w", "-o", binary, "./functions/"+folder)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return sizes, fmt.Errorf("build %s: %w\n%s", folder, err, strings.TrimSpace(string(out)))
	}
	file, err := os.Stat(binary)
	if err != nil {
		return sizes, err
	}
	zipped, err := zippedSize(binary)
	if err != nil {
		return sizes, err
	}
	sizes = [2]Cell{of(float64(file.Size()) / 1e6), of(float64(zipped) / 1e6)}
	built[folder] = sizes
	return sizes, nil
}

// started is what a function's process took.
type started struct {
	inits, ready, first, second float64 // ms
}

// startOnce starts a function under the Runtime API and invokes it twice.
func startOnce(ctx context.Context, binary string, environment map[string]string, payload []byte) (s started, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	api, err := lambdaemulator.OpenRuntime()
	if err != nil {
		return s, err
	}
	defer api.Close()
	var said bytes.Buffer
	c := exec.Command(binary)
	for name, value := range environment {
		c.Env = append(c.Env, name+"="+value)
	}
	c.Env = append(c.Env, "AWS_LAMBDA_RUNTIME_API="+api.Address, "GODEBUG=inittrace=1")
	c.Stderr = &said
	ms := func(from, to time.Time) float64 { return float64(to.Sub(from).Microseconds()) / 1000 }
	began := time.Now()
	process, err := process.Start(c)
	if err != nil {
		return s, err
	}
	fail := func(err error) (started, error) {
		process.Stop()
		return s, fmt.Errorf("%w\n%s", err, packageInit.ReplaceAll(said.Bytes(), nil))
	}
	invoke := func() (at time.Time, err error) {
		a, err := api.Invoke(ctx, payload, process.Ended())
		if err == nil && a.Failed {
			err = fmt.Errorf("the invocation failed: %.300s", a.Body)
		}
		return a.At, err
	}
	first, err := invoke()
	if err != nil {
		return fail(err)
	}
	s.ready, s.first = ms(began, <-api.Asked), ms(began, first)
	again := time.Now()
	second, err := invoke()
	if err != nil {
		return fail(err)
	}
	s.second = ms(again, second)
	process.Stop()
	s.inits, err = initTime(said.Bytes())
	return s, err
}

// initTime adds up the milliseconds of each package in GODEBUG=inittrace=1's lines.
func initTime(said []byte) (sum float64, err error) {
	for _, m := range packageInit.FindAllSubmatch(said, -1) {
		ms, err := strconv.ParseFloat(string(m[1]), 64)
		if err != nil {
			return 0, err
		}
		sum += ms
	}
	return sum, nil
}
