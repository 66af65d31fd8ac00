package queue

import (
	"context"
	"errors"

	"github.com/tidings-dev/tidings/pkg/delivery/work"
)

// lettersAtOnce is how many letters one Take returns, as SQS would.
const lettersAtOnce = 10

// Take: see dispatch.DeadLetters. It does not wait.
func (q *Queue) Take(context.Context) ([]work.Letter, error) {
	q.mu.Lock()
	got, err := q.receive(lettersAtOnce)
	q.mu.Unlock()
	letters := make([]work.Letter, len(got))
	for i, m := range got {
		letters[i] = work.Letter{Body: m.Body, Receipt: m.Receipt}
	}
	return letters, err
}

// Remove: see dispatch.DeadLetters.
func (q *Queue) Remove(_ context.Context, taken []work.Letter) error {
	var errs []error
	for _, letter := range taken {
		errs = append(errs, q.Delete(letter.Receipt))
	}
	return errors.Join(errs...)
}
