package httpadapter

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"html"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/tidings-dev/tidings/pkg/destination"
	"github.com/tidings-dev/tidings/pkg/endpoint"
)

// auth is what an endpoint's requests carry besides the signature, and what must not be
// shown of it. Nil carries nothing.
type auth struct {
	headers []header
	token   string   // of OAuth2
	secrets [][]byte // longest first
}

// header is a header as net/http takes it.
type header struct {
	name  string
	value []string
}

// newAuth returns what requests carry.
func newAuth(from *endpoint.Auth) *auth {
	if from == nil {
		return nil
	}
	a := &auth{}
	add := func(name, value string) { a.headers = append(a.headers, header{name, []string{value}}) }
	for _, h := range from.Headers {
		add(h.Name, h.Value.Reveal())
	}
	if h := from.APIKey; h != nil {
		add(h.Name, h.Value.Reveal())
	}
	if b := from.Basic; b != nil {
		encoded := base64.StdEncoding.EncodeToString([]byte(b.User + ":" + b.Password.Reveal()))
		add("Authorization", "Basic "+encoded)
		a.conceal(encoded)
	}
	if !from.Bearer.IsZero() {
		add("Authorization", "Bearer "+from.Bearer.Reveal())
	}
	for _, s := range from.Secrets() {
		a.conceal(s.Reveal())
	}
	return a
}

// minHidden is the length in bytes from which a text counts as a secret in a response. To
// hide shorter ones would only spoil the text.
const minHidden = 6

// minPart is the length in bytes from which a part of a secret counts too: its beginning, and
// what is between blanks and other separators, such as the key after the name of its scheme.
const minPart = 8

// conceal adds a secret and its parts, in the forms in which a response can repeat them. The
// longest come first, so that none is hidden only in part if another is its beginning.
func (a *auth) conceal(secret string) {
	texts := []string{secret}
	for _, part := range strings.FieldsFunc(secret, func(r rune) bool { return strings.ContainsRune(" =;,", r) }) {
		if len(part) >= minPart {
			texts = append(texts, part)
		}
	}
	for _, text := range texts {
		quoted, err := json.Marshal(text)
		if err != nil {
			panic(err) // a string
		}
		inJSON := string(quoted[1 : len(quoted)-1])
		for _, form := range []string{text, inJSON, strings.ReplaceAll(inJSON, "/", `\/`), html.EscapeString(text), url.QueryEscape(text)} {
			if len(form) >= minHidden && !slices.ContainsFunc(a.secrets, func(s []byte) bool { return string(s) == form }) {
				a.secrets = append(a.secrets, []byte(form))
			}
		}
	}
	slices.SortStableFunc(a.secrets, func(a, b []byte) int { return len(b) - len(a) })
}

// with returns what a request carries with a token of OAuth2.
func (a *auth) with(token string) *auth {
	out := &auth{
		token:   token,
		headers: append(slices.Clip(a.headers), header{"Authorization", []string{"Bearer " + token}}),
		secrets: slices.Clone(a.secrets),
	}
	out.conceal(token)
	return out
}

// set adds the headers to a request's.
func (a *auth) set(to http.Header) {
	if a == nil {
		return
	}
	for _, h := range a.headers {
		to[h.name] = h.value
	}
}

// hide returns a response's text without the secrets: some receivers repeat the request in
// their errors. A secret whose end is cut off is removed too.
func (a *auth) hide(text []byte) []byte {
	if a == nil {
		return text
	}
	for _, s := range a.secrets {
		text = hideBeginnings(text, s)
	}
	for _, s := range a.secrets {
		for n := min(len(s)-1, len(text)); n >= minHidden; n-- {
			if bytes.HasSuffix(text, s[:n]) {
				text = append(bytes.Clone(text[:len(text)-n]), endpoint.MaskedSecret...)
				break
			}
		}
	}
	return text
}

// hideBeginnings replaces a secret, and its beginnings of at least minPart bytes.
func hideBeginnings(text, secret []byte) []byte {
	head := secret[:min(len(secret), minPart)]
	var out []byte
	for {
		at := bytes.Index(text, head)
		if at < 0 {
			return append(out, text...)
		}
		end := at + len(head)
		for end < len(text) && end-at < len(secret) && text[end] == secret[end-at] {
			end++
		}
		out = append(append(out, text[:at]...), endpoint.MaskedSecret...)
		text = text[end:]
	}
}

// hideIn masks the secrets in the record of an attempt.
func (a *auth) hideIn(x *destination.Exchange) {
	if a == nil {
		return
	}
	for i, f := range x.RequestHeaders {
		if slices.ContainsFunc(a.headers, func(h header) bool { return strings.EqualFold(h.name, f.Name) }) {
			x.RequestHeaders[i].Value = masked(f.Name, f.Value)
		}
	}
	for i, f := range x.ResponseHeaders {
		x.ResponseHeaders[i].Value = string(a.hide([]byte(f.Value)))
	}
	x.Body = a.hide(x.Body)
}

// masked returns the mask of a header's value, with the scheme of an authorization.
func masked(name, value string) string {
	if scheme, _, ok := strings.Cut(value, " "); ok && strings.EqualFold(name, "Authorization") && (scheme == "Basic" || scheme == "Bearer") {
		return scheme + " " + endpoint.MaskedSecret
	}
	return endpoint.MaskedSecret
}

// isPrivate reports whether nobody can read what is sent to a URL: it has TLS, or does not
// leave the machine, as in the local runner. The guard blocks loopback elsewhere.
func isPrivate(u *url.URL) bool {
	if strings.EqualFold(u.Scheme, "https") {
		return true
	}
	host := strings.ToLower(u.Hostname())
	address, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && address.IsLoopback()
}
