package kafkaadapter_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"io"
	"math/big"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/destination"
	"github.com/tidings-dev/tidings/pkg/destination/guard"
	"github.com/tidings-dev/tidings/pkg/destination/kafkaadapter"
	"github.com/tidings-dev/tidings/test/destinationtest"
)

func TestCheck(t *testing.T) {
	strict := destination.NewRouter(10, kafkaadapter.Kind(kafkaadapter.Options{Guard: guard.New(guard.Options{})}))
	with := func(url string, change ...func(*destination.Target)) destination.Target {
		target := destination.Target{Tenant: "t", URL: url}
		for _, f := range change {
			f(&target)
		}
		return target
	}
	secret := func(t *destination.Target) { t.Credentials = "tidings/t/kafka" }
	role := func(t *destination.Target) { t.RoleARN = "arn:aws:iam::123456789012:role/x" }
	for name, c := range map[string]struct {
		target destination.Target
		want   string // in the error; "" for none
	}{
		"one broker":               {with("kafka://broker.example.com:9092/events"), ""},
		"several brokers":          {with("kafka://b1.example.com:9092,b2.example.com:9093/events?tls=true"), ""},
		"SCRAM":                    {with("kafka://b.example.com:9092/events?sasl=scram-sha-512", secret), ""},
		"plain over TLS":           {with("kafka://b.example.com:9092/events?tls=true&sasl=plain", secret), ""},
		"MSK":                      {with("kafka://b.example.com:9098/events?tls=true&sasl=msk-iam&region=us-east-1", role), ""},
		"no topic":                 {with("kafka://b.example.com:9092"), "topic is missing"},
		"a topic with a slash":     {with("kafka://b.example.com:9092/a/b"), "topic is missing"},
		"a dot as the topic":       {with("kafka://b.example.com:9092/."), "topic is missing"},
		"no port":                  {with("kafka://b.example.com/events"), "host:port"},
		"no host":                  {with("kafka:///events"), "host:port"},
		"port 0":                   {with("kafka://b.example.com:0/events"), "port"},
		"malformed second broker":  {with("kafka://b.example.com:9092,nowhere/events"), "malformed"},
		"a private address":        {with("kafka://10.0.0.1:9092/events"), "not an allowed destination"},
		"private second broker":    {with("kafka://b.example.com:9092,169.254.169.254:80/events"), "not an allowed destination"},
		"too many brokers":         {with("kafka://" + strings.Repeat("b.example.com:9092,", 10) + "b.example.com:9092/events"), "at most 10"},
		"an unknown mechanism":     {with("kafka://b.example.com:9092/events?sasl=gssapi", secret), "must be plain"},
		"SASL without credentials": {with("kafka://b.example.com:9092/events?sasl=scram-sha-256"), "the secret"},
		"credentials without SASL": {with("kafka://b.example.com:9092/events", secret), "credentials require"},
		"plain without TLS":        {with("kafka://b.example.com:9092/events?sasl=plain", secret), "tls=true"},
		"MSK without TLS":          {with("kafka://b.example.com:9092/events?sasl=msk-iam&region=us-east-1"), "tls=true"},
		"MSK without a region":     {with("kafka://b.example.com:9092/events?tls=true&sasl=msk-iam"), "region"},
		"a region without MSK":     {with("kafka://b.example.com:9092/events?region=us-east-1"), "msk-iam only"},
		"a role without MSK":       {with("kafka://b.example.com:9092/events", role), "msk-iam only"},
		"tls is not a boolean":     {with("kafka://b.example.com:9092/events?tls=perhaps"), "true or false"},
		"an unknown parameter":     {with("kafka://b.example.com:9092/events?acks=0"), `"acks"`},
		"a duplicate parameter":    {with("kafka://b.example.com:9092/events?tls=true&tls=false"), "duplicate"},
		"a password":               {with("kafka://u:hunter2@b.example.com:9092/events"), "password"},
		"a fragment":               {with("kafka://b.example.com:9092/events#x"), "fragment"},
		"ordered":                  {with("kafka://b.example.com:9092/events", func(t *destination.Target) { t.Ordered = true }), "Pub/Sub"},
	} {
		t.Run(name, func(t *testing.T) {
			destinationtest.CheckURL(t, strict, c.target, c.want, "kafka://broker:9092")
		})
	}
}

