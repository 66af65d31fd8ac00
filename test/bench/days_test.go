package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestQuantiles(t *testing.T) {
	var all []float64
	for i := range 101 {
		all = append(all, float64(100-i))
	}
	s := spellOf(all)
	if s.p50 != 50 || s.p95 != 95 || s.p99 != 99 || s.deliveries != 101 {
		t.Errorf("of 0 to 100: %+v", s)
	}
	if got := quantile(nil, 0.5); got != 0 {
		t.Errorf("of nothing: %v", got)
	}
}

// A bad spell is held against the good one that it took turns with.
func TestDaysAreCompared(t *testing.T) {
	c := compared{
		good: []spell{{p50: 2, p95: 4, p99: 5, deliveries: 10}, {p50: 4, p95: 40, p99: 50, deliveries: 10}, {p50: 2, p95: 4, p99: 5, deliveries: 10}},
		bad:  []spell{{p50: 2, p95: 4, p99: 6, deliveries: 9}, {p50: 8, p95: 44, p99: 60, deliveries: 9}, {p50: 3, p95: 5, p99: 7, deliveries: 9}},
	}
	table := &Table{}
	p50, p95 := c.add(table, "good", "bad")
	if p50.String() != "1.50 (1–2)" || p95.String() != "1.10 (1–1.25)" {
		t.Errorf("p50 is %s, p95 %s of the good day's", p50, p95)
	}
	var lines []string
	for _, line := range table.lines()[1:] {
		lines = append(lines, strings.Join(line, " | "))
	}
	want := []string{"good | 2 (2–4) | 4 (4–40) | 5 (5–50) | – | – | 30", "bad | 3 (2–8) | 5 (4–44) | 7 (6–60) | 1.50 (1–2) | 1.10 (1–1.25) | 27"}
	for i := range want {
		if lines[i] != want[i] {
			t.Errorf("line %d is %s\nwant %s", i, lines[i], want[i])
		}
	}
}

// sending posts events to a receiver as it stands.
type sending struct {
	t   *testing.T
	url string
}

func (s sending) post(path, id string) int {
	s.t.Helper()
	request, err := http.NewRequest(http.MethodPost, s.url+path, strings.NewReader(comment(time.Now().Add(-time.Second), 1, "d_1")))
	if err != nil {
		s.t.Fatal(err)
	}
	request.Header.Set("webhook-id", id)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		s.t.Fatal(err)
	}
	_ = response.Body.Close()
	return response.StatusCode
}

func TestTheReceiver(t *testing.T) {
	handler := newReceiving()
	server := httptest.NewServer(handler)
	defer server.Close()
	s := sending{t, server.URL}
	r := &receiver{url: server.URL}

	failed := 0
	for i := range 1000 {
		id := fmt.Sprintf("01KBENCH%018d", i)
		switch status := s.post("/tenth/1", id); status {
		case http.StatusServiceUnavailable:
			failed++
			if again := s.post("/tenth/1", id); again != http.StatusNoContent {
				t.Fatalf("what failed once is answered %d the second time", again)
			}
		case http.StatusNoContent:
		default:
			t.Fatalf("answered %d", status)
		}
	}
	if failed < 60 || failed > 140 {
		t.Errorf("%d of a thousand failed, want a tenth", failed)
	}
	s.post("/ok/1", "01KBENCH000000000000000001")
	if status := s.post("/fail/1", "01KBENCH000000000000000001"); status != http.StatusServiceUnavailable {
		t.Errorf("what is dead answers %d", status)
	}
	report, err := r.report()
	if err != nil {
		t.Fatal(err)
	}
	if tenth := report["tenth"]; len(tenth.First) != 1000-failed || len(tenth.Again) != failed || tenth.Tries != 1000+failed {
		t.Errorf("tenth: %d at once, %d again, %d tries", len(tenth.First), len(tenth.Again), tenth.Tries)
	}
	if ok := report["ok"]; len(ok.First) != 1 || ok.First[0] < 1000 || ok.First[0] > 60_000 {
		t.Errorf("an event of a second ago took %v ms", ok.First)
	}
	if err := r.wait(1001, time.Second); err != nil {
		t.Error(err)
	}
	s.post("/ok/2", "01KBENCH000000000000000001") // another endpoint's
	if _, err := r.report(); err != nil {
		t.Error(err)
	}
	s.post("/ok/1", "01KBENCH000000000000000001")
	if _, err := r.report(); err == nil || !strings.Contains(err.Error(), "1 deliveries came twice to ok") {
		t.Errorf("what came twice: %v", err)
	}
	if handler.count.Load() != 1002 {
		t.Errorf("%d deliveries, counting none twice", handler.count.Load())
	}
	if err := r.reset(); err != nil {
		t.Fatal(err)
	}
	if report, err = r.report(); err != nil || len(report) != 0 {
		t.Errorf("after a reset: %v, %v", report, err)
	}
}

