package destination

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/endpoint"
)

// MaxOpenAdapters is the number of adapters that a deployed router keeps open.
const MaxOpenAdapters = 1000

// Target is the destination of one endpoint.
type Target struct {
	Tenant  string
	ID      string // endpoint id
	Version int    // endpoint version, so that an edited endpoint gets a new adapter
	URL     string
	// RoleARN is the IAM role that the adapter assumes. If empty, the adapter
	// uses the function's role.
	RoleARN string
	// Credentials is the name of the secret with the destination's user name and
	// password, not the secret itself. Empty means none.
	Credentials string
	// Auth is how deliveries authenticate besides the signature; nil means not at all. The
	// endpoint's version stands for it: it is not compared.
	Auth *endpoint.Auth
	// Format is the endpoint's, Method that of the HTTP request and ContentType the media type
	// of the body, each empty for the default.
	Format              endpoint.Format
	Method, ContentType string
	// Ordered requests ordering by subject on protocols where it is optional.
	Ordered bool
}

// TargetOf returns the destination of an endpoint.
func TargetOf(e endpoint.Endpoint) Target {
	return Target{
		Tenant: e.Tenant, ID: e.ID, Version: e.Version, URL: e.URL,
		RoleARN: e.RoleARN, Credentials: e.Credentials, Auth: e.Auth, Ordered: e.Ordered,
		Format: e.Shape.Format, Method: e.Shape.Method, ContentType: e.Shape.ContentType,
	}
}

// Protocol returns the protocol of the URL's scheme: http (also for https), sqs,
// eventbridge, pubsub or kafka.
func (t Target) Protocol() string {
	scheme, _, _ := strings.Cut(t.URL, ":")
	scheme = strings.ToLower(scheme)
	if scheme == "https" {
		return "http"
	}
	return scheme
}

// key is the target without what its version stands for: each read of an endpoint has
// another pointer.
func (t Target) key() Target {
	t.Auth = nil
	return t
}

// FieldError is an error of Kind.Check about another field than the URL.
type FieldError struct {
	Field string // such as auth.oauth2
	Err   error
}

func (e *FieldError) Error() string { return e.Field + ": " + e.Err.Error() }

// Kind describes one protocol to a Router.
type Kind struct {
	Schemes []string
	// Form is the URL format, shown in errors.
	Form string
	// Check validates a target without connecting. Its error is shown to the
	// endpoint's owner.
	Check func(Target, *url.URL) error
	// Open returns an adapter. It must not connect: the first Deliver does.
	Open func(Target, *url.URL) (Adapter, error)
	// Close closes what the adapters share, after all of them are closed. May be nil.
	Close func() error
}

// Router selects the adapter by the URL's scheme. It opens adapters on first use
// and closes the least recently used above its limit. It is safe for concurrent
// use.
type Router struct {
	kinds map[string]Kind
	forms []string
	close []func() error
	limit int

	mu   sync.Mutex
	open *simplelru.LRU[Target, *openAdapter] // by key

	work   chan *attempt // to idle workers
	idle   atomic.Int64  // number of idle workers
	closed chan struct{}

	closeOnce sync.Once
}

// openAdapter counts the attempts that use an adapter. An evicted adapter is
// closed when its last attempt has ended.
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
	r := &Router{kinds: map[string]Kind{}, limit: limit, work: make(chan *attempt), closed: make(chan struct{})}
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

// Check validates a target without connecting. Its error shows the expected URL
// format and contains no part of the URL that may be secret.
func (r *Router) Check(t Target) error {
	for at, c := range t.URL {
		if unicode.IsSpace(c) || !unicode.IsGraphic(c) || c == utf8.RuneError {
			return fmt.Errorf("url is malformed (white space or an invisible character at byte %d: remove it, or write %%20 for a blank in a path or a query); supported formats: %s", at, strings.Join(r.forms, ", "))
		}
	}
	_, _, err := r.parse(t)
	return err
}

func (r *Router) parse(t Target) (Kind, *url.URL, error) {
	u, err := url.Parse(t.URL)
	if err != nil {
		// The url.Error would repeat the URL, with a password if it has one.
		var wrong *url.Error
		if errors.As(err, &wrong) {
			err = wrong.Err
		}
		return Kind{}, nil, fmt.Errorf("url is malformed (%w); supported formats: %s", err, strings.Join(r.forms, ", "))
	}
	k, ok := r.kinds[strings.ToLower(u.Scheme)]
	if !ok {
		return Kind{}, nil, fmt.Errorf("url has the unsupported scheme %q; supported formats: %s", u.Scheme, strings.Join(r.forms, ", "))
	}
	if t.Method != "" && t.Protocol() != "http" {
		return Kind{}, nil, fmt.Errorf("method applies to HTTP, not to %s://", strings.ToLower(u.Scheme))
	}
	if t.Auth != nil && t.Protocol() != "http" {
		return Kind{}, nil, fmt.Errorf("auth applies to HTTP, not to %s://", strings.ToLower(u.Scheme))
	}
	var field *FieldError
	if err := k.Check(t, u); errors.As(err, &field) {
		return Kind{}, nil, field
	} else if err != nil {
		return Kind{}, nil, fmt.Errorf("url: %w (format: %s)", err, k.Form)
	}
	return k, u, nil
}

