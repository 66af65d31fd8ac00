package emit_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-lambda-go/lambdacontext"

	"github.com/tidings-dev/tidings/pkg/emit"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/event/validate"
	"github.com/tidings-dev/tidings/pkg/store/dynamoitem"
	"github.com/tidings-dev/tidings/pkg/store/memory"
)

func newEmitter() (*emit.Emitter, *memory.Store) {
	store := memory.New(time.Now)
	return &emit.Emitter{Catalog: validate.Default(), Events: store, Keys: store, Log: slog.New(slog.DiscardHandler), Now: time.Now}, store
}

const joined = `{"event":"user.joined_community","actor_user_id":"u_1","data":{"community_id":"c_7","community_name":"A <&> B"}}`

// stored returns all events that the store has accepted.
func stored(t *testing.T, s *memory.Store) []event.Accepted {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // what is there is returned all the same
	records, err := s.Records(ctx, dynamoitem.Events, "", 100_000)
	if err != nil {
		return nil
	}
	var list []event.Accepted
	for _, r := range records {
		a, err := dynamoitem.EventFromImage(r.Change.NewImage)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, a)
	}
	return list
}

func call(t *testing.T, em *emit.Emitter, payload string) (map[string]any, error) {
	t.Helper()
	answer, err := em.Handle(t.Context(), json.RawMessage(payload))
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(answer)
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]any
	if err := json.Unmarshal(text, &m); err != nil {
		t.Fatal(err)
	}
	return m, nil
}

func TestOneEvent(t *testing.T) {
	em, store := newEmitter()
	ctx := lambdacontext.NewContext(t.Context(), &lambdacontext.LambdaContext{AwsRequestID: "req-1"})
	//lint:ignore SA1029 the key is the Lambda runtime's
	ctx = context.WithValue(ctx, "x-amzn-trace-id", "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1")
	if _, err := em.Handle(ctx, json.RawMessage(joined)); err != nil {
		t.Fatal(err)
	}
	all := stored(t, store)
	if len(all) != 1 || all[0].Tenant != "default" || !strings.HasPrefix(all[0].Trace, "Root=1-5759e988") {
		t.Fatalf("stored %+v", all)
	}
	id := all[0].ID
	e, err := event.Decode(all[0].Body)
	if err != nil {
		t.Fatal(err)
	}
	at, err := event.IDTime(id)
	if err != nil || !e.Timestamp.Equal(at) {
		t.Errorf("timestamp %s, id made at %s, %v", e.Timestamp, at, err)
	}
	want := fmt.Sprintf(`{"id":%q,"event":"user.joined_community","timestamp":%q,"actor_user_id":"u_1","data":{"community_id":"c_7","community_name":"A <&> B"},"request_id":"req-1","trace_id":"1-5759e988-bd862e3fe1be46a994272793","idempotency_key":%q}`,
		id, at.Format("2006-01-02T15:04:05.000Z"), id)
	if string(all[0].Body) != want {
		t.Errorf("body\n%s, want\n%s", all[0].Body, want)
	}
}

func TestRefusalsNameTheFieldAndStoreNothing(t *testing.T) {
	big := `"` + strings.Repeat("x", 100_000) + `"`
	for name, c := range map[string]struct {
		payload string
		code    emit.Code
		field   string
	}{
		"no JSON":                {`{"event":`, emit.MalformedJSON, ""},
		"empty":                  {` `, emit.MalformedJSON, ""},
		"no type":                {`{"data":{}}`, emit.InvalidField, "event"},
		"unknown type":           {`{"event":"user.exploded","data":{}}`, emit.UnknownType, "event"},
		"no data":                {`{"event":"user.joined_community"}`, emit.InvalidData, "data"},
		"a field missing":        {`{"event":"user.joined_community","data":{"community_id":"c"}}`, emit.InvalidData, "data.community_name"},
		"a field of wrong type":  {`{"event":"user.joined_community","data":{"community_id":"c","community_name":5}}`, emit.InvalidData, "data.community_name"},
		"a field unknown":        {`{"event":"user.joined_community","data":{"community_id":"c","community_name":"n","x":1}}`, emit.InvalidData, "data.x"},
		"an envelope misspelt":   {`{"event":"user.joined_community","idempotencyKey":"k","data":{}}`, emit.InvalidField, "idempotencyKey"},
		"a type that is none":    {`{"event":5,"data":{}}`, emit.InvalidField, "event"},
		"a bad timestamp":        {`{"event":"user.joined_community","timestamp":"yesterday","data":{}}`, emit.InvalidField, "timestamp"},
		"beyond the last year":   {`{"event":"user.joined_community","timestamp":"9999-12-31T23:59:59-23:59","data":{}}`, emit.InvalidField, "timestamp"},
		"before the first":       {`{"event":"user.joined_community","timestamp":"0000-01-01T00:00:00+23:59","data":{}}`, emit.InvalidField, "timestamp"},
		"too many, by two names": {`{"events":[],"Events":[` + strings.Repeat(joined+`,`, 3*emit.MaxList) + joined + `]}`, emit.TooMany, "events"},
		"too many, none known":   {`{"events":[` + strings.Repeat(`{"evnt":"a"},`, emit.MaxList) + `{}]}`, emit.TooMany, "events"},
		"a bad tenant":           {`{"event":"user.joined_community","tenant":"a/b","data":{}}`, emit.InvalidField, "tenant"},
		"a long key":             {`{"event":"user.joined_community","idempotency_key":"` + strings.Repeat("k", 257) + `","data":{}}`, emit.InvalidField, "idempotency_key"},
		"too large":              {`{"event":"user.posted_comment","data":{"discussion_id":"d","comment_id":"c","comment_text":` + big[:len(big)-1] + strings.Repeat("\U0001F39F", 50_000) + `"}}`, emit.TooLarge, "data"},
		"an empty list":          {`{"events":[]}`, emit.InvalidField, "events"},
		"too many":               {`[` + strings.Repeat(joined+`,`, emit.MaxList) + joined + `]`, emit.TooMany, "events"},
	} {
		t.Run(name, func(t *testing.T) {
			em, store := newEmitter()
			_, err := call(t, em, c.payload)
			var refused *emit.Error
			if !errors.As(err, &refused) || refused.Code != c.code || refused.Field != c.field {
				t.Fatalf("error = %#v, want %s at %q", err, c.code, c.field)
			}
			if c.field != "" && !strings.Contains(refused.Message, strings.TrimPrefix(c.field, "data.")) && c.code != emit.TooLarge {
				t.Errorf("message %q does not name %s", refused.Message, c.field)
			}
			if all := stored(t, store); len(all) != 0 {
				t.Errorf("stored %v", all)
			}
		})
	}
}

