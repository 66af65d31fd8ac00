//go:build rig

package deploy_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

// request is what the receiver got.
type request struct {
	at       time.Time
	event    string // type
	id       string // webhook-id
	verified bool
	status   int
	body     string
}

// receiver receives webhooks, by path, and Slack messages at /slack.
type receiver struct {
	url string

	mu      sync.Mutex
	status  map[string]int    // by path; 204 otherwise
	secrets map[string]string // by path
	got     map[string][]request
}

func newReceiver(t *testing.T) *receiver {
	r := &receiver{status: map[string]int{}, secrets: map[string]string{}, got: map[string][]request{}}
	server := httptest.NewServer(r)
	t.Cleanup(server.Close)
	r.url = server.URL
	return r
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	body, err := io.ReadAll(q.Body)
	if err != nil {
		return // the sender is gone
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	got := request{at: time.Now(), id: q.Header.Get("webhook-id"), status: r.status[q.URL.Path], body: string(body)}
	if got.status == 0 {
		got.status = http.StatusNoContent
	}
	if q.URL.Path == "/slack" {
		got.status = http.StatusOK
	}
	var head struct {
		Event string `json:"event"`
	}
	if json.Unmarshal(body, &head) == nil {
		got.event = head.Event
	}
	if verifier, err := standardwebhooks.NewWebhook(r.secrets[q.URL.Path]); err == nil {
		got.verified = verifier.Verify(body, q.Header) == nil
	}
	r.got[q.URL.Path] = append(r.got[q.URL.Path], got)
	w.WriteHeader(got.status)
	if got.status == http.StatusOK {
		_, _ = io.WriteString(w, "ok")
	}
}

// answer sets the status of later answers at a path.
func (r *receiver) answer(path string, status int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.status[path] = status
}

func (r *receiver) know(path, secret string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.secrets[path] = secret
}

// requests returns those at a path so far; with an event type, of that type only.
func (r *receiver) requests(path, event string) (list []request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, q := range r.got[path] {
		if event == "" || q.event == event {
			list = append(list, q)
		}
	}
	return list
}

// ids returns the distinct ids of the verified webhooks that were accepted at a path; with
// an event type, of that type only.
func (r *receiver) ids(path, event string) (list []string) {
	for _, q := range r.requests(path, event) {
		if q.verified && q.status < 300 && !slices.Contains(list, q.id) {
			list = append(list, q.id)
		}
	}
	return list
}
