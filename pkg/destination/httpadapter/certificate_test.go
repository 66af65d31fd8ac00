package httpadapter_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/destination"
	"github.com/tidings-dev/tidings/pkg/destination/guard"
	"github.com/tidings-dev/tidings/pkg/destination/httpadapter"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/test/destinationtest"
)

// authority issues client certificates.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	sheet := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(48 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, sheet, sheet, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return authority{parsed, key}
}

// issue returns a client certificate and its key in PEM.
func (a authority) issue(t *testing.T, name string, ends time.Time) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	sheet := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: ends,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, KeyUsage: x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, sheet, a.certificate, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})) + string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}))
}

// vault is a store with one secret.
type vault struct {
	mu    sync.Mutex
	text  string
	err   error
	hangs bool
	reads int
}

func (v *vault) Secret(ctx context.Context, name string) (string, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.reads++
	if v.hangs {
		<-ctx.Done()
		return "", ctx.Err()
	}
	if name != "tidings/t/crm" {
		return "", coded("ResourceNotFoundException")
	}
	return v.text, v.err
}

// coded is an error of AWS.
type coded string

func (c coded) Error() string     { return "marker: " + string(c) }
func (c coded) ErrorCode() string { return string(c) }

func (v *vault) fail(err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.err = err
}

func (v *vault) set(text string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.text = text
}

func (v *vault) count() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.reads
}

// mutual returns a receiver that requires a client certificate of the authority, and whose
// revocation list has the name revoked.
func mutual(t *testing.T, a authority, http2 bool, version uint16, handler http.HandlerFunc) *httptest.Server {
	t.Helper()
	clients := x509.NewCertPool()
	clients.AddCert(a.certificate)
	server := httptest.NewUnstartedServer(handler)
	server.EnableHTTP2 = http2
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.TLS = &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clients, MaxVersion: version, VerifyPeerCertificate: func(_ [][]byte, chains [][]*x509.Certificate) error {
		if chains[0][0].Subject.CommonName == "revoked" {
			return errors.New("revoked")
		}
		return nil
	}}
	server.StartTLS()
	t.Cleanup(server.Close)
	return server
}

