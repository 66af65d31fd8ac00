package kafkaadapter

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/segmentio/kafka-go/protocol"
	_ "github.com/segmentio/kafka-go/protocol/apiversions"
	_ "github.com/segmentio/kafka-go/protocol/metadata"
	_ "github.com/segmentio/kafka-go/protocol/produce"
	_ "github.com/segmentio/kafka-go/protocol/saslauthenticate"
	_ "github.com/segmentio/kafka-go/protocol/saslhandshake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// FuzzBrokerResponse: kafka-go decodes every response that passes the check without a
// panic, whatever its bytes.
func FuzzBrokerResponse(f *testing.F) {
	keys := []int16{0, 3, 17, 18, 36}
	add := func(i uint8, version uint8, r kmsg.Response) {
		r.SetVersion(int16(version))
		f.Add(i, version, r.AppendTo([]byte{0, 0, 0, 1}))
	}
	produced := kmsg.NewPtrProduceResponse()
	produced.Topics = []kmsg.ProduceResponseTopic{{Topic: "events", Partitions: []kmsg.ProduceResponseTopicPartition{{Partition: 1}}}}
	add(0, 8, produced)
	layout := kmsg.NewPtrMetadataResponse()
	layout.Brokers = []kmsg.MetadataResponseBroker{{NodeID: 1, Host: "broker", Port: 9092}}
	layout.Topics = []kmsg.MetadataResponseTopic{{Topic: kmsg.StringPtr("events"), Partitions: []kmsg.MetadataResponseTopicPartition{{Leader: 1, Replicas: []int32{1}}}}}
	for version := range uint8(9) {
		add(1, version, layout)
	}
	add(2, 1, &kmsg.SASLHandshakeResponse{SupportedMechanisms: []string{"PLAIN"}})
	add(3, 0, &kmsg.ApiVersionsResponse{ApiKeys: []kmsg.ApiVersionsResponseApiKey{{ApiKey: 3, MaxVersion: 8}}})
	add(4, 1, &kmsg.SASLAuthenticateResponse{SASLAuthBytes: []byte("x")})
	f.Add(uint8(3), uint8(0), []byte("\x00\x00\x00\x01\x00\x00\x7f\xff\xff\xff"))
	f.Fuzz(func(_ *testing.T, i, version uint8, response []byte) {
		if len(response) > maxResponse {
			return
		}
		key := keys[int(i)%len(keys)]
		if check(response, key, int16(version)) != nil {
			return
		}
		whole := append(binary.BigEndian.AppendUint32(nil, uint32(len(response))), response...)
		_, _, _ = protocol.ReadResponse(bytes.NewReader(whole), protocol.ApiKey(key), int16(version)) // an error is fine
	})
}