func TestAListIsAnsweredItemByItem(t *testing.T) {
	em, store := newEmitter()
	answer, err := call(t, em, `{"events":[`+joined+`,{"event":"user.exploded","data":{}},`+joined+`]}`)
	if err != nil {
		t.Fatal(err)
	}
	results := answer["results"].([]any)
	if len(results) != 3 || results[0].(map[string]any)["id"] == nil || results[1].(map[string]any)["error"] == nil || results[2].(map[string]any)["id"] == nil {
		t.Errorf("results = %v", results)
	}
	if len(stored(t, store)) != 2 {
		t.Errorf("stored %d, want the 2 good ones", len(stored(t, store)))
	}
}

func TestTheSameKeyTwiceIsOneEvent(t *testing.T) {
	em, store := newEmitter()
	keyed := strings.Replace(joined, `{"event"`, `{"idempotency_key":"k","event"`, 1)
	first, err := call(t, em, keyed)
	if err != nil {
		t.Fatal(err)
	}
	second, err := call(t, em, keyed)
	if err != nil || second["id"] != first["id"] || first["duplicate"] != false || second["duplicate"] != true {
		t.Errorf("first %v, second %v, %v", first, second, err)
	}
	var refused *emit.Error
	if _, err := call(t, em, strings.Replace(keyed, "c_7", "c_8", 1)); !errors.As(err, &refused) || refused.Code != emit.KeyConflict {
		t.Errorf("the key with another event: %v", err)
	}
	other, err := call(t, em, strings.Replace(keyed, `"event"`, `"tenant":"t2","event"`, 1))
	if err != nil || other["id"] == first["id"] {
		t.Errorf("another tenant's key: %v, %v", other, err)
	}
	if len(stored(t, store)) != 2 {
		t.Errorf("stored %d", len(stored(t, store)))
	}
}

func TestManyProducersWithOneKeyMakeOneEvent(t *testing.T) {
	em, store := newEmitter()
	keyed := strings.Replace(joined, `{"event"`, `{"idempotency_key":"k","event"`, 1)
	var all sync.WaitGroup
	var mu sync.Mutex
	ids, fresh := map[any]bool{}, 0
	for range 64 {
		all.Go(func() {
			answer, err := em.Handle(context.Background(), json.RawMessage(keyed))
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			r := answer.(emit.Result)
			ids[r.ID] = true
			if !r.Duplicate {
				fresh++
			}
		})
	}
	all.Wait()
	if len(ids) != 1 || fresh != 1 || len(stored(t, store)) != 1 {
		t.Errorf("%d ids, %d of them fresh, %d events; want 1 each", len(ids), fresh, len(stored(t, store)))
	}
}

// dying fails the first put: the emitter dies between key and event.
type dying struct {
	emit.Events
	puts int
}

func (d *dying) PutEvent(ctx context.Context, a event.Accepted) error {
	if d.puts++; d.puts == 1 {
		return errors.New("the worker died")
	}
	return d.Events.PutEvent(ctx, a)
}

