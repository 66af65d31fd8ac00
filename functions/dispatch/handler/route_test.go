package handler_test

import (
	"log/slog"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/functions/dispatch/handler"
	"github.com/tidings-dev/tidings/pkg/dispatch"
	"github.com/tidings-dev/tidings/pkg/local/queue"
	"github.com/tidings-dev/tidings/pkg/store/memory"
)

func TestEachTriggerIsRoutedOrRefused(t *testing.T) {
	store := memory.New(time.Now)
	q, err := queue.Open(queue.Config{})
	if err != nil {
		t.Fatal(err)
	}
	d := dispatch.New(dispatch.Config{
		Events: store, Endpoints: store, Disabler: store, Deliveries: store, Due: store, Replays: store,
		Statistics: store, Waiting: store, Breakers: store, Limits: store, Journal: store, Jobs: store, Queue: q, Log: slog.New(slog.DiscardHandler),
	})
	handle := handler.Route(d)
	for name, c := range map[string]struct {
		payload string
		fails   bool
	}{
		"a scheduled sweep":     {payload: `{"action":"sweep"}`},
		"an empty queue batch":  {payload: `{"Records":[]}`, fails: true},
		"an unknown action":     {payload: `{"action":"explode"}`, fails: true},
		"a function URL":        {payload: `{"requestContext":{"http":{"method":"GET"}}}`, fails: true},
		"malformed JSON":        {payload: `{`, fails: true},
		"a queue batch":         {payload: `{"Records":[{"eventSource":"aws:sqs","messageId":"m","body":"{}"}]}`},
		"a batch of the stream": {payload: `{"Records":[{"eventSource":"aws:dynamodb","eventName":"REMOVE"}]}`},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := handle(t.Context(), []byte(c.payload)); (err != nil) != c.fails {
				t.Errorf("error = %v, want one: %v", err, c.fails)
			}
		})
	}
}
