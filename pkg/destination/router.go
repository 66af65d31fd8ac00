package destination

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/endpoint"
)

// MaxOpenAdapters is how many adapters a deployed router keeps open.
const MaxOpenAdapters = 1000

// Target is the destination of one endpoint.
type Target struct {
	Tenant  string
	ID      string // the endpoint's
	Version int    // of the endpoint, so that an edited one gets a new adapter
	URL     string
	// RoleARN is the role that the adapter assumes; "" is the function's own.
	RoleARN string
	// Credentials names the secret that holds the destination's user name and
	// password; "" is none. It is never the secret itself.
	Credentials string
	// Ordered asks for order within a subject where that is a choice.
	Ordered bool
}

// TargetOf is an endpoint's destination.
func TargetOf(e endpoint.Endpoint) Target {
	return Target{
		Tenant: e.Tenant, ID: e.ID, Version: e.Version, URL: e.URL,
		RoleARN: e.RoleARN, Credentials: e.Credentials, Ordered: e.Ordered,
	}
}

// Protocol is the protocol that the URL's scheme chooses: http (for https too),
// sqs, pubsub, kafka.
func (t Target) Protocol() string {
	scheme, _, _ := strings.Cut(t.URL, ":")
	scheme = strings.ToLower(scheme)
	if scheme == "https" {
		return "http"
	}
	return scheme
}

// Kind is one protocol.
type Kind struct {
	Schemes []string
	// Form shows how a URL of this kind looks.
	Form string
	// Check refuses a target that can never work, with a sentence for its owner.
	// It connects to nothing.
	Check func(Target, *url.URL) error
	// Open makes an adapter. It connects to nothing either: that is for the
	// first Deliver.
	Open func(Target, *url.URL) (Adapter, error)
	// Close ends what the kind's adapters shared, after the last of them; nil
	// where they share nothing.
	Close func() error
}

// Router chooses the adapter by the URL's scheme, makes it at its first use,
// and closes the least recently used when there are too many. It is safe for
// concurrent use.
type Router struct {
	kinds map[string]Kind
	forms []string
	close []func() error
	limit int

	mu   sync.Mutex
	open *simplelru.LRU[Target, *openAdapter]
}

// openAdapter counts the attempts that use an adapter. An evicted adapter is
// closed when the last of them has ended.
type openAdapter struct {
	once    sync.Once
	adapter Adapter
	err     error

	// Guarded by the router's mu.
	users   int
	evicted bool
}

// NewRouter returns a router for the given protocols. It keeps at most limit
// adapters open; limit must be at least 1.
func NewRouter(limit int, kinds ...Kind) *Router {
	r := &Router{kinds: map[string]Kind{}, limit: limit}
	for _, k := range kinds {
		for _, scheme := range k.Schemes {
			r.kinds[scheme] = k
		}
		r.forms = append(r.forms, k.Form)
		if k.Close != nil {
			r.close = append(r.close, k.Close)
		}
	}
	open, err := simplelru.NewLRU[Target, *openAdapter](limit, nil)
	if err != nil {
		panic(err) // only for a limit below 1
	}
	r.open = open
	return r
}

// Check refuses a target that no adapter can serve, with a sentence that shows
// the right form. It repeats nothing of the URL that may be secret.
func (r *Router) Check(t Target) error {
	_, _, err := r.parse(t)
	return err
}

func (r *Router) parse(t Target) (Kind, *url.URL, error) {
	u, err := url.Parse(t.URL)
	if err != nil {
		// url.Parse repeats the whole URL; its cause is enough.
		var wrong *url.Error
		if errors.As(err, &wrong) {
			err = wrong.Err
		}
		return Kind{}, nil, fmt.Errorf("url is malformed (%w); the forms are %s", err, strings.Join(r.forms, ", "))
	}
	k, ok := r.kinds[strings.ToLower(u.Scheme)]
	if !ok {
		return Kind{}, nil, fmt.Errorf("url has scheme %q, which is none of the known ones; the forms are %s", u.Scheme, strings.Join(r.forms, ", "))
	}
	if err := k.Check(t, u); err != nil {
		return Kind{}, nil, fmt.Errorf("url: %w (the form is %s)", err, k.Form)
	}
	return k, u, nil
}

// Deliver makes one attempt through the target's adapter.
func (r *Router) Deliver(ctx context.Context, t Target, m Message) delivery.Outcome {
	s := r.acquire(t)
	defer r.release(s)
	s.once.Do(func() {
		var k Kind
		var u *url.URL
		if k, u, s.err = r.parse(t); s.err == nil {
			s.adapter, s.err = k.Open(t, u)
		}
	})
	if s.err != nil {
		return delivery.Outcome{Class: delivery.Invalid, Permanent: true, Error: "the endpoint cannot work as it is set up: " + s.err.Error()}
	}
	return s.adapter.Deliver(ctx, m)
}

func (r *Router) acquire(t Target) *openAdapter {
	r.mu.Lock()
	s, ok := r.open.Get(t)
	var evicted *openAdapter
	if !ok {
		s = &openAdapter{}
		if r.open.Len() == r.limit {
			_, evicted, _ = r.open.RemoveOldest()
		}
		r.open.Add(t, s)
	}
	s.users++
	r.mu.Unlock()
	if evicted != nil {
		r.evict(evicted)
	}
	return s
}

func (r *Router) evict(s *openAdapter) {
	r.mu.Lock()
	s.evicted = true
	idle := s.users == 0
	r.mu.Unlock()
	if idle {
		s.close()
	}
}

func (r *Router) release(s *openAdapter) {
	r.mu.Lock()
	s.users--
	last := s.evicted && s.users == 0
	r.mu.Unlock()
	if last {
		s.close()
	}
}

// close ends an adapter that nobody uses or will use any more.
func (s *openAdapter) close() {
	if s.adapter != nil {
		_ = s.adapter.Close() // its connections are of no use to anybody now
	}
}

// Close ends all adapters, each when its last attempt has ended, and what they
// shared. The router may not be used after it.
func (r *Router) Close() error {
	for {
		r.mu.Lock()
		_, s, ok := r.open.RemoveOldest()
		r.mu.Unlock()
		if !ok {
			break
		}
		r.evict(s)
	}
	var errs []error
	for _, end := range r.close {
		errs = append(errs, end())
	}
	return errors.Join(errs...)
}
