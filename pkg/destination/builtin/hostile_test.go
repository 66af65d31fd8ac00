package builtin_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/destination"
	"github.com/tidings-dev/tidings/pkg/destination/guard"
	"github.com/tidings-dev/tidings/pkg/destination/httpadapter"
	"github.com/tidings-dev/tidings/pkg/destination/kafkaadapter"
	"github.com/tidings-dev/tidings/pkg/destination/sqsadapter"
	"github.com/tidings-dev/tidings/test/guardtest"
)

// wire sees every address at which a connection would begin, and lets it begin
// only where the test says so: nothing leaves this machine.
type wire struct {
	through func(netip.AddrPort) bool

	mu      sync.Mutex
	reached []netip.AddrPort
}

var errCut = errors.New("the test cut the wire")

func (w *wire) connecting(a netip.AddrPort) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.reached = append(w.reached, a)
	if w.through != nil && w.through(a) {
		return nil
	}
	return errCut
}

// take returns what was reached since the last call.
func (w *wire) take() []netip.AddrPort {
	w.mu.Lock()
	defer w.mu.Unlock()
	reached := w.reached
	w.reached = nil
	return reached
}

var (
	everything = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}
	thisHost   = []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}
)

// adapters are the real ones of HTTP and Kafka behind a guard, as Open makes them.
func adapters(t *testing.T, w *wire, allow []netip.Prefix, resolver *net.Resolver) *destination.Router {
	t.Helper()
	g := guard.New(guard.Options{AllowNetworks: allow, AllowHTTP: true, Connecting: w.connecting})
	if resolver != nil {
		g = g.WithResolver(resolver)
	}
	r := destination.NewRouter(10, httpadapter.Kind(httpadapter.Options{Guard: g}), kafkaadapter.Kind(kafkaadapter.Options{Guard: g}))
	t.Cleanup(func() { _ = r.Close() })
	return r
}

func attempt(t *testing.T, r *destination.Router, url string) delivery.Outcome {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	return r.Deliver(ctx, destination.Target{Tenant: "t", ID: url, URL: url}, destination.Message{EventID: "01J", EventType: "user.joined_platform", Body: []byte("{}")})
}

// forms are the URLs that lead to a host, by protocol.
var forms = []string{"https://%s/hook", "http://%s:8080/hook", "kafka://%s:9092/events"}

func TestNoHostileAddressIsConnectedTo(t *testing.T) {
	hosts := guardtest.Hosts()
	if len(hosts) < 60 {
		t.Fatalf("%d addresses, want at least 60", len(hosts))
	}
	t.Logf("%d addresses, %d URLs", len(hosts), len(hosts)*len(forms))
	var blocked, open wire
	strict, careless := adapters(t, &blocked, nil, nil), adapters(t, &open, everything, nil)
	for _, host := range hosts {
		for _, form := range forms {
			url := fmt.Sprintf(form, host)
			if err := strict.Check(destination.Target{URL: url}); err == nil {
				t.Errorf("%s: an endpoint may be added for it", url)
			}
			if o := attempt(t, strict, url); o.Class == delivery.Success || !o.Permanent {
				t.Errorf("%s: outcome %+v, want a permanent failure", url, o)
			}
			if reached := blocked.take(); len(reached) != 0 {
				t.Errorf("%s: connects to %v", url, reached)
			}
			// Without the guard's judgement the same attempt does connect: what
			// is asserted above can fail.
			if o := attempt(t, careless, url); o.Class == delivery.Success || len(open.take()) == 0 {
				t.Errorf("%s: connects to nothing even where everything is allowed: %+v", url, o)
			}
		}
	}
}

