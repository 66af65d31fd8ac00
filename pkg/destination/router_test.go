package destination_test

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/destination"
)

// counted is an adapter that detects use after Close.
type counted struct {
	running, closed atomic.Int32
	misused         *atomic.Bool
}

func (c *counted) Deliver(context.Context, destination.Message) delivery.Outcome {
	c.running.Add(1)
	defer c.running.Add(-1)
	if c.closed.Load() > 0 {
		c.misused.Store(true)
	}
	return delivery.Outcome{Class: delivery.Success}
}

func (c *counted) Close() error {
	if c.running.Load() > 0 || c.closed.Add(1) > 1 {
		c.misused.Store(true)
	}
	return nil
}

func kind(open func() (destination.Adapter, error)) destination.Kind {
	return destination.Kind{
		Schemes: []string{"test"}, Form: "test://host",
		Check: func(_ destination.Target, u *url.URL) error {
			if u.Host == "" {
				return errors.New("the host is missing")
			}
			return nil
		},
		Open: func(destination.Target, *url.URL) (destination.Adapter, error) { return open() },
	}
}

func TestCheckErrorShowsTheURLFormat(t *testing.T) {
	r := destination.NewRouter(1, kind(nil))
	for _, c := range []struct {
		url  string
		want []string // in the error; nil for none
	}{
		{"test://host", nil},
		{"TEST://host", nil},
		{"gopher://host", []string{`"gopher"`, "test://host"}},
		{"host", []string{`""`, "test://host"}},
		{"test:///path", []string{"host is missing", "test://host"}},
		{"test://user:hunter2@ho st", []string{"malformed", "test://host"}},
	} {
		err := r.Check(destination.Target{URL: c.url})
		if (err != nil) != (c.want != nil) {
			t.Errorf("Check(%q) = %v", c.url, err)
		}
		for _, part := range c.want {
			if err != nil && !strings.Contains(err.Error(), part) {
				t.Errorf("Check(%q) = %q, want it to say %q", c.url, err, part)
			}
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("Check(%q) repeats the password", c.url)
		}
	}
}

func TestInvalidSettingsFailPermanently(t *testing.T) {
	r := destination.NewRouter(10, kind(func() (destination.Adapter, error) { return nil, errors.New("the credential cannot be read") }))
	for _, u := range []string{"gopher://x", "test:///", "test://host"} {
		o := r.Deliver(t.Context(), destination.Target{URL: u}, destination.Message{})
		if o.Class != delivery.Invalid || !o.Permanent || o.Error == "" {
			t.Errorf("%s: %+v", u, o)
		}
	}
}

func TestAdaptersAreOpenedOnceAndClosedWhenUnused(t *testing.T) {
	var misused atomic.Bool
	var mu sync.Mutex
	var opened []*counted
	r := destination.NewRouter(3, kind(func() (destination.Adapter, error) {
		mu.Lock()
		defer mu.Unlock()
		opened = append(opened, &counted{misused: &misused})
		return opened[len(opened)-1], nil
	}))
	// Concurrent deliveries to one target share one adapter.
	var all sync.WaitGroup
	for range 64 {
		all.Go(func() { r.Deliver(t.Context(), destination.Target{ID: "a", URL: "test://a"}, destination.Message{}) })
	}
	all.Wait()
	if len(opened) != 1 {
		t.Errorf("%d adapters for one target", len(opened))
	}
	// An edited endpoint gets a new adapter.
	r.Deliver(t.Context(), destination.Target{ID: "a", Version: 2, URL: "test://a"}, destination.Message{})
	if len(opened) != 2 {
		t.Errorf("%d adapters after an edit, want 2", len(opened))
	}
	// With more targets than the limit, evicted adapters are closed, but not while in use.
	for i := range 64 {
		all.Go(func() {
			for j := range 200 {
				r.Deliver(t.Context(), destination.Target{ID: fmt.Sprint((i + j) % 10), URL: "test://a"}, destination.Message{})
			}
		})
	}
	all.Wait()
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if misused.Load() {
		t.Error("an adapter was used after Close, closed in use, or closed twice")
	}
	for i, a := range opened {
		if a.closed.Load() != 1 {
			t.Errorf("adapter %d of %d was closed %d times", i, len(opened), a.closed.Load())
		}
	}
}

// stuckAdapter ignores its context until it is closed.
type stuckAdapter struct{ closed chan struct{} }

func (a stuckAdapter) Deliver(context.Context, destination.Message) delivery.Outcome {
	<-a.closed
	return delivery.Outcome{Class: delivery.Success}
}

func (a stuckAdapter) Close() error {
	close(a.closed)
	return nil
}

func TestAnAttemptEndsWhateverItsAdapterDoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		opened := 0
		r := destination.NewRouter(1, destination.Kind{
			Schemes: []string{"stuck"}, Form: "stuck://x", Check: func(destination.Target, *url.URL) error { return nil },
			Open: func(destination.Target, *url.URL) (destination.Adapter, error) {
				opened++
				return stuckAdapter{closed: make(chan struct{})}, nil
			},
		})
		for n := 1; n <= 2; n++ {
			began := time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			o := r.Deliver(ctx, destination.Target{URL: "stuck://x"}, destination.Message{})
			cancel()
			if took := time.Since(began); took > 1250*time.Millisecond || o.Class != delivery.Timeout || o.Permanent {
				t.Errorf("attempt %d: %+v after %s", n, o, took)
			}
			synctest.Wait() // the abandoned attempt has ended, because its adapter was closed
			if opened != n {
				t.Errorf("%d adapters for %d attempts: an abandoned one was used again", opened, n)
			}
		}
		_ = r.Close()
	})
}

type panickingAdapter struct{}

func (panickingAdapter) Deliver(context.Context, destination.Message) delivery.Outcome {
	panic("defect")
}
func (panickingAdapter) Close() error { return nil }

func TestAPanicReachesTheCaller(t *testing.T) {
	r := destination.NewRouter(1, destination.Kind{
		Schemes: []string{"x"}, Check: func(destination.Target, *url.URL) error { return nil },
		Open: func(destination.Target, *url.URL) (destination.Adapter, error) { return panickingAdapter{}, nil },
	})
	defer func() {
		if p := recover(); p == nil || !strings.Contains(fmt.Sprint(p), "defect") || !strings.Contains(fmt.Sprint(p), "panickingAdapter") {
			t.Errorf("recovered %v, want the panic with its stack", p)
		}
	}()
	r.Deliver(t.Context(), destination.Target{URL: "x://y"}, destination.Message{})
	t.Error("Deliver returned")
}

// Such characters come from copying. net/http would send them as they are, or encoded.
func TestCheckRefusesWhiteSpaceInURLs(t *testing.T) {
	r := destination.NewRouter(1, kind(nil))
	for url, ok := range map[string]bool{
		"test://host/a%20b?c=d+e": true, "test://host/\u00fc": true,
		"test://host/x?a b": false, "test://host/x ": false, " test://host/x": false, "test://host/x\u00a0": false, "test://host/x\n": false, "test://host/\tx": false,
		"test://host/x\u200b": false, "test://host/\ufeffx": false, "test://host/x#a b": false, "test://host/\xff": false, "test://host/\u2028": false,
	} {
		err := r.Check(destination.Target{URL: url})
		if (err == nil) != ok || err != nil && !strings.Contains(err.Error(), "white space or an invisible character at byte ") {
			t.Errorf("%q: %v", url, err)
		}
	}
}
