package console

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/tidings-dev/tidings/pkg/event"
)

// Lifetimes and limits.
const (
	// LinkTime is how long a login link is valid.
	LinkTime = 10 * time.Minute
	// SessionTime is how long a session is valid.
	SessionTime = 12 * time.Hour
	// MaxTokenTime is the maximum lifetime of a session token for a program.
	MaxTokenTime = 90 * 24 * time.Hour
	// LoginTries is the maximum number of login attempts per client network and
	// minute.
	LoginTries = 10
	// keyTTL is how long the session key is cached, and so the time after
	// which `tidings console revoke` has ended every session.
	keyTTL = time.Minute
)

// Invitation is who a login link or an API token is for.
type Invitation struct {
	Name   string `json:"name"`
	Role   Role   `json:"role"`
	Tenant string `json:"tenant"`
}

func (i Invitation) validate() error {
	switch {
	case i.Role != Viewer && !i.Role.changes():
		return fmt.Errorf("unknown role %q; the roles are viewer, admin and operator", i.Role)
	case i.Name == "" || len(i.Name) > maxNameBytes:
		return fmt.Errorf("name has %d bytes; it must have 1 to %d", len(i.Name), maxNameBytes)
	}
	if err := event.CheckTenant(i.Tenant); err != nil {
		return fmt.Errorf("tenant %w", err)
	}
	return nil
}

// maxNameBytes limits the name of a session.
const maxNameBytes = 80

// Invite creates a one-time login link and returns its path. Only a hash of its token
// is stored.
func Invite(ctx context.Context, store SessionStore, i Invitation, now time.Time) (path string, err error) {
	if err := i.validate(); err != nil {
		return "", err
	}
	text, err := json.Marshal(i)
	if err != nil {
		return "", err
	}
	token := rand.Text()
	if _, err := store.PutValueIfAbsent(ctx, linkKey(token), string(text), now.Add(LinkTime)); err != nil {
		return "", err
	}
	return "/login?link=" + token, nil
}

// Token creates a session for an API client, to be sent in the header
// X-Tidings-Session.
func Token(ctx context.Context, store SessionStore, i Invitation, now time.Time, lasts time.Duration) (string, error) {
	if err := i.validate(); err != nil {
		return "", err
	}
	if lasts <= 0 || lasts > MaxTokenTime {
		return "", fmt.Errorf("a token that lasts %s: it must last more than 0s and at most %s (90 days)", lasts, MaxTokenTime)
	}
	key, err := sessionKey(ctx, store)
	if err != nil {
		return "", err
	}
	return encodeSession(key, Session{ID: rand.Text(), Name: i.Name, Role: i.Role, Tenant: i.Tenant, Expires: now.Add(lasts)}), nil
}

func hashToken(token string) string {
	sum := sha256.Sum256([]byte(token))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

func linkKey(token string) string { return "console#link#" + hashToken(token) }

func usedKey(token string) string { return "console#used#" + hashToken(token) }

var errTooMany = errorf(TooMany, "too many login attempts from this address; wait one minute")

var errNoLink = errorf(Unauthorized, "this link was used, has expired or is invalid; run `tidings console login` for a new one")

// redeem uses up a link and returns the session. Of concurrent calls, one succeeds.
func (a *authenticator) redeem(ctx context.Context, token, address string) (Session, error) {
	now := a.now()
	tries, err := a.store.IncrementCounter(ctx, fmt.Sprintf("console#tries#%s#%d", clientNetwork(address), now.Unix()/60), now.Add(2*time.Minute))
	if err != nil {
		return Session{}, err
	}
	if tries > LoginTries {
		return Session{}, errTooMany
	}
	text, err := a.store.GetValue(ctx, linkKey(token))
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
	// This conditional write makes the link one-time. It outlives the link.
	s := Session{ID: rand.Text(), Name: i.Name, Role: i.Role, Tenant: i.Tenant, Expires: now.Add(SessionTime)}
	current, err := a.store.PutValueIfAbsent(ctx, usedKey(token), s.ID, now.Add(2*LinkTime))
	if err != nil {
		return Session{}, err
	}
	if current != s.ID {
		return Session{}, errNoLink
	}
	return s, nil
}

// clientNetwork returns the part of an address that login attempts are counted by: the
// whole IPv4 address, or the /64 of an IPv6 address.
func clientNetwork(address string) string {
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

func (c *Console) showLogin(w http.ResponseWriter, r *http.Request) {
	c.render(w, r, page{Template: "login", Title: "Log in", Data: r.URL.Query().Get("link")})
}

// login redeems the link that showLogin put into its form. A GET does not redeem it,
// because mail and chat programs open links to preview them.
func (c *Console) login(w http.ResponseWriter, r *http.Request) {
	s, err := c.auth.redeem(r.Context(), r.PostFormValue("link"), r.RemoteAddr)
	var cookie *http.Cookie
	if err == nil {
		cookie, err = c.auth.cookie(r.Context(), r, s)
	}
	if err != nil {
		status, message := c.errorResponse(r.Context(), err)
		if status == http.StatusTooManyRequests {
			w.Header().Set("Retry-After", "60")
		}
		c.render(w, r, page{Template: "login", Status: status, Title: "Log in", Problem: message, Data: ""})
		return
	}
	c.Log.InfoContext(r.Context(), "console.login", "name", s.Name, "role", string(s.Role), "tenant", s.Tenant)
	c.render(w, r, page{Redirect: "/", Cookie: cookie})
}

func (c *Console) logout(r *http.Request, who Session) (page, error) {
	ended := &http.Cookie{Name: cookieName, Path: "/", MaxAge: -1, HttpOnly: true, Secure: !isLoopback(r.Host), SameSite: http.SameSiteLaxMode}
	return page{Redirect: "/login?did=out", Cookie: ended}, c.auth.endSession(r.Context(), who)
}