// mutualRouter returns a router that trusts the server and has the secrets.
func mutualRouter(t *testing.T, server *httptest.Server, secrets httpadapter.Secrets) (*destination.Router, *destinationtest.Clock) {
	clock := &destinationtest.Clock{}
	g := guard.New(guard.Options{AllowHTTP: true, AllowNetworks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
	roots := server.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	r := destination.NewRouter(10, httpadapter.Kind(httpadapter.Options{Guard: g, RootCAs: roots, Secrets: secrets, Now: clock.Now}))
	t.Cleanup(func() { _ = r.Close() })
	return r, clock
}

func TestClientCertificates(t *testing.T) {
	ours, another := newAuthority(t), newAuthority(t)
	tomorrow := time.Now().Add(24 * time.Hour)
	right := ours.issue(t, "tidings", tomorrow)
	block, key := pem.Decode([]byte(right))
	certificateOnly := string(pem.EncodeToMemory(block))
	expired := time.Now().Add(-time.Hour)
	const refused = "the receiver refused the client certificate or the TLS handshake (tls: "
	for name, c := range map[string]struct {
		secret string // "" has no certificate in the endpoint
		store  *vault
		class  delivery.Class
		errs   string
	}{
		"right":                {right, nil, delivery.Success, ""},
		"the key first":        {string(key) + certificateOnly, nil, delivery.Success, ""},
		"with its chain":       {right + string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ours.certificate.Raw})), nil, delivery.Success, ""},
		"none":                 {"", nil, delivery.TLS, "the receiver aborted the TLS handshake (tls: "},
		"of another issuer":    {another.issue(t, "tidings", tomorrow), nil, delivery.TLS, refused},
		"revoked":              {ours.issue(t, "revoked", tomorrow), nil, delivery.TLS, refused + "bad certificate)"},
		"expired":              {ours.issue(t, "tidings", expired), nil, delivery.Denied, "no client certificate: the secret tidings/t/crm has a certificate that expired on " + expired.UTC().Format(time.DateOnly)},
		"no key":               {certificateOnly, nil, delivery.Denied, "no client certificate: the secret tidings/t/crm must have a certificate and its unencrypted private key, both in PEM"},
		"another key":          {certificateOnly + string(second(another.issue(t, "x", tomorrow))), nil, delivery.Denied, "no client certificate: the secret tidings/t/crm must have"},
		"a login":              {`{"username":"marker","password":"marker"}`, nil, delivery.Denied, "no client certificate: the secret tidings/t/crm must have"},
		"an unreadable secret": {"x", &vault{err: coded("AccessDeniedException")}, delivery.Denied, "no client certificate: the secret tidings/t/crm cannot be read"},
		"a store that hangs":   {"x", &vault{hangs: true}, delivery.Invalid, "no client certificate: the secret tidings/t/crm cannot be read now"},
		"a store that fails":   {"x", &vault{err: errors.New("marker: unavailable")}, delivery.Invalid, "no client certificate: the secret tidings/t/crm cannot be read now"},
	} {
		for _, proto := range []string{"HTTP/1.1", "HTTP/2.0"} {
			for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
				t.Run(fmt.Sprint(name, " over ", proto, " and ", tls.VersionName(version)), func(t *testing.T) {
					t.Parallel()
					var got string
					server := mutual(t, ours, proto == "HTTP/2.0", version, func(_ http.ResponseWriter, r *http.Request) {
						got = r.Proto + " " + r.TLS.PeerCertificates[0].Subject.CommonName
					})
					store := &vault{text: c.secret}
					if c.store != nil {
						store = &vault{err: c.store.err, hangs: c.store.hangs}
					}
					r, _ := mutualRouter(t, server, store)
					target := destination.Target{Tenant: "t", ID: "e", URL: server.URL}
					if c.secret != "" {
						target.Auth = &endpoint.Auth{ClientCertificate: "tidings/t/crm"}
					}
					timeout := 10 * time.Second
					if c.class == delivery.Invalid {
						timeout = 100 * time.Millisecond
					}
					o, x := deliverTo(t, r, target, timeout)
					if c.class == delivery.TLS && (o.Class == delivery.Connect || o.Class == delivery.Protocol) && version == tls.VersionTLS13 {
						// The server has closed the connection with a request unread, and the reset
						// has overtaken the alert.
						if c.secret != "" && !strings.HasSuffix(o.Error, "; it may have refused the client certificate") {
							t.Errorf("%+v", o)
						}
					} else if o.Class != c.class || !strings.HasPrefix(o.Error, c.errs) || o.Permanent {
						t.Errorf("%+v, want %s %s", o, c.class, c.errs)
					}
					if want := proto + " tidings"; c.class == delivery.Success && got != want || c.class != delivery.Success && got != "" {
						t.Errorf("the receiver got %q", got)
					}
					all := shown(t, o, x)
					if strings.Contains(all, "marker") || strings.Contains(all, "PRIVATE") || x.To != server.URL || len(x.RequestHeaders) == 0 {
						t.Errorf("shown: %s", all)
					}
					if (c.class == delivery.Denied || c.class == delivery.Invalid) && x.Code != destination.CodeNoCredentials {
						t.Errorf("code %q", x.Code)
					}
				})
			}
		}
	}
}

// second returns the second block of a PEM.
func second(text string) []byte {
	_, rest := pem.Decode([]byte(text))
	return rest
}

// A secret is read once for all attempts, again an hour later, and at once after the receiver
// refused the certificate.
func TestAClientCertificateIsReadAgainWhenItMayHaveBeenReplaced(t *testing.T) {
	ours := newAuthority(t)
	tomorrow := time.Now().Add(24 * time.Hour)
	server := mutual(t, ours, false, tls.VersionTLS13, func(http.ResponseWriter, *http.Request) {})
	store := &vault{text: ours.issue(t, "tidings", tomorrow)}
	r, clock := mutualRouter(t, server, store)
	target := destination.Target{Tenant: "t", ID: "e", URL: server.URL, Auth: &endpoint.Auth{ClientCertificate: "tidings/t/crm"}}
	if got := together(t, r, target, 30); got[delivery.Success] != 30 || store.count() != 1 {
		t.Fatalf("%v, %d reads", got, store.count())
	}
	for i, step := range []struct {
		pass  time.Duration
		text  string // of the secret from now on
		class delivery.Class
		reads int
	}{
		{59 * time.Minute, "", delivery.Success, 1},
		{2 * time.Minute, "", delivery.Success, 2},
		{0, ours.issue(t, "revoked", tomorrow), delivery.Success, 2},
		{61 * time.Minute, "", delivery.TLS, 3},
		{0, "", delivery.TLS, 3}, // it was just read
		{2 * time.Minute, ours.issue(t, "tidings", tomorrow), delivery.TLS, 3},
		{0, "", delivery.Success, 4},
		{0, "", delivery.Success, 4},
		{25 * time.Hour, "", delivery.Denied, 5}, // expired by the clock
		{0, "", delivery.Denied, 6},
	} {
		clock.Pass(step.pass)
		if step.text != "" {
			store.set(step.text)
		}
		if o, _ := deliverTo(t, r, target, 10*time.Second); o.Class != step.class && (step.class != delivery.TLS || o.Class != delivery.Connect) || store.count() != step.reads {
			t.Errorf("step %d: %+v, %d reads, want %s and %d", i, o, store.count(), step.class, step.reads)
		}
	}
}

