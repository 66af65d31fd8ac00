package dispatch_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/destination"
	"github.com/tidings-dev/tidings/pkg/endpoint"
)

// Each attempt has the shape of the endpoint, the retry as the first try.
func TestEveryAttemptHasTheShapeOfItsEndpoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.endpoint(func(e *endpoint.Endpoint) {
			e.Shape = endpoint.Shape{Format: endpoint.FormatCloudEventsBinary, Exclude: []string{"data.comment_text"}, Method: "PUT"}
		})
		var bodies []string
		w.receiver.answer = func(_ context.Context, m destination.Message) delivery.Outcome {
			bodies = append(bodies, string(m.Body)+" "+m.CloudEvent["type"])
			if len(bodies) == 1 {
				return refuses
			}
			return accepts
		}
		if d := w.run(w.fannedOut(), time.Hour); d.State != delivery.Delivered || d.Attempts != 2 {
			t.Fatalf("%+v", d)
		}
		for _, got := range bodies {
			if got != `{"discussion_id":"d1","comment_id":"c1"} user.posted_comment` {
				t.Error(got)
			}
		}
	})
}
