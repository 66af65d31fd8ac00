// Package kafkaadapter delivers events to Kafka topics. It promises that one Deliver
// sends at most one produce request with one record, that success means that all
// in-sync replicas have the record, that records with the same subject go to the
// same partition (the one that Java clients choose), and that all brokers, including
// those that the cluster advertises, are dialled through the guard.
package kafkaadapter

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/segmentio/kafka-go"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/destination"
	"github.com/tidings-dev/tidings/pkg/destination/guard"
)

const (
	form     = "kafka://broker:9092[,broker2:9092]/topic?tls=true&sasl=scram-sha-512 (or plain, scram-sha-256, msk-iam with region=)"
	maxTopic = 249 // bytes; a limit of Kafka
	// maxBrokers limits the bootstrap brokers in a URL.
	maxBrokers = 10
	// maxRequests limits the concurrent produce requests of one adapter. Each uses a
	// connection of its own.
	maxRequests  = 8
	metadataTime = 10 * time.Second // maximum age of the cached cluster metadata
	dialTime     = 5 * time.Second
	idleTime     = 5 * time.Minute
	// maxPause is the longest pause between attempts after which connections are used
	// again. In a frozen function, idleTime does not pass. It is shorter than the time
	// after which NAT gateways (350 s) and brokers (10 minutes) drop idle connections.
	maxPause = time.Minute
)

// Secrets reads secrets by name.
type Secrets interface {
	// Secret returns the text of a secret: {"username":"…","password":"…"}.
	// Its errors must not contain any of it.
	Secret(ctx context.Context, name string) (string, error)
}

// Options are shared by all adapters of a router.
type Options struct {
	Guard *guard.Guard
	// RootCAs verify brokers' certificates. Nil means the system's.
	RootCAs *x509.CertPool
	Secrets Secrets
	// Credentials returns the function's AWS credentials, for msk-iam.
	Credentials func() aws.CredentialsProvider
	// AssumeRole returns the credentials of a role. It must not call STS before they
	// are retrieved.
	AssumeRole func(roleARN, externalID, region string) aws.CredentialsProvider
	// Now is the clock for pauses between attempts; nil means time.Now.
	Now func() time.Time
}

// Kind returns the Kafka protocol for a router. Adapters share no connections,
// because endpoints of one cluster may have different users.
func Kind(o Options) destination.Kind {
	return destination.Kind{
		Schemes: []string{"kafka"},
		Form:    form,
		Check: func(t destination.Target, u *url.URL) error {
			_, err := parse(t, u, o.Guard)
			return err
		},
		Open: func(t destination.Target, u *url.URL) (destination.Adapter, error) {
			d, err := parse(t, u, o.Guard)
			if err != nil {
				return nil, err
			}
			return &producer{destination: d, target: t, options: o, slots: make(chan struct{}, maxRequests), pause: destination.Pause{Now: o.Now}}, nil
		},
	}
}

// topicURL is a parsed destination URL.
type topicURL struct {
	brokers []string // host:port
	topic   string
	tls     bool
	sasl    string // empty for none
	region  string // for msk-iam
}

var (
	topicForm  = regexp.MustCompile(`^[A-Za-z0-9._-]+$`)
	regionForm = regexp.MustCompile(`^[a-z]{2,3}(-[a-z]+)+-[0-9]{1,2}$`)
)

// Values of the parameter sasl.
const (
	plain    = "plain"
	scram256 = "scram-sha-256"
	scram512 = "scram-sha-512"
	mskIAM   = "msk-iam"
)

func parse(t destination.Target, u *url.URL, g *guard.Guard) (topicURL, error) {
	q := u.Query()
	d := topicURL{topic: strings.TrimPrefix(u.Path, "/"), sasl: q.Get("sasl"), region: q.Get("region")}
	for key, values := range q {
		if !slices.Contains([]string{"tls", "sasl", "region"}, key) || len(values) != 1 {
			return d, fmt.Errorf("parameter %q is unknown or a duplicate: a Kafka URL has tls, sasl and region, each at most once", key)
		}
	}
	switch {
	case u.User != nil:
		return d, errors.New("a URL must not hold a user name or password: store them in a secret, and set the endpoint's credentials to its name")
	case u.Fragment != "":
		return d, errors.New("a Kafka URL has no fragment (#…): remove it")
	case t.Ordered:
		return d, errors.New("ordered applies to Pub/Sub; on Kafka, the subject is the key, and events of one subject are always ordered")
	case !topicForm.MatchString(d.topic) || len(d.topic) > maxTopic || d.topic == "." || d.topic == "..":
		return d, errors.New("the topic is missing or malformed: 1 to 249 letters, digits and ._-")
	}
	if text := q.Get("tls"); text != "" {
		on, err := strconv.ParseBool(text)
		if err != nil {
			return d, errors.New("tls must be true or false")
		}
		d.tls = on
	}
	if err := d.checkAccess(t); err != nil {
		return d, err
	}
	for broker := range strings.SplitSeq(u.Host, ",") {
		host, port, err := net.SplitHostPort(broker)
		if err != nil {
			return d, errors.New("a broker must be host:port")
		}
		if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
			return d, fmt.Errorf("port %q is not between 1 and 65535", port)
		}
		if err := g.CheckHost(host); err != nil {
			return d, err
		}
		d.brokers = append(d.brokers, broker)
	}
	if len(d.brokers) > maxBrokers {
		return d, fmt.Errorf("the URL has %d brokers; at most %d are allowed, and the cluster reports the others", len(d.brokers), maxBrokers)
	}
	return d, nil
}

