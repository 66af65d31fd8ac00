// Package localrunner has the common parts of the crash tests and measurements: the
// local runner as a separate process that can be killed, a receiver that records
// its requests, and a producer that records what was accepted. It promises that the
// processes which it starts end with the process that started them.
package localrunner

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/emit"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/local"
	"github.com/tidings-dev/tidings/pkg/local/process"
	"github.com/tidings-dev/tidings/pkg/local/receiver"
	"github.com/tidings-dev/tidings/pkg/signature"
	"github.com/tidings-dev/tidings/pkg/store/dynamo"
	"github.com/tidings-dev/tidings/pkg/systemtest"
)

// startTime is the limit for the start of a runner.
const startTime = 60 * time.Second

// Runner is `tidings local` as a process.
type Runner struct {
	Note  local.RunnerInfo
	Store *dynamo.Store // its tables; nil for one that keeps all in its own memory

	process *process.Process
}

// StartRunner starts the binary on a state folder, on free ports and without a
// receiver, and waits until it answers.
func StartRunner(ctx context.Context, binary, dir string, args ...string) (*Runner, error) {
	path := filepath.Join(dir, local.RunnerInfoFile)
	if err := os.RemoveAll(path); err != nil {
		return nil, err
	}
	command := exec.Command(binary, append([]string{"--state-dir", dir, "local", "--port", "0", "--receiver=false"}, args...)...)
	command.Stderr = os.Stderr
	process, err := process.Start(command)
	if err != nil {
		return nil, fmt.Errorf("start %s (make bin/tidings builds it): %w", binary, err)
	}
	r := &Runner{process: process}
	err = process.Ready(ctx, startTime, func(ctx context.Context) error {
		note, err := local.ReadRunnerInfo(dir)
		if err != nil {
			return err
		}
		if note.PID != command.Process.Pid {
			return errors.New("the note is from another runner")
		}
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, note.InvokeURL, nil)
		if err != nil {
			return err
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			return err
		}
		r.Note = note
		return response.Body.Close()
	})
	if err != nil {
		process.Stop()
		return nil, fmt.Errorf("the runner: %w", err)
	}
	if r.Note.DynamoURL != "" {
		r.Store = dynamo.New(r.Note.DynamoDB(), local.Tables(r.Note.Stack))
	}
	return r, nil
}

// Kill kills the runner with SIGKILL and waits until it has ended.
func (r *Runner) Kill() { r.process.Stop() }

// Recorder is a receiver in this process that records when each event first arrived.
type Recorder struct {
	*receiver.Receiver
	URL string

	mu sync.Mutex
	at map[string]time.Time
	// again are the events that arrived again after a success.
	again map[string]bool
}

// Receive serves a receiver until the process ends.
func Receive(seed uint64, b receiver.Behaviour, secret signature.Secret) (*Recorder, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r := &Recorder{Receiver: receiver.New(seed, b), URL: "http://" + l.Addr().String() + "/", at: map[string]time.Time{}, again: map[string]bool{}}
	r.Secrets = func() []string { return []string{secret.Reveal()} }
	r.OnWebhook = func(w receiver.Webhook) {
		r.mu.Lock()
		defer r.mu.Unlock()
		if _, ok := r.at[w.ID]; !ok {
			r.at[w.ID] = w.Began
		}
		if w.Duplicate {
			r.again[w.ID] = true
		}
	}
	go func() { _ = http.Serve(l, r) }() // ends with the process
	return r, nil
}

// Arrived returns when the event first arrived, if it did.
func (r *Recorder) Arrived(id string) (time.Time, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	at, ok := r.at[id]
	return at, ok
}

// Again returns the events that arrived again after a success.
func (r *Recorder) Again() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var ids []string
	for id := range r.again {
		ids = append(ids, id)
	}
	return ids
}

// Wait waits until the receiver has answered n events with success.
func (r *Recorder) Wait(ctx context.Context, n int, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	report := time.Now()
	for r.Counts().Succeeded < n {
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("%[3]d events expected, %+[2]v after %[1]s", limit, r.Counts(), n)
		}
		if time.Since(report) > 15*time.Second {
			report = time.Now()
			fmt.Fprintf(os.Stderr, "    %d of %d delivered, %d requests\n", r.Counts().Succeeded, n, r.Counts().Requests)
		}
	}
	return nil
}

// Endpoints is the part of a store that AddEndpoint needs.
type Endpoints interface {
	AddEndpoint(ctx context.Context, e endpoint.Endpoint) error
}

