package emit_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-lambda-go/lambdacontext"

	emithandler "github.com/tidings-dev/tidings/functions/emit/handler"
	"github.com/tidings-dev/tidings/pkg/emit"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/event/catalog"
	"github.com/tidings-dev/tidings/pkg/event/validate"
	"github.com/tidings-dev/tidings/pkg/store/dynamoitem"
	"github.com/tidings-dev/tidings/pkg/store/memory"
)

func newEmitter() (*emit.Emitter, *memory.Store) {
	store := memory.New(time.Now)
	return emitterOn(store, store), store
}

// emitterOn returns an emitter that puts its events into one store, and everything else
// into another.
func emitterOn(events emit.Events, store *memory.Store) *emit.Emitter {
	return &emit.Emitter{
		Catalog: validate.Default(), Events: events, Keys: store, Failed: store, Kept: store, Stuck: store, Statistics: store,
		Log: slog.New(slog.DiscardHandler), Now: time.Now,
	}
}

const joined = `{"event":"user.joined_community","actor_user_id":"u_1","data":{"community_id":"c_7","community_name":"A <&> B"}}`

// stored returns all events that the store has accepted.
func stored(t *testing.T, s *memory.Store) []event.Accepted {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // Records then returns what is there, and does not wait
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
	answer, err := emithandler.Route(em)(t.Context(), json.RawMessage(payload))
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

func TestOneEventIsStoredAsItIsSent(t *testing.T) {
	em, store := newEmitter()
	ctx := lambdacontext.NewContext(t.Context(), &lambdacontext.LambdaContext{AwsRequestID: "req-1"})
	ctx = context.WithValue(ctx, "x-amzn-trace-id", "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1") //nolint:staticcheck // SA1029: the key is the Lambda runtime's
	if _, err := emithandler.Route(em)(ctx, json.RawMessage(joined)); err != nil {
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

func TestAnEventIsStoredWithItsSubjectAndItsTypesOldName(t *testing.T) {
	for payload, want := range map[string][2]string{
		joined: {"c_7", ""},
		`{"event":"user.joined_platform","data":{"user_id":"u_1"}}`: {"u_1", "user.welcome_email_sent"},
	} {
		em, store := newEmitter()
		if _, err := call(t, em, payload); err != nil {
			t.Fatal(err)
		}
		if got := stored(t, store); len(got) != 1 || [2]string{got[0].Subject, got[0].OldType} != want {
			t.Errorf("%s is stored as %+v, want the subject and the old name %q", payload, got, want)
		}
	}
}

func TestAnEventIsMarkedWhoseTypeHasNoDefinition(t *testing.T) {
	for payload, want := range map[string]bool{joined: false, `{"event":"user.joined_comunity","data":{"community_id":"c_7"}}`: true} {
		em, store := newEmitter()
		em.Catalog = validate.New(catalog.Default().Opened())
		if _, err := call(t, em, payload); err != nil {
			t.Fatal(err)
		}
		if got := stored(t, store); len(got) != 1 || got[0].Undefined != want {
			t.Errorf("%s is stored as %+v", payload, got)
		}
	}
}

func TestErrorsNameTheFieldAndNothingIsStored(t *testing.T) {
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
		"a field missing":        {`{"event":"user.joined_community","data":{"community_name":"n"}}`, emit.InvalidData, "data.community_id"},
		"a field of wrong type":  {`{"event":"user.joined_community","data":{"community_id":"c","community_name":5}}`, emit.InvalidData, "data.community_name"},
		"a field unknown":        {`{"event":"user.joined_community","data":{"community_id":"c","community_name":"n","x":1}}`, emit.InvalidData, "data.x"},
		"an envelope misspelt":   {`{"event":"user.joined_community","idempotencyKey":"k","data":{}}`, emit.InvalidField, "idempotencyKey"},
		"a type that is none":    {`{"event":5,"data":{}}`, emit.InvalidField, "event"},
		"a bad timestamp":        {`{"event":"user.joined_community","timestamp":"yesterday","data":{}}`, emit.InvalidField, "timestamp"},
		"beyond the last year":   {`{"event":"user.joined_community","timestamp":"9999-12-31T23:59:59-23:59","data":{}}`, emit.InvalidField, "timestamp"},
		"before the first":       {`{"event":"user.joined_community","timestamp":"0000-01-01T00:00:00+23:59","data":{}}`, emit.InvalidField, "timestamp"},
		"a bad tenant":           {`{"event":"user.joined_community","tenant":"a/b","data":{}}`, emit.InvalidField, "tenant"},
		"a long key":             {`{"event":"user.joined_community","idempotency_key":"` + strings.Repeat("k", 257) + `","data":{}}`, emit.InvalidField, "idempotency_key"},
		"too large":              {`{"event":"user.posted_comment","data":{"discussion_id":"d","comment_id":"c","comment_text":` + big[:len(big)-1] + strings.Repeat("\U0001F39F", 50_000) + `"}}`, emit.TooLarge, "data"},
		"no such version":        {`{"event":"user.joined_community","version":2,"data":{"community_id":"c"}}`, emit.InvalidData, "version"},
		"a negative version":     {`{"event":"user.joined_community","version":-1,"data":{"community_id":"c"}}`, emit.InvalidField, "version"},
		"a version that is none": {`{"event":"user.joined_community","version":"2","data":{"community_id":"c"}}`, emit.InvalidField, "version"},
		"an empty list":          {`{"events":[]}`, emit.InvalidField, "events"},
		"too many, one invalid":  {`[5,{"x":1},` + strings.Repeat(joined+`,`, emit.MaxList) + joined + `]`, emit.TooMany, "events"},
		"too many, no JSON":      {`[` + strings.Repeat(joined+`,`, emit.MaxList) + joined + `,]`, emit.MalformedJSON, ""},
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

// Names are case-sensitive, and duplicate keys are rejected.
func TestTheEnvelopeIsStrict(t *testing.T) {
	const fields = "is not a field of an event; names are case-sensitive, and the fields are event, version, tenant, timestamp, actor_user_id, data, request_id, idempotency_key"
	for payload, want := range map[string]emit.Error{
		`{"tenant":"a","tenant":"b","event":"x","data":{}}`: {Code: emit.InvalidField, Field: "tenant", Message: `tenant: duplicate key "tenant" at byte 23`},
		`{"data":{},"event":"x","data":{}}`:                 {Code: emit.InvalidField, Field: "data", Message: `data: duplicate key "data" at byte 30`},
		`{"event":"x","\u0065vent":"y"}`:                    {Code: emit.InvalidField, Field: "event", Message: `event: duplicate key "event" at byte 26`},
		`{"event":null,"event":"y"}`:                        {Code: emit.InvalidField, Field: "event", Message: `event: duplicate key "event" at byte 22`},
		`{"events":[],"events":[]}`:                         {Code: emit.InvalidField, Field: "events", Message: `events: duplicate key "events" at byte 22`},
		`{"EVENT":"x","data":{}}`:                           {Code: emit.InvalidField, Field: "EVENT", Message: "EVENT: " + fields},
		`{"Events":[]}`:                                     {Code: emit.InvalidField, Field: "Events", Message: "Events: " + fields},
		`{"events":[],"tenant":"t"}`:                        {Code: emit.InvalidField, Field: "events", Message: "events: cannot be combined with the fields of one event"},
		`{"events":null}`:                                   {Code: emit.InvalidField, Field: "events", Message: "events: is an empty list"},
		`{"events":{}}`:                                     {Code: emit.InvalidField, Field: "events", Message: "events: must be a list, not an object"},
		`{"event":["x"]}`:                                   {Code: emit.InvalidField, Field: "event", Message: "event: must be a string, not a list"},
		`{"event":"x","request_id":true}`:                   {Code: emit.InvalidField, Field: "request_id", Message: "request_id: must be a string, not a boolean"},
		`5`:                                                 {Code: emit.InvalidField, Message: "the payload: must be an object, not a number"},
		`{"event":"x"} {}`:                                  {Code: emit.MalformedJSON, Message: "malformed JSON: invalid character '{' after top-level value after offset 14"},
		`{"event":`:                                         {Code: emit.MalformedJSON, Message: `malformed JSON: unexpected EOF within "/event" after offset 9`},
	} {
		em, store := newEmitter()
		_, err := em.Invoke(t.Context(), []byte(payload))
		var refused *emit.Error
		if !errors.As(err, &refused) || *refused != want {
			t.Errorf("%s:\n%+v, want\n%+v", payload, err, want)
		}
		if all := stored(t, store); len(all) != 0 {
			t.Errorf("%s: stored %v", payload, all)
		}
	}
}

func TestADuplicateKeyInDataRejectsOnlyThatEvent(t *testing.T) {
	em, store := newEmitter()
	answer, err := call(t, em, `[`+joined+`,{"event":"user.joined_community","data":{"community_id":"a","community_id":"b","community_name":"n"}}]`)
	if err != nil || len(stored(t, store)) != 1 || !strings.Contains(fmt.Sprint(answer["results"]), "data.community_id: is a duplicate key") {
		t.Errorf("%v, %v; %d events stored", answer, err, len(stored(t, store)))
	}
}

// An item of a list that is not an event is refused by itself, with its index.
func TestAMalformedItemDoesNotAffectTheOthers(t *testing.T) {
	const fields = "is not a field of an event; names are case-sensitive, and the fields are event, version, tenant, timestamp, actor_user_id, data, request_id, idempotency_key"
	for item, want := range map[string]emit.Error{
		strings.Replace(joined, `{"event"`, `{"foo":1,"event"`, 1): {Code: emit.InvalidField, Field: "foo", Message: "foo: " + fields},
		`{"idempotencyKey":"k"}`:                                   {Code: emit.InvalidField, Field: "idempotencyKey", Message: "idempotencyKey: " + fields},
		`{"events":[]}`:                                            {Code: emit.InvalidField, Field: "events", Message: "events: " + fields},
		`{"event":"x","tenant":"a","tenant":"b"}`:                  {Code: emit.InvalidField, Field: "tenant", Message: `tenant: duplicate key "tenant" at byte 35`},
		`{"event":["x"],"data":{}}`:                                {Code: emit.InvalidField, Field: "event", Message: "event: must be a string, not a list"},
		`{}`:                                                       {Code: emit.InvalidField, Field: "event"},
		`5`:                                                        {Code: emit.InvalidField, Message: "the event: must be an object, not a number"},
		`"x"`:                                                      {Code: emit.InvalidField, Message: "the event: must be an object, not a string"},
		`true`:                                                     {Code: emit.InvalidField, Message: "the event: must be an object, not a boolean"},
		`null`:                                                     {Code: emit.InvalidField, Message: "the event: must be an object, not a null"},
		`[]`:                                                       {Code: emit.InvalidField, Message: "the event: must be an object, not a list"},
		`[` + joined + `]`:                                         {Code: emit.InvalidField, Message: "the event: must be an object, not a list"},
		strings.Replace(joined, "c_7", `\ud800`, 1): {Code: emit.InvalidData, Field: "data.community_id"},
	} {
		for _, list := range []string{`[` + joined + `,` + item + `,` + joined + `]`, `{"events":[` + joined + `,` + item + `,` + joined + `]}`} {
			em, store := newEmitter()
			answer, err := em.Invoke(t.Context(), []byte(list))
			if err != nil {
				t.Errorf("%s: %v", list, err)
				continue
			}
			results := answer.(map[string][]emit.Result)["results"]
			refused := results[1].Error
			if len(results) != 3 || results[0].Error != nil || results[2].Error != nil || refused == nil || len(stored(t, store)) != 2 {
				t.Errorf("%s: %+v", list, results)
				continue
			}
			if refused.Code != want.Code || refused.Field != want.Field || want.Message != "" && refused.Message != want.Message || refused.Index == nil || *refused.Index != 1 {
				t.Errorf("%s:\n%+v, want\n%+v at index 1", item, refused, want)
			}
		}
	}
}

// These were accepted by earlier versions.
func TestUnusualEnvelopesAreAccepted(t *testing.T) {
	for _, payload := range []string{
		` ` + joined + ` `, `[` + joined + `]`, `{"events":[` + joined + `]}`, strings.Replace(joined, `"event"`, `"\u0065vent"`, 1),
		strings.Replace(joined, `{"event"`, `{"tenant":null,"request_id":null,"event"`, 1),
	} {
		em, store := newEmitter()
		if _, err := call(t, em, payload); err != nil || len(stored(t, store)) != 1 {
			t.Errorf("%s: %v", payload, err)
		}
	}
}

func TestAListIsAnsweredEventByEvent(t *testing.T) {
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

func TestAnIdempotencyKeyStandsForOneEvent(t *testing.T) {
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

func TestConcurrentRequestsWithOneKeyStoreOneEvent(t *testing.T) {
	em, store := newEmitter()
	keyed := strings.Replace(joined, `{"event"`, `{"idempotency_key":"k","event"`, 1)
	var all sync.WaitGroup
	var mu sync.Mutex
	ids, fresh := map[any]bool{}, 0
	for range 64 {
		all.Go(func() {
			answer, err := em.Invoke(context.Background(), []byte(keyed))
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

// dying fails the first PutEvent, as if the worker died after it reserved the key.
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

func TestAnIncompleteKeyIsCompletedByTheNextRequest(t *testing.T) {
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
		"a list, one malformed":   {url("POST", `[`+joined+`,{"foo":1}]`), 207, `"field":"foo","index":1`},
		"a list, none an object":  {url("POST", `[5]`), 207, `"index":0`},
		"GET":                     {url("GET", ""), 405, "POST"},
		"no method":               {url("", joined), 405, "POST"},
		"invalid base64":          {encoded("%%%"), 400, `"code":"malformed_json","message":"the request body could not be read`},
		"no JSON":                 {url("POST", "event=x"), 400, "malformed_json"},
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
			answer, err := emithandler.Route(em)(t.Context(), payload)
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
			answer, err := emithandler.Route(em)(t.Context(), payload)
			if err != nil || answer.(events.LambdaFunctionURLResponse).StatusCode != want {
				t.Errorf("answer = %v, %v; want %d", answer, err, want)
			}
		}
		if len(stored(t, store)) != 1 {
			t.Errorf("%d events", len(stored(t, store)))
		}
	})
}

// A producer that hears that the event was not stored must hear when to try again.
func TestAnAnswerOverHTTPSaysWhetherToTryAgain(t *testing.T) {
	for name, c := range map[string]struct {
		events emit.Events
		status int
		again  string
		says   string
	}{
		"stored":          {nil, 202, "", `"id":"`},
		"the table is up": {nil, 200, "", `"duplicate":true`},
		"not stored":      {unreachable{}, 503, "5", `"error":`},
	} {
		t.Run(name, func(t *testing.T) {
			em, store := newEmitter()
			if c.events != nil {
				em = emitterOn(c.events, store)
			}
			send := func() events.LambdaFunctionURLResponse {
				r := url("POST", joined)
				r.Headers = map[string]string{"idempotency-key": "k"}
				payload, err := json.Marshal(r)
				if err != nil {
					t.Fatal(err)
				}
				answer, err := emithandler.Route(em)(t.Context(), payload)
				if err != nil {
					t.Fatal(err)
				}
				return answer.(events.LambdaFunctionURLResponse)
			}
			r := send()
			if c.status == 200 {
				r = send()
			}
			if r.StatusCode != c.status || r.Headers["Retry-After"] != c.again || !strings.Contains(r.Body, c.says) {
				t.Errorf("answer = %d %v %s; want %d, Retry-After %q", r.StatusCode, r.Headers, r.Body, c.status, c.again)
			}
		})
	}
}

// unreachable is a table that cannot be written.
type unreachable struct{}

func (unreachable) PutEvent(context.Context, event.Accepted) error {
	return errors.New("the table is away")
}

func (unreachable) GetEvent(context.Context, string) (event.Accepted, error) {
	return event.Accepted{}, errors.New("the table is away")
}

// The header is used or refused, never ignored.
func TestTheIdempotencyKeyHeaderIsNeverIgnored(t *testing.T) {
	keyed := func(key string) string {
		return strings.Replace(joined, `{"event"`, `{"idempotency_key":"`+key+`","event"`, 1)
	}
	for name, c := range map[string]struct {
		header, body string
		status       int
		says         string
	}{
		"only the header":          {"k", joined, 202, `"id"`},
		"the same in the body":     {"k", keyed("k"), 202, `"id"`},
		"another in the body":      {"k", keyed("other"), 400, "differs from the header"},
		"a list":                   {"k", `[` + joined + `]`, 400, "applies to one event"},
		"a list in events":         {"k", `{"events":[` + joined + `]}`, 400, "applies to one event"},
		"a control character":      {"a\tb", joined, 422, `"field":"idempotency_key"`},
		"a line break":             {"a\nb", joined, 422, `"field":"idempotency_key"`},
		"a leading blank":          {" a", joined, 422, `"field":"idempotency_key"`},
		"bytes that are not UTF-8": {"a\xff", joined, 422, `"field":"idempotency_key"`},
		"over 256 bytes":           {strings.Repeat("k", 257), joined, 400, `"field":"idempotency_key"`},
		"no header with a list":    {"", `[` + joined + `]`, 202, `"results"`},
	} {
		t.Run(name, func(t *testing.T) {
			em, store := newEmitter()
			r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(c.body))
			if c.header != "" {
				r.Header["Idempotency-Key"] = []string{c.header}
			}
			w := httptest.NewRecorder()
			em.ServeHTTP(w, r)
			if w.Code != c.status || !strings.Contains(w.Body.String(), c.says) {
				t.Errorf("%d %s, want %d saying %q", w.Code, w.Body, c.status, c.says)
			}
			if n := len(stored(t, store)); (n == 1) != (c.status == 202) {
				t.Errorf("%d events stored", n)
			}
		})
	}
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

// Decoding 350,000 events would need a gigabyte.
func TestALongListIsRejectedWithoutBeingDecoded(t *testing.T) {
	em, _ := newEmitter()
	for name, payload := range map[string]string{
		"a list":              `[` + strings.Repeat(`{},`, 350_000) + `{}]`,
		"a list in events":    `{"events":[` + strings.Repeat(`{},`, 350_000) + `{}]}`,
		"a list given twice":  `{"events":[` + strings.Repeat(`{},`, 350_000) + `{}],"events":[]}`,
		"a list and a number": `{"events":[` + strings.Repeat(`{},`, 350_000) + `{}],"events":5}`,
		"an unknown name":     `{"Events":[` + strings.Repeat(`{},`, 350_000) + `{}]}`,
		"invalid items":       `[` + strings.Repeat(`{"a":1},`, 150_000) + `{}]`,
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := emithandler.Route(em)(t.Context(), json.RawMessage(payload))
		runtime.ReadMemStats(&after)
		if err == nil || !strings.Contains(err.Error(), "the limit per call is") && !strings.Contains(name, "unknown") {
			t.Errorf("%s: %v", name, err)
		}
		if took := after.TotalAlloc - before.TotalAlloc; took > uint64(4*len(payload)) {
			t.Errorf("%s of %d bytes takes %d", name, len(payload), took)
		}
	}
}