// checkAccess validates the parameters of the login.
func (d topicURL) checkAccess(t destination.Target) error {
	password := slices.Contains([]string{plain, scram256, scram512}, d.sasl)
	switch {
	case d.sasl != "" && !password && d.sasl != mskIAM:
		return errors.New("sasl must be plain, scram-sha-256, scram-sha-512 or msk-iam")
	case password && t.Credentials == "":
		return errors.New("sasl requires the endpoint's credentials: the name of the secret with the user name and password")
	case !password && t.Credentials != "":
		return errors.New("credentials require sasl=plain, scram-sha-256 or scram-sha-512")
	case d.sasl == plain && !d.tls:
		return errors.New("sasl=plain sends the password unencrypted: add tls=true")
	case d.sasl == mskIAM && !d.tls:
		return errors.New("sasl=msk-iam requires tls=true")
	case d.sasl == mskIAM && !regionForm.MatchString(d.region):
		return errors.New("sasl=msk-iam requires the cluster's region: add region=, such as us-east-1")
	case d.sasl != mskIAM && d.region != "":
		return errors.New("region applies to sasl=msk-iam only")
	case d.sasl != mskIAM && t.RoleARN != "":
		return errors.New("role_arn applies to sasl=msk-iam only")
	}
	return nil
}

// producer writes to one topic.
type producer struct {
	destination topicURL
	target      destination.Target
	options     Options
	slots       chan struct{} // limits concurrent requests
	pause       destination.Pause

	mu      sync.Mutex
	current *cluster // nil before the first request and after a failure
}

// Close closes the connections.
func (p *producer) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.current != nil {
		p.current.close()
		p.current = nil
	}
	return nil
}

// Deliver writes one record.
func (p *producer) Deliver(ctx context.Context, m destination.Message) delivery.Outcome {
	began := time.Now()
	x := destination.Observed(ctx)
	if x == nil {
		x = &destination.Exchange{}
	}
	x.Method, x.To, x.Ended = "Produce", p.destination.topic, destination.PhaseExchange
	o := p.deliver(ctx, m, x)
	o.Timings.Total = time.Since(began)
	x.EndedAfter = o.Timings.Total
	return o
}

func (p *producer) deliver(ctx context.Context, m destination.Message, x *destination.Exchange) delivery.Outcome {
	began := time.Now()
	timeout := delivery.Outcome{Class: delivery.Timeout, Error: "timeout while waiting for a response from the brokers"}
	select {
	case p.slots <- struct{}{}:
		defer func() { <-p.slots }()
	case <-ctx.Done():
		return timeout
	}
	used, err := p.connect(ctx)
	if err == nil {
		defer p.release(used)
		err = p.produce(ctx, used.transport, m, x)
	}
	if err == nil {
		return delivery.Outcome{Class: delivery.Success}
	}
	x.Cause, x.Code = err, codeOf(err)
	if ctx.Err() != nil {
		p.forget(used)
		if used != nil {
			if broken := used.dialer.failure(began); broken != nil {
				return classify(broken)
			}
		}
		return timeout
	}
	o := classify(err)
	if o.Class == delivery.Denied && used != nil && time.Since(used.loggedIn) > metadataTime {
		// Read them again: they may have been rotated.
		o.Permanent = false
	}
	if o.Class != delivery.TooLarge {
		// kafka-go would keep broken connections, stale metadata and the old error.
		p.forget(used)
	}
	return o
}

// forget makes later attempts use new connections, metadata and credentials, unless they
// have already been replaced.
func (p *producer) forget(used *cluster) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.current == used {
		p.current = nil
	}
}

