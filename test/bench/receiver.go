package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tidings-dev/tidings/pkg/local/process"
)

// sentMark precedes the time, in nanoseconds, at which an event was due to be emitted;
// the receiver measures latency from it.
const sentMark = `"comment_id":"m_`

// arrivals are the requests on one path.
type arrivals struct {
	First []float64 `json:"first"` // latency in ms of deliveries whose first attempt succeeded
	Again []float64 `json:"again"` // latency of the others
	Tries int       `json:"tries"`
	Twice int       `json:"twice"` // deliveries with more than one success
	Last  time.Time `json:"last"`
}

// receiving is the receiver. It runs in a process of its own, so that its CPU time is
// measured separately. The first path element sets its behaviour: tenth fails the
// first attempt at one event in ten, fail fails every request, hang never answers, nine
// answers after nine seconds, swallow answers without recording; any other path answers with success.
type receiving struct {
	count     atomic.Int64 // successful deliveries, duplicates excluded
	hanging   atomic.Int64
	swallowed atomic.Int64

	mu             sync.Mutex
	by             map[string]*arrivals
	failed, served map[string]bool // by event and path
}

func newReceiving() *receiving {
	return &receiving{by: map[string]*arrivals{}, failed: map[string]bool{}, served: map[string]bool{}}
}

func (r *receiving) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	how, _, _ := strings.Cut(strings.TrimPrefix(request.URL.Path, "/"), "/")
	switch how {
	case "count":
		fmt.Fprint(w, r.count.Load())
		return
	case "hanging":
		fmt.Fprint(w, r.hanging.Load())
		return
	case "swallowed":
		fmt.Fprint(w, r.swallowed.Load())
		return
	case "report":
		r.mu.Lock()
		defer r.mu.Unlock()
		_ = json.NewEncoder(w).Encode(r.by) // the client reports the error
		return
	case "reset":
		r.mu.Lock()
		r.by, r.failed, r.served = map[string]*arrivals{}, map[string]bool{}, map[string]bool{}
		r.mu.Unlock()
		r.count.Store(0)
		return
	case "swallow":
		_, _ = io.Copy(io.Discard, request.Body)
		r.swallowed.Add(1)
		w.WriteHeader(http.StatusNoContent)
		return
	case "hang":
		_, _ = io.Copy(io.Discard, request.Body)
		r.hanging.Add(1)
		defer r.hanging.Add(-1)
		<-request.Context().Done()
		return
	case "nine":
		_, _ = io.Copy(io.Discard, request.Body)
		r.hanging.Add(1)
		defer r.hanging.Add(-1)
		select {
		case <-time.After(9 * time.Second):
			w.WriteHeader(http.StatusNoContent)
		case <-request.Context().Done():
		}
		return
	}
	body, err := io.ReadAll(request.Body)
	if err != nil {
		return
	}
	id := request.Header.Get("webhook-id") + request.URL.Path
	r.mu.Lock()
	to := r.by[how]
	if to == nil {
		to = &arrivals{}
		r.by[how] = to
	}
	to.Tries++
	fail := how == "fail" || how == "tenth" && !r.failed[id] && id != "" && sum(id)%10 == 0
	again := r.failed[id]
	if fail {
		r.failed[id] = true
	}
	r.mu.Unlock()
	if fail {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	w.WriteHeader(http.StatusNoContent)
	now := time.Now()
	took := 0.0
	if _, after, ok := bytes.Cut(body, []byte(sentMark)); ok {
		digits, _, _ := bytes.Cut(after, []byte("_"))
		if sent, err := strconv.ParseInt(string(digits), 10, 64); err == nil {
			took = float64(now.UnixNano()-sent) / 1e6
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.served[id] {
		to.Twice++
		return
	}
	r.served[id] = true
	if again {
		to.Again = append(to.Again, took)
	} else {
		to.First = append(to.First, took)
	}
	to.Last = now
	r.count.Add(1)
}

// sum is a hash of an id (FNV-1a).
func sum(id string) uint32 {
	h := uint32(2166136261)
	for i := range len(id) {
		h = (h ^ uint32(id[i])) * 16777619
	}
	return h
}

// receive runs the receiver. It prints its URL and serves until its parent ends.
func receive() error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println("http://" + l.Addr().String())
	return http.Serve(l, newReceiving())
}

// receiver is a client of the receiver's process.
type receiver struct {
	url     string
	pid     int
	process *process.Process
}

func startReceiver() (*receiver, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	c := exec.Command(self, "-receive")
	c.Stderr = os.Stderr
	out, err := c.StdoutPipe()
	if err != nil {
		return nil, err
	}
	process, err := process.Start(c)
	if err != nil {
		return nil, err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		process.Stop()
		return nil, fmt.Errorf("the receiver did not start: %w", err)
	}
	return &receiver{url: strings.TrimSpace(line), pid: c.Process.Pid, process: process}, nil
}

func (r *receiver) stop() { r.process.Stop() }

// requestTime is the limit for a request of the benchmark.
const requestTime = 30 * time.Second

var asking = &http.Client{Timeout: requestTime}

func (r *receiver) get(path string, into any) error {
	response, err := asking.Get(r.url + path)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if into == nil {
		return nil
	}
	return json.NewDecoder(response.Body).Decode(into)
}

func (r *receiver) reset() error { return r.get("/reset", nil) }

// wait waits until n deliveries have succeeded.
func (r *receiver) wait(n int, limit time.Duration) error {
	end := time.Now().Add(limit)
	for {
		var count int
		if err := r.get("/count", &count); err != nil {
			return err
		}
		if count >= n {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("%[3]d deliveries expected, %[2]d after %[1]s", limit, count, n)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// report returns the requests on each path since the reset. Duplicates are an error,
// because no process is killed.
func (r *receiver) report() (map[string]*arrivals, error) {
	by := map[string]*arrivals{}
	if err := r.get("/report", &by); err != nil {
		return nil, err
	}
	for how, seen := range by {
		if seen.Twice > 0 {
			return nil, fmt.Errorf("%d deliveries came twice to %s", seen.Twice, how)
		}
	}
	return by, nil
}

// hanging returns the number of requests that hang now.
func (r *receiver) hanging() (n int, err error) {
	err = r.get("/hanging", &n)
	return n, err
}

// swallowed returns the number of requests that were answered without recording.
func (r *receiver) swallowed() (n int, err error) {
	err = r.get("/swallowed", &n)
	return n, err
}
