//go:build rig

// Package hostile_test plays receivers that misbehave in every way that we know of, at
// the level of TCP, TLS, HTTP/1, HTTP/2 frames, gRPC and Kafka's protocol, to the real
// adapters. Each behaviour is judged for each scheme: the attempt ended by its deadline
// plus 250 ms and by itself (not by the router's watchdog), its class is right, at most
// one request was on the wire, and afterwards no connection and no goroutine is left. It
// prints a table of behaviours and schemes. `make hostile` runs it.
package hostile_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http/httptest"
	"net/netip"
	"os"
	"runtime/pprof"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/destination"
	"github.com/tidings-dev/tidings/pkg/destination/guard"
	"github.com/tidings-dev/tidings/pkg/destination/httpadapter"
	"github.com/tidings-dev/tidings/pkg/destination/kafkaadapter"
	"github.com/tidings-dev/tidings/pkg/destination/pubsubadapter"
	"github.com/tidings-dev/tidings/pkg/destination/sqsadapter"
)

const (
	timeout  = 600 * time.Millisecond // of an attempt
	grace    = 250 * time.Millisecond // how much later it may end
	parallel = 8                      // cells at a time
	leftTime = 30 * time.Second       // until connections and goroutines have ended
)

// slower are the factors of timeout and grace in the tries of a cell.
var slower = []time.Duration{1, 5, 20}

// only selects behaviours by a part of their name.
var only = flag.String("only", "", "play only behaviours whose name has this in it, and print their outcomes")

// The schemes, in the order of the table's columns. httpsH2 is https with HTTP/2.
const (
	plainHTTP = "http"
	httpsH1   = "https"
	httpsH2   = "h2"
	sqs       = "sqs"
	pubsub    = "pubsub"
	kafka     = "kafka"
)

var (
	schemes = []string{plainHTTP, httpsH1, httpsH2, sqs, pubsub, kafka}
	http1   = []string{plainHTTP, httpsH1, sqs}
	http2s  = []string{httpsH2, pubsub}
	overTLS = []string{httpsH1, httpsH2, kafka}
)

// behaviour is one way to misbehave.
type behaviour struct {
	layer, name string
	on          []string // schemes
	// serve serves one connection, which is closed when it returns. It begins after the
	// TLS handshake unless beforeTLS is set.
	serve     func(*conn)
	beforeTLS bool
	tls       func(*tls.Config) // changes the server's configuration
	// want are the right classes by scheme; those of "" are for schemes without an entry.
	want map[string][]delivery.Class
	// permanent allows the failure to be permanent.
	permanent bool
	// attempts replaces the single attempt, for behaviours that take several. It returns
	// what was wrong, or "".
	attempts func(*cell) string
}

func classes(c ...delivery.Class) map[string][]delivery.Class {
	return map[string][]delivery.Class{"": c}
}

// but returns the classes with others for one scheme.
func but(m map[string][]delivery.Class, scheme string, c ...delivery.Class) map[string][]delivery.Class {
	m[scheme] = c
	return m
}

// cell is one behaviour played to one scheme.
type cell struct {
	behaviour behaviour
	scheme    string
	try       int // from 0
	address   string
	tls       *tls.Config
	target    destination.Target
	router    *destination.Router

	requests atomic.Int64 // that the receiver has seen
	accepted atomic.Int64 // connections
	backend  string       // the Kafka broker behind a behaviour
}

// limit is the time of an attempt.
func (c *cell) limit() time.Duration { return timeout * slower[c.try] }

// grace is how much later an attempt may end.
func (c *cell) grace() time.Duration { return grace * slower[c.try] }

// conn is a connection of the receiver.
type conn struct {
	net.Conn
	raw *net.TCPConn
	in  *bufio.Reader
	*cell
	number int64 // of the connection, from 1
}

// reset makes the connection's end a reset.
func (c *conn) reset() {
	_ = c.raw.SetLinger(0)
	_ = c.raw.Close()
}

// silent sends nothing and waits until the other side closes the connection.
func (c *conn) silent() {
	for {
		if _, err := c.in.Discard(1); err != nil {
			return
		}
	}
}

func (c *conn) send(text string) bool {
	_, err := c.Write([]byte(text))
	return err == nil
}

// forever sends the text until the connection breaks.
func (c *conn) forever(text string) {
	many := bytes.Repeat([]byte(text), 1+4096/len(text))
	for {
		if _, err := c.Write(many); err != nil {
			return
		}
	}
}

// drip sends the text byte by byte, every 20 ms, again and again.
func (c *conn) drip(text string) {
	for i := 0; ; i++ {
		if !c.send(text[i%len(text) : i%len(text)+1]) {
			return
		}
		time.Sleep(20 * time.Millisecond) // how slow the receiver is; nothing waits for it
	}
}

func (c *cell) listen() (net.Listener, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	c.address = l.Addr().String()
	go func() {
		for {
			raw, err := l.Accept()
			if err != nil {
				return
			}
			go c.serve(raw.(*net.TCPConn), c.accepted.Add(1))
		}
	}()
	return l, nil
}