func TestAKeyWhoseEmitterDiedIsCompletedByTheNext(t *testing.T) {
	em, store := newEmitter()
	em.Events = &dying{Events: store}
	keyed := strings.Replace(joined, `{"event"`, `{"idempotency_key":"k","event"`, 1)
	var refused *emit.Error
	if _, err := call(t, em, keyed); !errors.As(err, &refused) || refused.Code != emit.Unavailable || strings.Contains(err.Error(), "died") {
		t.Fatalf("first: %v, want unavailable, without the store's own words", err)
	}
	answer, err := call(t, em, keyed)
	if err != nil || answer["duplicate"] != false || len(stored(t, store)) != 1 {
		t.Errorf("second: %v, %v; %d events", answer, err, len(stored(t, store)))
	}
}

func TestFunctionURL(t *testing.T) {
	for name, c := range map[string]struct {
		request events.LambdaFunctionURLRequest
		status  int
		says    string
	}{
		"an event":                {url("POST", joined), 202, `"id":"`},
		"base64":                  {encoded("eyJldmVudCI6InVzZXIucG9zdGVkX2NvbW1lbnQiLCJkYXRhIjp7ImRpc2N1c3Npb25faWQiOiJkIiwiY29tbWVudF9pZCI6ImMiLCJjb21tZW50X3RleHQiOiIifX0="), 202, `"id":"`},
		"a list, all good":        {url("POST", `[`+joined+`]`), 202, `"results":[{"id":`},
		"a list, some refused":    {url("POST", `[`+joined+`,{"event":"x"}]`), 207, `unknown_event_type`},
		"GET":                     {url("GET", ""), 405, "POST"},
		"no JSON":                 {url("POST", "event=x"), 400, "malformed_json"},
		"base64 that is none":     {encoded("***"), 400, "malformed_json"},
		"unknown type":            {url("POST", `{"event":"x","data":{}}`), 422, `"field":"event"`},
		"data against the schema": {url("POST", `{"event":"user.joined_community","data":{}}`), 422, `"field":"data.community_id"`},
		"over 256 KiB":            {url("POST", `{"event":"user.posted_comment","data":{"discussion_id":"d","comment_id":"c","comment_text":"`+strings.Repeat("x", 300_000)+`"}}`), 413, "256 KiB"},
	} {
		t.Run(name, func(t *testing.T) {
			em, _ := newEmitter()
			payload, err := json.Marshal(c.request)
			if err != nil {
				t.Fatal(err)
			}
			answer, err := em.Handle(t.Context(), payload)
			if err != nil {
				t.Fatal(err)
			}
			r := answer.(events.LambdaFunctionURLResponse)
			if r.StatusCode != c.status || !strings.Contains(r.Body, c.says) || r.Headers["Content-Type"] != "application/json" {
				t.Errorf("answer = %d %v %s, want %d saying %q", r.StatusCode, r.Headers, r.Body, c.status, c.says)
			}
		})
	}
	t.Run("Idempotency-Key", func(t *testing.T) {
		em, store := newEmitter()
		for _, want := range []int{202, 200} {
			r := url("POST", joined)
			r.Headers = map[string]string{"idempotency-key": "k"}
			payload, err := json.Marshal(r)
			if err != nil {
				t.Fatal(err)
			}
			answer, err := em.Handle(t.Context(), payload)
			if err != nil || answer.(events.LambdaFunctionURLResponse).StatusCode != want {
				t.Errorf("answer = %v, %v; want %d", answer, err, want)
			}
		}
		if len(stored(t, store)) != 1 {
			t.Errorf("%d events", len(stored(t, store)))
		}
	})
}

func url(method, body string) events.LambdaFunctionURLRequest {
	r := events.LambdaFunctionURLRequest{Body: body}
	r.RequestContext.HTTP.Method = method
	return r
}

func encoded(body string) events.LambdaFunctionURLRequest {
	r := url("POST", body)
	r.IsBase64Encoded = true
	return r
}

// A list that is too long is counted, not read: its length costs no memory.
func TestALongListIsRefusedInLittleMemory(t *testing.T) {
	em, _ := newEmitter()
	for name, payload := range map[string]string{
		"a list":            `[` + strings.Repeat(`{},`, 350_000) + `{}]`,
		"a list in events":  `{"events":[` + strings.Repeat(`{},`, 350_000) + `{}]}`,
		"by another name":   `{"events":[],"Events":[` + strings.Repeat(`{},`, 350_000) + `{}]}`,
		"and one that is":   `{"events":[` + strings.Repeat(`{},`, 350_000) + `{}],"events":[]}`,
		"and no list":       `{"events":[` + strings.Repeat(`{},`, 350_000) + `{}],"events":5}`,
		"of what is no one": `[` + strings.Repeat(`{"a":1},`, 150_000) + `{}]`,
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := em.Handle(t.Context(), json.RawMessage(payload))
		runtime.ReadMemStats(&after)
		if err == nil || !strings.Contains(err.Error(), "the limit of one call is") {
			t.Errorf("%s: %v", name, err)
		}
		if took := after.TotalAlloc - before.TotalAlloc; took > uint64(4*len(payload)) {
			t.Errorf("%s of %d bytes takes %d", name, len(payload), took)
		}
	}
}
