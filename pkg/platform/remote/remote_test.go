package remote_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/pkg/platform"
	"github.com/tidings-dev/tidings/pkg/platform/remote"
	"github.com/tidings-dev/tidings/pkg/signature"
	"github.com/tidings-dev/tidings/pkg/store/memory"
	"github.com/tidings-dev/tidings/test/destinationtest"
	"github.com/tidings-dev/tidings/test/storetest"
)

func secretOf(s signature.Secret) func(context.Context) (signature.Secret, error) {
	return func(context.Context) (signature.Secret, error) { return s, nil }
}

// throughTheEndpoint is a store of which the console's calls go through HTTP.
type throughTheEndpoint struct {
	*remote.Client
	store *memory.Store
}

func (e throughTheEndpoint) PutRecord(ctx context.Context, r platform.Record) error {
	return e.store.PutRecord(ctx, r)
}

func (e throughTheEndpoint) DeleteRecord(ctx context.Context, k platform.Key) error {
	return e.store.DeleteRecord(ctx, k)
}

// invalidCursors makes the store's errors of cursors those of a remote.Store.
type invalidCursors struct{ *memory.Store }

func (s invalidCursors) ListDiscussions(ctx context.Context, q platform.Query) (platform.Page, error) {
	page, err := s.Store.ListDiscussions(ctx, q)
	if err != nil {
		err = fmt.Errorf("%w: %w", remote.ErrInvalid, err)
	}
	return page, err
}

func serve(t *testing.T, store *memory.Store, secret signature.Secret) string {
	t.Helper()
	web := httptest.NewServer(&remote.Handler{Store: invalidCursors{store}, Secret: secret, Now: time.Now, Failed: func(err error) { t.Error(err) }})
	t.Cleanup(web.Close)
	return web.URL
}

func TestTheEndpointKeepsTheContractOfAStore(t *testing.T) {
	storetest.RunDiscussions(t, func(t *testing.T) storetest.Discussions {
		store, secret := memory.New(time.Now), signature.NewSecret()
		return throughTheEndpoint{&remote.Client{URL: serve(t, store, secret), Secret: secretOf(secret), Now: time.Now}, store}
	})
}

func TestUnsignedAndOldRequestsChangeNothing(t *testing.T) {
	now := time.Now().UTC().Truncate(time.Millisecond)
	d := platform.Discussion{Common: platform.Common{Tenant: "default"}, ID: "d", Status: platform.Open, ExpiresAt: now.Add(time.Hour)}
	store, secret := memory.New(time.Now), signature.NewSecret()
	if err := store.PutRecord(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	url := serve(t, store, secret)
	closing := platform.Closing{Tenant: "default", ID: "d", Reason: platform.ByHand, Login: "console:ada", At: now}
	for name, c := range map[string]*remote.Client{
		"another secret": {URL: url, Secret: secretOf(signature.NewSecret()), Now: time.Now},
		"too old":        {URL: url, Secret: secretOf(secret), Now: func() time.Time { return time.Now().Add(-6 * time.Minute) }},
		"too early":      {URL: url, Secret: secretOf(secret), Now: func() time.Time { return time.Now().Add(6 * time.Minute) }},
	} {
		if _, err := c.CloseDiscussion(t.Context(), closing); err == nil || !strings.Contains(err.Error(), "401") {
			t.Errorf("%s: %v, want 401", name, err)
		}
	}
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(`{"action":"close","tenant":"default","id":"d","reason":"by_hand"}`))
		if err != nil {
			t.Fatal(err)
		}
		response, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		if response.StatusCode != http.StatusUnauthorized && response.StatusCode != http.StatusBadRequest {
			t.Errorf("%s without a signature: %s", method, response.Status)
		}
	}
	if got, err := store.GetDiscussion(t.Context(), "default", "d"); err != nil || got != d {
		t.Errorf("the discussion is %+v, %v", got, err)
	}
}

func TestResponsesThatAreNotThePlatformsAreErrors(t *testing.T) {
	secret := signature.NewSecret()
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("a redirect was followed") }))
	defer elsewhere.Close()
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		says   string
	}{
		"a page": {func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>")) }, "which is not the JSON"},
		"a redirect": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, elsewhere.URL, http.StatusTemporaryRedirect)
		}, "307"},
		"no discussion": {func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("{}")) }, "has no discussion"},
		"an unknown error": {func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(500)
			_, _ = w.Write([]byte(`{"code":"failed","message":"down"}`))
		}, "500 Internal Server Error: down"},
	} {
		web := httptest.NewServer(c.answer)
		_, err := (&remote.Client{URL: web.URL, Secret: secretOf(secret), Now: time.Now}).GetDiscussion(t.Context(), "default", "d")
		if err == nil || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), secret.Reveal()) || errors.Is(err, platform.ErrNotFound) {
			t.Errorf("%s: %v, want %q", name, err, c.says)
		}
		web.Close()
	}
}

func TestAPlatformThatNeverEndsItsResponseIsBounded(t *testing.T) {
	for name, serve := range destinationtest.EndlessResponses(" ") {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(serve)
			defer server.Close()
			c := &remote.Client{URL: server.URL, Secret: secretOf(signature.NewSecret()), Now: time.Now, HTTP: &http.Client{Timeout: 300 * time.Millisecond}}
			began := time.Now()
			_, err := c.GetDiscussion(t.Context(), "t", "d")
			if took := time.Since(began); err == nil || took > 30*time.Second {
				t.Errorf("%v after %s", err, took)
			}
		})
	}
}
