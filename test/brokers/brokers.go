// Package brokers starts real brokers for `make test-brokers`: Apache Kafka,
// ElasticMQ, moto and Google's Pub/Sub emulator, each as a child process on free
// loopback ports, as fetched by tools/brokers/fetch. It promises that a broker is
// ready when its Start returns, and that it ends with the test binary.
package brokers

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/tidings-dev/tidings/pkg/local/process"
	"github.com/tidings-dev/tidings/test/checkout"
)

// readyTime is the limit for a start; Kafka takes 4 s on two cores.
const readyTime = 90 * time.Second

// ErrNotHere means that a broker is not installed and cannot be fetched.
var ErrNotHere = errors.New("not on this machine")

// fetched returns the folder of a broker that tools/brokers/fetch has fetched.
func fetched(name string) (string, error) {
	dir, err := checkout.Path("tools", "brokers", ".cache", name)
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(filepath.Join(dir, "complete")); err != nil {
		return "", fmt.Errorf("%s: run `make test-brokers`, which fetches it: %w", name, err)
	}
	return dir, nil
}

// ports returns n different ports that are free now. It holds each until it has all of
// them: the kernel may give the same port twice.
func ports(n int) ([]int, error) {
	list := make([]int, n)
	for i := range list {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close()
		list[i] = l.Addr().(*net.TCPAddr).Port
	}
	return list, nil
}

// Answers reports whether a URL answers over HTTP, with any status.
func Answers(url string) func(context.Context) error {
	return func(ctx context.Context) error {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			return err
		}
		return response.Body.Close()
	}
}

// listens reports whether something listens at an address.
func listens(address string) func(context.Context) error {
	return func(ctx context.Context) error {
		c, err := new(net.Dialer).DialContext(ctx, "tcp", address)
		if err != nil {
			return err
		}
		return c.Close()
	}
}

// launch starts a command and waits until it is ready.
func launch(ctx context.Context, log io.Writer, ready func(context.Context) error, name string, args ...string) (*process.Process, error) {
	c := exec.Command(name, args...)
	c.Stdout, c.Stderr = log, log
	p, err := process.Start(c)
	if err != nil {
		return nil, err
	}
	if err := p.Ready(ctx, readyTime, ready); err != nil {
		p.Stop()
		return nil, err
	}
	return p, nil
}

// Server is a broker with one address.
type Server struct {
	Address string // host:port
	process *process.Process
}

// Stop ends the broker.
func (s *Server) Stop() { s.process.Stop() }

// ElasticMQ starts ElasticMQ, an SQS.
func ElasticMQ(ctx context.Context, log io.Writer) (*Server, error) {
	dir, err := fetched("elasticmq")
	if err != nil {
		return nil, err
	}
	port, err := process.FreePort()
	if err != nil {
		return nil, err
	}
	s := &Server{Address: fmt.Sprintf("127.0.0.1:%d", port)}
	s.process, err = launch(ctx, log, Answers("http://"+s.Address+"/"), "java", "-Xmx256m", "-cp", filepath.Join(dir, "*"),
		fmt.Sprintf("-Drest-sqs.bind-port=%d", port), "-Drest-sqs.bind-hostname=127.0.0.1", "-Drest-stats.enabled=false",
		fmt.Sprintf("-Dnode-address.port=%d", port), "-Dnode-address.host=127.0.0.1", "org.elasticmq.server.Main")
	return s, err
}

// Moto starts moto's server, many of AWS's services; its DynamoDB takes one
// request at a time (see tools/brokers/moto_server.py).
func Moto(ctx context.Context, log io.Writer) (*Server, error) {
	dir, err := fetched("moto")
	if err != nil {
		return nil, err
	}
	port, err := process.FreePort()
	if err != nil {
		return nil, err
	}
	s := &Server{Address: fmt.Sprintf("127.0.0.1:%d", port)}
	s.process, err = launch(ctx, log, Answers("http://"+s.Address+"/moto-api/"), filepath.Join(dir, "bin", "python3"),
		filepath.Join(dir, "..", "..", "moto_server.py"), "127.0.0.1", fmt.Sprint(port))
	return s, err
}

// PubSub starts Google's Pub/Sub emulator of gcloud. It returns ErrNotHere if it is
// not installed, because no package registry has it.
func PubSub(ctx context.Context, log io.Writer) (*Server, error) {
	var jars []string
	for _, root := range []string{os.Getenv("CLOUDSDK_ROOT_DIR"), "/usr/lib/google-cloud-sdk", "/usr/share/google-cloud-sdk", filepath.Join(os.Getenv("HOME"), "google-cloud-sdk")} {
		found, err := filepath.Glob(filepath.Join(root, "platform", "pubsub-emulator", "lib", "cloud-pubsub-emulator-*.jar"))
		if root == "" || err != nil {
			continue
		}
		jars = append(jars, found...)
	}
	if len(jars) == 0 {
		return nil, fmt.Errorf("the Pub/Sub emulator (gcloud components install pubsub-emulator): %w", ErrNotHere)
	}
	port, err := process.FreePort()
	if err != nil {
		return nil, err
	}
	s := &Server{Address: fmt.Sprintf("127.0.0.1:%d", port)}
	s.process, err = launch(ctx, log, Answers("http://"+s.Address+"/"), "java", "-Xmx256m", "-jar", jars[0], "--host=127.0.0.1", fmt.Sprintf("--port=%d", port))
	return s, err
}