var hello = destination.Message{EventID: "01J", EventType: "user.posted_comment", Subject: "d1", Body: []byte("{}")}

func send(t *testing.T, r *destination.Router, target destination.Target) delivery.Outcome {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	return r.Deliver(ctx, target, hello)
}

func router(t *testing.T, o kafkaadapter.Options) *destination.Router {
	t.Helper()
	if o.Guard == nil {
		o.Guard = loopback()
	}
	r := destination.NewRouter(10, kafkaadapter.Kind(o))
	t.Cleanup(func() { _ = r.Close() })
	return r
}

func TestErrorCodesAreClassified(t *testing.T) {
	for _, c := range []struct {
		answer    *kerr.Error
		class     delivery.Class
		permanent bool
	}{
		{kerr.NotEnoughReplicas, delivery.Answered, false},
		{kerr.NotEnoughReplicasAfterAppend, delivery.Answered, false},
		{kerr.NotLeaderForPartition, delivery.Answered, false},
		{kerr.UnknownTopicOrPartition, delivery.Answered, false}, // from a leader that has just moved
		{kerr.LeaderNotAvailable, delivery.Answered, false},
		{kerr.KafkaStorageError, delivery.Answered, false},
		{kerr.RequestTimedOut, delivery.Timeout, false},
		{kerr.ThrottlingQuotaExceeded, delivery.Throttled, false},
		{kerr.MessageTooLarge, delivery.TooLarge, true},
		{kerr.RecordListTooLarge, delivery.TooLarge, true},
		{kerr.TopicAuthorizationFailed, delivery.Denied, true},
		{kerr.ClusterAuthorizationFailed, delivery.Denied, true},
		{kerr.InvalidTopicException, delivery.Missing, true},
		{kerr.PolicyViolation, delivery.Invalid, true},
		{kerr.InvalidRecord, delivery.Invalid, true},
		{kerr.UnknownServerError, delivery.Answered, false},
	} {
		t.Run(c.answer.Message, func(t *testing.T) {
			broker, gate := cluster(t)
			var requests atomic.Int32
			broker.ControlKey(int16(kmsg.Produce), func(request kmsg.Request) (kmsg.Response, error, bool) {
				broker.KeepControl()
				requests.Add(1)
				in := request.(*kmsg.ProduceRequest)
				out := in.ResponseKind().(*kmsg.ProduceResponse)
				for _, topic := range in.Topics {
					one := kmsg.NewProduceResponseTopic()
					one.Topic, one.TopicID = topic.Topic, topic.TopicID
					for _, p := range topic.Partitions {
						refused := kmsg.NewProduceResponseTopicPartition()
						refused.Partition, refused.ErrorCode = p.Partition, c.answer.Code
						one.Partitions = append(one.Partitions, refused)
					}
					out.Topics = append(out.Topics, one)
				}
				return out, nil, true
			})
			o := send(t, router(t, kafkaadapter.Options{}), destination.Target{URL: "kafka://" + gate.Address + "/" + topic})
			if o.Class != c.class || o.Permanent != c.permanent || o.Error == "" {
				t.Errorf("outcome = %+v", o)
			}
			if requests.Load() != 1 {
				t.Errorf("%d requests for one attempt", requests.Load())
			}
		})
	}
}

func TestOtherBootstrapBrokersAreTried(t *testing.T) {
	_, gate := cluster(t)
	r := router(t, kafkaadapter.Options{})
	for range 5 { // kafka-go tries them in random order
		target := destination.Target{URL: "kafka://127.0.0.1:1," + gate.Address + "/" + topic}
		if o := send(t, r, target); o.Class != delivery.Success {
			t.Fatalf("outcome = %+v", o)
		}
		_ = r.Close()
	}
}

