package console

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"
)

// Role is what a session may do.
type Role string

const (
	Viewer Role = "viewer" // sees everything but signatures and secrets, changes nothing
	Admin  Role = "admin"
)

// Times and limits of access.
const (
	// LinkTime is how long a one-time link may be opened.
	LinkTime = 10 * time.Minute
	// SessionTime is how long a session lasts.
	SessionTime = 12 * time.Hour
	// LoginTries is how often an address may try to log in within a minute.
	LoginTries = 10
	// keyTime is how long the cookies' key is used unread, and so how long a
	// session outlives `tidings console revoke` at most.
	keyTime = time.Minute
)

// maxNameBytes is the longest name of a session.
const maxNameBytes = 80

// KeyName is what Control holds the key of all sessions under. Whoever frees it
// ends them all: the next login makes another key.
const KeyName = "console#key"

// Names of the cookie, of the form's field and of the headers.
const (
	cookieName    = "tidings_session"
	csrfField     = "csrf"
	csrfHeader    = "X-CSRF-Token"
	sessionHeader = "X-Tidings-Session"
)

// Session is somebody who has logged in.
type Session struct {
	ID      string    `json:"i"`
	Name    string    `json:"n"` // as the audit log calls them
	Role    Role      `json:"r"`
	Tenant  string    `json:"t"`
	Expires time.Time `json:"e"`
}

// Invitation is what a link, or a program's token, stands for.
type Invitation struct {
	Name   string `json:"name"`
	Role   Role   `json:"role"`
	Tenant string `json:"tenant"`
}

func (i Invitation) validate() error {
	switch {
	case i.Role != Viewer && i.Role != Admin:
		return fmt.Errorf("role is %q; the roles are viewer and admin", i.Role)
	case i.Name == "" || len(i.Name) > maxNameBytes:
		return fmt.Errorf("name is %d bytes; it must be 1 to %d", len(i.Name), maxNameBytes)
	case i.Tenant == "":
		return errors.New("tenant is empty")
	}
	return nil
}

// Invite makes a one-time link and returns the path that opens it. Only the
// token's hash is stored.
func Invite(ctx context.Context, notes Notes, i Invitation, now time.Time) (path string, err error) {
	if err := i.validate(); err != nil {
		return "", err
	}
	text, err := json.Marshal(i)
	if err != nil {
		return "", err
	}
	token := rand.Text()
	if _, err := notes.Bind(ctx, linkKey(token), string(text), now.Add(LinkTime)); err != nil {
		return "", err
	}
	return "/login?link=" + token, nil
}

// Token makes a session for a program, which sends it in the header
// X-Tidings-Session.
func Token(ctx context.Context, notes Notes, i Invitation, now time.Time, lasts time.Duration) (string, error) {
	if err := i.validate(); err != nil {
		return "", err
	}
	key, err := sessionKey(ctx, notes)
	if err != nil {
		return "", err
	}
	return seal(key, Session{ID: rand.Text(), Name: i.Name, Role: i.Role, Tenant: i.Tenant, Expires: now.Add(lasts)}), nil
}

