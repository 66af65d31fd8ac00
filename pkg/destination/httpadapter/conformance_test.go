package httpadapter_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/pkg/destination"
	"github.com/tidings-dev/tidings/pkg/destination/guard"
	"github.com/tidings-dev/tidings/pkg/destination/httpadapter"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/test/destinationtest"
)

func TestConformance(t *testing.T) {
	conforms(t, "http://", (*httptest.Server).Start, httpadapter.Options{}, func(*testing.T) *endpoint.Auth { return nil })
}

// Tokens are no excuse: an attempt ends at its deadline, 200 at a time work, nothing is left
// behind, and a warm endpoint is as fast.
func TestConformanceWithOAuth2(t *testing.T) {
	conforms(t, "http://", (*httptest.Server).Start, httpadapter.Options{}, func(t *testing.T) *endpoint.Auth {
		return oauth(newIssuer(t, nil).URL, "right")
	})
}

func TestConformanceWithAClientCertificate(t *testing.T) {
	ours := newAuthority(t)
	clients, roots := x509.NewCertPool(), x509.NewCertPool()
	clients.AddCert(ours.certificate)
	start := func(s *httptest.Server) {
		s.TLS = &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clients}
		s.Config.ErrorLog = log.New(io.Discard, "", 0)
		s.StartTLS()
		roots.AddCert(s.Certificate())
	}
	o := httpadapter.Options{RootCAs: roots, Secrets: &vault{text: ours.issue(t, "tidings", time.Now().Add(24*time.Hour))}}
	conforms(t, "https://", start, o, func(*testing.T) *endpoint.Auth { return &endpoint.Auth{ClientCertificate: "tidings/t/crm"} })
}

func conforms(t *testing.T, scheme string, start func(*httptest.Server), o httpadapter.Options, auth func(*testing.T) *endpoint.Auth) {
	destinationtest.Run(t, func(t *testing.T) destinationtest.Destination {
		inbox := make(chan destinationtest.Received, 1000)
		server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				return
			}
			got := destinationtest.Received{Body: body, Attributes: map[string]string{}}
			for name := range r.Header {
				got.Attributes[strings.ToLower(name)] = r.Header.Get(name)
			}
			inbox <- got
		}))
		start(server)
		t.Cleanup(server.Close)
		gate := destinationtest.NewGate(t, server.Listener.Addr().String())
		g := guard.New(guard.Options{AllowHTTP: true, AllowNetworks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
		clock := &destinationtest.Clock{}
		o.Guard, o.Now = g, clock.Now
		return destinationtest.Destination{
			Kind:         httpadapter.Kind(o),
			Clock:        clock,
			Target:       destination.Target{Tenant: "t", ID: "e", URL: scheme + gate.Address + "/hook", Auth: auth(t)},
			Gate:         gate,
			RoutedByBody: true, CloudEventPrefix: "ce-",
			Connections: 200, // HTTP/1.1: one for each request under way
			Within:      50 * time.Millisecond,
			Receive: func(ctx context.Context) (destinationtest.Received, error) {
				select {
				case got := <-inbox:
					return got, nil
				case <-ctx.Done():
					return destinationtest.Received{}, ctx.Err()
				}
			},
		}
	})
}