func TestAdvertisedBrokersPassTheGuard(t *testing.T) {
	// The bootstrap address is allowed, the advertised address is not.
	var front string
	broker, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, topic), kfake.ListenFn(func(network, _ string) (net.Listener, error) {
		l, err := net.Listen(network, "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		front = l.Addr().String()
		return behind{l, &net.TCPAddr{IP: net.IPv4(169, 254, 169, 254), Port: 80}}, nil
	}))
	if err != nil {
		t.Fatal(err)
	}
	defer broker.Close()
	o := send(t, router(t, kafkaadapter.Options{}), destination.Target{URL: "kafka://" + front + "/" + topic})
	if o.Class != delivery.Blocked || !o.Permanent {
		t.Errorf("outcome = %+v, want it blocked", o)
	}
}

// vault is a secret store whose secret can change.
type vault struct {
	text  atomic.Pointer[string]
	reads atomic.Int32
}

func (v *vault) set(text string) *vault {
	v.text.Store(&text)
	return v
}

func (v *vault) Secret(_ context.Context, name string) (string, error) {
	v.reads.Add(1)
	if name != "tidings/t/kafka" {
		return "", errors.New("no such secret, and the password is hunter2")
	}
	return *v.text.Load(), nil
}

const login = `{"username":"tidings","password":"hunter2"}`

// authority is a certificate for 127.0.0.1 and the pool that trusts it.
func authority(t *testing.T) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	shape := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "broker"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, shape, shape, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

func TestSASL(t *testing.T) {
	certificate, pool := authority(t)
	for _, c := range []struct {
		name, query, method string
		tls                 bool
		secret              string
		class               delivery.Class
		permanent           bool
	}{
		{"SCRAM-SHA-256", "sasl=scram-sha-256", "SCRAM-SHA-256", false, login, delivery.Success, false},
		{"SCRAM-SHA-512", "sasl=scram-sha-512", "SCRAM-SHA-512", false, login, delivery.Success, false},
		{"SCRAM-SHA-512 over TLS", "sasl=scram-sha-512&tls=true", "SCRAM-SHA-512", true, login, delivery.Success, false},
		{"plain over TLS", "sasl=plain&tls=true", "PLAIN", true, login, delivery.Success, false},
		// kfake closes the connection; a real broker returns an error code (see brokers_test.go).
		{"mechanism not enabled on the broker", "sasl=scram-sha-256", "SCRAM-SHA-512", false, login, delivery.Protocol, false},
		{"secret is not JSON", "sasl=scram-sha-512", "SCRAM-SHA-512", false, `hunter2`, delivery.Invalid, true},
		{"secret without a password", "sasl=scram-sha-512", "SCRAM-SHA-512", false, `{"username":"hunter2"}`, delivery.Invalid, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			options := []kfake.Opt{kfake.EnableSASL(), kfake.Superuser(c.method, "tidings", "hunter2")}
			if c.tls {
				options = append(options, kfake.TLS(&tls.Config{Certificates: []tls.Certificate{certificate}}))
			}
			_, gate := cluster(t, options...)
			r := router(t, kafkaadapter.Options{RootCAs: pool, Secrets: new(vault).set(c.secret)})
			o := send(t, r, destination.Target{Tenant: "t", Credentials: "tidings/t/kafka", URL: "kafka://" + gate.Address + "/" + topic + "?" + c.query})
			if o.Class != c.class || o.Permanent != c.permanent {
				t.Errorf("outcome = %+v, want %s", o, c.class)
			}
			if strings.Contains(o.Error, "hunter2") {
				t.Errorf("the error contains a secret: %s", o.Error)
			}
		})
	}
}

