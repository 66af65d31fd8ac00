// Package console is the page from which people run Tidings, and the JSON API
// beside it: endpoints, deliveries, events, circuits, discussions, and who
// changed what. Everything it needs is embedded in the binary.
//
// It promises that nobody without a session sees anything (the login page and
// the assets excepted), that a viewer changes nothing, that every change is in the
// audit log before it is made, that a change can't be asked for by another site's
// page, and that whatever a stranger sent (a comment, a URL, a receiver's answer)
// is shown as text. No script or style is inline, and the browser is told to run
// none.
package console

import (
	"encoding/json"
	"log/slog"
	"net/http"

	"github.com/klauspost/compress/gzhttp"
)

// Console serves the pages and the API. Operations, Notes and Log are required.
type Console struct {
	Operations *Operations
	Notes      Notes
	Log        *slog.Logger

	auth *authenticator
}

// Handler returns the console.
func (c *Console) Handler() http.Handler {
	c.auth = &authenticator{notes: c.Notes, now: c.Operations.Now}

	behind := http.NewServeMux()
	c.pages(behind)
	api := c.api(behind)
	behind.HandleFunc("GET "+OpenAPIPath, func(w http.ResponseWriter, _ *http.Request) {
		text, err := json.Marshal(api.OpenAPI())
		if err != nil {
			c.Log.Error("console.failed", "error", err.Error())
			http.Error(w, "the document could not be written", http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(text)
	})

	front := http.NewServeMux()
	front.Handle("GET /assets/{file}", assets())
	front.HandleFunc("GET /login", c.showLogin)
	front.HandleFunc("POST /login", c.login)
	front.Handle("/", c.authenticate(behind))

	// A second fence beside the token: what a browser says comes from another site
	// changes nothing.
	fenced := http.NewCrossOriginProtection().Handler(front)
	// Compressed answers of varying length: a page holds a secret (its CSRF token)
	// beside what a stranger may have chosen.
	compress, err := gzhttp.NewWrapper(gzhttp.MinSize(1024), gzhttp.RandomJitter(64, 0, false))
	if err != nil {
		panic(err) // only for options that contradict each other
	}
	return secure(compress(fenced))
}

// policy allows what comes from the console itself, and nothing inline.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; " +
	"form-action 'self'; frame-ancestors 'none'; base-uri 'none'"

func secure(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		if !isLoopback(r.Host) {
			h.Set("Strict-Transport-Security", "max-age=31536000")
		}
		r.Body = http.MaxBytesReader(w, r.Body, 1<<20)
		next.ServeHTTP(w, r)
	})
}

// refuse answers without a page behind the login.
func (c *Console) writeError(w http.ResponseWriter, r *http.Request, status int, message string) {
	if isAPI(r) {
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(map[string]any{"title": http.StatusText(status), "status": status, "detail": message})
		return
	}
	c.render(w, r, status, "error", page{Title: http.StatusText(status), Data: message})
}
