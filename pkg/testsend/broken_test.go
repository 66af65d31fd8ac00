package testsend_test

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2/pstest"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/destination"
	"github.com/tidings-dev/tidings/pkg/destination/eventbridgeadapter"
	"github.com/tidings-dev/tidings/pkg/destination/guard"
	"github.com/tidings-dev/tidings/pkg/destination/httpadapter"
	"github.com/tidings-dev/tidings/pkg/destination/kafkaadapter"
	"github.com/tidings-dev/tidings/pkg/destination/pubsubadapter"
	"github.com/tidings-dev/tidings/pkg/destination/sqsadapter"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/event/catalog"
	"github.com/tidings-dev/tidings/pkg/event/validate"
	"github.com/tidings-dev/tidings/pkg/local/sqsapi"
	"github.com/tidings-dev/tidings/pkg/signature"
	"github.com/tidings-dev/tidings/pkg/store/memory"
	"github.com/tidings-dev/tidings/pkg/testsend"
	"github.com/tidings-dev/tidings/test/destinationtest"
	"github.com/tidings-dev/tidings/test/guardtest"
)

// lab is a tester with one endpoint and its dependencies.
type lab struct {
	t        *testing.T
	endpoint endpoint.Endpoint
	roots    *x509.CertPool
	resolver *net.Resolver
	sqs      string
	sts      string
	emulator string
	google   string
	secrets  secrets
	log      io.Writer
	now      func() time.Time
	limits   testsend.Limits
}

type secrets map[string]string

func (s secrets) Secret(_ context.Context, name string) (string, error) {
	text, ok := s[name]
	if !ok {
		return "", errors.New("no such secret")
	}
	return text, nil
}

func newLab(t *testing.T) *lab {
	return &lab{t: t, log: io.Discard, now: time.Now, limits: memory.New(time.Now), endpoint: endpoint.Endpoint{
		Tenant: "default", ID: "ep_1", EventTypes: []string{"*"}, Status: endpoint.Enabled, Timeout: 5 * time.Second,
		Secrets: []endpoint.SigningSecret{{Secret: signature.NewSecret()}},
	}}
}

func (l *lab) GetEndpoint(_ context.Context, tenant, id string) (endpoint.Endpoint, error) {
	if tenant != l.endpoint.Tenant || id != l.endpoint.ID {
		return endpoint.Endpoint{}, endpoint.ErrNotFound
	}
	return l.endpoint, nil
}

func (l *lab) tester() *testsend.Tester {
	return &testsend.Tester{
		Catalog: catalog.Default(), Validate: (&validate.Live{Types: catalog.Default()}).Validate, Endpoints: l, Limits: l.limits, Open: func() (testsend.Sender, error) { return l.open(), nil },
		Log: slog.New(slog.NewJSONHandler(l.log, nil)), Now: l.now,
	}
}

func (l *lab) open() *destination.Router {
	g := guard.New(guard.Options{AllowHTTP: true, AllowNetworks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
	if l.resolver != nil {
		g = g.WithResolver(l.resolver)
	}
	config := aws.Config{Region: "us-east-1", Credentials: credentials.NewStaticCredentialsProvider("AKIATEST", "x", "")}
	assume := func(role, external, region string) aws.CredentialsProvider {
		client := sts.NewFromConfig(config, func(o *sts.Options) { o.BaseEndpoint = &l.sts })
		return stscreds.NewAssumeRoleProvider(client, role, func(o *stscreds.AssumeRoleOptions) { o.ExternalID = &external })
	}
	return destination.NewRouter(10,
		httpadapter.Kind(httpadapter.Options{Guard: g, RootCAs: l.roots, Secrets: l.secrets}),
		eventbridgeadapter.Kind(eventbridgeadapter.Options{Config: func() aws.Config { return config }, Endpoint: l.sqs, AssumeRole: assume}),
		sqsadapter.Kind(sqsadapter.Options{Config: func() aws.Config { return config }, Endpoint: l.sqs, AssumeRole: assume}),
		pubsubadapter.Kind(pubsubadapter.Options{Emulator: l.emulator, Credentials: l.google}),
		kafkaadapter.Kind(kafkaadapter.Options{Guard: g, RootCAs: l.roots, Secrets: l.secrets}),
	)
}

func (l *lab) run() testsend.Report {
	l.t.Helper()
	report, err := l.tester().Run(l.t.Context(), testsend.Request{EndpointID: l.endpoint.ID})
	if err != nil {
		l.t.Fatal(err)
	}
	return report
}

// serve starts an HTTP receiver and sets it as the endpoint's URL.
func (l *lab) serve(answer http.HandlerFunc) {
	server := httptest.NewServer(answer)
	l.t.Cleanup(server.Close)
	l.endpoint.URL = server.URL + "/hooks"
}

// status starts a receiver that responds with the status, headers and a body.
func (l *lab) status(status int, header ...string) {
	l.serve(func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i+1 < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(status)
		fmt.Fprint(w, "why not")
	})
}

// accept calls serve with each connection of a new listener, and returns its address.
func (l *lab) accept(serve func(net.Conn)) string { return destinationtest.Listen(l.t, serve) }

// request reads a whole request.
func request(conn net.Conn) {
	r, err := http.ReadRequest(bufio.NewReader(conn))
	if err == nil {
		_, _ = io.Copy(io.Discard, r.Body)
	}
}

// silent sends nothing and waits until the client closes the connection.
func silent(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) }

