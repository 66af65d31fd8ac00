package main

import (
	"bufio"
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
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/tidings-dev/tidings/pkg/local"
	"github.com/tidings-dev/tidings/pkg/local/process"
	"github.com/tidings-dev/tidings/test/localrunner"
)

// usage is what a process has used so far.
type usage struct {
	CPU time.Duration
	RSS float64 // MB, now
}

// ticks are the kernel's units of CPU time in /proc (USER_HZ, 100 on every Linux).
const ticks = 100

// used reads what a process has used.
func used(pid int) (u usage, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return u, fmt.Errorf("what a process uses is read from /proc, on Linux: %w", err)
	}
	// The name, in parentheses, may hold anything.
	_, rest, _ := strings.Cut(string(text[bytes.LastIndexByte(text, ')'):]), " ")
	fields := strings.Fields(rest)
	if len(fields) < 22 {
		return u, fmt.Errorf("/proc/%d/stat has %d fields", pid, len(fields))
	}
	user, err := strconv.Atoi(fields[11])
	if err != nil {
		return u, err
	}
	system, err := strconv.Atoi(fields[12])
	if err != nil {
		return u, err
	}
	pages, err := strconv.Atoi(fields[21])
	if err != nil {
		return u, err
	}
	return usage{time.Duration(user+system) * time.Second / ticks, float64(pages) * float64(os.Getpagesize()) / 1e6}, nil
}

