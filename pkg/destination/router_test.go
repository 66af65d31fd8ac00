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