// authority is a certificate authority.
type authority struct {
	t    *testing.T
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

func newAuthority(t *testing.T) *authority {
	a := &authority{t: t}
	a.key, _ = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	sheet := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Test Authority"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().AddDate(-3, 0, 0), NotAfter: time.Now().AddDate(3, 0, 0), KeyUsage: x509.KeyUsageCertSign,
	}
	a.cert = a.sign(sheet, sheet, &a.key.PublicKey)
	return a
}

func (a *authority) sign(sheet, parent *x509.Certificate, key *ecdsa.PublicKey) *x509.Certificate {
	der, err := x509.CreateCertificate(rand.Reader, sheet, parent, key, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return cert
}

func (a *authority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

// certificate returns a certificate for 127.0.0.1 and hooks.example.com, after change.
func (a *authority) certificate(change func(*x509.Certificate)) tls.Certificate {
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	sheet := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "receiver"}, DNSNames: []string{"hooks.example.com"}, IPAddresses: []net.IP{{127, 0, 0, 1}},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if change != nil {
		change(sheet)
	}
	return tls.Certificate{Certificate: [][]byte{a.sign(sheet, a.cert, &key.PublicKey).Raw}, PrivateKey: key}
}

// https starts a TLS receiver that responds with 204.
func (l *lab) https(c *tls.Config) {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }))
	server.TLS = c
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	l.t.Cleanup(server.Close)
	l.endpoint.URL = server.URL + "/hooks"
}

// certified starts a TLS receiver with a certificate of a trusted authority, after
// change.
func (l *lab) certified(change func(*x509.Certificate)) {
	a := newAuthority(l.t)
	l.roots = a.pool()
	l.https(&tls.Config{Certificates: []tls.Certificate{a.certificate(change)}})
}

// dns starts a name server that responds with answer's result, or not at all if nil.
func (l *lab) dns(answer func(query []byte) []byte) {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { _ = conn.Close() })
	go func() {
		buf := make([]byte, 1500)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			if reply := answer(slices.Clone(buf[:n])); reply != nil {
				_, _ = conn.WriteTo(reply, from)
			}
		}
	}()
	l.resolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", conn.LocalAddr().String())
	}}
}

// bridgeAnswers starts an EventBridge that fails every request.
func (l *lab) bridgeAnswers(status int, kind string) {
	l.sqsAnswers(status, kind)
	l.endpoint.URL = "eventbridge://webhooks-a?region=us-east-1"
}

// sqsAnswers starts an SQS that fails every request.
func (l *lab) sqsAnswers(status int, kind string) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/x-amz-json-1.0")
		w.WriteHeader(status)
		fmt.Fprintf(w, `{"__type":"com.amazonaws.sqs#%s","message":"no"}`, kind)
	}))
	l.t.Cleanup(server.Close)
	l.sqs, l.endpoint.URL = server.URL, "sqs://123456789012/webhooks-a?region=us-east-1"
}

type refusal struct{ *status.Status }

func (r refusal) React(any) (bool, any, error) { return true, nil, r.Err() }

// pubsub starts a Pub/Sub that fails every Publish.
func (l *lab) pubsub(code codes.Code) {
	server := pstest.NewServer(pstest.ServerReactorOption{FuncName: "Publish", Reactor: refusal{status.New(code, "no")}})
	l.t.Cleanup(func() { _ = server.Close() })
	l.emulator, l.endpoint.URL = server.Addr, "pubsub://some-project/some-topic"
}