// connect returns the connections, which are opened by the first request. The caller
// releases them.
func (p *producer) connect(ctx context.Context) (*cluster, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if paused := p.pause.Exceeds(maxPause); paused && p.current != nil {
		if p.current.users == 0 {
			p.current.close()
		}
		p.current = nil
	}
	if p.current != nil {
		p.current.users++
		return p.current, nil
	}
	mechanism, err := p.mechanism(ctx)
	if err != nil {
		return nil, err
	}
	var config *tls.Config
	if p.destination.tls {
		config = &tls.Config{RootCAs: p.options.RootCAs, MinVersion: tls.VersionTLS12}
	}
	c := &cluster{loggedIn: time.Now(), users: 1, dialer: dialer{guard: p.options.Guard, tls: config}}
	c.transport = &kafka.Transport{
		Dial: c.dialer.dial, DialTimeout: dialTime, IdleTimeout: idleTime,
		MetadataTTL: metadataTime, MetadataTopics: []string{p.destination.topic},
		ClientID: "tidings", SASL: mechanism,
	}
	p.current = c
	return c, nil
}

// release ends a use of the connections, and closes them if they are to be forgotten.
func (p *producer) release(used *cluster) {
	p.mu.Lock()
	defer p.mu.Unlock()
	used.users--
	if used.users == 0 && p.current != used {
		used.close()
	}
}

// cluster is a set of connections with their metadata and credentials. Its users are
// guarded by the producer's mu.
type cluster struct {
	transport *kafka.Transport
	loggedIn  time.Time // when the credentials were read
	dialer    dialer
	users     int
}

func (c *cluster) close() {
	c.transport.CloseIdleConnections()
	c.dialer.close() // kafka-go would let a hanging connection end by its own timeout
}

// errNoTopic means that the topic is not in the cluster's metadata. In contrast, a
// partition leader returns UnknownTopicOrPartition for a moment after a move.
var errNoTopic = errors.New("the topic does not exist")

// produce does not use kafka.Writer, because a Writer keeps a record in its queue
// after its context has ended and writes it during a later attempt.
func (p *producer) produce(ctx context.Context, transport *kafka.Transport, m destination.Message, x *destination.Exchange) error {
	client := &kafka.Client{Addr: kafka.TCP(p.destination.brokers...), Transport: transport}
	partition, err := p.partition(ctx, client, m)
	if err != nil {
		return err
	}
	record := kafka.Record{Key: kafka.NewBytes([]byte(m.Subject)), Value: kafka.NewBytes(m.Body)}
	if m.Subject == "" {
		record.Key = nil
	}
	attributes := m.Attributes("ce_") // CloudEvents 1.0.2, Kafka Protocol Binding
	for _, name := range slices.Sorted(maps.Keys(attributes)) {
		record.Headers = append(record.Headers, kafka.Header{Key: name, Value: []byte(attributes[name])})
	}
	x.RequestHeaders = append(destination.Fields(attributes), destination.Field{Name: "key", Value: m.Subject}, destination.Field{Name: "partition", Value: strconv.Itoa(partition)})
	answer, err := client.Produce(ctx, &kafka.ProduceRequest{
		Topic: p.destination.topic, Partition: partition, RequiredAcks: kafka.RequireAll, Records: kafka.NewRecordReader(record),
	})
	if err != nil {
		return err
	}
	if answer.Error == nil {
		x.ResponseHeaders = []destination.Field{{Name: "offset", Value: strconv.FormatInt(answer.BaseOffset, 10)}}
	}
	return answer.Error
}

// codeOf returns the Exchange.Code of an error, or "" if it has none.
func codeOf(err error) string {
	var access *accessError
	var answer kafka.Error
	switch {
	case errors.As(err, &access) && access.class == delivery.Invalid:
		return destination.CodeBadCredentials
	case errors.As(err, &access):
		return destination.CodeNoCredentials
	case errors.Is(err, errNoTopic):
		return kafka.UnknownTopicOrPartition.Title()
	case errors.As(err, &answer):
		return answer.Title()
	}
	return ""
}