// The check of a URL alone is not what keeps an address from being reached: a
// name leads past it. Every address as the answer of a name server.
func TestNoNameLeadsToAHostileAddress(t *testing.T) {
	dns := guardtest.NewDNS(t)
	var blocked, open wire
	strict, careless := adapters(t, &blocked, nil, dns.Resolver()), adapters(t, &open, everything, dns.Resolver())
	for i, host := range guardtest.Hosts() {
		name := fmt.Sprintf("n%d.example", i)
		dns.Answer(name, []netip.Addr{netip.MustParseAddr(strings.Trim(host, "[]"))})
		for _, form := range forms {
			url := fmt.Sprintf(form, name)
			if err := strict.Check(destination.Target{URL: url}); err != nil {
				t.Errorf("%s: the name alone is innocent: %v", url, err)
			}
			o := attempt(t, strict, url)
			if reached := blocked.take(); len(reached) != 0 || o.Class != delivery.Blocked || !o.Permanent {
				t.Errorf("%s is %s: connects to %v, outcome %+v", name, host, reached, o)
			}
			if strings.Contains(o.Error, strings.Trim(host, "[]")) && len(host) > 5 {
				t.Errorf("%s: the error tells what the name resolves to: %s", url, o.Error)
			}
			if o := attempt(t, careless, url); len(open.take()) == 0 {
				t.Errorf("%s is %s: connects to nothing even where everything is allowed: %+v", name, host, o)
			}
		}
	}
}

var (
	public = netip.MustParseAddr("93.184.215.14")
	inner  = netip.MustParseAddr("169.254.169.254")
	inner6 = netip.MustParseAddr("fd00:ec2::254")
)

func TestAnAnswerThatChangesGainsNothing(t *testing.T) {
	for _, form := range forms {
		for name, answers := range map[string][][]netip.Addr{
			"another at the second look-up": {{public}, {inner}},
			"another family":                {{public}, {inner6}},
			"both families":                 {{public}, {inner, inner6}},
			"one of two":                    {{public}, {public, inner}},
			"the first of two":              {{public}, {inner, public}},
			"a public IPv4, an inner IPv6":  {{public}, {public, inner6}},
		} {
			t.Run(fmt.Sprintf(form, "")+" "+name, func(t *testing.T) {
				dns := guardtest.NewDNS(t)
				dns.Answer("rebind.example", answers...)
				// Whoever looks the name up, finds it harmless, and then lets a
				// dialer look it up again …
				found, err := dns.Resolver().LookupNetIP(t.Context(), "ip", "rebind.example")
				if err != nil || len(found) != 1 || found[0] != public {
					t.Fatalf("first look-up: %v, %v", found, err)
				}
				var w wire
				url := fmt.Sprintf(form, "rebind.example")
				o := attempt(t, adapters(t, &w, nil, dns.Resolver()), url)
				for _, a := range w.take() {
					if a.Addr() != public {
						t.Errorf("connects to %v: %+v", a, o)
					}
				}
				// … connects to what the second one answers.
				attempt(t, adapters(t, &w, everything, dns.Resolver()), url)
				inside := 0
				for _, a := range w.take() {
					if a.Addr() != public {
						inside++
					}
				}
				if inside == 0 {
					t.Error("nothing inside would be connected to even where everything is allowed")
				}
			})
		}
	}
}

func TestARedirectIsNotFollowed(t *testing.T) {
	var location atomic.Pointer[string]
	var status, requests atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		requests.Add(1)
		w.Header().Set("Location", *location.Load())
		w.Header().Set("Refresh", "0; url="+*location.Load())
		w.Header().Set("Alt-Svc", `h2="169.254.169.254:443"`)
		w.WriteHeader(int(status.Load()))
	}))
	defer server.Close()
	front := netip.MustParseAddrPort(server.Listener.Addr().String())
	w := &wire{through: func(a netip.AddrPort) bool { return a == front }}
	r := adapters(t, w, everything, nil)
	tried := 0
	for _, code := range []int32{300, 301, 302, 303, 304, 305, 307, 308} {
		for _, to := range []string{"http://169.254.169.254/latest/meta-data/", "http://127.0.0.1:1/", "//[::1]:1/", "https://[fd00:ec2::254]/", "gopher://10.0.0.1/", server.URL + "/again"} {
			location.Store(&to)
			status.Store(code)
			if o := attempt(t, r, server.URL+"/hook"); o.Class != delivery.Redirect || o.Status != int(code) {
				t.Errorf("%d to %s: %+v", code, to, o)
			}
			tried++
		}
	}
	for _, a := range w.take() {
		if a != front {
			t.Errorf("connects to %v", a)
		}
	}
	if got := int(requests.Load()); got != tried {
		t.Errorf("%d requests for %d attempts", got, tried)
	}
}

