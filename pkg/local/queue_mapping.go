package local

import (
	"context"
	"errors"
	"sync"

	"github.com/aws/aws-lambda-go/events"

	"github.com/tidings-dev/tidings/pkg/local/queue"
	"github.com/tidings-dev/tidings/pkg/local/samtemplate"
)

// defaultConcurrency is the number of concurrent invocations if the template sets no
// limit: half of the usual quota of an account.
const defaultConcurrency = 500

// QueueMapping is the event source mapping of a queue. It receives batches and
// invokes the function with several batches concurrently.
type QueueMapping struct {
	Function *Function
	Queue    *queue.Queue
	Trigger  samtemplate.QueueTrigger
	Region   string
	gate     *gate
}

// Run polls until ctx is done, then waits for the running invocations.
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
		paused := open.Err() != nil
		leave()
		switch {
		case err == nil: // process a received batch even if ctx is done
		case ctx.Err() != nil:
			return nil
		case paused:
			<-slots
			continue
		default:
			return err
		}
		running.Go(func() {
			// The end of the runner does not cancel running invocations.
			m.process(context.WithoutCancel(ctx), batch)
			<-slots
		})
	}
}

// process invokes the function with a batch and deletes the messages that succeeded.
// The others become visible again after the visibility timeout.
func (m *QueueMapping) process(ctx context.Context, batch []queue.Message) {
	var answer events.SQSEventResponse
	payload, err := queuePayload(batch, m.Trigger.QueueARN, m.Region)
	if err == nil {
		err = m.Function.callRaw(ctx, payload, &answer)
	}
	if err != nil {
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
