package builtin_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
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

// dials records every address that an adapter dials. It refuses the connection unless
// allow accepts the address, so that nothing leaves this machine.
type dials struct {
	allow func(netip.AddrPort) bool

	mu     sync.Mutex
	dialed []netip.AddrPort
}

var errRefused = errors.New("refused by the test")

func (d *dials) connecting(a netip.AddrPort) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.dialed = append(d.dialed, a)
	if d.allow != nil && d.allow(a) {
		return nil
	}
	return errRefused
}

// take returns the addresses dialed since the last call.
func (d *dials) take() []netip.AddrPort {
	d.mu.Lock()
	defer d.mu.Unlock()
	dialed := d.dialed
	d.dialed = nil
	return dialed
}

var (
	everything = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}
	thisHost   = []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}
)

// adapters returns the HTTP and Kafka adapters behind a guard, as Open builds them.
func adapters(t *testing.T, d *dials, allow []netip.Prefix, resolver *net.Resolver) *destination.Router {
	t.Helper()
	g := guard.New(guard.Options{AllowNetworks: allow, AllowHTTP: true, Connecting: d.connecting})
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

// forms are URLs with a placeholder for the host, one per protocol.
var forms = []string{"https://%s/hook", "http://%s:8080/hook", "kafka://%s:9092/events"}

func TestSpecialPurposeAddressesAreNotDialed(t *testing.T) {
	hosts := guardtest.Hosts()
	if len(hosts) < 60 {
		t.Fatalf("%d addresses, want at least 60", len(hosts))
	}
	t.Logf("%d addresses, %d URLs", len(hosts), len(hosts)*len(forms))
	var blocked, open dials
	guarded, unguarded := adapters(t, &blocked, nil, nil), adapters(t, &open, everything, nil)
	for _, host := range hosts {
		for _, form := range forms {
			url := fmt.Sprintf(form, host)
			if err := guarded.Check(destination.Target{URL: url}); err == nil {
				t.Errorf("%s: the URL is accepted for an endpoint", url)
			}
			if o := attempt(t, guarded, url); o.Class == delivery.Success || !o.Permanent {
				t.Errorf("%s: outcome %+v, want a permanent failure", url, o)
			}
			if dialed := blocked.take(); len(dialed) != 0 {
				t.Errorf("%s: dialed %v", url, dialed)
			}
			// A guard that allows everything does dial, so the check above can fail.
			if o := attempt(t, unguarded, url); o.Class == delivery.Success || len(open.take()) == 0 {
				t.Errorf("%s: dialed nothing although every address is allowed: %+v", url, o)
			}
		}
	}
}

// Checking the URL is not enough, because a host name can resolve to any address.
func TestNamesThatResolveToSpecialPurposeAddressesAreNotDialed(t *testing.T) {
	dns := guardtest.NewDNS(t)
	var blocked, open dials
	guarded, unguarded := adapters(t, &blocked, nil, dns.Resolver()), adapters(t, &open, everything, dns.Resolver())
	for i, host := range guardtest.Hosts() {
		name := fmt.Sprintf("n%d.example", i)
		dns.Answer(name, []netip.Addr{netip.MustParseAddr(strings.Trim(host, "[]"))})
		for _, form := range forms {
			url := fmt.Sprintf(form, name)
			if err := guarded.Check(destination.Target{URL: url}); err != nil {
				t.Errorf("%s: the URL is refused before its name is resolved: %v", url, err)
			}
			o := attempt(t, guarded, url)
			if dialed := blocked.take(); len(dialed) != 0 || o.Class != delivery.Blocked || !o.Permanent {
				t.Errorf("%s resolves to %s: dialed %v, outcome %+v", name, host, dialed, o)
			}
			if strings.Contains(o.Error, strings.Trim(host, "[]")) && len(host) > 5 {
				t.Errorf("%s: the error reveals the resolved address: %s", url, o.Error)
			}
			if o := attempt(t, unguarded, url); len(open.take()) == 0 {
				t.Errorf("%s resolves to %s: dialed nothing although every address is allowed: %+v", name, host, o)
			}
		}
	}
}

var (
	public   = netip.MustParseAddr("93.184.215.14")
	private  = netip.MustParseAddr("169.254.169.254")
	private6 = netip.MustParseAddr("fd00:ec2::254")
)

func TestDNSRebindingDoesNotReachPrivateAddresses(t *testing.T) {
	for _, form := range forms {
		for name, answers := range map[string][][]netip.Addr{
			"the second lookup returns a private IPv4 address": {{public}, {private}},
			"the second lookup returns a private IPv6 address": {{public}, {private6}},
			"the second lookup returns both":                   {{public}, {private, private6}},
			"public and private address":                       {{public}, {public, private}},
			"private and public address":                       {{public}, {private, public}},
			"public IPv4 and private IPv6 address":             {{public}, {public, private6}},
		} {
			t.Run(fmt.Sprintf(form, "")+" "+name, func(t *testing.T) {
				dns := guardtest.NewDNS(t)
				dns.Answer("rebind.example", answers...)
				// A check by a lookup of its own accepts the name.
				found, err := dns.Resolver().LookupNetIP(t.Context(), "ip", "rebind.example")
				if err != nil || len(found) != 1 || found[0] != public {
					t.Fatalf("first lookup: %v, %v", found, err)
				}
				var d dials
				url := fmt.Sprintf(form, "rebind.example")
				o := attempt(t, adapters(t, &d, nil, dns.Resolver()), url)
				for _, a := range d.take() {
					if a.Addr() != public {
						t.Errorf("dialed %v: %+v", a, o)
					}
				}
				// A dialer without the guard would connect to the second lookup's address.
				attempt(t, adapters(t, &d, everything, dns.Resolver()), url)
				if !slices.ContainsFunc(d.take(), func(a netip.AddrPort) bool { return a.Addr() != public }) {
					t.Error("dialed no private address although every address is allowed")
				}
			})
		}
	}
}

func TestRedirectsAreNotFollowed(t *testing.T) {
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
	d := &dials{allow: func(a netip.AddrPort) bool { return a == front }}
	r := adapters(t, d, everything, nil)
	attempts := 0
	for _, code := range []int32{300, 301, 302, 303, 304, 305, 307, 308} {
		for _, to := range []string{"http://169.254.169.254/latest/meta-data/", "http://127.0.0.1:1/", "//[::1]:1/", "https://[fd00:ec2::254]/", "gopher://10.0.0.1/", server.URL + "/again"} {
			location.Store(&to)
			status.Store(code)
			if o := attempt(t, r, server.URL+"/hook"); o.Class != delivery.Redirect || o.Status != int(code) {
				t.Errorf("%d to %s: %+v", code, to, o)
			}
			attempts++
		}
	}
	for _, a := range d.take() {
		if a != front {
			t.Errorf("dialed %v", a)
		}
	}
	if got := int(requests.Load()); got != attempts {
		t.Errorf("%d requests for %d attempts", got, attempts)
	}
}

// advertiser is a listener that reports another address than its own. The broker
// advertises that address to its clients.
type advertiser struct {
	net.Listener
	advertised address
}

type address string

func (address) Network() string  { return "tcp" }
func (a address) String() string { return string(a) }

func (a advertiser) Addr() net.Addr { return a.advertised }

func TestAdvertisedBrokersAreCheckedByTheGuard(t *testing.T) {
	dns := guardtest.NewDNS(t)
	dns.Answer("broker.example", []netip.Addr{private})
	advertised := append(guardtest.Hosts(), "broker.example")
	for _, host := range advertised {
		if a, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil && (a.Unmap() == thisHost[0].Addr() || a.IsUnspecified() || a.Unmap().IsUnspecified()) {
			continue // the first broker's address, which this test allows
		}
		var front netip.AddrPort
		cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "events"), kfake.ListenFn(func(network, _ string) (net.Listener, error) {
			l, err := net.Listen(network, "127.0.0.1:0")
			if err != nil {
				return nil, err
			}
			front = netip.MustParseAddrPort(l.Addr().String())
			return advertiser{l, address(host + ":9092")}, nil
		}))
		if err != nil {
			t.Fatal(err)
		}
		url := "kafka://" + front.String() + "/events"
		try := func(allow []netip.Prefix) (others []netip.AddrPort, o delivery.Outcome) {
			d := &dials{allow: func(a netip.AddrPort) bool { return a == front }}
			o = attempt(t, adapters(t, d, allow, dns.Resolver()), url)
			for _, a := range d.take() {
				if a != front {
					others = append(others, a)
				}
			}
			return others, o
		}
		if others, o := try(thisHost); len(others) != 0 || o.Class != delivery.Blocked || !o.Permanent {
			t.Errorf("broker advertises %s: dialed %v, outcome %+v", host, others, o)
		}
		if others, o := try(everything); len(others) == 0 {
			t.Errorf("broker advertises %s: dialed nothing although every address is allowed: %+v", host, o)
		}
		cluster.Close()
	}
}