// advertiser is a listener that says it listens elsewhere: a broker then
// advertises that place to its clients.
type advertiser struct {
	net.Listener
	place place
}

type place string

func (place) Network() string  { return "tcp" }
func (p place) String() string { return string(p) }

func (a advertiser) Addr() net.Addr { return a.place }

func TestNoAdvertisedBrokerIsConnectedToUnjudged(t *testing.T) {
	dns := guardtest.NewDNS(t)
	dns.Answer("broker.example", []netip.Addr{inner})
	advertised := append(guardtest.Hosts(), "broker.example")
	for _, host := range advertised {
		if a, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil && (a.Unmap() == thisHost[0].Addr() || a.IsUnspecified() || a.Unmap().IsUnspecified()) {
			continue // where the first broker is, which is allowed here
		}
		var front netip.AddrPort
		cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "events"), kfake.ListenFn(func(network, _ string) (net.Listener, error) {
			l, err := net.Listen(network, "127.0.0.1:0")
			if err != nil {
				return nil, err
			}
			front = netip.MustParseAddrPort(l.Addr().String())
			return advertiser{l, place(host + ":9092")}, nil
		}))
		if err != nil {
			t.Fatal(err)
		}
		url := "kafka://" + front.String() + "/events"
		reached := func(allow []netip.Prefix) (elsewhere []netip.AddrPort, o delivery.Outcome) {
			w := &wire{through: func(a netip.AddrPort) bool { return a == front }}
			o = attempt(t, adapters(t, w, allow, dns.Resolver()), url)
			for _, a := range w.take() {
				if a != front {
					elsewhere = append(elsewhere, a)
				}
			}
			return elsewhere, o
		}
		if elsewhere, o := reached(thisHost); len(elsewhere) != 0 || o.Class != delivery.Blocked || !o.Permanent {
			t.Errorf("a broker that advertises %s: connects to %v, outcome %+v", host, elsewhere, o)
		}
		if elsewhere, o := reached(everything); len(elsewhere) == 0 {
			t.Errorf("a broker that advertises %s: connects to nothing even where everything is allowed: %+v", host, o)
		}
		cluster.Close()
	}
}

// What is no address by the letter, but might be one to somebody's resolver, is
// refused by its form.
func TestDisguisedHostsAreRefused(t *testing.T) {
	dns := guardtest.NewDNS(t)
	var blocked wire
	strict := adapters(t, &blocked, nil, dns.Resolver())
	urls := []string{
		// user-info, and what looks like it
		"https://example.com@169.254.169.254/", "https://example.com:443@127.0.0.1/", "https://user:hunter2@example.com/", "https://@example.com/", "https://:@example.com/",
		"https://169.254.169.254#@example.com/", "https://169.254.169.254?@example.com/", "https://169.254.169.254\\@example.com/", "https://example.com\\@169.254.169.254/",
		"kafka://example.com@169.254.169.254:80/events", "kafka://u:hunter2@example.com:9092/events",
		// ports
		"https://example.com:0/", "https://example.com:/", "https://example.com:65536/", "https://example.com:-1/", "https://example.com:+443/", "https://example.com:0x50/",
		"https://example.com:80:80/", "https://example.com:٤٤٣/", "https://[2606:2800:21f::1]:0/", "kafka://example.com:0/events", "kafka://example.com:99999/events",
		// a second broker
		"kafka://example.com:9092,127.0.0.1:6379/events", "kafka://example.com:9092,[::1]:9092/events", "kafka://127.0.0.1:9092,example.com:9092/events",
		// hosts
		"https://", "https:///", "https:127.0.0.1", "https://./", "https://../", "https://.example.com/", "https://example..com/", "https://[]/", "https://[::1/", "https://::1/", "https://[127.0.0.1]/",
		"https://%31%32%37.0.0.1/", "https://127.0.0.1%00.example.com/", "https://127.0.0.1%23.example.com/", "https://127.0.0.1 .example.com/", "https://example.com%2f@127.0.0.1/",
		"https://" + strings.Repeat("a", 64) + ".example/",
		// schemes
		"file:///etc/passwd", "gopher://127.0.0.1:6379/_FLUSHALL", "dict://127.0.0.1:11211/", "ftp://127.0.0.1/", "unix:///var/run/docker.sock", "httpx://example.com/", "//169.254.169.254/", "169.254.169.254", "",
	}
	for _, host := range guardtest.Disguises {
		for _, form := range forms {
			urls = append(urls, fmt.Sprintf(form, host))
		}
	}
	for _, url := range urls {
		err := strict.Check(destination.Target{URL: url})
		if err == nil {
			t.Errorf("%q: an endpoint may be added for it", url)
		} else if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: the error repeats the password: %v", url, err)
		}
		if o := attempt(t, strict, url); !o.Permanent || strings.Contains(o.Error, "hunter2") {
			t.Errorf("%q: outcome %+v, want a permanent failure", url, o)
		}
		if reached := blocked.take(); len(reached) != 0 {
			t.Errorf("%q: connects to %v", url, reached)
		}
	}
}

