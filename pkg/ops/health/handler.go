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

// Credential is the SHA-256 of the token that opens the report. The zero value
// opens it to nobody.
type Credential [sha256.Size]byte

// ParseCredential reads a hash in hex; the empty text is the zero Credential.
func ParseCredential(text string) (c Credential, err error) {
	if text == "" {
		return c, nil
	}
	raw, err := hex.DecodeString(text)
	if err != nil || len(raw) != len(c) {
		return c, fmt.Errorf("the credential is not a SHA-256 in hex: 64 digits, as `printf %%s TOKEN | sha256sum` prints")
	}
	copy(c[:], raw)
	return c, nil
}

// opens tells whether a request's Authorization header holds the token.
func (c Credential) opens(header string) bool {
	scheme, token, _ := strings.Cut(header, " ")
	sum := sha256.Sum256([]byte(token))
	return subtle.ConstantTimeCompare(sum[:], c[:]) == 1 && strings.EqualFold(scheme, "Bearer")
}

// Handler serves the function URL: GET / for uptime services, GET /report for who
// has the credential.
func (h *Health) Handler(credential Credential) http.Handler {
	word := &cached[Word]{now: h.Now, read: func(ctx context.Context) (Word, error) { return h.Word(ctx), nil }}
	report := &cached[Report]{now: h.Now, read: h.Report}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		now, _ := word.get(r.Context())
		status := http.StatusOK
		if !now.Healthy {
			status = http.StatusServiceUnavailable
		}
		answer(w, status, now)
	})
	mux.HandleFunc("GET /report", func(w http.ResponseWriter, r *http.Request) {
		if credential == (Credential{}) {
			refuse(w, http.StatusForbidden, "no credential is set: give the stack's parameter HealthTokenSha256 the SHA-256 of a token of your own")
			return
		}
		if !credential.opens(r.Header.Get("Authorization")) {
			w.Header().Set("WWW-Authenticate", `Bearer realm="tidings"`)
			refuse(w, http.StatusUnauthorized, "the report needs the header Authorization: Bearer TOKEN")
			return
		}
		now, err := report.get(r.Context())
		if err != nil {
			h.Log.ErrorContext(r.Context(), "health.unreadable", "error", err.Error())
			refuse(w, http.StatusServiceUnavailable, "the deployment's state cannot be read; its log says why")
			return
		}
		answer(w, http.StatusOK, now)
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/" || r.URL.Path == "/report" {
			w.Header().Set("Allow", "GET, HEAD")
			refuse(w, http.StatusMethodNotAllowed, "ask with GET")
			return
		}
		refuse(w, http.StatusNotFound, "there is / and /report")
	})
	return mux
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	out := json.NewEncoder(w)
	out.SetIndent("", "  ")
	out.SetEscapeHTML(false)
	_ = out.Encode(v) // who asks may have gone
}

func refuse(w http.ResponseWriter, status int, message string) {
	answer(w, status, map[string]string{"error": message})
}

// readTime is how long an answer may be in the making.
const readTime = 10 * time.Second

// cached gives an answer again for CacheTime. Who asks while one is read waits for
// it, so a crowd reads once.
type cached[T any] struct {
	read func(context.Context) (T, error)
	now  func() time.Time

	mu    sync.Mutex
	value T
	err   error
	at    time.Time
}

func (c *cached[T]) get(ctx context.Context) (T, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := c.now(); c.at.IsZero() || now.Sub(c.at) >= CacheTime {
		// Who asked first may go; the answer is for the others, too.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), readTime)
		defer cancel()
		c.value, c.err = c.read(ctx)
		c.at = now
	}
	return c.value, c.err
}
