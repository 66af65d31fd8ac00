package emit_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery/work"
	"github.com/tidings-dev/tidings/pkg/emit"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/local/queue"
)

// unstorable fails to store the events whose body has a text, for some calls.
type unstorable struct {
	emit.Events
	text string

	mu    sync.Mutex
	times int
}

// fails reports whether an event is refused, and counts it.
func (u *unstorable) fails(a event.Accepted) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.times == 0 || !bytes.Contains(a.Body, []byte(u.text)) {
		return false
	}
	u.times--
	return true
}

func (u *unstorable) PutEvent(ctx context.Context, a event.Accepted) error {
	if u.fails(a) {
		return errors.New("throttled")
	}
	return u.Events.PutEvent(ctx, a)
}

// letters returns the bodies of the messages of a queue, with their attribute code.
func letters(t *testing.T, q *queue.Queue) (list []string) {
	t.Helper()
	got, err := q.Poll(100, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range got {
		list = append(list, m.Attributes["code"].StringValue+" of "+m.Attributes["message_id"].StringValue+": "+m.Body)
	}
	return list
}

const wrongType = `{"event":"user.unheard_of","data":{}}`

func TestWhatAQueueGivesIsAcceptedOrRefusedMessageByMessage(t *testing.T) {
	tooMany := "[" + strings.Repeat(wrongType+",", emit.MaxList) + wrongType + "]"
	tooLarge := strings.Replace(joined, "A <&> B", strings.Repeat("x", event.MaxBodyBytes), 1)
	for name, c := range map[string]struct {
		bodies  []string
		stored  int
		letters []string // code of the message's place: body
	}{
		"one event":                       {bodies: []string{joined}, stored: 1},
		"a list":                          {bodies: []string{"[" + joined + "," + joined + "]"}, stored: 2},
		"a list by its name":              {bodies: []string{`{"events":[` + joined + "]}"}, stored: 1},
		"messages of one body":            {bodies: []string{joined, joined}, stored: 2},
		"a key of the producer's, twice":  {bodies: []string{`{"idempotency_key":"k",` + joined[1:], `[{"idempotency_key":"k",` + joined[1:] + "]"}, stored: 1},
		"an unknown type between others":  {bodies: []string{joined, wrongType, joined}, stored: 2, letters: []string{"unknown_event_type of m1: " + wrongType}},
		"no JSON":                         {bodies: []string{`{"event":`, joined}, stored: 1, letters: []string{`malformed_json of m0: {"event":`}},
		"nothing":                         {bodies: []string{" "}, letters: []string{"malformed_json of m0:  "}},
		"an empty list":                   {bodies: []string{"[]"}, letters: []string{"invalid_field of m0: []"}},
		"a list that is too long":         {bodies: []string{tooMany}, letters: []string{"too_many_events of m0: " + tooMany}},
		"an event that is too large":      {bodies: []string{tooLarge}, letters: []string{"too_large of m0: " + tooLarge}},
		"a list with refused ones":        {bodies: []string{"[" + joined + ", 5 ," + joined + "," + wrongType + "]"}, stored: 2, letters: []string{"invalid_field of m0: [5," + wrongType + "]"}},
		"a named list with a refused one": {bodies: []string{`{"events":[` + wrongType + "," + joined + "]}"}, stored: 1, letters: []string{"unknown_event_type of m0: [" + wrongType + "]"}},
		"a list of refused ones":          {bodies: []string{`{"events": [` + wrongType + "]}"}, letters: []string{`unknown_event_type of m0: {"events": [` + wrongType + "]}"}},
	} {
		t.Run(name, func(t *testing.T) {
			em, store := newEmitter()
			dead, err := queue.Open(queue.Config{Name: "dead"})
			if err != nil {
				t.Fatal(err)
			}
			var log bytes.Buffer
			em.Letters, em.Log = dead, slog.New(slog.NewTextHandler(&log, nil))
			var messages []work.Message
			for i, body := range c.bodies {
				messages = append(messages, work.Message{ID: "m" + string(rune('0'+i)), Body: body})
			}
			if failed := em.Receive(t.Context(), messages); len(failed) > 0 {
				t.Errorf("%v failed: they would come again, and get the same answer", failed)
			}
			if got := len(stored(t, store)); got != c.stored {
				t.Errorf("%d events are stored, want %d", got, c.stored)
			}
			if got := letters(t, dead); !slices.Equal(got, c.letters) {
				t.Errorf("the dead-letter queue has %.300q, want %.300q", got, c.letters)
			}
			if got := strings.Count(log.String(), "queue.refused"); got != len(c.letters) {
				t.Errorf("%d log lines say that a message was refused, want %d:\n%.1000s", got, len(c.letters), log.String())
			}
			// SQS delivers a message twice now and then.
			em.Receive(t.Context(), messages)
			if got := len(stored(t, store)); got != c.stored {
				t.Errorf("%d events are stored after each message came again, want %d", got, c.stored)
			}
		})
	}
}

// A message of which an event could not be stored comes again. Its other events are not
// stored twice, and what is refused of it becomes one letter.
func TestAMessageComesAgainUntilItsEventsAreStored(t *testing.T) {
	_, store := newEmitter()
	em := emitterOn(&unstorable{Events: store, text: "c_late", times: 2}, store)
	dead, err := queue.Open(queue.Config{Name: "dead"})
	if err != nil {
		t.Fatal(err)
	}
	em.Letters = dead
	late := strings.Replace(joined, "c_7", "c_late", 1)
	messages := []work.Message{{ID: "a", Body: joined}, {ID: "b", Body: "[" + joined + "," + late + "," + wrongType + "]"}, {ID: "c", Body: wrongType}}
	for try := range 2 {
		if failed := em.Receive(t.Context(), messages); !slices.Equal(failed, []string{"b"}) {
			t.Fatalf("try %d: %v failed, want b alone", try, failed)
		}
		messages = []work.Message{{ID: "b", Body: messages[min(1, len(messages)-1)].Body}}
	}
	if failed := em.Receive(t.Context(), messages); len(failed) > 0 {
		t.Errorf("%v failed", failed)
	}
	if got := len(stored(t, store)); got != 3 {
		t.Errorf("%d events are stored, want 3", got)
	}
	want := []string{"unknown_event_type of c: " + wrongType, "unknown_event_type of b: [" + wrongType + "]"}
	if got := letters(t, dead); !slices.Equal(got, want) {
		t.Errorf("the dead-letter queue has %q, want %q", got, want)
	}
}

// noLetters cannot keep anything.
type noLetters struct{}

func (noLetters) Keep(context.Context, string, map[string]string) error { return errors.New("denied") }

func TestARefusedMessageStaysOnItsQueueIfItCannotBeKept(t *testing.T) {
	for name, kept := range map[string]emit.Letters{"no dead-letter queue": nil, "a dead-letter queue that fails": noLetters{}} {
		em, _ := newEmitter()
		em.Letters = kept
		if failed := em.Receive(t.Context(), []work.Message{{ID: "a", Body: joined}, {ID: "b", Body: wrongType}}); !slices.Equal(failed, []string{"b"}) {
			t.Errorf("%s: %v failed, want b alone", name, failed)
		}
	}
}

func TestTheKeyOfAMessageIsItsIDAndThePlaceInItsList(t *testing.T) {
	em, store := newEmitter()
	em.Receive(t.Context(), []work.Message{{ID: "a", Body: joined}, {ID: "b", Body: "[" + joined + "]"}})
	var keys []string
	for _, a := range stored(t, store) {
		for _, key := range []string{`"sqs:a"`, `"sqs:b:0"`} {
			if bytes.Contains(a.Body, []byte(`"idempotency_key":`+key)) {
				keys = append(keys, key)
			}
		}
	}
	slices.Sort(keys)
	if want := []string{`"sqs:a"`, `"sqs:b:0"`}; !slices.Equal(keys, want) {
		t.Errorf("keys %v, want %v", keys, want)
	}
}