func (c *cell) serve(raw *net.TCPConn, number int64) {
	defer raw.Close()
	k := &conn{Conn: raw, raw: raw, cell: c, number: number}
	if c.tls != nil && !c.behaviour.beforeTLS {
		secure := tls.Server(raw, c.tls)
		defer secure.Close()
		k.Conn = secure
	}
	k.in = bufio.NewReader(k.Conn)
	c.behaviour.serve(k)
}

// certificate is the receivers', and roots trusts it for 127.0.0.1.
var certificate, roots = func() (tls.Certificate, *x509.CertPool) {
	s := httptest.NewUnstartedServer(nil)
	s.StartTLS()
	defer s.Close()
	pool := x509.NewCertPool()
	pool.AddCert(s.Certificate())
	return s.TLS.Certificates[0], pool
}()

func (c *cell) open() {
	g := guard.New(guard.Options{AllowHTTP: true, AllowNetworks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
	var kind destination.Kind
	url := c.scheme + "://" + c.address + "/hook"
	switch c.scheme {
	case plainHTTP, httpsH1:
		kind = httpadapter.Kind(httpadapter.Options{Guard: g, RootCAs: roots})
	case httpsH2:
		url = "https://" + c.address + "/hook"
		kind = httpadapter.Kind(httpadapter.Options{Guard: g, RootCAs: roots})
	case sqs:
		url = "sqs://123456789012/queue?region=us-east-1"
		kind = sqsadapter.Kind(sqsadapter.Options{Endpoint: "http://" + c.address, Config: func() aws.Config {
			return aws.Config{Region: "us-east-1", Credentials: credentials.NewStaticCredentialsProvider("AKIATEST", "secret", "")}
		}})
	case pubsub:
		url = "pubsub://tidings-test/events"
		kind = pubsubadapter.Kind(pubsubadapter.Options{Emulator: c.address})
	case kafka:
		url = "kafka://" + c.address + "/events"
		if c.tls != nil {
			url += "?tls=true"
		}
		kind = kafkaadapter.Kind(kafkaadapter.Options{Guard: g, RootCAs: roots})
	}
	c.router = destination.NewRouter(10, kind)
	c.target = destination.Target{Tenant: "t", ID: "e", URL: url}
}

// attempt makes one attempt and checks that it ends in time, by itself.
func (c *cell) attempt() (delivery.Outcome, string) {
	return c.attemptOf(64 << 10)
}

func (c *cell) attemptOf(bytesOfBody int) (delivery.Outcome, string) {
	ctx, cancel := context.WithTimeout(context.Background(), c.limit())
	defer cancel()
	deadline, _ := ctx.Deadline()
	o := c.router.Deliver(ctx, c.target, destination.Message{
		EventID: "01J", EventType: "user.posted_comment", Subject: "s", Body: bytes.Repeat([]byte("x"), bytesOfBody),
		Headers: map[string]string{"webhook-id": "01J", "idempotency-key": "01J"},
	})
	late := time.Since(deadline)
	switch {
	case strings.Contains(o.Error, "abandoned"):
		return o, lateBy + ": the router abandoned the attempt"
	case late > c.grace():
		return o, fmt.Sprintf("%s: by %s", lateBy, late.Round(time.Millisecond))
	case o.Class != delivery.Success && o.Error == "":
		return o, fmt.Sprintf("class %s without words", o.Class)
	case o.Permanent && !c.behaviour.permanent:
		return o, fmt.Sprintf("permanent: %+v", o)
	}
	return o, ""
}

// once is one attempt, judged by its class and the number of requests.
func (c *cell) once() string {
	o, wrong := c.attempt()
	if wrong != "" {
		return wrong
	}
	want, ok := c.behaviour.want[c.scheme]
	if !ok {
		want = c.behaviour.want[""]
	}
	if !slices.Contains(want, o.Class) {
		return fmt.Sprintf("class %s (%s), want %v", o.Class, o.Error, want)
	}
	if *only != "" {
		fmt.Fprintf(os.Stderr, "%s, %s: %s %d %q\n", c.behaviour.name, c.scheme, o.Class, o.Status, o.Error)
	}
	return ""
}

const lateBy = "did not end at its deadline"

// outOfTime reports whether it can be for want of time that a cell is wrong.
func outOfTime(wrong string) bool {
	return strings.Contains(wrong, lateBy) || strings.Contains(wrong, "class timeout") || strings.Contains(wrong, "Class:timeout")
}

// play plays the behaviour and returns what was wrong, or "".
func (c *cell) play() string {
	label := fmt.Sprintf("%s, %s, %d", c.behaviour.name, c.scheme, c.try)
	if slices.Contains([]string{httpsH1, httpsH2}, c.scheme) || c.scheme == kafka && c.behaviour.layer == "TLS" {
		protocol := "http/1.1"
		if c.scheme == httpsH2 {
			protocol = "h2"
		}
		c.tls = &tls.Config{Certificates: []tls.Certificate{certificate}, NextProtos: []string{protocol}}
		if c.behaviour.tls != nil {
			c.behaviour.tls(c.tls)
		}
	}
	if c.scheme == kafka {
		stop, err := c.broker()
		if err != nil {
			return err.Error()
		}
		defer stop()
	}
	l, err := c.listen()
	if err != nil {
		return err.Error()
	}
	defer l.Close()
	var wrong string
	done := make(chan struct{})
	go pprof.Do(context.Background(), pprof.Labels("hostile", label), func(context.Context) {
		defer close(done)
		c.open()
		if c.behaviour.attempts != nil {
			wrong = c.behaviour.attempts(c)
		} else if wrong = c.once(); wrong == "" && c.requests.Load() > 1 {
			wrong = fmt.Sprintf("%d requests on the wire", c.requests.Load())
		}
		if err := c.router.Close(); err != nil && wrong == "" {
			wrong = "closing: " + err.Error()
		}
	})
	<-done
	if wrong != "" {
		return wrong
	}
	for began := time.Now(); ; time.Sleep(20 * time.Millisecond) { // there is no signal for the end of others' goroutines
		goroutines, stacks := labelled(label)
		sockets := connections(c.address)
		if goroutines == 0 && sockets == 0 {
			return ""
		}
		if time.Since(began) > leftTime {
			if goroutines > 0 {
				return fmt.Sprintf("%d goroutines and %d connections are left:\n%s", goroutines, sockets, stacks)
			}
			return fmt.Sprintf("%d connections are left", sockets)
		}
	}
}

// labelled returns the number of goroutines with the label, and their stacks.
func labelled(label string) (n int, stacks string) {
	var profile bytes.Buffer
	_ = pprof.Lookup("goroutine").WriteTo(&profile, 1) // a bytes.Buffer does not fail
	for block := range strings.SplitSeq(profile.String(), "\n\n") {
		if strings.Contains(block, fmt.Sprintf("%q:%q", "hostile", label)) {
			var these int
			_, _ = fmt.Sscanf(strings.TrimSpace(block), "%d @", &these)
			n += max(these, 1)
			stacks += block + "\n\n"
		}
	}
	return n, stacks
}

// connections returns the number of open sockets of this process's clients to the address
// (Linux; elsewhere only goroutines are counted). Sockets that the kernel still closes by
// itself have no inode.
func connections(address string) (n int) {
	at := netip.MustParseAddrPort(address)
	table, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		return 0
	}
	ip := at.Addr().As4()
	to := fmt.Sprintf("%02X%02X%02X%02X:%04X", ip[3], ip[2], ip[1], ip[0], at.Port())
	for line := range strings.SplitSeq(string(table), "\n") {
		if f := strings.Fields(line); len(f) > 9 && f[2] == to && f[9] != "0" {
			n++
		}
	}
	return n
}

func behaviours() []behaviour {
	return slices.Concat(tcpBehaviours(), tlsBehaviours(), http1Behaviours(), http2Behaviours(), grpcBehaviours(), kafkaBehaviours(), pathBehaviours())
}

func TestHostileReceivers(t *testing.T) {
	list := behaviours()
	if len(list) < 60 {
		t.Errorf("%d behaviours, want at least 60", len(list))
	}
	results := make([]map[string]string, len(list))
	var all sync.WaitGroup
	var mu sync.Mutex
	free := make(chan struct{}, parallel)
	began := time.Now()
	log.SetOutput(io.Discard) // net/http logs some misbehaviours
	for i, b := range list {
		results[i] = map[string]string{}
		if !strings.Contains(b.name, *only) {
			continue
		}
		for _, scheme := range b.on {
			free <- struct{}{}
			all.Go(func() {
				defer func() { <-free }()
				wrong := (&cell{behaviour: b, scheme: scheme}).play()
				mu.Lock()
				defer mu.Unlock()
				results[i][scheme] = wrong
			})
		}
	}
	all.Wait()
	// A busy machine may have no time for the receiver to misbehave, or for the adapter to
	// end an attempt. An adapter that is wrong is wrong with more time as well, and alone.
	for i, b := range list {
		for scheme, wrong := range results[i] {
			for try := 1; try < len(slower) && outOfTime(wrong); try++ {
				t.Logf("again: %s, %s: %s", b.name, scheme, wrong)
				wrong = (&cell{behaviour: b, scheme: scheme, try: try}).play()
			}
			results[i][scheme] = wrong
		}
	}
	var table strings.Builder
	out := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	fmt.Fprintf(out, "LAYER\tBEHAVIOUR\t%s\n", strings.Join(schemes, "\t"))
	cells := 0
	for i, b := range list {
		if !strings.Contains(b.name, *only) {
			continue
		}
		fmt.Fprintf(out, "%s\t%s", b.layer, b.name)
		for _, scheme := range schemes {
			mark := "."
			if wrong, played := results[i][scheme]; played {
				cells++
				mark = "ok"
				if wrong != "" {
					mark = "WRONG"
					t.Errorf("%s, %s: %s", b.name, scheme, wrong)
				}
			}
			fmt.Fprintf(out, "\t%s", mark)
		}
		fmt.Fprintln(out)
	}
	_ = out.Flush() // to a strings.Builder
	t.Logf("%d behaviours, %d cells, %s\n%s", len(list), cells, time.Since(began).Round(time.Second), table.String())
}