// ownCPU is what this process has used, to the microsecond.
func ownCPU() time.Duration {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		return 0
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// sentMark stands before the instant, in nanoseconds, at which an event was to be
// emitted; the receiver takes the time from there.
const sentMark = `"comment_id":"m_`

// arrivals is what the receiver has seen on one path.
type arrivals struct {
	First []float64 `json:"first"` // ms from emitted to answered, of those that were answered with success at once
	Again []float64 `json:"again"` // of those that had failed before
	Tries int       `json:"tries"`
	Twice int       `json:"twice"` // answered with success more than once
	Last  time.Time `json:"last"`
}

// receiving is the receiver: a process of its own, so that its work is not taken
// for the runner's. Its first path element says how it behaves: tenth fails one
// event in ten once, fail fails everything, hang never answers, swallow answers and
// notes nothing; any other answers.
type receiving struct {
	count     atomic.Int64 // deliveries answered with success, each once
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
		_ = json.NewEncoder(w).Encode(r.by) // the asker finds out
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

// sum spreads ids (FNV-1a).
func sum(id string) uint32 {
	h := uint32(2166136261)
	for i := range len(id) {
		h = (h ^ uint32(id[i])) * 16777619
	}
	return h
}

// receive is the receiver's process: it says where it listens and serves until its
// parent ends.
func receive() error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println("http://" + l.Addr().String())
	return http.Serve(l, newReceiving())
}

// receiver is the receiver's process as this one sees it.
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

// requestTime is how long one request of the benchmark may take: far longer than
// any should.
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

// wait waits until n deliveries have been answered with success.
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
			return fmt.Errorf("after %s only %d of %d deliveries", limit, count, n)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// report is what came on each path since the reset. What came twice makes it an
// error: nothing is to be doubled where nobody dies.
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

// hanging is how many requests wait now for an answer that never comes.
func (r *receiver) hanging() (n int, err error) {
	err = r.get("/hanging", &n)
	return n, err
}

// swallowed is how many requests it has answered and taken no notice of.
func (r *receiver) swallowed() (n int, err error) {
	err = r.get("/swallowed", &n)
	return n, err
}

// runner is a `tidings local` of its own.
type runner struct {
	note    local.RunnerInfo
	dir     string
	process *localrunner.Runner
	client  *http.Client
}

// wish is an endpoint that a runner is to have, as `tidings local --endpoints` reads it.
type wish struct {
	URL    string          `json:"url"`
	Types  []string        `json:"types,omitempty"`
	Filter json.RawMessage `json:"filter,omitempty"`
}

// everything are endpoints that get everything.
func everything(urls ...string) (list []wish) {
	for _, url := range urls {
		list = append(list, wish{URL: url})
	}
	return list
}

// startRunner starts the runner with endpoints.
func startRunner(ctx context.Context, binary string, memory bool, endpoints []wish) (*runner, error) {
	dir, err := os.MkdirTemp("", "tidings-bench-")
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(endpoints)
	if err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "endpoints.json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	args := []string{"--quiet", "--endpoints", file}
	if memory {
		args = append(args, "--memory")
	}
	process, err := localrunner.StartRunner(ctx, binary, dir, args...)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return &runner{note: process.Note, dir: dir, process: process, client: &http.Client{Timeout: requestTime, Transport: &http.Transport{MaxIdleConnsPerHost: 256}}}, nil
}

func (r *runner) stop() {
	r.process.Kill()
	r.client.CloseIdleConnections()
	_ = os.RemoveAll(r.dir)
}

// children are the processes that the runner has started.
func (r *runner) children() (pids []int) {
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", r.note.PID))
	for _, file := range files {
		text, _ := os.ReadFile(file)
		for _, field := range strings.Fields(string(text)) {
			if pid, err := strconv.Atoi(field); err == nil {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

func (r *runner) post(body []byte) error {
	response, err := r.client.Post(r.note.URLs["emit"], "application/json", bytes.NewReader(body))
	if err != nil {
		return err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusAccepted {
		return fmt.Errorf("emit answered %d: %.300s", response.StatusCode, answer)
	}
	return nil
}

// commentText fills an event up to about half a kilobyte.
var commentText = strings.Repeat("Who brings the projector? ", 10)

// comment is an event of a discussion that was to be emitted at an instant.
func comment(at time.Time, n int, discussion string) string {
	return fmt.Sprintf(`{"event":"user.posted_comment","actor_user_id":"u_1042","data":{"discussion_id":%q,%s%d_%d","comment_text":%q}}`,
		discussion, sentMark, at.UnixNano(), n, commentText)
}

// some is the discussion of the n-th event where it does not matter.
func some(n int) string { return fmt.Sprintf("d_%d", n%50) }

// load emits at a rate for a while, each event by its own request, whether or not
// those before have been answered. It returns how many it emitted.
func (r *runner) load(rate int, span time.Duration, discussion func(n int) string) (int, error) {
	type job struct {
		at time.Time
		n  int
	}
	total := int(float64(rate) * span.Seconds())
	jobs := make(chan job, total)
	var workers sync.WaitGroup
	var failed atomic.Pointer[error]
	for range 128 {
		workers.Go(func() {
			for j := range jobs {
				if err := r.post([]byte(comment(j.at, j.n, discussion(j.n)))); err != nil {
					failed.Store(&err)
				}
			}
		})
	}
	began := time.Now()
	for n := range total {
		at := began.Add(time.Duration(float64(n) / float64(rate) * float64(time.Second)))
		time.Sleep(time.Until(at))
		jobs <- job{at, n}
	}
	close(jobs)
	workers.Wait()
	if err := failed.Load(); err != nil {
		return total, *err
	}
	return total, nil
}

// flood emits n events as fast as they are taken, a hundred a request.
func (r *runner) flood(n int, discussion func(n int) string) error {
	var group sync.WaitGroup
	var failed atomic.Pointer[error]
	lists := make(chan int)
	for range 4 {
		group.Go(func() {
			for from := range lists {
				var list []string
				for i := range 100 {
					list = append(list, comment(time.Now(), from+i, discussion(from+i)))
				}
				if err := r.post([]byte("[" + strings.Join(list, ",") + "]")); err != nil {
					failed.Store(&err)
				}
			}
		})
	}
	for from := 0; from < n; from += 100 {
		lists <- from
	}
	close(lists)
	group.Wait()
	if err := failed.Load(); err != nil {
		return *err
	}
	return nil
}
