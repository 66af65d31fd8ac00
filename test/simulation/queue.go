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
	"github.com/tidings-dev/tidings/pkg/dispatch"
	"github.com/tidings-dev/tidings/pkg/local/queue"
)

// workQueue is the local queue with a dead-letter queue and an event source mapping.
// The seed chooses the order of messages, duplicates them and delays them, as a
// standard queue may.
type workQueue struct {
	s       *sim
	name    string
	queue   *queue.Queue
	dead    *queue.Queue // the slow queue has that of the work queue
	workers int          // batches at a time
	running int          // batches under way
	polling bool
	ramp    time.Time // since when it has been scaling up
	idle    time.Time // when the last batch ended

	redriving bool
}

// newQueues returns the work queue and the slow queue.
func newQueues(s *sim) (work, slow *workQueue) {
	open := func(c queue.Config) *queue.Queue {
		c.Visibility, c.Choose = visibility, s.rng.IntN
		if len(s.plan.streams) > 0 {
			c.Choose = nil // a fair queue: that one endpoint does not delay another rests on it
		}
		q, err := queue.Open(c)
		if err != nil {
			panic(err) // only a journal can fail
		}
		return q
	}
	dead := open(queue.Config{Name: "dead"})
	mapped := func(name string, workers int) *workQueue {
		return &workQueue{s: s, name: name, dead: dead, queue: open(queue.Config{Name: name, MaxReceives: maxReceives, Dead: dead}), workers: workers}
	}
	return mapped("work", s.plan.workers), mapped("slow", s.plan.slowWorkers)
}

// empty reports whether no message is left, in either queue.
func (q *workQueue) empty() bool {
	return q.queue.Stats() == (queue.Stats{}) && q.dead.Stats() == (queue.Stats{})
}

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
	q.s.note(keyOf(body), "message %s is on the %s queue with a delay of %s: %s", id, q.name, delay, body)
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
	if q.polling {
		return
	}
	if most := q.concurrency(); q.running >= most {
		if most < q.workers { // it will be more soon
			q.polling = true
			q.s.after(rampEvery, func() {
				q.polling = false
				q.poll()
			})
		}
		return
	}
	q.polling = true
	wait := 50 * time.Millisecond
	if len(q.s.plan.streams) > 0 {
		wait = 5 * time.Millisecond // many pollers
	}
	q.s.after(q.s.between(0, wait), func() {
		q.polling = false
		if q.receive() {
			q.poll()
		}
	})
}

// rampStart and rampEvery are how an event source mapping of SQS scales: five batches at
// first, and 300 more per minute while there are messages.
const (
	rampStart = 5
	rampEvery = time.Minute / 300
)

// concurrency is how many batches may be under way.
func (q *workQueue) concurrency() int {
	if len(q.s.plan.streams) == 0 {
		return q.workers // fewer than it starts with
	}
	return min(q.workers, rampStart+int(time.Since(q.ramp)/rampEvery))
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
	if q.running == 0 && (q.ramp.IsZero() || time.Since(q.idle) > time.Minute) {
		q.ramp = time.Now() // it had scaled down
	}
	q.running++
	s.cloud.invoke("dispatch", "deliver", in, func(answer any, err error) {
		if q.running--; q.running == 0 {
			q.idle = time.Now()
		}
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

// takeDead is SQS's ReceiveMessage on the dead-letter queue.
func (q *workQueue) takeDead(limit int) *sqs.ReceiveMessageOutput {
	letters, err := q.dead.Poll(limit, visibility)
	if err != nil {
		panic(err) // only a journal can fail
	}
	out := &sqs.ReceiveMessageOutput{}
	for _, m := range letters {
		q.s.note(keyOf(m.Body), "message %s is taken from the dead-letter queue", m.ID)
		out.Messages = append(out.Messages, types.Message{MessageId: &m.ID, Body: &m.Body, ReceiptHandle: &m.Receipt})
	}
	return out
}

// redrive is an operator's: dispatch moves the dead letters back to the work queue. An
// operator whose redrive fails tries again.
func (q *workQueue) redrive() {
	if q.redriving || q.dead.Stats() == (queue.Stats{}) {
		return
	}
	q.redriving = true
	again := func() {
		q.redriving = false
		q.redrive()
	}
	q.s.cloud.invoke("dispatch", "redrive", dispatch.Command{Action: "redrive"}, func(answer any, err error) {
		if err == nil {
			q.s.Counts.Redriven += answer.(dispatch.Redriven).Redriven
			q.s.note(delivery.Key{}, "redriven: %+v", answer)
		}
		if next := q.dead.Next(); !next.IsZero() { // letters that a dead worker has taken
			q.s.at(next, again)
			return
		}
		if q.redriving = false; err != nil {
			q.s.after(time.Minute, q.redrive)
		}
	})
}