func TestRotatedSecretIsReadAgain(t *testing.T) {
	_, gate := cluster(t, kfake.EnableSASL(), kfake.Superuser("SCRAM-SHA-512", "tidings", "hunter2"))
	v := new(vault).set(`{"username":"tidings","password":"swordfish"}`)
	r := router(t, kafkaadapter.Options{Secrets: v})
	target := destination.Target{Tenant: "t", Credentials: "tidings/t/kafka", URL: "kafka://" + gate.Address + "/" + topic + "?sasl=scram-sha-512"}
	o := send(t, r, target)
	if o.Class == delivery.Success || strings.Contains(o.Error, "swordfish") || o.Error == "" {
		t.Errorf("outcome = %+v", o)
	}
	t.Logf("a wrong password: %s, permanent %v: %s", o.Class, o.Permanent, o.Error)
	v.set(login)
	if o := send(t, r, target); o.Class != delivery.Success || v.reads.Load() != 2 {
		t.Errorf("after the secret was corrected: %+v, %d reads", o, v.reads.Load())
	}
	for range 5 {
		send(t, r, target)
	}
	if v.reads.Load() != 2 {
		t.Errorf("a working secret was read %d times", v.reads.Load())
	}
}

func TestUnreadableSecretIsRetried(t *testing.T) {
	r := router(t, kafkaadapter.Options{Secrets: new(vault).set(login)})
	o := send(t, r, destination.Target{Tenant: "t", Credentials: "tidings/t/other", URL: "kafka://127.0.0.1:1/events?sasl=scram-sha-512"})
	if o.Class != delivery.Denied || o.Permanent || strings.Contains(o.Error, "hunter2") || !strings.Contains(o.Error, "tidings/t/other") {
		t.Errorf("outcome = %+v", o)
	}
}

func TestMSKIAMSignsWithTheRolesCredentials(t *testing.T) {
	certificate, pool := authority(t)
	broker, gate := cluster(t, kfake.TLS(&tls.Config{Certificates: []tls.Certificate{certificate}}))
	var mechanism string
	var token map[string]string
	broker.ControlKey(int16(kmsg.SASLHandshake), func(request kmsg.Request) (kmsg.Response, error, bool) {
		broker.KeepControl()
		mechanism = request.(*kmsg.SASLHandshakeRequest).Mechanism
		return request.ResponseKind(), nil, true
	})
	broker.ControlKey(int16(kmsg.SASLAuthenticate), func(request kmsg.Request) (kmsg.Response, error, bool) {
		broker.KeepControl()
		if err := json.Unmarshal(request.(*kmsg.SASLAuthenticateRequest).SASLAuthBytes, &token); err != nil {
			t.Error(err)
		}
		return request.ResponseKind(), nil, true
	})
	assumed := ""
	provider := func(key string) aws.CredentialsProvider {
		return credentials.NewStaticCredentialsProvider(key, "a secret", "a session")
	}
	r := router(t, kafkaadapter.Options{
		RootCAs: pool, Credentials: func() aws.CredentialsProvider { return provider("AKIAOWN") },
		AssumeRole: func(role, externalID, region string) aws.CredentialsProvider {
			assumed = role + " " + externalID + " " + region
			return provider("ASIAROLE")
		},
	})
	url := "kafka://" + gate.Address + "/" + topic + "?tls=true&sasl=msk-iam&region=eu-central-1"
	for _, c := range []struct{ role, key string }{{"", "AKIAOWN"}, {"arn:aws:iam::123456789012:role/msk", "ASIAROLE"}} {
		if o := send(t, r, destination.Target{Tenant: "t", ID: c.key, URL: url, RoleARN: c.role}); o.Class != delivery.Success {
			t.Fatalf("outcome = %+v", o)
		}
		// The format is defined in github.com/aws/aws-msk-iam-auth, "Details".
		if mechanism != "AWS_MSK_IAM" || token["version"] != "2020_10_22" || token["action"] != "kafka-cluster:Connect" || token["host"] != "127.0.0.1" ||
			token["x-amz-signature"] == "" || !strings.HasPrefix(token["x-amz-credential"], c.key+"/") || !strings.Contains(token["x-amz-credential"], "/eu-central-1/kafka-cluster/") {
			t.Errorf("mechanism %s, token %v", mechanism, token)
		}
	}
	if assumed != "arn:aws:iam::123456789012:role/msk t eu-central-1" {
		t.Errorf("assumed %q", assumed)
	}
}

