// Package receiver is a webhook receiver for one's own machine: it verifies what
// comes with the official Standard Webhooks library, shows it, and misbehaves
// when it is told to. It keeps its own record of every request, so that tests can
// ask the receiving side whether anything was lost, doubled or overlapped.
package receiver

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

// Behaviour is how the receiver treats requests.
type Behaviour struct {
	FailRate   float64       // share of requests that fail, 0 to 1
	FailStatus int           // with which status; 500 where 0
	RetryAfter string        // sent with a failure; "" for none
	Slow       time.Duration // before every answer
}

// Webhook is one request or message, as it was received.
type Webhook struct {
	Via       string // http, or the broker's protocol
	Path      string // of the request; the protocol for a message
	ID        string
	Type      string
	Body      []byte
	Attempt   int // how often this id has come on this path, this time included
	Verified  bool
	Status    int // what it was answered
	Began     time.Time
	Took      time.Duration
	Duplicate bool // it had been answered with success before
}

// Counts sum up the receiver's record.
type Counts struct {
	Requests   int `json:"requests"`
	Events     int `json:"events"`     // distinct webhook-ids, by path
	Succeeded  int `json:"succeeded"`  // of which answered with success at least once
	Unverified int `json:"unverified"` // requests whose signature did not verify
	Overlaps   int `json:"overlaps"`   // requests that began while another of the same id was running
	Duplicates int `json:"duplicates"` // requests for an id that was answered with success before
}

// Receiver is an http.Handler. It is safe for concurrent use.
type Receiver struct {
	// Secrets returns the secrets that may have signed. It is asked again when
	// none of those known verifies.
	Secrets func() []string
	// Show is told of every webhook; nil shows nothing.
	Show func(Webhook)

	mu        sync.Mutex
	behaviour Behaviour
	random    *rand.Rand
	counts    Counts
	seen      map[identity]*seen
	verifiers map[string]*standardwebhooks.Webhook
}

// identity is what must not come twice: one event on one path, since several
// endpoints may point at one receiver.
type identity struct{ path, id string }

type seen struct {
	attempts, running int
	succeeded         bool
}

// New returns a receiver whose failures are chosen by the seed.
func New(seed uint64, b Behaviour) *Receiver {
	return &Receiver{
		Secrets:   func() []string { return nil },
		behaviour: b, random: rand.New(rand.NewPCG(seed, seed)),
		seen: map[identity]*seen{}, verifiers: map[string]*standardwebhooks.Webhook{},
	}
}

// Behave changes the receiver's behaviour from the next request on.
func (r *Receiver) Behave(b Behaviour) {
	r.mu.Lock()
	r.behaviour = b
	r.mu.Unlock()
}

// Behaviour returns how the receiver treats requests now.
func (r *Receiver) Behaviour() Behaviour {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.behaviour
}

// Counts returns the sums so far.
func (r *Receiver) Counts() Counts {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.counts
}

// ServeHTTP takes webhooks by POST, and answers GET with its counts.
func (r *Receiver) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	if request.Method == http.MethodGet {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(r.Counts())
		return
	}
	began := time.Now()
	body, err := io.ReadAll(http.MaxBytesReader(w, request.Body, 1<<20))
	if err != nil {
		http.Error(w, "the body could not be read", http.StatusBadRequest)
		return
	}
	hook := r.read("http", request.URL.Path, body, request.Header)
	hook.Began = began
	behaviour := r.begin(&hook)
	if behaviour.Slow > 0 {
		select {
		case <-time.After(behaviour.Slow):
		case <-request.Context().Done():
		}
	}
	r.end(&hook)
	hook.Took = time.Since(began)
	if hook.Status >= 300 && behaviour.RetryAfter != "" {
		w.Header().Set("Retry-After", behaviour.RetryAfter)
	}
	if r.Show != nil {
		r.Show(hook)
	}
	w.WriteHeader(hook.Status)
	if hook.Status >= 300 {
		fmt.Fprintln(w, http.StatusText(hook.Status))
	}
}

// Take records a message that a broker handed out, verified as a request is. A
// broker takes whatever comes: there is nothing to fail.
func (r *Receiver) Take(protocol string, body []byte, attributes map[string]string) {
	header := http.Header{}
	for name, value := range attributes {
		header.Set(name, value)
	}
	hook := r.read(protocol, protocol, body, header)
	hook.Began = time.Now()
	r.begin(&hook)
	if hook.Verified {
		hook.Status = http.StatusOK
	}
	r.end(&hook)
	if r.Show != nil {
		r.Show(hook)
	}
}

// read verifies what came.
func (r *Receiver) read(via, path string, body []byte, header http.Header) Webhook {
	hook := Webhook{Via: via, Path: path, ID: header.Get("webhook-id"), Body: body, Verified: r.verify(body, header)}
	var head struct {
		Event string `json:"event"`
	}
	if json.Unmarshal(body, &head) == nil {
		hook.Type = head.Event
	}
	return hook
}

// begin records that a request has begun, and returns how to treat it.
func (r *Receiver) begin(hook *Webhook) Behaviour {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.seen[identity{hook.Path, hook.ID}]
	if s == nil {
		s = &seen{}
		r.seen[identity{hook.Path, hook.ID}] = s
		r.counts.Events++
	}
	s.attempts++
	hook.Attempt = s.attempts
	r.counts.Requests++
	if s.running > 0 {
		r.counts.Overlaps++
	}
	s.running++
	if s.succeeded {
		hook.Duplicate = true
		r.counts.Duplicates++
	}
	if !hook.Verified {
		r.counts.Unverified++
	}
	b := r.behaviour
	switch {
	case !hook.Verified:
		hook.Status = http.StatusUnauthorized
	case r.random.Float64() < b.FailRate:
		hook.Status = b.FailStatus
		if hook.Status == 0 {
			hook.Status = http.StatusInternalServerError
		}
	default:
		hook.Status = http.StatusNoContent
	}
	return b
}

func (r *Receiver) end(hook *Webhook) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.seen[identity{hook.Path, hook.ID}]
	s.running--
	if hook.Status < 300 && !s.succeeded {
		s.succeeded = true
		r.counts.Succeeded++
	}
}

// verify asks the official library, with every secret that may have signed.
func (r *Receiver) verify(body []byte, header http.Header) bool {
	try := func() bool {
		r.mu.Lock()
		verifiers := make([]*standardwebhooks.Webhook, 0, len(r.verifiers))
		for _, v := range r.verifiers {
			verifiers = append(verifiers, v)
		}
		r.mu.Unlock()
		for _, v := range verifiers {
			if v.Verify(body, header) == nil {
				return true
			}
		}
		return false
	}
	if try() {
		return true
	}
	for _, secret := range r.Secrets() {
		v, err := standardwebhooks.NewWebhook(secret)
		if err != nil {
			continue // an Ed25519 key, which the library does not know
		}
		r.mu.Lock()
		r.verifiers[secret] = v
		r.mu.Unlock()
	}
	return try()
}

// ParseRate reads a share such as 30% or 0.3.
func ParseRate(text string) (float64, error) {
	number, percent := strings.CutSuffix(text, "%")
	var rate float64
	if _, err := fmt.Sscan(number, &rate); err != nil {
		return 0, errors.New("must be a share such as 30% or 0.3")
	}
	if percent {
		rate /= 100
	}
	if rate < 0 || rate > 1 {
		return 0, errors.New("must lie between 0% and 100%")
	}
	return rate, nil
}
