package dispatch_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/aws/aws-lambda-go/events"

	"github.com/tidings-dev/tidings/pkg/delivery/work"
	"github.com/tidings-dev/tidings/pkg/dispatch"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/store/dynamoitem"
	"github.com/tidings-dev/tidings/test/jsontest"
)

// FuzzFanOut checks that for any batch, each record that is an event is queued once and
// in order, and that other records are skipped.
func FuzzFanOut(f *testing.F) {
	image := func(id, tenant, body string) string {
		text, err := json.Marshal(map[string]map[string]string{"event_id": {"S": id}, "tenant": {"S": tenant}, "body": {"S": body}})
		if err != nil {
			f.Fatal(err)
		}
		return string(text)
	}
	const id = "01KDJ0000000000000000000AA"
	good := image(id, "default", `{"id":"`+id+`","event":"user.posted_comment","timestamp":"2026-01-29T12:34:56.789Z","data":`+comment+`,"idempotency_key":"k"}`)
	record := func(name, number, image string) string {
		return `{"eventName":"` + name + `","eventSource":"aws:dynamodb","dynamodb":{"SequenceNumber":"` + number + `","NewImage":` + image + `}}`
	}
	for _, seed := range []string{
		`{"Records":[` + record("INSERT", "1", good) + `,` + record("REMOVE", "2", good) + `,` + record("INSERT", "3", image(id, "other", `{}`)) + `]}`,
		`{"Records":[` + record("INSERT", "1", `{}`) + `,` + record("INSERT", "2", image("x", "default", `{}`)) + `,` + record("INSERT", "", good) + `]}`,
		`{"Records":[` + record("INSERT", "1", image(id, "default", `{"id":"a","event":"b","timestamp":"2026-01-29T12:34:56Z","data":[[]]}`)) + `,` + record("MODIFY", "2", `null`) + `]}`,
		`{"Records":[{"eventSource":"aws:dynamodb"}]}`, `{"Records":[{"eventSource":"aws:dynamodb","dynamodb":{"Keys":{"event_id":{"N":"5"}}}}]}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		var batch events.DynamoDBEvent
		if json.Unmarshal(payload, &batch) != nil {
			return // Lambda's own library refuses it
		}
		changes, err := dynamoitem.ReadEvents(payload)
		if err != nil {
			return
		}
		_, ok := jsontest.Comparable(payload, "Records", "eventName", "dynamodb", "NewImage", "Keys", "SequenceNumber", "event_id", "tenant", "body", "S")
		if !ok {
			return
		}
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			all := w.endpoint()
			w.endpoint(func(e *endpoint.Endpoint) { e.Tenant = "other" })
			response := w.FanOut(t.Context(), changes)
			if len(response) != 0 {
				t.Errorf("%v would come again, for ever", response)
			}
			var want []string
			for _, r := range batch.Records {
				a, err := dynamoitem.EventFromImage(r.Change.NewImage)
				if err == nil {
					_, err = event.IDTime(a.ID)
				}
				if err == nil {
					_, err = event.Decode(a.Body)
				}
				if err == nil && r.EventName == "INSERT" && a.Tenant == event.DefaultTenant {
					want = append(want, a.ID)
				}
			}
			var got []string
			for _, item := range w.queue.take() {
				if back, err := work.Decode(item.Encode()); err != nil || back.EndpointID != item.EndpointID || item.Attempts != 0 {
					t.Errorf("queued %+v, which reads as %+v (%v)", item, back, err)
				}
				if item.EndpointID == all.ID {
					got = append(got, item.EventID)
				}
			}
			if !slices.Equal(got, want) {
				t.Errorf("queued %q, want %q", got, want)
			}
		})
	})
}

// FuzzDeliver checks that a message is acknowledged only if it could be read, and that
// it does not affect the others of its batch.
func FuzzDeliver(f *testing.F) {
	for _, seed := range []string{
		``, `{}`, `null`, `{"tenant":"default","endpoint_id":"ep_gone","event_id":"01KDJ0000000000000000000AA"}`, `{"tenant":"default","endpoint_id":"e","event_id":"e","attempts":9}`,
		`{"tenant":"default","endpoint_id":"#","event_id":"\u0000"}`, `{"tenant":"x","endpoint_id":"ep_1","event_id":"y","attempts":-1}`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, body string) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			w.endpoint()
			first, last := w.fannedOut(), w.fannedOut()
			failed := w.Deliver(t.Context(), []work.Message{
				{ID: "first", Body: first.Encode()}, {ID: "strange", Body: body}, {ID: "last", Body: last.Encode()},
			})
			_, err := work.Decode(body)
			for _, one := range failed {
				if one != "strange" {
					t.Errorf("%s failed beside %q", one, body)
				}
			}
			if err != nil && len(failed) != 1 {
				t.Errorf("%q cannot be read (%v) and is acknowledged", body, err)
			}
			if got := w.receiver.count(); got != 2 {
				t.Errorf("the receiver got %d requests beside %q", got, body)
			}
			for _, item := range []work.Item{first, last} {
				if d := w.delivery(item); d.State != "delivered" || d.Attempts != 1 {
					t.Errorf("%+v", d)
				}
			}
		})
	})
}

// FuzzCommand checks that an invalid command changes nothing and gets a short error.
func FuzzCommand(f *testing.F) {
	for _, seed := range []string{
		`{"action":"` + strings.Repeat("x", 5000) + `"}`, `{"action":"replay","event_id":"` + strings.Repeat("x", 5000) + `"}`, `{"action":"sweep"}`, `{"action":"replay","endpoint_id":"e","event_id":"v"}`, `{"action":"replay_dead","endpoint_id":"e","cursor":"x"}`, `{"action":"replay_dead","endpoint_id":"e","cursor":"MDFLREow"}`,
		`{"action":"close_circuit","endpoint_id":"e"}`, `{"action":"`, `{}`, `null`, `[]`, `5`, `{"action":"replay_dead","endpoint_id":"e","from":"2026-01-01T00:00:00Z","to":"2025-01-01T00:00:00Z"}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			w.endpoint()
			item := w.fannedOut()
			if failed := w.deliver(item); len(failed) != 0 {
				t.Fatal(failed)
			}
			before := w.delivery(item)
			var c dispatch.Command
			if json.Unmarshal(payload, &c) != nil || c.EndpointID == item.EndpointID && c.EventID == item.EventID {
				return // it names the delivery, and may replay it
			}
			if _, err := w.Run(t.Context(), c); err != nil && len(err.Error()) > 1024 {
				t.Errorf("an error of %d bytes", len(err.Error()))
			}
			if after := w.delivery(item); after.State != before.State || after.Attempts != before.Attempts || !after.DueAt.Equal(before.DueAt) {
				t.Errorf("%s moved the delivery: %+v", payload, after)
			}
		})
	})
}
