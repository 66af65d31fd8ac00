package emit

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/tidings-dev/tidings/pkg/delivery/work"
)

// Letters is the dead-letter queue of a queue of requests.
type Letters interface {
	// Keep puts a body there; about says of which message it is and why it was refused.
	Keep(ctx context.Context, body string, about map[string]string) error
}

// received is what came of one message.
type received struct {
	message  work.Message
	list     bool
	refused  *Error // the message as a whole, nothing of it was tried
	requests []Request
	results  []Result
}

// Receive accepts the messages of a queue. Each body is what Invoke accepts: one event, or
// a list. An event without an idempotency key gets the message's ID, and its place in the
// list, as its key, so that a message that is received again stores nothing twice. It
// returns the IDs of the messages to deliver again: those of which an event could not be
// stored. What can never be accepted goes to Letters at once: the whole body, or of a list
// only the events that were refused.
func (em *Emitter) Receive(ctx context.Context, messages []work.Message) (failed []string) {
	batch := make([]received, len(messages))
	var requests []Request
	for i, m := range messages {
		r := received{message: m}
		r.requests, r.list, r.refused = parse([]byte(m.Body))
		for n := range r.requests {
			if r.requests[n].IdempotencyKey == "" {
				r.requests[n].IdempotencyKey = keyOf(m.ID, r.list, n)
			}
		}
		requests = append(requests, r.requests...)
		batch[i] = r
	}
	results := em.EmitAll(ctx, requests)
	for _, r := range batch {
		r.results, results = results[:len(r.requests)], results[len(r.requests):]
		if !em.settle(ctx, r) {
			failed = append(failed, r.message.ID)
		}
	}
	return failed
}

// keyOf is the idempotency key of an event whose producer gave none.
func keyOf(messageID string, list bool, place int) string {
	if !list {
		return "sqs:" + messageID
	}
	return fmt.Sprintf("sqs:%s:%d", messageID, place)
}

// settle keeps what was refused of a message. It returns false if the message is to be
// delivered again.
func (em *Emitter) settle(ctx context.Context, r received) bool {
	var places []int // of the refused events
	why := r.refused
	for i, one := range r.results {
		switch {
		case one.Error == nil:
		case one.Error.Code == Unavailable:
			return false // what was refused is refused again, and kept then
		default:
			places = append(places, i)
			if why == nil {
				why = one.Error
			}
		}
	}
	if why == nil {
		return true
	}
	attributes := []slog.Attr{slog.String("message_id", r.message.ID), slog.String("code", string(why.Code)), slog.String("field", why.Field)}
	if r.list && r.refused == nil {
		attributes = append(attributes, slog.Int("index", places[0]), slog.Int("refused", len(places)), slog.Int("events", len(r.requests)))
	}
	em.Log.LogAttrs(ctx, slog.LevelWarn, "queue.refused", attributes...)
	if em.Letters == nil {
		return false
	}
	body := r.message.Body
	if r.list && len(places) > 0 && len(places) < len(r.requests) {
		body = pick(body, places)
	}
	if err := em.Letters.Keep(ctx, body, map[string]string{"message_id": r.message.ID, "code": string(why.Code)}); err != nil {
		em.Log.ErrorContext(ctx, "queue.not_kept", "message_id", r.message.ID, "error", err.Error())
		return false
	}
	return true
}

// pick returns the list of some of a list's events, as they were sent. The others are
// stored: if they were kept too, they would be stored again when the letter is sent back to
// the queue, because it is a new message, with another ID.
func pick(body string, places []int) string {
	var call struct {
		Events []jsontext.Value `json:"events"`
	}
	target := any(&call)
	if jsontext.Value(body).Kind() == '[' {
		target = &call.Events
	}
	if err := json.Unmarshal([]byte(body), target, lenient); err != nil {
		return body // cannot happen: parse has read it
	}
	picked := make([]jsontext.Value, len(places))
	for i, place := range places {
		picked[i] = call.Events[place]
	}
	text, err := json.Marshal(picked, lenient)
	if err != nil {
		return body
	}
	return string(text)
}
