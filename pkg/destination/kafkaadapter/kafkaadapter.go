// Package kafkaadapter delivers events to Kafka topics. It promises that one
// Deliver is at most one produce request of one record, that success means all
// in-sync replicas have it, that records of one subject go to one partition (the
// one Java clients would choose), and that every broker is dialled through the
// guard, those that the cluster advertises too.
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
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/segmentio/kafka-go"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/destination"
	"github.com/tidings-dev/tidings/pkg/destination/guard"
)

const (
	form     = "kafka://broker:9092[,broker2:9092]/topic?tls=true&sasl=scram-sha-512 (or plain, scram-sha-256, msk-iam with region=)"
	maxTopic = 249 // bytes; Kafka's own limit
	// maxBrokers bounds the bootstrap list.
	maxBrokers = 10
	// maxRequests bounds the produce requests of one adapter under way, each of
	// which has a connection to itself.
	maxRequests = 8
	// metadataTime is how old the known layout of a cluster may get.
	metadataTime = 10 * time.Second
	dialTime     = 5 * time.Second
	idleTime     = 5 * time.Minute
)

// Secrets is where credentials are kept.
type Secrets interface {
	// Secret returns the text of a secret: {"username":"…","password":"…"}.
	// Its errors name no secret's text.
	Secret(ctx context.Context, name string) (string, error)
}

// Options are what the adapters of one router share.
type Options struct {
	Guard *guard.Guard // decides which addresses may be reached
	// RootCAs verify brokers' certificates; nil means the system's.
	RootCAs *x509.CertPool
	Secrets Secrets
	// Credentials are the function's own, for msk-iam.
	Credentials func() aws.CredentialsProvider
	// AssumeRole returns the credentials of a role, assumed under the external
	// id. Nothing is called before they are retrieved.
	AssumeRole func(roleARN, externalID, region string) aws.CredentialsProvider
}

// Kind is Kafka for a router. Its adapters share nothing: two endpoints of one
// cluster may have different users.
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
			return &producer{destination: d, target: t, options: o, slots: make(chan struct{}, maxRequests)}, nil
		},
	}
}

// topicURL is a parsed destination URL.
type topicURL struct {
	brokers []string // host:port
	topic   string
	tls     bool
	sasl    string // "" for none
	region  string // for msk-iam
}

var (
	topicForm  = regexp.MustCompile(`^[A-Za-z0-9._-]+$`)
	regionForm = regexp.MustCompile(`^[a-z]{2,3}(-[a-z]+)+-[0-9]{1,2}$`)
)

// The mechanisms, as a URL names them.
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
			return d, fmt.Errorf("the parameter %q is not one of a Kafka URL, or there twice: tls, sasl and region are", key)
		}
	}
	switch {
	case u.User != nil:
		return d, errors.New("a URL must not hold a user name or password: put them into a secret and name it as the endpoint's credentials")
	case u.Fragment != "":
		return d, errors.New("a fragment (#…) means nothing here: leave it out")
	case t.Ordered:
		return d, errors.New("ordered is for Pub/Sub; Kafka keeps a subject's order by its key")
	case !topicForm.MatchString(d.topic) || len(d.topic) > maxTopic || d.topic == "." || d.topic == "..":
		return d, errors.New("the topic is missing or malformed: 1 to 249 letters, digits and ._-")
	}
	if text := q.Get("tls"); text != "" {
		on, err := strconv.ParseBool(text)
		if err != nil {
			return d, errors.New("tls is neither true nor false")
		}
		d.tls = on
	}
	if err := d.checkAccess(t); err != nil {
		return d, err
	}
	for broker := range strings.SplitSeq(u.Host, ",") {
		host, port, err := net.SplitHostPort(broker)
		if err != nil {
			return d, errors.New("a broker is not host:port")
		}
		if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
			return d, fmt.Errorf("port %q is not one of 1 to 65535", port)
		}
		if err := g.CheckHost(host); err != nil {
			return d, err
		}
		d.brokers = append(d.brokers, broker)
	}
	if len(d.brokers) > maxBrokers {
		return d, fmt.Errorf("%d brokers; name at most %d, the cluster tells the others", len(d.brokers), maxBrokers)
	}
	return d, nil
}

