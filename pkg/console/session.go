package console

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"
)

// Role determines what a session may do.
type Role string

const (
	Viewer Role = "viewer" // sees everything except signatures and secrets, changes nothing
	Admin  Role = "admin"
	// Operator is an admin who also operates the whole deployment: sees failed changes,
	// which contain data of every tenant, and captures them again.
	Operator Role = "operator"
)

// changes reports whether the role may make changes.
func (r Role) changes() bool { return r == Admin || r == Operator }

// KeyName is the Control key of the key that signs all sessions. Deleting it ends
// them all; the next login creates a new one.
const KeyName = "console#key"

const (
	cookieName    = "tidings_session"
	csrfField     = "csrf"
	csrfHeader    = "X-CSRF-Token"
	sessionHeader = "X-Tidings-Session"
)

// Session is a logged-in user or API client.
type Session struct {
	ID      string    `json:"i"`
	Name    string    `json:"n"` // shown in the audit log
	Role    Role      `json:"r"`
	Tenant  string    `json:"t"`
	Expires time.Time `json:"e"`
}

// sessionKey returns the key that signs sessions, and creates it if there is none.
func sessionKey(ctx context.Context, store SessionStore) ([]byte, error) {
	fresh := make([]byte, 32)
	_, _ = rand.Read(fresh) // never fails since Go 1.24
	text, err := store.PutValueIfAbsent(ctx, KeyName, base64.StdEncoding.EncodeToString(fresh), time.Time{})
	if err != nil {
		return nil, err
	}
	key, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(key) != 32 {
		return nil, errors.New("the console's session key is invalid; run `tidings console revoke` to replace it")
	}
	return key, nil
}

func endedKey(sessionID string) string { return "console#ended#" + sessionID }

func sign(key []byte, purpose, text string) string {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(purpose + "\x00" + text))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// encodeSession returns the signed text of a session.
func encodeSession(key []byte, s Session) string {
	s.Expires = s.Expires.UTC().Truncate(time.Second)
	text, err := json.Marshal(s)
	if err != nil {
		panic(err) // cannot happen: strings and a time
	}
	payload := base64.RawURLEncoding.EncodeToString(text)
	return payload + "." + sign(key, "session", payload)
}

// decodeSession reverses encodeSession. It returns false for an invalid signature and
// for an expired session.
func decodeSession(key []byte, text string, now time.Time) (Session, bool) {
	payload, mac, found := strings.Cut(text, ".")
	if !found || !hmac.Equal([]byte(mac), []byte(sign(key, "session", payload))) {
		return Session{}, false
	}
	raw, err := base64.RawURLEncoding.DecodeString(payload)
	var s Session
	if err != nil || json.Unmarshal(raw, &s) != nil {
		return Session{}, false
	}
	return s, now.Before(s.Expires)
}

// authenticator authenticates requests. It is safe for concurrent use.
type authenticator struct {
	store SessionStore
	now   func() time.Time

	mu     sync.Mutex
	key    []byte
	keyAge time.Time
}

func (a *authenticator) sessionKey(ctx context.Context) ([]byte, error) {
	a.mu.Lock()
	key, age := a.key, a.keyAge
	a.mu.Unlock()
	if now := a.now(); key == nil || now.Sub(age) >= keyTTL {
		var err error
		if key, err = sessionKey(ctx, a.store); err != nil {
			return nil, err
		}
		a.mu.Lock()
		a.key, a.keyAge = key, now
		a.mu.Unlock()
	}
	return key, nil
}

// session returns the session of a request; its ID is empty if there is none. With
// viaCookie, the browser sent the credential by itself, so a change also needs the
// CSRF token.
func (a *authenticator) session(r *http.Request) (s Session, csrf string, viaCookie bool, err error) {
	text := r.Header.Get(sessionHeader)
	if text == "" {
		c, err := r.Cookie(cookieName)
		if err != nil {
			return s, "", false, nil
		}
		text, viaCookie = c.Value, true
	}
	key, err := a.sessionKey(r.Context())
	if err != nil {
		return s, "", viaCookie, err
	}
	s, ok := decodeSession(key, text, a.now())
	if !ok {
		return Session{}, "", viaCookie, nil
	}
	ended, err := a.store.GetValue(r.Context(), endedKey(s.ID))
	if err != nil {
		return Session{}, "", viaCookie, err
	}
	if ended != "" {
		return Session{}, "", viaCookie, nil
	}
	return s, sign(key, "csrf", s.ID), viaCookie, nil
}

// endSession ends a session before it expires.
func (a *authenticator) endSession(ctx context.Context, s Session) error {
	_, err := a.store.PutValueIfAbsent(ctx, endedKey(s.ID), "ended", s.Expires)
	return err
}

// cookie returns the session's cookie. It is Secure except on localhost, which has no
// TLS.
func (a *authenticator) cookie(ctx context.Context, r *http.Request, s Session) (*http.Cookie, error) {
	key, err := a.sessionKey(ctx)
	if err != nil {
		return nil, err
	}
	return &http.Cookie{
		Name: cookieName, Value: encodeSession(key, s), Path: "/", HttpOnly: true, Secure: !isLoopback(r.Host),
		SameSite: http.SameSiteLaxMode, MaxAge: int(s.Expires.Sub(a.now()).Seconds()),
	}, nil
}

func isLoopback(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

// contextKey is the key of the session in a request's context.
type contextKey struct{}

type authenticated struct {
	session Session
	csrf    string
}

func sessionOf(ctx context.Context) Session {
	a, _ := ctx.Value(contextKey{}).(authenticated)
	return a.session
}

func csrfOf(ctx context.Context) string {
	a, _ := ctx.Value(contextKey{}).(authenticated)
	return a.csrf
}

// maxFormMemory is how many bytes of a form's files are kept in memory. A request has no more.
const maxFormMemory = 1 << 20

// authenticate requires a session and, for changes with a cookie, the CSRF token.
func (c *Console) authenticate(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s, csrf, viaCookie, err := c.auth.session(r)
		if err != nil {
			c.fail(w, r, err)
			return
		}
		if s.ID == "" {
			if r.Method == http.MethodGet && !isAPI(r) {
				http.Redirect(w, r, "/login", http.StatusSeeOther)
				return
			}
			c.fail(w, r, errorf(Unauthorized, "no session: run `tidings console login` for a login link, or with --token for an API token"))
			return
		}
		if viaCookie && r.Method != http.MethodGet && r.Method != http.MethodHead {
			given := r.Header.Get(csrfHeader)
			if given == "" && !isAPI(r) {
				var large *http.MaxBytesError
				if errors.As(r.ParseMultipartForm(maxFormMemory), &large) { //nolint:gosec // Handler bounds the body
					c.fail(w, r, errorf(TooLarge, "the form has more than %d bytes: use the CLI", large.Limit))
					return
				}
				given = r.PostFormValue(csrfField)
			}
			if !hmac.Equal([]byte(given), []byte(csrf)) {
				c.fail(w, r, errorf(Forbidden, "the CSRF token is missing or out of date; reload the page and repeat the change"))
				return
			}
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), contextKey{}, authenticated{s, csrf})))
	})
}

// identify passes the session of a request on, if it has one.
func (c *Console) identify(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s, csrf, _, err := c.auth.session(r); err == nil && s.ID != "" {
			r = r.WithContext(context.WithValue(r.Context(), contextKey{}, authenticated{s, csrf}))
		}
		next.ServeHTTP(w, r)
	})
}

func isAPI(r *http.Request) bool { return strings.HasPrefix(r.URL.Path, "/api/") }