// Some resolvers accept hosts that are not valid addresses, such as octal numbers.
func TestDisguisedHostsAreRefused(t *testing.T) {
	dns := guardtest.NewDNS(t)
	var blocked dials
	guarded := adapters(t, &blocked, nil, dns.Resolver())
	urls := []string{
		// user information, and what looks like it
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
		err := guarded.Check(destination.Target{URL: url})
		if err == nil {
			t.Errorf("%q: the URL is accepted for an endpoint", url)
		} else if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: the error contains the password: %v", url, err)
		}
		if o := attempt(t, guarded, url); !o.Permanent || strings.Contains(o.Error, "hunter2") {
			t.Errorf("%q: outcome %+v, want a permanent failure", url, o)
		}
		if dialed := blocked.take(); len(dialed) != 0 {
			t.Errorf("%q: dialed %v", url, dialed)
		}
	}
}

// An SQS URL names an account, a queue and a region, but no host. Requests go to AWS's
// endpoint of the region.
func TestSQSURLsWithAHostAreRefused(t *testing.T) {
	var clients atomic.Int32
	var credentialsRead atomic.Bool
	stop := errors.New("the test ends the request here")
	sqs := destination.NewRouter(10, sqsadapter.Kind(sqsadapter.Options{Config: func() aws.Config {
		clients.Add(1)
		return aws.Config{Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			credentialsRead.Store(true)
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
			t.Errorf("%s: error %v, want one that does not contain the password", url, err)
		}
		if o := attempt(t, sqs, url); !o.Permanent || clients.Load() != 0 {
			t.Errorf("%s: outcome %+v, %d clients; want a permanent failure and no client", url, o, clients.Load())
		}
	}
	if o := attempt(t, sqs, "sqs://123456789012/queue?region=us-east-1"); clients.Load() != 1 || !credentialsRead.Load() {
		t.Errorf("a valid URL makes no request: %+v", o)
	}
}

func TestRedirectsOfSQSAreNotFollowed(t *testing.T) {
	var followed, requests atomic.Int32
	target := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { followed.Add(1) }))
	defer target.Close()
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		requests.Add(1)
		w.Header().Set("Location", target.URL)
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
	if followed.Load() != 0 || requests.Load() != 2 {
		t.Errorf("%d requests, want 2; %d redirects followed, want none", requests.Load(), followed.Load())
	}
}
