package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/tidings-dev/tidings/pkg/daemon"
)

// runtimeAPI is Lambda's Runtime API, as far as a function that is well asks it
// ("Using the Lambda runtime API"). It hands out one invocation at a time.
type runtimeAPI struct {
	address  string
	server   *http.Server
	payloads chan []byte
	answers  chan answered
	asked    chan time.Time // when the function asked for its first invocation
	number   atomic.Int64
}

// answered is how an invocation ended, and when.
type answered struct {
	at     time.Time
	body   []byte
	failed bool
}

func openRuntimeAPI() (*runtimeAPI, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r := &runtimeAPI{address: l.Addr().String(), payloads: make(chan []byte), answers: make(chan answered, 1), asked: make(chan time.Time, 1)}
	r.server = &http.Server{Handler: r, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = r.server.Serve(l) }() // until Close
	return r, nil
}

// Close ends the server.
func (r *runtimeAPI) Close() { _ = r.server.Close() }

// ServeHTTP serves the function.
func (r *runtimeAPI) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	body, err := io.ReadAll(request.Body)
	now := time.Now()
	if err != nil {
		return // the function has ended
	}
	switch path := request.URL.Path; {
	case strings.HasSuffix(path, "/invocation/next"):
		select {
		case r.asked <- now:
		default:
		}
		select {
		case payload := <-r.payloads:
			n := r.number.Add(1)
			h := w.Header()
			h.Set("Lambda-Runtime-Aws-Request-Id", fmt.Sprintf("8ae6e4d4-8cd5-4f6d-8f0a-%012d", n))
			h.Set("Lambda-Runtime-Deadline-Ms", strconv.FormatInt(now.Add(time.Minute).UnixMilli(), 10))
			h.Set("Lambda-Runtime-Invoked-Function-Arn", "arn:aws:lambda:us-east-1:123456789012:function:bench:live")
			_, _ = w.Write(payload)
		case <-request.Context().Done():
		}
	case strings.HasSuffix(path, "/response"), strings.HasSuffix(path, "/error"):
		w.WriteHeader(http.StatusAccepted)
		r.answers <- answered{now, body, strings.HasSuffix(path, "/error")}
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

// invoke hands a payload to the function and waits for its answer.
func (r *runtimeAPI) invoke(ctx context.Context, payload []byte, ended <-chan struct{}) (answered, error) {
	select {
	case r.payloads <- payload:
	case <-ended:
		return answered{}, errors.New("the function ended before it asked for its invocation")
	case a := <-r.answers:
		return a, fmt.Errorf("the function did not start: %.300s", a.body)
	case <-ctx.Done():
		return answered{}, ctx.Err()
	}
	select {
	case a := <-r.answers:
		if a.failed {
			return a, fmt.Errorf("the invocation failed: %.300s", a.body)
		}
		return a, nil
	case <-ended:
		return answered{}, errors.New("the function ended before it answered")
	case <-ctx.Done():
		return answered{}, ctx.Err()
	}
}

// started is what a function's process took.
type started struct {
	inits, ready, first, second float64 // ms
}

// startOnce starts a function under the Runtime API and invokes it twice.
func startOnce(ctx context.Context, binary string, environment map[string]string, payload []byte) (s started, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	api, err := openRuntimeAPI()
	if err != nil {
		return s, err
	}
	defer api.Close()
	var said bytes.Buffer
	c := exec.Command(binary)
	for name, value := range environment {
		c.Env = append(c.Env, name+"="+value)
	}
	c.Env = append(c.Env, "AWS_LAMBDA_RUNTIME_API="+api.address, "GODEBUG=inittrace=1")
	c.Stderr = &said
	ms := func(from, to time.Time) float64 { return float64(to.Sub(from).Microseconds()) / 1000 }
	began := time.Now()
	process, err := daemon.Start(c)
	if err != nil {
		return s, err
	}
	fail := func(err error) (started, error) {
		process.Stop()
		return s, fmt.Errorf("%w\n%s", err, packageInit.ReplaceAll(said.Bytes(), nil))
	}
	first, err := api.invoke(ctx, payload, process.Ended())
	if err != nil {
		return fail(err)
	}
	s.ready, s.first = ms(began, <-api.asked), ms(began, first.at)
	again := time.Now()
	second, err := api.invoke(ctx, payload, process.Ended())
	if err != nil {
		return fail(err)
	}
	s.second = ms(again, second.at)
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
