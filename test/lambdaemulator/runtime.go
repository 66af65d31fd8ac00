package lambdaemulator

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// Runtime is the part of Lambda's Runtime API ("Using the Lambda runtime API") that a
// function's binary uses. It serves one invocation at a time.
type Runtime struct {
	Address string // for AWS_LAMBDA_RUNTIME_API
	// Asked receives the time at which the function first asked for an invocation,
	// which ends its init phase.
	Asked chan time.Time

	// Trace is the X-Amzn-Trace-Id of the next invocations; set it between them.
	Trace string

	server   *http.Server
	payloads chan []byte
	answers  chan Answer
	number   atomic.Int64
}

// Answer is the result of an invocation.
type Answer struct {
	At     time.Time
	Body   []byte
	Failed bool // the body is the error
}

// OpenRuntime serves a Runtime API on a free port until Close.
func OpenRuntime() (*Runtime, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r := &Runtime{Address: l.Addr().String(), Asked: make(chan time.Time, 1), payloads: make(chan []byte), answers: make(chan Answer, 1)}
	r.server = &http.Server{Handler: r, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = r.server.Serve(l) }() // until Close
	return r, nil
}

// Close stops the server.
func (r *Runtime) Close() { _ = r.server.Close() }

// ServeHTTP serves the function.
func (r *Runtime) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	body, err := io.ReadAll(request.Body)
	now := time.Now()
	if err != nil {
		return // the function has ended
	}
	switch path := strings.TrimPrefix(request.URL.Path, "/2018-06-01/runtime/"); {
	case path == "invocation/next":
		select {
		case r.Asked <- now:
		default:
		}
		select {
		case payload := <-r.payloads:
			h := w.Header()
			h.Set("Lambda-Runtime-Aws-Request-Id", fmt.Sprintf("7c1a2f0e-0000-4000-8000-%012d", r.number.Add(1)))
			h.Set("Lambda-Runtime-Deadline-Ms", strconv.FormatInt(time.Now().Add(time.Minute).UnixMilli(), 10))
			h.Set("Lambda-Runtime-Invoked-Function-Arn", "arn:aws:lambda:us-east-1:123456789012:function:f")
			if r.Trace != "" {
				h.Set("Lambda-Runtime-Trace-Id", r.Trace)
			}
			_, _ = w.Write(payload)
		case <-request.Context().Done():
		}
	case strings.HasSuffix(path, "/response"), strings.HasSuffix(path, "/error"):
		w.WriteHeader(http.StatusAccepted)
		r.answers <- Answer{now, body, strings.HasSuffix(path, "/error")}
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

// Invoke passes a payload to the function and waits for its answer. It fails when
// ended is closed, which means that the function's process has ended.
func (r *Runtime) Invoke(ctx context.Context, payload []byte, ended <-chan struct{}) (Answer, error) {
	select {
	case r.payloads <- payload:
	case a := <-r.answers:
		return a, fmt.Errorf("the function cannot start: %.300s", a.Body)
	case <-ended:
		return Answer{}, errors.New("the function has ended")
	case <-ctx.Done():
		return Answer{}, errors.New("the function does not ask for work")
	}
	select {
	case a := <-r.answers:
		return a, nil
	case <-ended:
		return Answer{}, errors.New("the function ended before it answered")
	case <-ctx.Done():
		return Answer{}, errors.New("the function does not answer")
	}
}