// Of a thousand endpoints fifty are dead, of those that share a discussion one at
// the most, and half of them refuse connections.
func TestTheDeadAreAmongTheLiving(t *testing.T) {
	count, refusing := 0, 0
	by := map[string]int{}
	for i := range manyEndpoints {
		if dead(i) {
			count++
			by[topic(i)]++
			if i/deadEvery%2 == 0 {
				refusing++
			}
		}
	}
	if count != 50 || refusing != 25 || len(by) != 50 {
		t.Errorf("%d are dead, %d refuse, in %d discussions", count, refusing, len(by))
	}
}

// A run in which not everything arrives measures nothing.
func TestTheEngineMustDeliver(t *testing.T) {
	for status, says := range map[int]string{http.StatusNoContent: "", http.StatusGone: "of 200 deliveries", http.StatusServiceUnavailable: "are to be tried again"} {
		var came atomic.Int64
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/swallowed" {
				fmt.Fprint(w, came.Load())
				return
			}
			came.Add(1)
			w.WriteHeader(status)
		}))
		defer server.Close()
		e, err := newEngine(&receiver{url: server.URL})
		if err != nil {
			t.Fatal(err)
		}
		_, err = e.deliver(2, 200)
		if says == "" && err != nil || says != "" && (err == nil || !strings.Contains(err.Error(), says)) {
			t.Errorf("a receiver that answers %d: %v", status, err)
		}
	}
}

// What hangs is counted until its sender goes.
func TestHangingIsCounted(t *testing.T) {
	handler := newReceiving()
	server := httptest.NewServer(handler)
	defer server.Close()
	r := &receiver{url: server.URL}
	hanging := func(want int) {
		t.Helper()
		for end := time.Now().Add(30 * time.Second); ; {
			if n, err := r.hanging(); err != nil || time.Now().After(end) {
				t.Fatalf("%d hang, want %d (%v)", n, want, err)
			} else if n == want {
				return
			}
		}
	}
	hanging(0)
	ctx, leave := context.WithCancel(t.Context())
	for range 3 {
		go func() {
			request, _ := http.NewRequestWithContext(ctx, http.MethodPost, server.URL+"/hang/1", strings.NewReader("{}"))
			if response, err := http.DefaultClient.Do(request); err == nil {
				_ = response.Body.Close()
				t.Error("what hangs was answered")
			}
		}()
	}
	hanging(3)
	leave()
	hanging(0)
}

// The filter that an endpoint is wished with is the events' own.
func TestAWishIsWhatTheRunnerReads(t *testing.T) {
	text, err := json.Marshal([]wish{{URL: "http://127.0.0.1:1/", Types: []string{"user.*"}, Filter: about("d_1")}, everything("http://127.0.0.1:2/")[0]})
	if err != nil {
		t.Fatal(err)
	}
	if want := `[{"url":"http://127.0.0.1:1/","types":["user.*"],"filter":{"data":{"discussion_id":["d_1"]}}},{"url":"http://127.0.0.1:2/"}]`; string(text) != want {
		t.Errorf("it is written %s\nwant %s", text, want)
	}
}
