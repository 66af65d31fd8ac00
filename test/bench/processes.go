package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tidings-dev/tidings/pkg/local"
	"github.com/tidings-dev/tidings/test/localrunner"
)

// runner is a `tidings local` process.
type runner struct {
	note    local.RunnerInfo
	dir     string
	process *localrunner.Runner
	client  *http.Client
}

// wish is an endpoint in the file for `tidings local --endpoints`.
type wish struct {
	URL    string          `json:"url"`
	Types  []string        `json:"types,omitempty"`
	Filter json.RawMessage `json:"filter,omitempty"`
}

// everything returns endpoints that subscribe to all events.
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

// children returns the processes that the runner has started.
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

// commentText makes an event about half a kilobyte long.
var commentText = strings.Repeat("Who brings the projector? ", 10)

// comment returns an event that is due to be emitted at a time.
func comment(at time.Time, n int, discussion string) string {
	return fmt.Sprintf(`{"event":"user.posted_comment","actor_user_id":"u_1042","data":{"discussion_id":%q,%s%d_%d","comment_text":%q}}`,
		discussion, sentMark, at.UnixNano(), n, commentText)
}

// some returns any discussion for the n-th event.
func some(n int) string { return fmt.Sprintf("d_%d", n%50) }

// load emits at a rate per second for a while, each event with its own request, without
// waiting for the answers. It returns the number of events.
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

// flood emits n events as fast as possible, in requests of a hundred.
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
