package queue

import (
	"context"
	"errors"

	"github.com/tidings-dev/tidings/pkg/delivery/work"
)

// takeLimit is the maximum number of messages that SQS returns in one receive.
const takeLimit = 10

// Take implements dispatch.DeadLetters. It does not wait.
func (q *Queue) Take(context.Context) ([]work.Letter, error) {
	got, err := q.Poll(takeLimit, q.config.Visibility)
	letters := make([]work.Letter, len(got))
	for i, m := range got {
		letters[i] = work.Letter{Body: m.Body, Receipt: m.Receipt}
	}
	return letters, err
}

// Keep implements emit.Letters.
func (q *Queue) Keep(_ context.Context, body string, about map[string]string) error {
	attributes := map[string]Attribute{}
	for name, value := range about {
		attributes[name] = Attribute{DataType: "String", StringValue: value}
	}
	_, err := q.PutMessage(Outgoing{Body: body, Attributes: attributes})
	return err
}

// Remove implements dispatch.DeadLetters.
func (q *Queue) Remove(_ context.Context, taken []work.Letter) error {
	var errs []error
	for _, letter := range taken {
		errs = append(errs, q.Delete(letter.Receipt))
	}
	return errors.Join(errs...)
}
