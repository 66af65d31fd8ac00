package dispatch

import (
	"fmt"
	"strconv"
	"time"

	"github.com/tidings-dev/tidings/pkg/onepass"
)

// Message is one of a batch from the work queue.
type Message struct {
	ID       string // by which the queue is told that it has to come again
	Body     []byte
	Receives int       // how often it has been received, with this time; 0 where SQS does not say
	SentAt   time.Time // when it was put on the queue; zero where SQS does not say
}

// readBatch reads what Lambda invokes a function with for an SQS queue, of which
// most fields are of no use here (events.SQSEvent has them all).
func readBatch(payload []byte) ([]Message, error) {
	batch := make([]Message, 0, 10) // the template's BatchSize
	err := onepass.Read(payload, func(r *onepass.Reader) error {
		return r.Object(func(name []byte) error {
			if string(name) != "Records" {
				return r.Skip()
			}
			return r.Array(func() error {
				m, err := readMessage(r)
				batch = append(batch, m)
				return err
			})
		})
	})
	if err != nil {
		return nil, fmt.Errorf("queue batch: %w", err)
	}
	return batch, nil
}

func readMessage(r *onepass.Reader) (m Message, err error) {
	var receives, sent string
	err = r.Object(func(name []byte) error {
		switch string(name) {
		case "messageId":
			return r.String(&m.ID)
		case "body":
			return r.Bytes(&m.Body)
		case "attributes":
			return r.Object(func(name []byte) error {
				switch string(name) {
				case "ApproximateReceiveCount":
					return r.String(&receives)
				case "SentTimestamp":
					return r.String(&sent)
				}
				return r.Skip()
			})
		}
		return r.Skip()
	})
	m.Receives, _ = strconv.Atoi(receives)
	if ms, err := strconv.ParseInt(sent, 10, 64); err == nil {
		m.SentAt = time.UnixMilli(ms)
	}
	return m, err
}
