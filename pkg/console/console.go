// Package console is the web console of Tidings and its JSON API: endpoints,
// deliveries, events, circuit breakers, discussions and the audit log. All assets
// are embedded in the binary. Only the login page, the assets, the source addresses and, if
// it is public, the catalog are served without a session. A viewer can change nothing, every change is in the
// audit log before it is made, cross-site requests change nothing, and untrusted text
// (comments, URLs, receivers' responses) is always escaped. No script or style is
// inline, and the Content-Security-Policy forbids inline ones.
package console

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"time"

	"github.com/klauspost/compress/gzhttp"
)

// Console serves the pages and the API. Operations, Sessions and Log are required.
type Console struct {
	Operations *Operations
	Sessions   SessionStore
	// CloseEvery is how often expired discussions are closed; 0 if nothing does it.
	CloseEvery time.Duration
	// SourceAddresses are those from which webhooks are sent; empty if they are not fixed.
	SourceAddresses SourceAddresses
	// PublicCatalog shows the catalog of event types without a session.
	PublicCatalog bool
	Log           *slog.Logger

	auth *authenticator
}

// Handler returns the console's HTTP handler.
func (c *Console) Handler() http.Handler {
	c.auth = &authenticator{store: c.Sessions, now: c.Operations.Now}
	c.Operations.cursorKey, c.Operations.Log = c.auth.sessionKey, c.Log

	behind := http.NewServeMux()
	c.pages(behind)
	api := c.api(behind)
	behind.HandleFunc("GET "+OpenAPIPath, func(w http.ResponseWriter, _ *http.Request) {
		text, err := json.Marshal(api.OpenAPI())
		if err != nil {
			c.Log.Error("console.failed", "error", err.Error())
			http.Error(w, "the OpenAPI document could not be written", http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(text)
	})

	front := http.NewServeMux()
	front.Handle("GET /assets/{file}", assets())
	front.Handle("GET "+SourceAddressesPath, behind)
	if c.PublicCatalog {
		front.Handle("GET "+CatalogPath, c.identify(behind))
		front.Handle("GET "+CatalogPath+"/", c.identify(behind))
	}
	front.HandleFunc("GET /login", c.showLogin)
	front.HandleFunc("POST /login", c.login)
	front.Handle("/", c.authenticate(behind))

	// In addition to the CSRF token, reject requests that the browser marks as
	// cross-site.
	protected := http.NewCrossOriginProtection().Handler(front)
	// Random padding against BREACH: a page holds a secret (its CSRF token) next to
	// text that an attacker may have chosen.
	compress, err := gzhttp.NewWrapper(gzhttp.MinSize(1024), gzhttp.RandomJitter(64, 0, false))
	if err != nil {
		panic(err) // only for contradictory options
	}
	return secure(compress(protected))
}

// policy allows the console's own files only, and nothing inline.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; " +
	"form-action 'self'; frame-ancestors 'none'; base-uri 'none'"

func secure(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		// Not no-referrer: browsers would send Origin: null with the forms.
		h.Set("Referrer-Policy", "same-origin")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		if !isLoopback(r.Host) {
			h.Set("Strict-Transport-Security", "max-age=31536000")
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxFormMemory)
		next.ServeHTTP(w, r)
	})
}

// fail writes an error: problem details for the API, a page otherwise.
func (c *Console) fail(w http.ResponseWriter, r *http.Request, err error) {
	status, message := c.errorResponse(r.Context(), err)
	title := http.StatusText(status)
	if isAPI(r) {
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(map[string]any{"title": title, "status": status, "detail": message})
		return
	}
	c.render(w, r, page{Template: "error", Status: status, Title: title, Data: message})
}