// grace is the time after its deadline in which an attempt may still return by itself.
const grace = 250 * time.Millisecond

// Deliver makes one attempt through the target's adapter. It returns when the context
// has ended and grace has passed, whatever the adapter does: it then abandons the attempt
// and closes the adapter, and later attempts use a new one.
func (r *Router) Deliver(ctx context.Context, t Target, m Message) delivery.Outcome {
	a := &attempt{ctx: ctx, target: t, message: m, adapter: r.acquire(t), done: make(chan struct{})}
	select {
	case r.work <- a: // a goroutine that waits for work, with a stack that has grown
	default:
		go r.worker(a)
	}
	select {
	case <-a.done:
	case <-ctx.Done():
		wait := time.NewTimer(grace)
		defer wait.Stop()
		select {
		case <-a.done:
		case <-wait.C:
			r.abandon(t, a.adapter)
			return delivery.Outcome{Class: delivery.Timeout, Error: "timeout: the attempt did not end at its deadline and was abandoned"}
		}
	}
	if a.panicked != nil {
		panic(fmt.Sprintf("%v\n%s", a.panicked, a.stack)) // in the goroutine of the caller, who can recover
	}
	return a.outcome
}

// attempt is one attempt, made by a worker. The results are valid once done is closed.
type attempt struct {
	ctx     context.Context
	target  Target
	message Message
	adapter *openAdapter

	done     chan struct{}
	outcome  delivery.Outcome
	panicked any
	stack    []byte
}

// maxIdleWorkers bounds the goroutines that wait for an attempt to make.
const maxIdleWorkers = 256

// worker makes attempts until the router is closed or enough workers are idle. Starting a
// goroutine for each attempt takes 15 % more CPU per delivery, because its stack grows anew
// (`go run ./test/bench -only engine`).
func (r *Router) worker(a *attempt) {
	for {
		r.make(a)
		if r.idle.Add(1) > maxIdleWorkers {
			r.idle.Add(-1)
			return
		}
		select {
		case a = <-r.work:
			r.idle.Add(-1)
		case <-r.closed:
			r.idle.Add(-1)
			return
		}
	}
}

func (r *Router) make(a *attempt) {
	defer func() {
		if a.panicked = recover(); a.panicked != nil {
			a.stack = debug.Stack()
		}
		r.release(a.adapter)
		close(a.done)
	}()
	GrowStack(0)
	a.outcome = r.deliver(a.ctx, a.adapter, a.target, a.message)
}

// GrowStack grows a new goroutine's stack to what an attempt needs. Without it, the
// runtime copies the stack several times on the way down into net/http or an SDK: in
// `go run ./test/bench -only engine`, a delivery then takes 5 to 15 % more CPU. Any i will
// do.
//
//go:noinline
func GrowStack(i int) byte {
	var frame [8 << 10]byte
	return frame[i%len(frame)] // keeps the compiler from removing the frame
}

// abandon closes an adapter with an attempt that does not end, so that its connections
// end, and makes later attempts open a new one.
func (r *Router) abandon(t Target, s *openAdapter) {
	key := t.key()
	r.mu.Lock()
	if current, ok := r.open.Peek(key); ok && current == s {
		r.open.Remove(key)
	}
	r.mu.Unlock()
	// An adapter that ignores its context may also block here.
	go func() {
		s.once.Do(func() { s.err = errAbandoned })
		s.close()
	}()
}

var errAbandoned = errors.New("the attempt that opened the adapter was abandoned")

func (r *Router) deliver(ctx context.Context, s *openAdapter, t Target, m Message) delivery.Outcome {
	s.once.Do(func() {
		var k Kind
		var u *url.URL
		if k, u, s.err = r.parse(t); s.err == nil {
			s.adapter, s.err = k.Open(t, u)
		}
	})
	if s.err != nil {
		return delivery.Outcome{Class: delivery.Invalid, Permanent: true, Error: "invalid endpoint settings: " + s.err.Error()}
	}
	return s.adapter.Deliver(ctx, m)
}

func (r *Router) acquire(t Target) *openAdapter {
	key := t.key()
	r.mu.Lock()
	s, ok := r.open.Get(key)
	var evicted *openAdapter
	if !ok {
		s = &openAdapter{}
		if r.open.Len() == r.limit {
			_, evicted, _ = r.open.RemoveOldest()
		}
		r.open.Add(key, s)
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

func (s *openAdapter) close() {
	if s.adapter != nil {
		_ = s.adapter.Close() // no attempt uses it: there is nobody to report an error to
	}
}

// Close closes all adapters, each after its last attempt, and what they share.
// The router must not be used afterwards.
func (r *Router) Close() error {
	r.closeOnce.Do(func() { close(r.closed) })
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