func TestSubjectSelectsThePartition(t *testing.T) {
	_, gate := cluster(t)
	r := router(t, kafkaadapter.Options{})
	target := destination.Target{URL: "kafka://" + gate.Address + "/" + topic}
	client := &kafka.Client{Addr: kafka.TCP(gate.Address), Transport: &kafka.Transport{}}
	count := func() map[int]int64 {
		var ask []kafka.OffsetRequest
		for p := range 3 {
			ask = append(ask, kafka.LastOffsetOf(p))
		}
		offsets, err := client.ListOffsets(t.Context(), &kafka.ListOffsetsRequest{Topics: map[string][]kafka.OffsetRequest{topic: ask}})
		if err != nil {
			t.Fatal(err)
		}
		counts := map[int]int64{}
		for _, p := range offsets.Topics[topic] {
			if p.LastOffset > 0 {
				counts[p.Partition] = p.LastOffset
			}
		}
		return counts
	}
	for range 20 {
		if o := send(t, r, target); o.Class != delivery.Success {
			t.Fatalf("outcome = %+v", o)
		}
	}
	if got := count(); len(got) != 1 {
		t.Errorf("records of one subject are in partitions %v", got)
	}
	for i := range 30 {
		m := hello
		m.Subject, m.EventID = "", string(rune('a'+i))
		if o := r.Deliver(t.Context(), target, m); o.Class != delivery.Success {
			t.Fatalf("outcome = %+v", o)
		}
	}
	if got := count(); len(got) != 3 {
		t.Errorf("30 records without a subject are in partitions %v", got)
	}
}

func TestTimedOutRecordIsNotWrittenLater(t *testing.T) {
	// kafka.Writer would write it: it queues records behind the current one.
	broker, gate := cluster(t)
	r := router(t, kafkaadapter.Options{})
	target := destination.Target{URL: "kafka://" + gate.Address + "/" + topic}
	if o := send(t, r, target); o.Class != delivery.Success {
		t.Fatal(o)
	}
	var produced atomic.Int32
	release := make(chan struct{})
	broker.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
		broker.KeepControl()
		if produced.Add(1) == 1 {
			broker.SleepControl(func() { <-release })
		}
		return nil, nil, false
	})
	for range 5 {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		if o := r.Deliver(ctx, target, hello); o.Class != delivery.Timeout && o.Class != delivery.Success {
			t.Errorf("outcome = %+v", o)
		}
		cancel()
	}
	seen := produced.Load()
	close(release)
	if o := send(t, r, target); o.Class != delivery.Success {
		t.Errorf("after the broker woke up: %+v", o)
	}
	if late := produced.Load() - seen; late != 1 {
		t.Errorf("%d requests reached the broker after their attempts had ended", late-1)
	}
}

// kafka-go's decoder trusts lengths: with these responses it panics in a goroutine of its
// own, or takes gigabytes.
func TestAMalformedResponseEndsTheAttemptAndNotTheProcess(t *testing.T) {
	for name, answer := range map[string]string{
		"a negative length":            "\xff\xff\xff\xfb\x00\x00\x00\x01",
		"a length of 2 GB":             "\x7f\xff\xff\xff\x00\x00\x00\x01",
		"an array of 2^31-1 elements":  "\x00\x00\x00\x0a\x00\x00\x00\x01\x00\x00\x7f\xff\xff\xff",
		"no correlation id":            "\x00\x00\x00\x02\x00\x00",
		"the greeting of another port": "SSH-2.0-OpenSSH_9.9\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			broker := destinationtest.Listen(t, func(conn net.Conn) {
				_, _ = conn.Read(make([]byte, 1024))
				_, _ = conn.Write([]byte(answer))
				_, _ = io.Copy(io.Discard, conn)
			})
			r := destination.NewRouter(1, kafkaadapter.Kind(kafkaadapter.Options{Guard: loopback()}))
			defer r.Close()
			// kafka-go tries again until the attempt's end.
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			o := r.Deliver(ctx, destination.Target{Tenant: "t", ID: "e", URL: "kafka://" + broker + "/events"}, destination.Message{EventID: "e", Body: []byte("{}")})
			if o.Class != delivery.Protocol || o.Permanent {
				t.Errorf("outcome %+v, want class protocol, retried", o)
			}
		})
	}
}
