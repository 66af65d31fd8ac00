//go:build brokers

package kafkaadapter_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/destination"
	"github.com/tidings-dev/tidings/pkg/destination/kafkaadapter"
	"github.com/tidings-dev/tidings/test/brokers"
	"github.com/tidings-dev/tidings/test/destinationtest"
)

// apache starts Apache Kafka with its plaintext listener behind a gate.
func apache(t *testing.T) (*brokers.Kafka, *destinationtest.Gate) {
	t.Helper()
	dir := t.TempDir()
	log, err := os.Create(filepath.Join(dir, "kafka.log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	var gate *destinationtest.Gate
	k, err := brokers.StartKafka(t.Context(), dir, func(address string) string {
		gate = destinationtest.NewGate(t, address)
		return gate.Address
	}, log)
	if err != nil {
		text, _ := os.ReadFile(log.Name())
		t.Fatalf("%v\n%s", err, text)
	}
	t.Cleanup(k.Stop)
	return k, gate
}

// create creates a topic and waits until all partitions have a leader.
func create(t *testing.T, broker, topic string) {
	t.Helper()
	transport := &kafka.Transport{MetadataTTL: 100 * time.Millisecond}
	defer transport.CloseIdleConnections()
	client := &kafka.Client{Addr: kafka.TCP(broker), Transport: transport}
	answer, err := client.CreateTopics(t.Context(), &kafka.CreateTopicsRequest{
		Topics: []kafka.TopicConfig{{Topic: topic, NumPartitions: partitions, ReplicationFactor: 1}},
	})
	if err != nil || answer.Errors[topic] != nil {
		t.Fatalf("create topic: %v, %v", err, answer)
	}
	var ask []kafka.OffsetRequest
	for p := range partitions {
		ask = append(ask, kafka.LastOffsetOf(p))
	}
	for began := time.Now(); ; {
		offsets, err := client.ListOffsets(t.Context(), &kafka.ListOffsetsRequest{Topics: map[string][]kafka.OffsetRequest{topic: ask}})
		ready := err == nil && len(offsets.Topics[topic]) == partitions
		if ready {
			for _, p := range offsets.Topics[topic] {
				ready = ready && p.Error == nil
			}
		}
		if ready {
			return
		}
		if time.Since(began) > 20*time.Second {
			t.Fatalf("the topic's partitions have no leader: %v, %+v", err, offsets)
		}
	}
}

func TestRealKafka(t *testing.T) {
	k, gate := apache(t)
	t.Run("conformance", func(t *testing.T) {
		n := 0
		destinationtest.Run(t, func(t *testing.T) destinationtest.Destination {
			gate.Up()
			n++
			topic := fmt.Sprint("events-", n)
			create(t, gate.Address, topic)
			return newDestination(t, gate, topic)
		})
	})
	gate.Up()
	create(t, gate.Address, topic)
	login := `{"username":"` + brokers.KafkaUser + `","password":"` + brokers.KafkaPassword + `"}`
	for _, c := range []struct {
		name, broker, query, secret string
		class                       delivery.Class
		permanent                   bool
	}{
		{"SCRAM-SHA-256", k.SASL, "sasl=scram-sha-256", login, delivery.Success, false},
		{"SCRAM-SHA-512", k.SASL, "sasl=scram-sha-512", login, delivery.Success, false},
		{"SCRAM-SHA-512 over TLS", k.SASLTLS, "sasl=scram-sha-512&tls=true", login, delivery.Success, false},
		{"plain over TLS", k.SASLTLS, "sasl=plain&tls=true", login, delivery.Success, false},
		{"wrong password with SCRAM", k.SASL, "sasl=scram-sha-512", `{"username":"tidings","password":"wrong"}`, delivery.Denied, true},
		{"wrong password with plain", k.SASLTLS, "sasl=plain&tls=true", `{"username":"tidings","password":"wrong"}`, delivery.Denied, true},
		{"mechanism not enabled on the port", k.SASLTLS, "sasl=scram-sha-256&tls=true", login, delivery.Denied, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := router(t, kafkaadapter.Options{RootCAs: k.RootCAs, Secrets: new(vault).set(c.secret)})
			o := send(t, r, destination.Target{Tenant: "t", Credentials: "tidings/t/kafka", URL: "kafka://" + c.broker + "/" + topic + "?" + c.query})
			if o.Class != c.class || o.Permanent != c.permanent {
				t.Errorf("outcome = %+v, want %s", o, c.class)
			}
		})
	}
	t.Run("missing login", func(t *testing.T) {
		o := send(t, router(t, kafkaadapter.Options{}), destination.Target{URL: "kafka://" + k.SASL + "/" + topic})
		if o.Class == delivery.Success || o.Permanent {
			t.Errorf("outcome = %+v", o)
		}
		t.Logf("%s: %s", o.Class, o.Error)
	})
	t.Run("certificate from an unknown authority", func(t *testing.T) {
		r := router(t, kafkaadapter.Options{Secrets: new(vault).set(login)})
		o := send(t, r, destination.Target{Tenant: "t", Credentials: "tidings/t/kafka", URL: "kafka://" + k.SASLTLS + "/" + topic + "?sasl=plain&tls=true"})
		if o.Class != delivery.TLS || o.Permanent {
			t.Errorf("outcome = %+v", o)
		}
	})
	t.Run("broker restart", func(t *testing.T) {
		r := router(t, kafkaadapter.Options{})
		target := destination.Target{URL: "kafka://" + gate.Address + "/" + topic}
		if o := send(t, r, target); o.Class != delivery.Success {
			t.Fatalf("before: %+v", o)
		}
		k.Stop()
		if o := send(t, r, target); o.Class == delivery.Success || o.Permanent {
			t.Errorf("while it was down: %+v", o)
		}
		if err := k.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		for began := time.Now(); ; {
			o := send(t, r, target)
			if o.Class == delivery.Success {
				t.Logf("delivered %s after the restart", time.Since(began))
				break
			}
			if o.Permanent || time.Since(began) > time.Minute {
				t.Fatalf("after: %+v", o)
			}
		}
	})
}