// checkAccess refuses what can't log in.
func (d topicURL) checkAccess(t destination.Target) error {
	password := slices.Contains([]string{plain, scram256, scram512}, d.sasl)
	switch {
	case d.sasl != "" && !password && d.sasl != mskIAM:
		return errors.New("sasl is none of plain, scram-sha-256, scram-sha-512 and msk-iam")
	case password && t.Credentials == "":
		return errors.New("sasl needs the endpoint's credentials: the name of the secret that holds user name and password")
	case !password && t.Credentials != "":
		return errors.New("credentials are of no use without sasl=plain, scram-sha-256 or scram-sha-512")
	case d.sasl == plain && !d.tls:
		return errors.New("sasl=plain sends the password as it is: add tls=true")
	case d.sasl == mskIAM && !d.tls:
		return errors.New("sasl=msk-iam needs tls=true")
	case d.sasl == mskIAM && !regionForm.MatchString(d.region):
		return errors.New("sasl=msk-iam needs the cluster's region: add region=, such as us-east-1")
	case d.sasl != mskIAM && d.region != "":
		return errors.New("region is for sasl=msk-iam only")
	case d.sasl != mskIAM && t.RoleARN != "":
		return errors.New("role_arn is for sasl=msk-iam only")
	}
	return nil
}

// producer writes to one topic.
type producer struct {
	destination topicURL
	target      destination.Target
	options     Options
	slots       chan struct{}

	mu        sync.Mutex
	transport *kafka.Transport // nil until it is needed
	loggedIn  time.Time        // when its credentials were read
}

// Close ends the connections.
func (p *producer) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.drop()
	return nil
}

// drop forgets connections, layout and credentials. The caller holds mu.
func (p *producer) drop() {
	if p.transport != nil {
		p.transport.CloseIdleConnections() // those in use end when they are done
		p.transport = nil
	}
}

// Deliver writes one record.
func (p *producer) Deliver(ctx context.Context, m destination.Message) delivery.Outcome {
	began := time.Now()
	x := destination.Observed(ctx)
	if x == nil {
		x = &destination.Exchange{} // nobody looks
	}
	x.Method, x.To, x.Ended = "Produce", p.destination.topic, destination.PhaseExchange
	o := p.deliver(ctx, m, x)
	o.Timings.Total = time.Since(began)
	x.EndedAfter = o.Timings.Total
	return o
}

func (p *producer) deliver(ctx context.Context, m destination.Message, x *destination.Exchange) delivery.Outcome {
	late := delivery.Outcome{Class: delivery.Timeout, Error: "the brokers did not answer in time"}
	select {
	case p.slots <- struct{}{}:
		defer func() { <-p.slots }()
	case <-ctx.Done():
		return late
	}
	transport, loggedIn, err := p.connect(ctx)
	if err == nil {
		err = p.produce(ctx, transport, m, x)
	}
	if err == nil {
		return delivery.Outcome{Class: delivery.Success}
	}
	x.Cause, x.Code = err, codeOf(err)
	if ctx.Err() != nil {
		p.forget(transport)
		return late
	}
	o := classify(err)
	if o.Class == delivery.Denied && time.Since(loggedIn) > metadataTime {
		// The credentials may have been rotated since they were read.
		o.Permanent = false
	}
	if o.Class != delivery.TooLarge {
		// What was known of the cluster led to a failure; kafka-go would go on
		// with broken connections, old leaders, and the old error.
		p.forget(transport)
	}
	return o
}

// forget drops a transport, unless another has taken its place already.
func (p *producer) forget(used *kafka.Transport) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.transport == used {
		p.drop()
	}
}

