package simulation

import (
	"strconv"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/tidings-dev/tidings/pkg/aws/lambdaevent"
	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/delivery/work"
)

// simQueue is a standard queue with its event source mapping and its dead-letter
// queue, on a bad day: messages come twice, late and in any order.
type simQueue struct {
	s        *sim
	next     int
	messages int // that are not deleted
	visible  []*message
	buried   []*message
	running  int // batches under way
	polling  bool
}

type message struct {
	id       int
	body     string
	key      delivery.Key
	receives int
	deleted  bool
	receipt  int // of the latest receive
}

func newQueue(s *sim) *simQueue { return &simQueue{s: s} }

func (q *simQueue) size() int { return q.messages }
func (q *simQueue) dead() int { return len(q.buried) }

// send is SQS's SendMessageBatch.
func (q *simQueue) send(in *sqs.SendMessageBatchInput) *sqs.SendMessageBatchOutput {
	out := &sqs.SendMessageBatchOutput{}
	for _, e := range in.Entries {
		if q.s.faulty(q.s.plan.faults.sendFails) {
			out.Failed = append(out.Failed, types.BatchResultErrorEntry{Id: e.Id, Code: aws.String("ServiceUnavailable"), Message: aws.String("try again"), SenderFault: false})
			continue
		}
		q.put(*e.MessageBody, time.Duration(e.DelaySeconds)*time.Second)
		out.Successful = append(out.Successful, types.SendMessageBatchResultEntry{Id: e.Id})
	}
	return out
}

func (q *simQueue) put(body string, delay time.Duration) {
	q.next++
	m := &message{id: q.next, body: body}
	if item, err := work.Decode(body); err == nil {
		m.key = delivery.Key{EndpointID: item.EndpointID, EventID: item.EventID}
	}
	q.messages++
	q.s.note(m.key, "message %d is queued, for in %s: %s", m.id, delay, body)
	if q.s.faulty(q.s.plan.faults.queueLate) {
		delay += q.s.between(0, 10*time.Minute)
	}
	q.show(m, delay)
}

// show makes a message visible after a while, unless it is deleted first.
func (q *simQueue) show(m *message, wait time.Duration) {
	q.s.after(wait, func() {
		if m.deleted {
			return
		}
		q.visible = append(q.visible, m)
		q.poll()
	})
}

// poll is the event source mapping's.
func (q *simQueue) poll() {
	if q.polling || q.running >= q.s.plan.workers || len(q.visible) == 0 {
		return
	}
	q.polling = true
	q.s.after(q.s.between(0, 50*time.Millisecond), func() {
		q.polling = false
		q.receive()
		q.poll()
	})
}

func (q *simQueue) receive() {
	s := q.s
	var batch []*message
	var receipts []int
	var in events.SQSEvent
	limit := 1 + s.rng.IntN(queueBatch)
	for len(batch) < limit && len(q.visible) > 0 {
		i := s.rng.IntN(len(q.visible))
		m := q.visible[i]
		q.visible[i] = q.visible[len(q.visible)-1]
		q.visible = q.visible[:len(q.visible)-1]
		if m.deleted {
			continue
		}
		if m.receives >= maxReceives {
			s.note(m.key, "message %d goes to the dead-letter queue", m.id)
			m.deleted = true
			q.messages--
			q.buried = append(q.buried, m)
			continue
		}
		m.receives++
		m.receipt++
		receipt := m.receipt
		if s.faulty(s.plan.faults.queueDuplicate) {
			s.Counts.QueueDuplicates++
			s.note(m.key, "message %d is handed out twice", m.id)
			q.show(m, s.between(0, 30*time.Second))
		} else {
			s.after(visibility, func() {
				if !m.deleted && m.receipt == receipt {
					q.visible = append(q.visible, m)
					q.poll()
				}
			})
		}
		batch, receipts = append(batch, m), append(receipts, receipt)
		in.Records = append(in.Records, events.SQSMessage{
			MessageId: strconv.Itoa(m.id), Body: m.body, EventSource: "aws:sqs",
			Attributes: map[string]string{"ApproximateReceiveCount": strconv.Itoa(m.receives)},
		})
	}
	if len(batch) == 0 {
		return
	}
	q.running++
	s.cloud.invoke("dispatch", "deliver", in, func(answer any, err error) {
		q.running--
		failed := map[string]bool{}
		if err == nil {
			for _, f := range answer.(lambdaevent.BatchResponse).Failures {
				failed[f.ID] = true
			}
		}
		for i, m := range batch {
			if err != nil || failed[strconv.Itoa(m.id)] {
				s.note(m.key, "message %d is not dealt with: it comes again", m.id)
				continue
			}
			q.delete(m, receipts[i])
		}
		q.poll()
	})
}

func (q *simQueue) delete(m *message, receipt int) {
	if m.deleted {
		return
	}
	if q.s.faulty(q.s.plan.faults.queueDuplicate) {
		// Standard queues may show a message again that was deleted.
		q.s.Counts.QueueDuplicates++
		q.s.note(m.key, "message %d comes again although it was deleted", m.id)
		q.show(m, q.s.between(0, time.Minute))
		return
	}
	m.deleted = true
	q.messages--
}

// redrive brings what is in the dead-letter queue back.
func (q *simQueue) redrive() {
	buried := q.buried
	q.buried = nil
	for _, m := range buried {
		q.s.Counts.Redriven++
		q.s.note(m.key, "message %d is redriven", m.id)
		q.put(m.body, 0)
	}
}
