// Package receiver is a webhook receiver for development and tests. It verifies
// signatures with the official Standard Webhooks library, and fails or delays requests
// on demand. It counts requests independently of Tidings, so that tests can check for
// lost, duplicate and overlapping deliveries on the receiving side.
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

// Behaviour says how the receiver responds to verified requests.
type Behaviour struct {
	FailRate   float64       // share of requests that fail, 0 to 1
	FailStatus int           // status of failed requests; 0 is 500
	RetryAfter string        // Retry-After header of failed requests; "" for none
	Slow       time.Duration // delay before every response
}

// Webhook is a received request or broker message.
type Webhook struct {
	Via       string // protocol: http, sqs, eventbridge, pubsub or kafka
	Path      string // URL path of a request; the protocol of a message
	ID        string
	Type      string
	Body      []byte
	Attempt   int // number of requests with this id on this path so far, starting at 1
	Verified  bool
	Unsigned  bool // the protocol carries no signature
	Status    int  // HTTP status of the response
	Began     time.Time
	Took      time.Duration
	Duplicate bool // an earlier request with this id succeeded
}

// Counts are totals over all requests.
type Counts struct {
	Requests   int `json:"requests"`
	Events     int `json:"events"`     // distinct webhook-ids, by path
	Succeeded  int `json:"succeeded"`  // events with at least one successful response
	Unverified int `json:"unverified"` // requests whose signature did not verify
	Overlaps   int `json:"overlaps"`   // requests that began during another request with the same id
	Duplicates int `json:"duplicates"` // requests for an event that had succeeded already
}

// Receiver is an http.Handler. It is safe for concurrent use.
type Receiver struct {
	// Secrets returns the possible signing secrets. It is called again for a signature
	// that no known secret verifies.
	Secrets func() []string
	// OnWebhook is called for every webhook, before the response; nil ignores them.
	OnWebhook func(Webhook)

	mu        sync.Mutex
	behaviour Behaviour
	random    *rand.Rand
	counts    Counts
	events    map[eventKey]*eventState
	verifiers map[string]*standardwebhooks.Webhook
}

// eventKey identifies an event per path, since several endpoints may point at one
// receiver.
type eventKey struct{ path, id string }

type eventState struct {
	attempts, running int
	succeeded         bool
}

// New returns a receiver. The seed determines which requests fail.
func New(seed uint64, b Behaviour) *Receiver {
	return &Receiver{
		Secrets:   func() []string { return nil },
		behaviour: b, random: rand.New(rand.NewPCG(seed, seed)),
		events: map[eventKey]*eventState{}, verifiers: map[string]*standardwebhooks.Webhook{},
	}
}

// SetBehaviour changes the behaviour, starting with the next request.
func (r *Receiver) SetBehaviour(b Behaviour) {
	r.mu.Lock()
	r.behaviour = b
	r.mu.Unlock()
}

// Behaviour returns the current behaviour.
func (r *Receiver) Behaviour() Behaviour {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.behaviour
}

// Counts returns the current totals.
func (r *Receiver) Counts() Counts {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.counts
}

// ServeHTTP receives webhooks by POST and responds to GET with Counts as JSON.
func (r *Receiver) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	if request.Method == http.MethodGet {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(r.Counts())
		return
	}
	began := time.Now()
	body, err := io.ReadAll(http.MaxBytesReader(w, request.Body, 1<<20))
	if err != nil {
		http.Error(w, "cannot read the request body", http.StatusBadRequest)
		return
	}
	hook := r.parse("http", request.URL.Path, body, request.Header)
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
	if r.OnWebhook != nil {
		r.OnWebhook(hook)
	}
	w.WriteHeader(hook.Status)
	if hook.Status >= 300 {
		fmt.Fprintln(w, http.StatusText(hook.Status))
	}
}

// Record verifies and counts a message from a broker's consumer, where the attributes
// take the place of headers. Behaviour does not apply to messages.
func (r *Receiver) Record(protocol string, body []byte, attributes map[string]string) {
	header := http.Header{}
	for name, value := range attributes {
		header.Set(name, value)
	}
	hook := r.parse(protocol, protocol, body, header)
	hook.Began = time.Now()
	if attributes == nil {
		var head struct {
			ID string `json:"id"`
		}
		_ = json.Unmarshal(body, &head) // without an id, it is printed without one
		hook.Unsigned, hook.ID = true, head.ID
	}
	r.begin(&hook)
	if hook.Verified || hook.Unsigned {
		hook.Status = http.StatusOK
	}
	r.end(&hook)
	if r.OnWebhook != nil {
		r.OnWebhook(hook)
	}
}

// parse verifies a request or message and decodes its event type.
func (r *Receiver) parse(via, path string, body []byte, header http.Header) Webhook {
	hook := Webhook{Via: via, Path: path, ID: header.Get("webhook-id"), Body: body, Verified: r.verify(body, header)}
	var head struct {
		Event string `json:"event"`
	}
	if json.Unmarshal(body, &head) == nil {
		hook.Type = head.Event
	}
	return hook
}

// begin counts a request, chooses its status and returns the current behaviour.
func (r *Receiver) begin(hook *Webhook) Behaviour {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.events[eventKey{hook.Path, hook.ID}]
	if s == nil {
		s = &eventState{}
		r.events[eventKey{hook.Path, hook.ID}] = s
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
	if !hook.Verified && !hook.Unsigned {
		r.counts.Unverified++
	}
	b := r.behaviour
	switch {
	case !hook.Verified && !hook.Unsigned:
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
	s := r.events[eventKey{hook.Path, hook.ID}]
	s.running--
	if hook.Status < 300 && !s.succeeded {
		s.succeeded = true
		r.counts.Succeeded++
	}
}

// verify tries every known secret, then reloads the secrets and tries again.
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
			continue // the library does not support Ed25519 keys
		}
		r.mu.Lock()
		r.verifiers[secret] = v
		r.mu.Unlock()
	}
	return try()
}

// ParseRate parses a share such as 30% or 0.3.
func ParseRate(text string) (float64, error) {
	number, percent := strings.CutSuffix(text, "%")
	var rate float64
	if _, err := fmt.Sscan(number, &rate); err != nil {
		return 0, errors.New("must be a percentage or a fraction, such as 30% or 0.3")
	}
	if percent {
		rate /= 100
	}
	if rate < 0 || rate > 1 {
		return 0, errors.New("must be between 0% and 100%")
	}
	return rate, nil
}