func digest(token string) string {
	sum := sha256.Sum256([]byte(token))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

func linkKey(token string) string      { return "console#link#" + digest(token) }
func usedKey(token string) string      { return "console#used#" + digest(token) }
func endedKey(sessionID string) string { return "console#ended#" + sessionID }

// sessionKey returns the key that signs sessions; the first to ask makes it.
func sessionKey(ctx context.Context, notes Notes) ([]byte, error) {
	fresh := make([]byte, 32)
	_, _ = rand.Read(fresh) // never fails since Go 1.24
	text, err := notes.Bind(ctx, KeyName, base64.StdEncoding.EncodeToString(fresh), time.Time{})
	if err != nil {
		return nil, err
	}
	key, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(key) != 32 {
		return nil, errors.New("the key of the console's sessions is damaged: `tidings console revoke` makes another")
	}
	return key, nil
}

func sign(key []byte, purpose, text string) string {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(purpose + "\x00" + text))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// seal returns a session as its cookie holds it.
func seal(key []byte, s Session) string {
	s.Expires = s.Expires.UTC().Truncate(time.Second)
	text, err := json.Marshal(s)
	if err != nil {
		panic(err) // strings and a time
	}
	payload := base64.RawURLEncoding.EncodeToString(text)
	return payload + "." + sign(key, "session", payload)
}

// open reads what seal wrote; false for what it did not write, or has expired.
func open(key []byte, text string, now time.Time) (Session, bool) {
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

// gate lets sessions in. It is safe for concurrent use.
type gate struct {
	notes Notes
	now   func() time.Time

	mu     sync.Mutex
	key    []byte
	keyAge time.Time
}

func (g *gate) sessionKey(ctx context.Context) ([]byte, error) {
	g.mu.Lock()
	key, age := g.key, g.keyAge
	g.mu.Unlock()
	if now := g.now(); key == nil || now.Sub(age) >= keyTime {
		var err error
		if key, err = sessionKey(ctx, g.notes); err != nil {
			return nil, err
		}
		g.mu.Lock()
		g.key, g.keyAge = key, now
		g.mu.Unlock()
	}
	return key, nil
}

// errTooMany says that an address tries too often.
var errTooMany = errors.New("too many attempts to log in from this address: wait a minute")

// errNoLink says that a link can't be used.
var errNoLink = errors.New("this link has been used, has expired or never was: `tidings console login` makes another")

// use consumes a link: of all who open it, the first gets the session.
func (g *gate) use(ctx context.Context, token, address string) (Session, error) {
	now := g.now()
	tries, err := g.notes.Count(ctx, fmt.Sprintf("console#tries#%s#%d", network(address), now.Unix()/60), now.Add(2*time.Minute))
	if err != nil {
		return Session{}, err
	}
	if tries > LoginTries {
		return Session{}, errTooMany
	}
	text, err := g.notes.Bound(ctx, linkKey(token))
	if err != nil {
		return Session{}, err
	}
	if text == "" {
		return Session{}, errNoLink
	}
	var i Invitation
	if err := json.Unmarshal([]byte(text), &i); err != nil || i.validate() != nil {
		return Session{}, errNoLink
	}
	// The conditional write that makes the link one-time. It lives longer than the
	// link itself.
	s := Session{ID: rand.Text(), Name: i.Name, Role: i.Role, Tenant: i.Tenant, Expires: now.Add(SessionTime)}
	holds, err := g.notes.Bind(ctx, usedKey(token), s.ID, now.Add(2*LinkTime))
	if err != nil {
		return Session{}, err
	}
	if holds != s.ID {
		return Session{}, errNoLink
	}
	return s, nil
}

// network is what of an address counts as one: of IPv6, where everybody has
// millions, the first half.
func network(address string) string {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		host = address
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return "unknown"
	}
	ip = ip.Unmap().WithZone("")
	if ip.Is6() {
		if prefix, err := ip.Prefix(64); err == nil {
			return prefix.String()
		}
	}
	return ip.String()
}

// session returns who sends a request. viaCookie tells that a browser sends the
// credential by itself, so that a change needs a proof that its own page asked.
func (g *gate) session(r *http.Request) (s Session, csrf string, viaCookie bool, err error) {
	text := r.Header.Get(sessionHeader)
	if text == "" {
		c, err := r.Cookie(cookieName)
		if err != nil {
			return s, "", false, nil
		}
		text, viaCookie = c.Value, true
	}
	key, err := g.sessionKey(r.Context())
	if err != nil {
		return s, "", viaCookie, err
	}
	s, ok := open(key, text, g.now())
	if !ok {
		return Session{}, "", viaCookie, nil
	}
	ended, err := g.notes.Bound(r.Context(), endedKey(s.ID))
	if err != nil {
		return Session{}, "", viaCookie, err
	}
	if ended != "" {
		return Session{}, "", viaCookie, nil
	}
	return s, sign(key, "csrf", s.ID), viaCookie, nil
}

// end ends a session before its time.
func (g *gate) end(ctx context.Context, s Session) error {
	_, err := g.notes.Bind(ctx, endedKey(s.ID), "ended", s.Expires)
	return err
}

// cookie is the session's cookie. It travels over TLS only, but on the machine
// itself, where there is none.
func (g *gate) cookie(ctx context.Context, r *http.Request, s Session) (*http.Cookie, error) {
	key, err := g.sessionKey(ctx)
	if err != nil {
		return nil, err
	}
	return &http.Cookie{
		Name: cookieName, Value: seal(key, s), Path: "/", HttpOnly: true, Secure: !onThisMachine(r.Host),
		SameSite: http.SameSiteLaxMode, MaxAge: int(s.Expires.Sub(g.now()).Seconds()),
	}, nil
}

func onThisMachine(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}