// AddEndpoint adds an endpoint that subscribes to all events. change may modify it
// before.
func AddEndpoint(ctx context.Context, store Endpoints, url string, secret signature.Secret, change func(*endpoint.Endpoint)) (endpoint.Endpoint, error) {
	now := time.Now()
	e := endpoint.Endpoint{
		Tenant: event.DefaultTenant, ID: endpoint.NewID(now), URL: url, EventTypes: []string{"*"}, Status: endpoint.Enabled,
		Secrets: []endpoint.SigningSecret{{Secret: secret}}, Version: 1, CreatedAt: now, UpdatedAt: now,
	}
	if change != nil {
		change(&e)
	}
	return e, store.AddEndpoint(ctx, e)
}

// Comment is the n-th event of a series.
func Comment(n int) emit.Request {
	return emit.Request{Event: "user.posted_comment", ActorUserID: "u_1042",
		Data: json.RawMessage(fmt.Sprintf(`{"discussion_id":"d_%d","comment_id":"m_%d","comment_text":"Who brings the projector?"}`, n%50, n))}
}

var client = &http.Client{Timeout: time.Minute, Transport: &http.Transport{MaxIdleConnsPerHost: 64, IdleConnTimeout: 10 * time.Second}}

// Post sends one event, or a list as {"events":[…]}, to emit's function URL. It fails
// unless all events were accepted, now or by an earlier call.
func Post(ctx context.Context, url string, body any) ([]emit.Result, error) {
	text, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusAccepted && response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("emit answered %d: %s", response.StatusCode, answer)
	}
	var many struct{ Results []emit.Result }
	var one emit.Result
	if err := errors.Join(json.Unmarshal(answer, &many), json.Unmarshal(answer, &one)); err != nil {
		return nil, err
	}
	if one.ID != "" {
		return []emit.Result{one}, nil
	}
	return many.Results, nil
}

// PostAtRate emits n events at a rate per second, each with its own call, without
// waiting for the answers. It returns the start of each call by event id.
func PostAtRate(ctx context.Context, url string, rate, n int) (map[string]time.Time, error) {
	began := make(map[string]time.Time)
	var mu sync.Mutex
	var failed error
	systemtest.AtRate(ctx, rate, n, func(i int) {
		at := time.Now()
		results, err := Post(ctx, url, Comment(i))
		mu.Lock()
		defer mu.Unlock()
		if err != nil {
			failed = err
			return
		}
		began[results[0].ID] = at
	})
	return began, failed
}

// Invoke calls a function through Lambda's Invoke API.
func Invoke(ctx context.Context, url, function, payload string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/2015-03-31/functions/"+function+"/invocations", strings.NewReader(payload))
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if answer, err := io.ReadAll(response.Body); err != nil || response.StatusCode != http.StatusOK || response.Header.Get("X-Amz-Function-Error") != "" {
		return fmt.Errorf("%s answered %d: %s (%w)", function, response.StatusCode, answer, err)
	}
	return nil
}

// PostMany emits n events in lists of a hundred.
func PostMany(ctx context.Context, url string, n int) error {
	for from := 0; from < n; from += 100 {
		var list []emit.Request
		for i := from; i < min(from+100, n); i++ {
			list = append(list, Comment(i))
		}
		if _, err := Post(ctx, url, map[string]any{"events": list}); err != nil {
			return err
		}
	}
	return nil
}

// Queries is the part of a store that Deliveries needs.
type Queries interface {
	QueryDeliveries(ctx context.Context, q delivery.Query) (delivery.Page, error)
}

// Deliveries returns all deliveries of an endpoint.
func Deliveries(ctx context.Context, store Queries, endpointID string) ([]delivery.Delivery, error) {
	var all []delivery.Delivery
	q := delivery.Query{EndpointID: endpointID, Limit: 1000}
	for {
		page, err := store.QueryDeliveries(ctx, q)
		if err != nil {
			return nil, err
		}
		all = append(all, page.Deliveries...)
		if page.Next == "" {
			return all, nil
		}
		q.Cursor = page.Next
	}
}

// CountDelivered counts the delivered deliveries. It waits up to five minutes until there
// are as many as wanted.
func CountDelivered(ctx context.Context, store Queries, endpointID string, want int) (int, error) {
	for end := time.Now().Add(5 * time.Minute); ; time.Sleep(200 * time.Millisecond) {
		all, err := Deliveries(ctx, store, endpointID)
		if err != nil {
			return 0, err
		}
		n := 0
		for _, d := range all {
			if d.State == delivery.Delivered {
				n++
			}
		}
		if n == want || time.Now().After(end) {
			return n, nil
		}
	}
}
