package receiver_test

import (
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidings-dev/tidings/pkg/local/receiver"
	"github.com/tidings-dev/tidings/pkg/signature"
)

const body = `{"event":"user.posted_comment"}`

func request(t *testing.T, url, id string, s signature.Secret) *http.Request {
	t.Helper()
	now := time.Now()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("webhook-id", id)
	r.Header.Set("webhook-timestamp", strconv.FormatInt(now.Unix(), 10))
	r.Header.Set("webhook-signature", signature.Sign([]signature.Secret{s}, id, now, []byte(body)))
	return r
}

func send(t *testing.T, url, id string, s signature.Secret) int {
	t.Helper()
	response, err := http.DefaultClient.Do(request(t, url, id, s))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	return response.StatusCode
}

func TestItKeepsTheRecordThatTestsAskFor(t *testing.T) {
	known, stranger := signature.NewSecret(), signature.NewSecret()
	r := receiver.New(1, receiver.Behaviour{})
	r.Secrets = func() []string { return []string{known.Reveal()} }
	var shown []receiver.Webhook
	r.OnWebhook = func(w receiver.Webhook) { shown = append(shown, w) }
	server := httptest.NewServer(r)
	defer server.Close()

	if got := send(t, server.URL, "a", known); got != 204 {
		t.Errorf("a good one is answered %d", got)
	}
	if got := send(t, server.URL, "b", stranger); got != 401 {
		t.Errorf("a stranger's is answered %d", got)
	}
	r.SetBehaviour(receiver.Behaviour{FailRate: 1, FailStatus: 503})
	if got := send(t, server.URL, "c", known); got != 503 {
		t.Errorf("while failing, answered %d", got)
	}
	r.SetBehaviour(receiver.Behaviour{})
	send(t, server.URL, "c", known)
	send(t, server.URL, "a", known)
	send(t, server.URL+"/another-endpoint", "a", known) // is no duplicate
	want := receiver.Counts{Requests: 6, Events: 4, Succeeded: 3, Unverified: 1, Duplicates: 1}
	if got := r.Counts(); got != want {
		t.Errorf("counts = %+v, want %+v", got, want)
	}
	if len(shown) != 6 || shown[3].Attempt != 2 || !shown[4].Duplicate || shown[0].Type != "user.posted_comment" || shown[1].Verified {
		t.Errorf("shown %+v", shown)
	}
	response, err := http.Get(server.URL)
	if err != nil || response.StatusCode != 200 {
		t.Errorf("GET: %v, %v", response, err)
	}
}

func TestItNoticesOverlappingRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := signature.NewSecret()
		r := receiver.New(1, receiver.Behaviour{Slow: 200 * time.Millisecond})
		r.Secrets = func() []string { return []string{s.Reveal()} }
		var both sync.WaitGroup
		for range 2 {
			both.Go(func() { r.ServeHTTP(httptest.NewRecorder(), request(t, "http://receiver", "a", s)) })
		}
		both.Wait()
		if got := r.Counts(); got.Overlaps != 1 {
			t.Errorf("counts = %+v, want one overlap", got)
		}
	})
}

func TestParseRate(t *testing.T) {
	for text, want := range map[string]float64{"30%": 0.3, "0.3": 0.3, "0%": 0, "100%": 1, "1": 1} {
		if got, err := receiver.ParseRate(text); err != nil || got != want {
			t.Errorf("ParseRate(%q) = %g, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "x", "101%", "-1", "2"} {
		if _, err := receiver.ParseRate(text); err == nil {
			t.Errorf("ParseRate(%q) is accepted", text)
		}
	}
}