// An SQS URL names an account, a queue and a region, never a host: whatever a
// stranger writes, the request goes to AWS's own name for the region.
func TestAnSQSURLLeadsToAWSAlone(t *testing.T) {
	var clients atomic.Int32
	var asked atomic.Pointer[string]
	stop := errors.New("the test ends the request here")
	sqs := destination.NewRouter(10, sqsadapter.Kind(sqsadapter.Options{Config: func() aws.Config {
		clients.Add(1)
		return aws.Config{Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			reached := "credentials asked for"
			asked.Store(&reached)
			return aws.Credentials{}, stop
		})}
	}}))
	defer sqs.Close()
	for _, url := range []string{
		"sqs://169.254.169.254/queue?region=us-east-1", "sqs://[::1]/queue?region=us-east-1", "sqs://127.0.0.1?region=us-east-1", "sqs://127.0.0.1:9324/queue?region=us-east-1",
		"sqs://localhost:9324?region=us-east-1", "sqs://sqs.evil.example/queue?region=us-east-1", "sqs://123456789012/queue?region=us-east-1.evil.example",
		"sqs://123456789012/queue?region=us-east-1@169.254.169.254", "sqs://123456789012/queue?region=169.254.169.254", "sqs://123456789012/queue?region=us-east-1%23",
		"sqs://123456789012/queue?region=us-east-1/../x-1", "sqs://123456789012/queue?region=us-east-1&region=eu-west-1", "sqs://123456789012/queue?region=us-east-1&endpoint=http://127.0.0.1",
		"sqs://123456789012/../queue?region=us-east-1", "sqs://123456789012/a/b?region=us-east-1", "sqs://123456789012/http:%2f%2f127.0.0.1?region=us-east-1",
		"sqs://u:hunter2@123456789012/queue?region=us-east-1", "sqs://queue", "sqs:queue?region=us-east-1",
	} {
		if err := sqs.Check(destination.Target{URL: url}); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v, want it refused without a secret", url, err)
		}
		if o := attempt(t, sqs, url); !o.Permanent || clients.Load() != 0 {
			t.Errorf("%s: outcome %+v, %d clients made", url, o, clients.Load())
		}
	}
	if o := attempt(t, sqs, "sqs://123456789012/queue?region=us-east-1"); clients.Load() != 1 || asked.Load() == nil {
		t.Errorf("a good URL makes no request either: %+v", o)
	}
}

func TestSQSFollowsNoRedirect(t *testing.T) {
	var elsewhere, asked atomic.Int32
	inside := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { elsewhere.Add(1) }))
	defer inside.Close()
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		w.Header().Set("Location", inside.URL)
		w.WriteHeader(http.StatusTemporaryRedirect)
	}))
	defer front.Close()
	sqs := destination.NewRouter(10, sqsadapter.Kind(sqsadapter.Options{Endpoint: front.URL, Config: func() aws.Config {
		return aws.Config{Credentials: credentials.NewStaticCredentialsProvider("AKIA", "secret", "")}
	}}))
	defer sqs.Close()
	for _, url := range []string{"sqs://123456789012/queue?region=us-east-1", "sqs://queue?region=us-east-1"} {
		if o := attempt(t, sqs, url); o.Class == delivery.Success {
			t.Errorf("%s: %+v", url, o)
		}
	}
	if elsewhere.Load() != 0 || asked.Load() != 2 {
		t.Errorf("%d requests, %d of them followed to where the answer pointed", asked.Load(), elsewhere.Load())
	}
}