// partition selects a partition by key as Java clients do. The metadata comes from
// the transport's cache.
func (p *producer) partition(ctx context.Context, client *kafka.Client, m destination.Message) (int, error) {
	layout, err := client.Metadata(ctx, &kafka.MetadataRequest{Topics: []string{p.destination.topic}})
	if err != nil {
		return 0, err
	}
	for _, topic := range layout.Topics {
		if topic.Name != p.destination.topic {
			continue
		}
		if errors.Is(topic.Error, kafka.UnknownTopicOrPartition) {
			return 0, errNoTopic
		}
		if topic.Error != nil {
			return 0, topic.Error
		}
		ids := make([]int, len(topic.Partitions))
		for i := range ids {
			ids[i] = i
		}
		if len(ids) == 0 {
			return 0, kafka.LeaderNotAvailable
		}
		key := []byte(m.Subject)
		if m.Subject == "" {
			key = []byte(m.EventID) // spread evenly: there is no order to keep
		}
		return kafka.Murmur2Balancer{Consistent: true}.Balance(kafka.Message{Key: key}, ids...), nil
	}
	return 0, errNoTopic
}

// classify returns the outcome for an error.
func classify(err error) delivery.Outcome {
	var (
		blocked *guard.BlockedError
		access  *accessError
		answer  kafka.Error
		name    *net.DNSError
		verify  *tls.CertificateVerificationError
		record  tls.RecordHeaderError
		timeout net.Error
	)
	failed := func(c delivery.Class, sentence string) delivery.Outcome {
		return delivery.Outcome{Class: c, Error: sentence}
	}
	_, alerted := destination.TLSAlert(err)
	switch {
	case errors.As(err, &blocked):
		return delivery.Outcome{Class: delivery.Blocked, Permanent: true, Error: blocked.Error()}
	case errors.As(err, &access):
		return delivery.Outcome{Class: access.class, Permanent: access.permanent, Error: access.sentence}
	case errors.Is(err, errNoTopic):
		return delivery.Outcome{Class: delivery.Missing, Permanent: true,
			Error: "the topic does not exist, or is hidden from this user: create it, or allow the user Describe and Write on it"}
	case errors.As(err, &answer):
		return refused(answer)
	case errors.As(err, &name):
		return failed(delivery.DNS, "a broker's host name does not exist or has no address: check the URL, and the brokers' advertised.listeners")
	case errors.As(err, &verify):
		return failed(delivery.TLS, "a broker's certificate could not be verified: check its host name, issuer and expiry date")
	case errors.As(err, &record), alerted:
		return failed(delivery.TLS, "a broker does not speak TLS on this port, or aborted the TLS handshake")
	case errors.Is(err, errMalformed):
		return failed(delivery.Protocol, "a broker's response is malformed: the port may belong to another protocol")
	case errors.As(err, &timeout) && timeout.Timeout():
		return failed(delivery.Timeout, "timeout while waiting for a response from the brokers")
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return failed(delivery.Connect, "a broker reset the connection")
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return failed(delivery.Protocol, "a broker closed the connection without a response: the port may require TLS or SASL, or reject this user")
	}
	return failed(delivery.Connect, "could not connect to the brokers")
}

// refused returns the outcome for a broker's error code (kafka.apache.org/protocol).
func refused(code kafka.Error) delivery.Outcome {
	o := delivery.Outcome{Class: delivery.Answered, Error: "the broker answered " + code.Title()}
	switch code {
	case kafka.TopicAuthorizationFailed, kafka.ClusterAuthorizationFailed, kafka.BrokerAuthorizationFailed:
		o.Class, o.Permanent = delivery.Denied, true
		o.Error += ": allow the user Describe and Write on the topic"
	case kafka.SASLAuthenticationFailed, kafka.UnacceptableCredential, kafka.SecurityDisabled:
		o.Class, o.Permanent = delivery.Denied, true
		o.Error += ": check the user name and password in the secret, and the mechanism in sasl="
	case kafka.UnsupportedSASLMechanism, kafka.IllegalSASLState:
		o.Class, o.Permanent = delivery.Denied, true
		o.Error += ": set sasl= to a mechanism that the broker enables on this port"
	case kafka.MessageSizeTooLarge, kafka.RecordListTooLarge, kafka.InvalidMessageSize:
		o.Class, o.Permanent = delivery.TooLarge, true
		o.Error += ": raise the topic's max.message.bytes"
	case kafka.InvalidTopic:
		o.Class, o.Permanent = delivery.Missing, true
		o.Error += ": check the topic's name"
	case kafka.PolicyViolation, kafka.InvalidRecord, kafka.InvalidTimestamp, kafka.UnsupportedForMessageFormat:
		o.Class, o.Permanent = delivery.Invalid, true
		o.Error += ": the topic's settings reject the record"
	case kafka.ThrottlingQuotaExceeded:
		o.Class = delivery.Throttled
	case kafka.RequestTimedOut:
		o.Class = delivery.Timeout
	}
	return o
}
