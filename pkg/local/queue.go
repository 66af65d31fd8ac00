package local

import (
	"context"
	"errors"
	"sync"

	"github.com/aws/aws-lambda-go/events"

	"github.com/tidings-dev/tidings/pkg/local/queue"
	"github.com/tidings-dev/tidings/pkg/local/samtemplate"
)

// defaultConcurrency is how many batches are worked on at once where the
// template sets no limit.
const defaultConcurrency = 50

// QueueMapping is the event source mapping of a queue: it receives batches and
// invokes the function with several at a time.
type QueueMapping struct {
	Function *Function
	Queue    *queue.Queue
	Trigger  samtemplate.QueueTrigger
	Region   string
	gate     *gate
}

// Run works until ctx ends, and then until the invocations under way are over.
func (m *QueueMapping) Run(ctx context.Context) error {
	concurrency := m.Trigger.MaxConcurrency
	if concurrency == 0 {
		concurrency = defaultConcurrency
	}
	slots := make(chan struct{}, concurrency)
	var running sync.WaitGroup
	defer running.Wait()
	for {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		open, leave := m.gate.enter(ctx)
		batch, err := m.Queue.Receive(open, m.Trigger.BatchSize)
		shut := open.Err() != nil
		leave()
		switch {
		case err == nil: // what was received is worked on, even if that is the end
		case ctx.Err() != nil:
			return nil
		case shut:
			<-slots
			continue
		default:
			return err
		}
		running.Go(func() {
			// An invocation that has begun is not cut off by the end of the runner.
			m.work(context.WithoutCancel(ctx), batch)
			<-slots
		})
	}
}

// work hands one batch to the function and deletes what it has dealt with. What
// failed comes back when its visibility timeout is over.
func (m *QueueMapping) work(ctx context.Context, batch []queue.Message) {
	var answer events.SQSEventResponse
	if err := m.Function.hand(ctx, queuePayload(batch, m.Trigger.QueueARN, m.Region), &answer); err != nil {
		m.Function.Log.Error("queue batch failed", "function", m.Function.Folder, "queue", m.Queue.Name(), "error", err.Error())
		return
	}
	failed := map[string]bool{}
	if m.Trigger.ReportsItems {
		for _, f := range answer.BatchItemFailures {
			failed[f.ItemIdentifier] = true
		}
	}
	for _, message := range batch {
		if failed[message.ID] {
			continue
		}
		if err := m.Queue.Delete(message.Receipt); err != nil && !errors.Is(err, queue.ErrReceipt) {
			m.Function.Log.Error("message not deleted", "queue", m.Queue.Name(), "error", err.Error())
		}
	}
}
