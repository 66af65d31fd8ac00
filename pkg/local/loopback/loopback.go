// Package loopback keeps pages of other origins away from an HTTP server on the loopback
// interface, which every page in a browser on the same machine can reach: directly, and
// through a host name that it rebinds to 127.0.0.1. It promises that no request of such a
// page reaches the handler, except a navigation by GET, whose document the page cannot
// read.
package loopback

import (
	"net/http"
	"net/netip"
	"net/url"
	"strings"
)

// Only refuses requests that a page of another origin can make, with 403. Nothing behind it
// may permit other origins (CORS).
func Only(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if why := refusedOrigin(r); why != "" {
			http.Error(w, "refused: "+why, http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// refusedOrigin returns why a request is refused; "" if it is not. A page cannot set the
// headers Host, Origin and Sec-Fetch-Site; programs other than browsers send none of the
// last two.
func refusedOrigin(r *http.Request) string {
	if !isLoopback(r.Host) {
		return "the Host header is not localhost, 127.0.0.1 or [::1]"
	}
	origin := r.Header.Get("Origin")
	if origin != "" && origin != "null" && !strings.EqualFold(origin, "http://"+r.Host) {
		return "the request comes from a page of another origin"
	}
	switch r.Header.Get("Sec-Fetch-Site") {
	case "same-origin", "none":
		return ""
	case "":
		if origin == "null" {
			return "the request comes from a page without an origin"
		}
		return ""
	}
	// A link from another page opens a document, which that page cannot read.
	if (r.Method == http.MethodGet || r.Method == http.MethodHead) && origin == "" &&
		r.Header.Get("Sec-Fetch-Mode") == "navigate" && r.Header.Get("Sec-Fetch-Dest") == "document" {
		return ""
	}
	return "the request comes from a page of another origin"
}

// isLoopback reports whether a Host header names this machine. Names below localhost
// are not accepted: what they resolve to depends on the resolver.
func isLoopback(host string) bool {
	u, err := url.Parse("http://" + host)
	if err != nil || u.Host != host || u.User != nil {
		return false
	}
	if strings.EqualFold(u.Hostname(), "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(u.Hostname())
	return err == nil && ip.Zone() == "" && ip.IsLoopback()
}
