package health

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Credential is the SHA-256 of the bearer token for the report. The zero value denies
// every request.
type Credential [sha256.Size]byte

// ParseCredential parses a hash in hex; an empty text is the zero Credential.
func ParseCredential(text string) (c Credential, err error) {
	if text == "" {
		return c, nil
	}
	raw, err := hex.DecodeString(text)
	if err != nil || len(raw) != len(c) {
		return c, fmt.Errorf("HealthTokenSha256 must be a SHA-256 in hex (64 digits), as printed by `printf %%s TOKEN | sha256sum`")
	}
	copy(c[:], raw)
	return c, nil
}

// matches reports whether an Authorization header contains the token.
func (c Credential) matches(header string) bool {
	scheme, token, _ := strings.Cut(header, " ")
	sum := sha256.Sum256([]byte(token))
	return subtle.ConstantTimeCompare(sum[:], c[:]) == 1 && strings.EqualFold(scheme, "Bearer")
}

// Handler serves the function URL: GET / is public, GET /report and GET /report/days
// need the token.
func (h *Health) Handler(credential Credential) http.Handler {
	status := &cached[Status]{now: h.Now, keep: CacheTime, read: func(ctx context.Context) (Status, error) { return h.Status(ctx), nil }}
	report := &cached[Report]{now: h.Now, keep: CacheTime, read: h.Report}
	days := &cached[DaysReport]{now: h.Now, keep: CacheTime, read: func(ctx context.Context) (DaysReport, error) { return h.DaysReport(ctx, MaxDays) }}
	mux := http.NewServeMux()
	// private serves an answer to those who have the token.
	private := func(answer func(context.Context) (any, error)) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if credential == (Credential{}) {
				respondError(w, http.StatusForbidden, "the report is disabled: set the stack parameter HealthTokenSha256 to the SHA-256 of a token")
				return
			}
			if !credential.matches(r.Header.Get("Authorization")) {
				w.Header().Set("WWW-Authenticate", `Bearer realm="tidings"`)
				respondError(w, http.StatusUnauthorized, "missing or wrong token: send the header Authorization: Bearer TOKEN")
				return
			}
			now, err := answer(r.Context())
			if err != nil {
				h.Log.ErrorContext(r.Context(), "health.read_failed", "error", err.Error())
				respondError(w, http.StatusServiceUnavailable, unreadable)
				return
			}
			respond(w, http.StatusOK, now)
		}
	}
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		now, _ := status.get(r.Context())
		code := http.StatusOK
		if !now.Healthy {
			code = http.StatusServiceUnavailable
		}
		respond(w, code, now)
	})
	mux.HandleFunc("GET /report", private(func(ctx context.Context) (any, error) { return report.get(ctx) }))
	mux.HandleFunc("GET /report/days", private(func(ctx context.Context) (any, error) { return days.get(ctx) }))
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/", "/report", "/report/days":
			w.Header().Set("Allow", "GET, HEAD")
			respondError(w, http.StatusMethodNotAllowed, "method not allowed: use GET")
			return
		}
		respondError(w, http.StatusNotFound, "not found: the paths are /, /report and /report/days")
	})
	return mux
}

func respond(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	out := json.NewEncoder(w)
	out.SetIndent("", "  ")
	out.SetEscapeHTML(false)
	_ = out.Encode(v) // the client may have disconnected
}

func respondError(w http.ResponseWriter, status int, message string) {
	respond(w, status, map[string]string{"error": message})
}

// readTimeout limits the reads for one answer.
const readTimeout = 10 * time.Second

// cached keeps an answer for a time, and an error for CacheTime. Concurrent callers wait
// for one read.
type cached[T any] struct {
	read func(context.Context) (T, error)
	now  func() time.Time
	keep time.Duration

	mu    sync.Mutex
	value T
	err   error
	at    time.Time
}

func (c *cached[T]) get(ctx context.Context) (T, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	keep := c.keep
	if c.err != nil {
		keep = CacheTime
	}
	if now := c.now(); c.at.IsZero() || now.Sub(c.at) >= keep {
		// The first caller may disconnect, but the answer is for all callers.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), readTimeout)
		defer cancel()
		c.value, c.err = c.read(ctx)
		c.at = now
	}
	return c.value, c.err
}