func TestAClientCertificateAndATokenAreSentTogether(t *testing.T) {
	ours := newAuthority(t)
	i := newIssuer(t, nil)
	var got string
	server := mutual(t, ours, true, tls.VersionTLS13, func(_ http.ResponseWriter, r *http.Request) {
		got = r.TLS.PeerCertificates[0].Subject.CommonName + " " + r.Header.Get("Authorization")
	})
	r, _ := mutualRouter(t, server, &vault{text: ours.issue(t, "tidings", time.Now().Add(time.Hour))})
	auth := oauth(i.URL, "right")
	auth.ClientCertificate = "tidings/t/crm"
	o, x := deliverTo(t, r, destination.Target{Tenant: "t", ID: "e", URL: server.URL, Auth: auth}, 10*time.Second)
	if o.Class != delivery.Success || got != "tidings Bearer marker-token-1" || strings.Contains(shown(t, o, x), "marker") {
		t.Errorf("%+v, the receiver got %q, shown: %s", o, got, shown(t, o, x))
	}
}

func TestAClientCertificateNeedsTLS(t *testing.T) {
	r := router(nil)
	defer r.Close()
	err := r.Check(destination.Target{URL: "http://127.0.0.1:1/", Auth: &endpoint.Auth{ClientCertificate: "tidings/t/crm"}})
	if err == nil || err.Error() != "auth.client_certificate: a client certificate needs https://" {
		t.Error(err)
	}
}

func TestANewConnectionThatEndsWithoutAnAnswerMayMeanARefusedCertificate(t *testing.T) {
	ours := newAuthority(t)
	server := mutual(t, ours, false, tls.VersionTLS13, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	store := &vault{text: ours.issue(t, "tidings", time.Now().Add(24*time.Hour))}
	r, clock := mutualRouter(t, server, store)
	target := destination.Target{Tenant: "t", ID: "e", URL: server.URL, Auth: &endpoint.Auth{ClientCertificate: "tidings/t/crm"}}
	for n := range 4 { // the third one is refused with a certificate that is old enough
		o, _ := deliverTo(t, r, target, 10*time.Second)
		clock.Pass(40 * time.Second)
		if reads := []int{1, 1, 1, 2}[n]; o.Class != delivery.Protocol || o.Error != "the receiver closed the connection without a response; it may have refused the client certificate" || store.count() != reads {
			t.Errorf("attempt %d: %+v, %d reads", n, o, store.count())
		}
	}
}

// An outage of the secret store is no failure of an endpoint whose certificate is known.
func TestACertificateIsKeptWhileItsSecretCannotBeRead(t *testing.T) {
	ours := newAuthority(t)
	server := mutual(t, ours, false, tls.VersionTLS13, func(http.ResponseWriter, *http.Request) {})
	store := &vault{text: ours.issue(t, "tidings", time.Now().Add(3*time.Hour))}
	r, clock := mutualRouter(t, server, store)
	target := destination.Target{Tenant: "t", ID: "e", URL: server.URL, Auth: &endpoint.Auth{ClientCertificate: "tidings/t/crm"}}
	for i, step := range []struct {
		pass  time.Duration
		err   error
		class delivery.Class
		reads int
	}{
		{0, nil, delivery.Success, 1},
		{61 * time.Minute, errors.New("unavailable"), delivery.Success, 2},
		{4 * time.Minute, errors.New("unavailable"), delivery.Success, 2},
		{2 * time.Minute, coded("AccessDeniedException"), delivery.Success, 3},
		{2 * time.Hour, errors.New("unavailable"), delivery.Invalid, 4}, // the certificate has ended
		{0, coded("AccessDeniedException"), delivery.Denied, 5},
	} {
		clock.Pass(step.pass)
		store.fail(step.err)
		if o, _ := deliverTo(t, r, target, 10*time.Second); o.Class != step.class || o.Permanent || store.count() != step.reads {
			t.Errorf("step %d: %+v, %d reads, want %s and %d", i, o, store.count(), step.class, step.reads)
		}
	}
}
