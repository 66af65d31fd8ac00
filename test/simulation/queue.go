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
	"github.com/tidings-dev/tidings/pkg/local/queue"
)

// workQueue is the local queue with a dead-letter queue and an event source mapping.
// The seed chooses the order of messages, duplicates them and delays them, as a
// standard queue may.
type workQueue struct {
	s       *sim
	queue   *queue.Queue
	dead    *queue.Queue
	running int // batches under way
	polling bool
}

func newQueue(s *sim) *workQueue {
	open := func(c queue.Config) *queue.Queue {
		c.Visibility, c.Choose = visibility, s.rng.IntN
		q, err := queue.Open(c)
		if err != nil {
			panic(err) // only a journal can fail
		}
		return q
	}
	q := &workQueue{s: s, dead: open(queue.Config{Name: "dead"})}
	q.queue = open(queue.Config{Name: "work", MaxReceives: maxReceives, Dead: q.dead})
	return q
}

// empty reports whether no message is left, dead letters aside.
func (q *workQueue) empty() bool { return q.queue.Stats() == (queue.Stats{}) }

// send is SQS's SendMessageBatch.
func (q *workQueue) send(in *sqs.SendMessageBatchInput) *sqs.SendMessageBatchOutput {
	out := &sqs.SendMessageBatchOutput{}
	for _, e := range in.Entries {
		if q.s.faulty(q.s.plan.faults.sendFails) {
			out.Failed = append(out.Failed, types.BatchResultErrorEntry{Id: e.Id, Code: aws.String("ServiceUnavailable"), Message: aws.String("try again"), SenderFault: false})
			continue
		}
		q.put(*e.MessageBody, aws.ToString(e.MessageGroupId), time.Duration(e.DelaySeconds)*time.Second)
		out.Successful = append(out.Successful, types.SendMessageBatchResultEntry{Id: e.Id})
	}
	return out
}

func (q *workQueue) put(body, group string, delay time.Duration) {
	if q.s.faulty(q.s.plan.faults.queueLate) {
		delay += q.s.between(0, 10*time.Minute)
	}
	id, err := q.queue.Put(body, group, delay)
	if err != nil {
		panic(err) // only a journal can fail
	}
	q.s.note(keyOf(body), "message %s is queued with a delay of %s: %s", id, delay, body)
	q.s.after(delay, q.poll)
}

// keyOf returns the delivery that a message is about.
func keyOf(body string) (key delivery.Key) {
	if item, err := work.Decode(body); err == nil {
		key = delivery.Key{EndpointID: item.EndpointID, EventID: item.EventID}
	}
	return key
}

// poll is the event source mapping's.
func (q *workQueue) poll() {
	if q.polling || q.running >= q.s.plan.workers {
		return
	}
	q.polling = true
	q.s.after(q.s.between(0, 50*time.Millisecond), func() {
		q.polling = false
		if q.receive() {
			q.poll()
		}
	})
}

// receive hands a batch to dispatch, and reports whether there was a message.
func (q *workQueue) receive() bool {
	s := q.s
	batch, err := q.queue.Poll(1+s.rng.IntN(queueBatch), visibility)
	if err != nil {
		panic(err) // only a journal can fail
	}
	if len(batch) == 0 {
		return false
	}
	var in events.SQSEvent
	for _, m := range batch {
		in.Records = append(in.Records, events.SQSMessage{
			MessageId: m.ID, Body: m.Body, EventSource: "aws:sqs",
			Attributes: map[string]string{"ApproximateReceiveCount": strconv.Itoa(m.Receives)},
		})
		if s.faulty(s.plan.faults.queueDuplicate) {
			q.duplicate(m, 30*time.Second, "is received twice")
		} else {
			s.after(visibility, q.poll)
		}
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
		for _, m := range batch {
			switch {
			case err != nil || failed[m.ID]:
				s.note(keyOf(m.Body), "message %s is not deleted, and becomes visible again", m.ID)
			case s.faulty(s.plan.faults.queueDuplicate):
				q.duplicate(m, time.Minute, "is received again although it was deleted")
			default:
				_ = q.queue.Delete(m.Receipt) // an old receipt deletes nothing
			}
		}
		q.poll()
	})
	return true
}

// duplicate makes a message that was received visible again within a time.
func (q *workQueue) duplicate(m queue.Message, within time.Duration, how string) {
	wait := q.s.between(0, within)
	if q.queue.Hide(m.Receipt, wait) != nil {
		return // it is visible already
	}
	q.s.Counts.QueueDuplicates++
	q.s.note(keyOf(m.Body), "message %s %s", m.ID, how)
	q.s.after(wait, q.poll)
}

// redrive moves the dead letters back to the work queue.
func (q *workQueue) redrive() {
	for {
		letters, err := q.dead.Poll(queueBatch, visibility)
		if err != nil {
			panic(err) // only a journal can fail
		}
		if len(letters) == 0 {
			return
		}
		for _, m := range letters {
			q.s.Counts.Redriven++
			q.s.note(keyOf(m.Body), "message %s is redriven", m.ID)
			if err := q.dead.Delete(m.Receipt); err != nil {
				panic(err)
			}
			q.put(m.Body, m.Group, 0)
		}
	}
}