// kafka starts a broker with the topic events.
func (l *lab) kafka(options ...kfake.Opt) *kfake.Cluster {
	c, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(1), kfake.SeedTopics(1, "events")}, options...)...)
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(c.Close)
	l.endpoint.URL = "kafka://" + c.ListenAddrs()[0] + "/events"
	return c
}

// produced starts a broker that rejects every record with the error.
func (l *lab) produced(e *kerr.Error) {
	l.kafka().ControlKey(int16(kmsg.Produce), func(r kmsg.Request) (kmsg.Response, error, bool) {
		in := r.(*kmsg.ProduceRequest)
		out := in.ResponseKind().(*kmsg.ProduceResponse)
		for _, topic := range in.Topics {
			of := kmsg.NewProduceResponseTopic()
			of.Topic, of.TopicID = topic.Topic, topic.TopicID
			for _, p := range topic.Partitions {
				partition := kmsg.NewProduceResponseTopicPartition()
				partition.Partition, partition.ErrorCode = p.Partition, e.Code
				of.Partitions = append(of.Partitions, partition)
			}
			out.Topics = append(out.Topics, of)
		}
		return out, nil, true
	})
}

const scram = "?sasl=scram-sha-512"

// The receivers are real sockets, certificates, name servers and brokers.
func TestBrokenReceivers(t *testing.T) {
	const short = 400 * time.Millisecond // timeout of attempts that time out
	for name, c := range map[string]struct {
		breakIt func(l *lab)
		hint    testsend.HintCode
		class   delivery.Class
		ended   destination.Phase // "" is not checked
		says    string            // in the hint
		then    testsend.Consequence
	}{
		"unknown host name": {func(l *lab) {
			l.resolver, l.endpoint.URL = guardtest.NewDNS(l.t).Resolver(), "https://hoooks.example.com/"
		}, testsend.HintDNSNotFound, delivery.DNS, destination.PhaseDNS, "hoooks.example.com", testsend.ConsequenceRetried},
		"name servers return SERVFAIL": {func(l *lab) {
			l.dns(func(query []byte) []byte {
				query[2], query[3] = query[2]|0x80, query[3]&0xf0|2 // a response: SERVFAIL
				return query
			})
			l.endpoint.URL = "https://hooks.example.com/"
		}, testsend.HintDNSFailed, delivery.DNS, destination.PhaseDNS, "dig hooks.example.com", testsend.ConsequenceRetried},
		"name servers do not respond": {func(l *lab) {
			l.dns(func([]byte) []byte { return nil })
			l.endpoint.URL, l.endpoint.Timeout = "https://hooks.example.com/", short
		}, testsend.HintDNSTimeout, delivery.DNS, destination.PhaseDNS, "name servers of hooks.example.com", testsend.ConsequenceRetried},
		"name of a private address": {func(l *lab) {
			d := guardtest.NewDNS(l.t)
			d.Answer("hooks.example.com", []netip.Addr{netip.MustParseAddr("10.0.0.7")})
			l.resolver, l.endpoint.URL = d.Resolver(), "https://hooks.example.com/"
		}, testsend.HintBlocked, delivery.Blocked, destination.PhaseConnect, "AllowNetworks", testsend.ConsequenceDeadLetter},
		"invalid settings": {func(l *lab) { l.endpoint.URL = "https://u:p@hooks.example.com/" },
			testsend.HintInvalid, delivery.Invalid, "", "settings are invalid", testsend.ConsequenceDeadLetter},
		"connection refused": {func(l *lab) {
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				l.t.Fatal(err)
			}
			l.endpoint.URL = "http://" + listener.Addr().String()
			_ = listener.Close()
		}, testsend.HintRefused, delivery.Connect, destination.PhaseConnect, "refused the connection", testsend.ConsequenceRetried},
		"connection reset": {func(l *lab) {
			l.endpoint.URL = "http://" + l.accept(func(conn net.Conn) {
				request(conn)
				_ = conn.(*net.TCPConn).SetLinger(0)
			})
		}, testsend.HintReset, delivery.Connect, destination.PhaseResponse, "reset", testsend.ConsequenceRetried},
		"connection closed without a response": {func(l *lab) { l.endpoint.URL = "http://" + l.accept(request) },
			testsend.HintClosed, delivery.Protocol, destination.PhaseResponse, "crashed", testsend.ConsequenceRetried},
		"SSH server": {func(l *lab) {
			l.endpoint.URL = "http://" + l.accept(func(conn net.Conn) {
				request(conn)
				fmt.Fprint(conn, "SSH-2.0-OpenSSH_9.9\r\n")
			})
		}, testsend.HintNotHTTP, delivery.Protocol, "", "does not speak HTTP", testsend.ConsequenceRetried},

		"certificate for another host name": {func(l *lab) {
			l.certified(func(c *x509.Certificate) {
				c.DNSNames, c.IPAddresses = []string{"www.example.com", "example.com"}, nil
			})
			l.resolver = guardtest.NewDNS(l.t).Resolver()
			d := guardtest.NewDNS(l.t)
			d.Answer("hooks.example.com", []netip.Addr{netip.MustParseAddr("127.0.0.1")})
			l.resolver = d.Resolver()
			l.endpoint.URL = strings.Replace(l.endpoint.URL, "127.0.0.1", "hooks.example.com", 1)
		}, testsend.HintTLSName, delivery.TLS, destination.PhaseTLS, "for www.example.com, example.com, not for hooks.example.com", testsend.ConsequenceRetried},
		"expired certificate": {func(l *lab) {
			l.certified(func(c *x509.Certificate) {
				c.NotBefore, c.NotAfter = time.Now().AddDate(-1, 0, 0), time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
			})
		}, testsend.HintTLSExpired, delivery.TLS, destination.PhaseTLS, "2026-01-02", testsend.ConsequenceRetried},
		"certificate not yet valid": {func(l *lab) {
			l.certified(func(c *x509.Certificate) {
				c.NotBefore, c.NotAfter = time.Now().Add(24*time.Hour), time.Now().Add(48*time.Hour)
			})
		}, testsend.HintTLSNotYet, delivery.TLS, destination.PhaseTLS, "not valid before", testsend.ConsequenceRetried},
		"self-signed certificate": {func(l *lab) {
			a := newAuthority(l.t)
			l.https(&tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{a.sign(&x509.Certificate{
				SerialNumber: big.NewInt(3), Subject: pkix.Name{CommonName: "me"}, IPAddresses: []net.IP{{127, 0, 0, 1}},
				NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
			}, &x509.Certificate{Subject: pkix.Name{CommonName: "me"}}, &a.key.PublicKey).Raw}, PrivateKey: a.key}}})
			l.roots = x509.NewCertPool()
		}, testsend.HintTLSSelfSigned, delivery.TLS, destination.PhaseTLS, "self-signed", testsend.ConsequenceRetried},
		"missing intermediate certificate": {func(l *lab) {
			l.certified(nil)
			l.roots = x509.NewCertPool()
		}, testsend.HintTLSUnknown, delivery.TLS, destination.PhaseTLS, "intermediate", testsend.ConsequenceRetried},
		"client certificate on a server": {func(l *lab) {
			l.certified(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} })
		}, testsend.HintTLSNotServer, delivery.TLS, destination.PhaseTLS, "not valid for a server", testsend.ConsequenceRetried},
		"plain HTTP on the TLS port": {func(l *lab) {
			l.status(http.StatusOK)
			l.endpoint.URL = strings.Replace(l.endpoint.URL, "http:", "https:", 1)
		}, testsend.HintTLSNotSpoken, delivery.TLS, destination.PhaseTLS, "does not speak TLS", testsend.ConsequenceRetried},
		"TLS 1.1": {func(l *lab) {
			a := newAuthority(l.t)
			l.roots = a.pool()
			l.https(&tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11, Certificates: []tls.Certificate{a.certificate(nil)}})
		}, testsend.HintTLSVersion, delivery.TLS, destination.PhaseTLS, "TLS 1.2", testsend.ConsequenceRetried},
		"mutual TLS": {func(l *lab) {
			a := newAuthority(l.t)
			l.roots = a.pool()
			l.https(&tls.Config{ClientAuth: tls.RequireAnyClientCert, Certificates: []tls.Certificate{a.certificate(nil)}})
		}, testsend.HintTLSClientCert, delivery.TLS, "", "client certificate", testsend.ConsequenceRetried},
		"a token endpoint that refuses the client": {func(l *lab) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) }))
			l.t.Cleanup(server.Close)
			l.endpoint.URL = server.URL
			l.endpoint.Auth = &endpoint.Auth{OAuth2: &endpoint.OAuth2{TokenURL: server.URL, ClientID: "c", ClientSecret: endpoint.NewSecret("secret")}}
		}, testsend.HintNoToken, delivery.Auth, "", "token URL", testsend.ConsequenceRetried},
		"a token endpoint that is down": {func(l *lab) {
			l.endpoint.URL = "http://127.0.0.1:1/"
			l.endpoint.Auth = &endpoint.Auth{OAuth2: &endpoint.OAuth2{TokenURL: "http://127.0.0.1:1/", ClientID: "c", ClientSecret: endpoint.NewSecret("secret")}}
		}, testsend.HintNoToken, delivery.Connect, "", "token URL", testsend.ConsequenceRetried},
		"a client certificate that cannot be read": {func(l *lab) {
			l.endpoint.URL, l.endpoint.Auth = "https://127.0.0.1:1/", &endpoint.Auth{ClientCertificate: "tidings/default/crm"}
		}, testsend.HintClientCert, delivery.Invalid, "", "in PEM", testsend.ConsequenceRetried},
		"a server without a certificate for the name": {func(l *lab) {
			l.https(&tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return nil, errors.New("who?") }})
		}, testsend.HintTLSHandshake, delivery.TLS, destination.PhaseTLS, "aborted the TLS handshake", testsend.ConsequenceRetried},
		"a handshake that hangs": {func(l *lab) { l.endpoint.URL, l.endpoint.Timeout = "https://"+l.accept(silent), short },
			testsend.HintTLSTimeout, delivery.Timeout, destination.PhaseTLS, "handshake did not finish within 400ms", testsend.ConsequenceRetried},
		"an answer that never comes": {func(l *lab) {
			l.endpoint.URL, l.endpoint.Timeout = "http://"+l.accept(silent), short
		}, testsend.HintAnswerTimeout, delivery.Timeout, destination.PhaseResponse, "process the event afterwards", testsend.ConsequenceRetried},
		"an error page that never ends": {func(l *lab) {
			l.endpoint.URL, l.endpoint.Timeout = "http://"+l.accept(func(conn net.Conn) {
				request(conn)
				fmt.Fprint(conn, "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 1000\r\n\r\nbecause")
				silent(conn)
			}), short
		}, testsend.HintServerError, delivery.Answered, destination.PhaseBody, "500", testsend.ConsequenceRetried},

		"moved":           {func(l *lab) { l.status(301, "Location", "https://new.example.com/x") }, testsend.HintRedirect, delivery.Redirect, "", "redirects to https://new.example.com/x (301)", testsend.ConsequenceRetried},
		"a slash missing": {func(l *lab) { l.status(308, "Location", "/hooks/") }, testsend.HintRedirect, delivery.Redirect, "", "Only the trailing slash", testsend.ConsequenceRetried},
		"http to https": {func(l *lab) {
			l.status(302, "Location", "https://127.0.0.1/hooks")
		}, testsend.HintHTTPSRedirect, delivery.Redirect, "", "https://127.0.0.1/hooks", testsend.ConsequenceRetried},
		"moved to nowhere":    {func(l *lab) { l.status(303) }, testsend.HintRedirect, delivery.Redirect, "", "final address", testsend.ConsequenceRetried},
		"bad request":         {func(l *lab) { l.status(400) }, testsend.HintBadRequest, delivery.Answered, "", "fingerprint", testsend.ConsequenceRetried},
		"signature refused":   {func(l *lab) { l.status(401) }, testsend.HintUnauthorized, delivery.Answered, "", "raw body", testsend.ConsequenceRetried},
		"a login wanted":      {func(l *lab) { l.status(401, "WWW-Authenticate", `Basic realm="x"`) }, testsend.HintUnauthorized, delivery.Answered, "", "401 Unauthorized, Basic", testsend.ConsequenceRetried},
		"forbidden":           {func(l *lab) { l.status(403) }, testsend.HintForbidden, delivery.Answered, "", "CSRF", testsend.ConsequenceRetried},
		"no such path":        {func(l *lab) { l.status(404) }, testsend.HintNotFound, delivery.Answered, "", "path", testsend.ConsequenceRetried},
		"GET only":            {func(l *lab) { l.status(405, "Allow", "GET, HEAD") }, testsend.HintMethod, delivery.Answered, "", "allowed: GET, HEAD", testsend.ConsequenceRetried},
		"not acceptable":      {func(l *lab) { l.status(406) }, testsend.HintNotAcceptable, delivery.Answered, "", "406", testsend.ConsequenceRetried},
		"request timeout":     {func(l *lab) { l.status(408) }, testsend.HintRequestTimeout, delivery.Answered, "", "408", testsend.ConsequenceRetried},
		"conflict":            {func(l *lab) { l.status(409) }, testsend.HintConflict, delivery.Answered, "", "2xx", testsend.ConsequenceRetried},
		"gone":                {func(l *lab) { l.status(410) }, testsend.HintGone, delivery.Gone, "", "permanently gone", testsend.ConsequenceDisabled},
		"too large":           {func(l *lab) { l.status(413) }, testsend.HintTooLargeHTTP, delivery.Answered, "", "client_max_body_size", testsend.ConsequenceRetried},
		"media type":          {func(l *lab) { l.status(415) }, testsend.HintMediaType, delivery.Answered, "", "application/json", testsend.ConsequenceRetried},
		"unprocessable":       {func(l *lab) { l.status(422) }, testsend.HintUnprocessable, delivery.Answered, "", "schema", testsend.ConsequenceRetried},
		"too many":            {func(l *lab) { l.status(429, "Retry-After", "7") }, testsend.HintTooMany, delivery.Throttled, "", "Retry-After", testsend.ConsequenceRetried},
		"switches protocols":  {func(l *lab) { l.status(101) }, testsend.HintStatus, delivery.Answered, "", "WebSocket", testsend.ConsequenceRetried},
		"other 4xx":           {func(l *lab) { l.status(418) }, testsend.HintStatus, delivery.Answered, "", "418", testsend.ConsequenceRetried},
		"server error":        {func(l *lab) { l.status(500) }, testsend.HintServerError, delivery.Answered, "", "log", testsend.ConsequenceRetried},
		"bad gateway":         {func(l *lab) { l.status(502) }, testsend.HintBadGateway, delivery.Answered, "", "proxy", testsend.ConsequenceRetried},
		"service unavailable": {func(l *lab) { l.status(503) }, testsend.HintUnavailable, delivery.Answered, "", "unavailable", testsend.ConsequenceRetried},
		"gateway timeout":     {func(l *lab) { l.status(504) }, testsend.HintGatewayTimeout, delivery.Answered, "", "timed out (504", testsend.ConsequenceRetried},

		"missing queue": {func(l *lab) {
			server := httptest.NewServer(sqsapi.New("webhooks-b"))
			l.t.Cleanup(server.Close)
			l.sqs, l.endpoint.URL = server.URL, "sqs://000000000000/webhooks-a?region=us-east-1"
		}, testsend.HintQueueMissing, delivery.Missing, destination.PhaseExchange, "queue does not exist", testsend.ConsequenceRetriedBriefly},
		"queue access denied": {func(l *lab) { l.sqsAnswers(403, "AccessDeniedException") },
			testsend.HintQueueDenied, delivery.Denied, "", "sqs:SendMessage", testsend.ConsequenceRetriedBriefly},
		"queue key denied": {func(l *lab) { l.sqsAnswers(400, "KmsAccessDenied") },
			testsend.HintKeyDenied, delivery.Denied, "", "kms:GenerateDataKey", testsend.ConsequenceRetriedBriefly},
		"region not enabled": {func(l *lab) { l.sqsAnswers(403, "InvalidClientTokenId") },
			testsend.HintCredentials, delivery.Denied, "", "region is enabled", testsend.ConsequenceRetriedBriefly},
		"message larger than the queue allows": {func(l *lab) { l.sqsAnswers(400, "InvalidParameterValue") },
			testsend.HintTooLarge, delivery.TooLarge, "", "MaximumMessageSize", testsend.ConsequenceDeadLetter},
		"throttled queue": {func(l *lab) { l.sqsAnswers(400, "RequestThrottled") },
			testsend.HintThrottled, delivery.Throttled, "", "throttled the request", testsend.ConsequenceRetried},
		"SQS internal error": {func(l *lab) { l.sqsAnswers(500, "InternalError") },
			testsend.HintAnswered, delivery.Answered, "", "InternalError", testsend.ConsequenceRetried},
		"missing bus": {func(l *lab) { l.bridgeAnswers(400, "ResourceNotFoundException") },
			testsend.HintBusMissing, delivery.Missing, destination.PhaseExchange, "bus does not exist", testsend.ConsequenceRetriedBriefly},
		"bus access denied": {func(l *lab) { l.bridgeAnswers(400, "AccessDeniedException") },
			testsend.HintBusDenied, delivery.Denied, "", "events:PutEvents", testsend.ConsequenceRetriedBriefly},
		"throttled bus": {func(l *lab) { l.bridgeAnswers(400, "ThrottlingException") },
			testsend.HintThrottled, delivery.Throttled, "", "quota of PutEvents", testsend.ConsequenceRetried},
		"role without trust": {func(l *lab) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(http.StatusForbidden)
				fmt.Fprint(w, `<ErrorResponse><Error><Type>Sender</Type><Code>AccessDenied</Code><Message>no</Message></Error></ErrorResponse>`)
			}))
			l.t.Cleanup(server.Close)
			l.sqsAnswers(500, "NotAsked")
			l.sts, l.endpoint.RoleARN = server.URL, "arn:aws:iam::210987654321:role/webhooks-a"
		}, testsend.HintRoleDenied, delivery.Denied, "", "external id", testsend.ConsequenceRetriedBriefly},
		"SQS does not respond": {func(l *lab) {
			l.sqs, l.endpoint.Timeout = "http://"+l.accept(silent), short
			l.endpoint.URL = "sqs://000000000000/webhooks-a?region=us-east-1"
		}, testsend.HintTimeout, delivery.Timeout, "", "no response from SQS", testsend.ConsequenceRetried},
		"SQS not reachable": {func(l *lab) {
			l.sqs, l.endpoint.URL = "http://127.0.0.1:1", "sqs://000000000000/webhooks-a?region=us-east-1"
		}, testsend.HintUnreached, delivery.Connect, "", "NAT", testsend.ConsequenceRetried},

		"topic does not exist": {func(l *lab) {
			server := pstest.NewServer()
			l.t.Cleanup(func() { _ = server.Close() })
			l.emulator, l.endpoint.URL = server.Addr, "pubsub://some-project/some-topic"
		}, testsend.HintPubSubTopic, delivery.Missing, destination.PhaseExchange, "topic does not exist", testsend.ConsequenceRetriedBriefly},
		"publish denied":         {func(l *lab) { l.pubsub(codes.PermissionDenied) }, testsend.HintPubSubDenied, delivery.Denied, "", "roles/pubsub.publisher", testsend.ConsequenceRetriedBriefly},
		"identity rejected":      {func(l *lab) { l.pubsub(codes.Unauthenticated) }, testsend.HintPubSubIdentity, delivery.Denied, "", "GoogleProvider", testsend.ConsequenceRetried},
		"schema mismatch":        {func(l *lab) { l.pubsub(codes.InvalidArgument) }, testsend.HintPubSubSchema, delivery.Invalid, "", "schema", testsend.ConsequenceDeadLetter},
		"quota exceeded":         {func(l *lab) { l.pubsub(codes.ResourceExhausted) }, testsend.HintThrottled, delivery.Throttled, "", "quota", testsend.ConsequenceRetried},
		"Pub/Sub internal error": {func(l *lab) { l.pubsub(codes.Internal) }, testsend.HintAnswered, delivery.Answered, "", "Internal", testsend.ConsequenceRetried},
		"no Google credentials":  {func(l *lab) { l.google, l.endpoint.URL = "{", "pubsub://some-project/some-topic" }, testsend.HintPubSubIdentity, delivery.Denied, "", "workload identity", testsend.ConsequenceRetriedBriefly},
		"Pub/Sub not reached":    {func(l *lab) { l.pubsub(codes.Unavailable) }, testsend.HintUnreached, delivery.Connect, "", "Pub/Sub could not be reached", testsend.ConsequenceRetried},
		"Kafka's topic missing":  {func(l *lab) { l.kafka(); l.endpoint.URL += "2" }, testsend.HintKafkaTopic, delivery.Missing, destination.PhaseExchange, "Create it", testsend.ConsequenceRetriedBriefly},
		"Kafka's ACL":            {func(l *lab) { l.produced(kerr.TopicAuthorizationFailed) }, testsend.HintKafkaDenied, delivery.Denied, "", "Describe and Write", testsend.ConsequenceRetriedBriefly},
		"Kafka's replicas gone":  {func(l *lab) { l.produced(kerr.NotEnoughReplicas) }, testsend.HintKafkaReplicas, delivery.Answered, "", "min.insync.replicas", testsend.ConsequenceRetried},
		"Kafka's record limit":   {func(l *lab) { l.produced(kerr.MessageTooLarge) }, testsend.HintTooLarge, delivery.TooLarge, "", "max.message.bytes", testsend.ConsequenceDeadLetter},
		"Kafka's quota":          {func(l *lab) { l.produced(kerr.ThrottlingQuotaExceeded) }, testsend.HintThrottled, delivery.Throttled, "", "quota", testsend.ConsequenceRetried},
		"Kafka's policy":         {func(l *lab) { l.produced(kerr.PolicyViolation) }, testsend.HintAnswered, delivery.Invalid, "", "rejected the record", testsend.ConsequenceDeadLetter},
		"Kafka's login refused":  {func(l *lab) { l.produced(kerr.SaslAuthenticationFailed) }, testsend.HintKafkaLogin, delivery.Denied, "", "user name and password", testsend.ConsequenceRetriedBriefly},
		"Kafka, nobody listens":  {func(l *lab) { l.endpoint.URL = "kafka://127.0.0.1:1/events" }, testsend.HintRefused, delivery.Connect, "", "refused the connection on port 1", testsend.ConsequenceRetried},
		"Kafka, TLS to a plain":  {func(l *lab) { l.endpoint.URL = "kafka://" + l.accept(greeting) + "/events?tls=true" }, testsend.HintTLSNotSpoken, delivery.TLS, "", "does not speak TLS", testsend.ConsequenceRetried},
		"Kafka, plain to a TLS": {func(l *lab) {
			l.certified(nil)
			l.endpoint.URL = kafkaOf(l.endpoint.URL)
		}, testsend.HintKafkaClosed, delivery.Protocol, "", "tls=true", testsend.ConsequenceRetried},
		"Kafka, unknown issuer":  {func(l *lab) { l.certified(nil); l.roots = nil; l.endpoint.URL = kafkaOf(l.endpoint.URL) + "?tls=true" }, testsend.HintTLSUnknown, delivery.TLS, "", "intermediate", testsend.ConsequenceRetried},
		"Kafka, a silent broker": {func(l *lab) { l.endpoint.URL, l.endpoint.Timeout = "kafka://"+l.accept(silent)+"/events", short }, testsend.HintTimeout, delivery.Timeout, "", "no response from the brokers", testsend.ConsequenceRetried},
		"Kafka, a wrong password": {func(l *lab) {
			l.kafka(kfake.EnableSASL(), kfake.User("SCRAM-SHA-512", "u", "right"))
			l.endpoint.URL += scram
			l.endpoint.Credentials, l.secrets = "tidings/default/k", secrets{"tidings/default/k": `{"username":"u","password":"wrong"}`}
		}, testsend.HintKafkaLogin, "", "", "secret", testsend.ConsequenceRetried},
		"Kafka, no secret": {func(l *lab) {
			l.kafka()
			l.endpoint.URL, l.endpoint.Credentials = l.endpoint.URL+scram, "tidings/default/k"
		}, testsend.HintKafkaSecret, delivery.Denied, "", "cannot be read", testsend.ConsequenceRetried},
		"Kafka, a malformed secret": {func(l *lab) {
			l.kafka()
			l.endpoint.URL, l.endpoint.Credentials, l.secrets = l.endpoint.URL+scram, "tidings/default/k", secrets{"tidings/default/k": "hunter2"}
		}, testsend.HintKafkaForm, delivery.Invalid, "", `{"username":"…","password":"…"}`, testsend.ConsequenceDeadLetter},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			c.breakIt(l)
			r := l.run()
			if r.Verdict != testsend.Failed || r.Hint == nil {
				t.Fatalf("report = %+v", r)
			}
			if r.Hint.Code != c.hint || !strings.Contains(r.Hint.Text, c.says) {
				t.Errorf("hint = %s: %s\nwant %s, saying %q (outcome %s: %s)", r.Hint.Code, r.Hint.Text, c.hint, c.says, r.Outcome, r.Error)
			}
			if c.class != "" && r.Outcome != c.class || r.Consequence != c.then {
				t.Errorf("outcome = %s (%s), then %s; want %s, %s", r.Outcome, r.Error, r.Consequence, c.class, c.then)
			}
			if c.ended != "" && r.Timings.Ended != c.ended {
				t.Errorf("ended in %q, want %q", r.Timings.Ended, c.ended)
			}
			if l.endpoint.Timeout == short {
				of := map[destination.Phase]float64{
					destination.PhaseDNS: r.Timings.DNS, destination.PhaseConnect: r.Timings.Connect, destination.PhaseTLS: r.Timings.TLS, destination.PhaseResponse: r.Timings.FirstByte,
				}
				if ms, ok := of[c.ended]; ok && (ms < 200 || ms > r.Timings.Total+1) {
					t.Errorf("the phase %s took %g of %g ms", c.ended, ms, r.Timings.Total)
				}
			}
		})
	}
}

// greeting sends a plain-text greeting, like an SMTP server.
func greeting(conn net.Conn) {
	fmt.Fprint(conn, "220 mail.example.com ESMTP ready\r\n")
	silent(conn)
}

func kafkaOf(url string) string {
	return "kafka://" + strings.TrimSuffix(strings.TrimPrefix(url, "https://"), "/hooks") + "/events"
}