// connect returns the transport, which connects at its first request, and when
// its credentials were read.
func (p *producer) connect(ctx context.Context) (*kafka.Transport, time.Time, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.transport != nil {
		return p.transport, p.loggedIn, nil
	}
	mechanism, err := p.mechanism(ctx)
	if err != nil {
		return nil, time.Now(), err
	}
	t := &kafka.Transport{
		Dial: p.options.Guard.DialContext, DialTimeout: dialTime, IdleTimeout: idleTime,
		MetadataTTL: metadataTime, MetadataTopics: []string{p.destination.topic},
		ClientID: "tidings", SASL: mechanism,
	}
	if p.destination.tls {
		t.TLS = &tls.Config{RootCAs: p.options.RootCAs, MinVersion: tls.VersionTLS12}
	}
	p.transport, p.loggedIn = t, time.Now()
	return t, p.loggedIn, nil
}

// errNoTopic says that the cluster does not list the topic. A leader that does
// not know its partition, in the moments after a move, is another matter.
var errNoTopic = errors.New("the cluster has no such topic")

// produce writes through the client and not through kafka-go's Writer: that one
// keeps a record whose caller has given up in its queue, and writes it later,
// beside the next attempt.
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
	attributes := m.Attributes()
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

// codeOf is the protocol's name of an error, or one of ours where nobody was
// asked; "" for what has none.
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

// partition chooses as Java clients do, among all partitions there are. The
// layout is the transport's, asked for every metadataTime.
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
			key = []byte(m.EventID) // no order to keep: spread
		}
		return kafka.Murmur2Balancer{Consistent: true}.Balance(kafka.Message{Key: key}, ids...), nil
	}
	return 0, errNoTopic
}

// classify reports a record that was not acknowledged.
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
			Error: "the cluster has no such topic, or hides it from this user: create it, or allow Describe and Write on it"}
	case errors.As(err, &answer):
		return refused(answer)
	case errors.As(err, &name):
		return failed(delivery.DNS, "a broker's name has no address: check the URL, and what the brokers advertise")
	case errors.As(err, &verify):
		return failed(delivery.TLS, "a broker's certificate could not be verified: is it for this host name, from a known authority, and still valid?")
	case errors.As(err, &record), alerted:
		return failed(delivery.TLS, "a broker does not speak TLS on this port, or broke off the handshake")
	case errors.As(err, &timeout) && timeout.Timeout():
		return failed(delivery.Timeout, "the brokers did not answer in time")
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return failed(delivery.Protocol, "a broker closed the connection: does the port want TLS or SASL, or refuse this user?")
	}
	return failed(delivery.Connect, "the brokers could not be reached")
}

// refused reports an error code of the protocol (kafka.apache.org/protocol).
func refused(code kafka.Error) delivery.Outcome {
	o := delivery.Outcome{Class: delivery.Answered, Error: "the broker answered " + code.Title()}
	switch code {
	case kafka.TopicAuthorizationFailed, kafka.ClusterAuthorizationFailed, kafka.BrokerAuthorizationFailed:
		o.Class, o.Permanent = delivery.Denied, true
		o.Error += ": allow this user Describe and Write on the topic"
	case kafka.SASLAuthenticationFailed, kafka.UnacceptableCredential, kafka.SecurityDisabled:
		o.Class, o.Permanent = delivery.Denied, true
		o.Error += ": check the user name and password in the endpoint's credentials, and the mechanism"
	case kafka.UnsupportedSASLMechanism, kafka.IllegalSASLState:
		o.Class, o.Permanent = delivery.Denied, true
		o.Error += ": choose a mechanism that the broker has enabled on this port"
	case kafka.MessageSizeTooLarge, kafka.RecordListTooLarge, kafka.InvalidMessageSize:
		o.Class, o.Permanent = delivery.TooLarge, true
		o.Error += ": raise the topic's max.message.bytes"
	case kafka.InvalidTopic:
		o.Class, o.Permanent = delivery.Missing, true
		o.Error += ": check the topic's name"
	case kafka.PolicyViolation, kafka.InvalidRecord, kafka.InvalidTimestamp, kafka.UnsupportedForMessageFormat:
		o.Class, o.Permanent = delivery.Invalid, true
		o.Error += ": the topic's settings do not allow such records"
	case kafka.ThrottlingQuotaExceeded:
		o.Class = delivery.Throttled
	case kafka.RequestTimedOut:
		o.Class = delivery.Timeout
	}
	return o
}