// KafkaUser and KafkaPassword are the login for the SASL listeners.
const (
	KafkaUser     = "tidings"
	KafkaPassword = "correct-horse-battery-staple"
)

// Kafka is Apache Kafka, one node in KRaft mode.
type Kafka struct {
	// Plaintext needs no login and advertises the address given to StartKafka. SASL
	// accepts SCRAM-SHA-256 and -512 without TLS; SASLTLS accepts PLAIN and
	// SCRAM-SHA-512 with TLS.
	Plaintext, SASL, SASLTLS string
	// RootCAs verify the certificate of SASLTLS.
	RootCAs *x509.CertPool

	dir, jars string
	log       io.Writer
	process   *process.Process
}

// StartKafka starts a broker that keeps its data in dir. advertise is told where
// the plaintext listener will be and returns what it shall advertise.
func StartKafka(ctx context.Context, dir string, advertise func(address string) string, log io.Writer) (*Kafka, error) {
	jars, err := fetched("kafka")
	if err != nil {
		return nil, err
	}
	p, err := ports(5)
	if err != nil {
		return nil, err
	}
	at := func(i int) string { return fmt.Sprintf("127.0.0.1:%d", p[i]) }
	k := &Kafka{Plaintext: at(0), SASL: at(1), SASLTLS: at(2), dir: dir, jars: filepath.Join(jars, "*"), log: log}
	keystore := filepath.Join(dir, "broker.pem")
	if k.RootCAs, err = certificate(keystore); err != nil {
		return nil, err
	}
	const scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
	properties := map[string]string{
		"process.roles": "broker,controller", "node.id": "1", "controller.quorum.voters": "1@" + at(4), "controller.listener.names": "CONTROLLER",
		"listeners":                                            fmt.Sprintf("PLAINTEXT://%s,SASL://%s,SASLTLS://%s,INTERNAL://%s,CONTROLLER://%s", at(0), at(1), at(2), at(3), at(4)),
		"advertised.listeners":                                 fmt.Sprintf("PLAINTEXT://%s,SASL://%s,SASLTLS://%s,INTERNAL://%s", advertise(at(0)), at(1), at(2), at(3)),
		"inter.broker.listener.name":                           "INTERNAL",
		"listener.security.protocol.map":                       "PLAINTEXT:PLAINTEXT,SASL:SASL_PLAINTEXT,SASLTLS:SASL_SSL,INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT",
		"listener.name.sasl.sasl.enabled.mechanisms":           "SCRAM-SHA-256,SCRAM-SHA-512",
		"listener.name.sasl.scram-sha-256.sasl.jaas.config":    scram,
		"listener.name.sasl.scram-sha-512.sasl.jaas.config":    scram,
		"listener.name.sasltls.sasl.enabled.mechanisms":        "PLAIN,SCRAM-SHA-512",
		"listener.name.sasltls.scram-sha-512.sasl.jaas.config": scram,
		"listener.name.sasltls.plain.sasl.jaas.config":         fmt.Sprintf("org.apache.kafka.common.security.plain.PlainLoginModule required user_%s=\"%s\";", KafkaUser, KafkaPassword),
		"listener.name.sasltls.ssl.keystore.type":              "PEM",
		"listener.name.sasltls.ssl.keystore.location":          keystore,
		"log.dirs":                                 filepath.Join(dir, "data"),
		"auto.create.topics.enable":                "false",
		"offsets.topic.replication.factor":         "1",
		"transaction.state.log.replication.factor": "1",
		"transaction.state.log.min.isr":            "1",
	}
	var text strings.Builder
	for name, value := range properties {
		fmt.Fprintf(&text, "%s=%s\n", name, value)
	}
	if err := os.WriteFile(k.settings(), []byte(text.String()), 0o600); err != nil {
		return nil, err
	}
	user := fmt.Sprintf("[name=%s,password=%s]", KafkaUser, KafkaPassword)
	format := exec.CommandContext(ctx, "java", "-Xmx256m", "-cp", k.jars, "kafka.tools.StorageTool", "format", "-t", "AAAAAAAAQACAAAAAAAAAAQ", "-c", k.settings(),
		"--add-scram", "SCRAM-SHA-256="+user, "--add-scram", "SCRAM-SHA-512="+user)
	format.Stdout, format.Stderr = log, log
	if err := format.Run(); err != nil {
		return nil, fmt.Errorf("format Kafka's storage: %w", err)
	}
	return k, k.Start(ctx)
}

func (k *Kafka) settings() string { return filepath.Join(k.dir, "server.properties") }

// Start starts a stopped broker on its ports and its data.
func (k *Kafka) Start(ctx context.Context) (err error) {
	k.process, err = launch(ctx, k.log, listens(k.Plaintext), "java", "-Xmx512m", "-cp", k.jars, "kafka.Kafka", k.settings())
	return err
}

// Stop kills the broker.
func (k *Kafka) Stop() { k.process.Stop() }

// certificate writes a key and a self-signed certificate for 127.0.0.1, and returns
// a pool with it.
func certificate(path string) (*x509.CertPool, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	shape := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "broker"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, shape, shape, key.Public(), key)
	if err != nil {
		return nil, err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	text := append(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	if err := os.WriteFile(path, text, 0o600); err != nil {
		return nil, err
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AddCert(parsed)
	return pool, nil
}
