package emit_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-lambda-go/events"

	"github.com/tidings-dev/tidings/pkg/emit"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/store/dynamoitem"
)

// uncarried are texts, as JSON, that headers and message attributes cannot carry.
var uncarried = map[string]string{
	"a line break":              `a\nb`,
	"a carriage return":         `a\rb`,
	"a tab":                     `a\tb`,
	"U+0000":                    `a\u0000b`,
	"U+0001":                    `a\u0001b`,
	"U+007F":                    `a\u007fb`,
	"U+0085":                    `a\u0085b`,
	"a leading blank":           ` a`,
	"a trailing blank":          `a `,
	"a trailing no-break space": `a\u00a0`,
	"only blanks":               `  `,
	"a lone high surrogate":     `a\ud800`,
	"a lone low surrogate":      `a\udc00b`,
	"U+FFFD":                    `a\ufffd`,
	"U+FFFF":                    `a\uffff`,
	"a byte that is not UTF-8":  "a\xff",
}

// These texts are in headers, in message attributes, or in both.
func TestATextThatAProtocolCannotCarryIsRefused(t *testing.T) {
	for _, c := range []struct{ field, payload string }{
		{"idempotency_key", `{"event":"user.joined_community","idempotency_key":"TEXT","data":{"community_id":"c"}}`},
		{"request_id", `{"event":"user.joined_community","request_id":"TEXT","data":{"community_id":"c"}}`},
		{"actor_user_id", `{"event":"user.joined_community","actor_user_id":"TEXT","data":{"community_id":"c"}}`},
		{"data.community_id", `{"event":"user.joined_community","data":{"community_id":"TEXT"}}`},
		{"data.discussion_id", `{"event":"user.posted_comment","data":{"discussion_id":"TEXT","comment_id":"m","comment_text":""}}`},
		{"data.user_id", `{"event":"user.joined_platform","data":{"user_id":"TEXT"}}`},
	} {
		for name, text := range uncarried {
			t.Run(c.field+", "+name, func(t *testing.T) {
				em, store := newEmitter()
				payload := strings.Replace(c.payload, "TEXT", text, 1)
				_, err := em.Invoke(t.Context(), []byte(payload))
				var refused *emit.Error
				if !errors.As(err, &refused) || refused.Code != emit.InvalidText && refused.Code != emit.InvalidData || refused.Field != c.field || !strings.Contains(refused.Message, c.field+": ") {
					t.Fatalf("direct invocation: %+v", err)
				}
				refuses(t, em, payload, 422, c.field)
				answer, err := em.Invoke(t.Context(), []byte(`[`+payload+`]`))
				if err != nil || answer.(map[string][]emit.Result)["results"][0].Error.Field != c.field {
					t.Errorf("list: %v, %v", answer, err)
				}
				if n := len(stored(t, store)); n != 0 {
					t.Errorf("%d events stored", n)
				}
			})
		}
	}
}

// Other texts are only in the body: any Unicode text is allowed there.
func TestDataHasAnyUnicodeText(t *testing.T) {
	for name, c := range map[string]struct {
		text    string
		refused bool
	}{
		"control characters":        {`\u0000\u0001\n\u007f`, false},
		"blanks":                    {` a `, false},
		"a surrogate pair":          {`\ud83c\udf9f`, false},
		"U+FFFD":                    {`\ufffd`, false},
		"a lone high surrogate":     {`\ud800`, true},
		"a lone low surrogate":      {`\udc00`, true},
		"surrogates in wrong order": {`\udc00\ud800`, true},
		"half of a pair at the end": {`a\ud83c`, true},
		"a byte that is not UTF-8":  {"\xff", true},
		"an encoded surrogate":      {"\xed\xa0\x80", true},
	} {
		for field, payload := range map[string]string{
			"data.comment_text":     `{"event":"user.posted_comment","data":{"discussion_id":"d","comment_id":"m","comment_text":"TEXT"}}`,
			"data.discussion_title": `{"event":"user.posted_comment","data":{"discussion_id":"d","comment_id":"m","comment_text":"","discussion_title":"TEXT"}}`,
		} {
			t.Run(field+", "+name, func(t *testing.T) {
				em, store := newEmitter()
				payload := strings.Replace(payload, "TEXT", c.text, 1)
				if c.refused {
					refuses(t, em, payload, 422, field)
					return
				}
				if _, err := em.Invoke(t.Context(), []byte(payload)); err != nil || len(stored(t, store)) != 1 {
					t.Errorf("%v", err)
				}
			})
		}
	}
}

// refuses checks the response of the function URL.
func refuses(t *testing.T, em *emit.Emitter, body string, status int, field string) {
	t.Helper()
	w := post(em, body)
	var answer emit.Result
	if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil {
		t.Fatal(err)
	}
	if w.Code != status || answer.Error == nil || answer.Error.Field != field {
		t.Errorf("%d %s, want %d at %s", w.Code, w.Body, status, field)
	}
}

// A captured event has a cleaned request_id. A change whose IDs cannot be carried is kept as
// a failed change.
func TestACapturedTextIsCleanedOrItsChangeKept(t *testing.T) {
	for _, text := range []string{"a\nb", "a\x00", "a\x7f", " a", "a ", "a\ufffd"} {
		em, store := newEmitter()
		batch := changes(t, comment(1))
		set(&batch, "request_id", text)
		if failed := capture(t, em, batch); len(failed) != 0 || len(stored(t, store)) != 1 {
			t.Fatalf("%q as request: %v, %d events", text, failed, len(stored(t, store)))
		}
		if e, err := event.Decode(stored(t, store)[0].Body); err != nil || event.CheckText(e.RequestID) != nil || !strings.HasPrefix(e.RequestID, "a") {
			t.Errorf("%q: %+v, %v", text, e, err)
		}
		for attribute, field := range map[string]string{"discussion_id": "data.discussion_id", "user_id": "actor_user_id"} {
			em, store := newEmitter()
			batch := changes(t, comment(1))
			set(&batch, attribute, text)
			if failed := capture(t, em, batch); len(failed) != 0 || len(stored(t, store)) != 0 {
				t.Fatalf("%q as %s: %v, %d events", text, attribute, failed, len(stored(t, store)))
			}
			if kept := failedChanges(t, store); len(kept) != 1 || !strings.Contains(kept[0].Reason, field) {
				t.Errorf("%q as %s: kept %+v", text, attribute, kept)
			}
		}
	}
}

// One key and the same values give the same event, however they are spelt.
func TestIdempotencyComparesValues(t *testing.T) {
	const first = `{"event":"user.cancelled_registration","idempotency_key":"k","timestamp":"2026-01-29T12:34:56Z","actor_user_id":"u_é",
		"data":{"event_id":"e","registration_id":"r","user_id":"ü","price":12.5,"event_name":"a/b"}}`
	for name, c := range map[string]struct {
		payload string
		same    bool
	}{
		"the same":            {first, true},
		"white space":         {strings.NewReplacer(`,`, " ,\n ", `{`, "{ ").Replace(first), true},
		"reordered fields":    {`{"data":{"event_name":"a/b","price":12.5,"user_id":"ü","registration_id":"r","event_id":"e"},"actor_user_id":"u_é","timestamp":"2026-01-29T12:34:56Z","idempotency_key":"k","event":"user.cancelled_registration"}`, true},
		"escapes":             {strings.NewReplacer("é", `\u00e9`, "ü", `\u00FC`, "a/b", `a\/b`).Replace(first), true},
		"escaped names":       {strings.Replace(first, `"event_id"`, `"\u0065vent_id"`, 1), true},
		"decimals of seconds": {strings.Replace(first, "56Z", "56.000Z", 1), true},
		"another time zone":   {strings.Replace(first, "12:34:56Z", "14:34:56.0+02:00", 1), true},
		"number forms":        {strings.Replace(first, "12.5", "1.250e1", 1), true},
		"another request":     {strings.Replace(first, `"event":`, `"request_id":"r2","event":`, 1), true},
		"another time":        {strings.Replace(first, "56Z", "56.001Z", 1), false},
		"no time":             {strings.Replace(first, `"timestamp":"2026-01-29T12:34:56Z",`, "", 1), false},
		"another user":        {strings.Replace(first, "u_é", "u_e", 1), false},
		"another number":      {strings.Replace(first, "12.5", "12.51", 1), false},
		"another text":        {strings.Replace(first, "ü", "u\u0308", 1), false}, // looks the same
		"one field less":      {strings.Replace(first, `,"event_name":"a/b"`, "", 1), false},
	} {
		t.Run(name, func(t *testing.T) {
			em, store := newEmitter()
			if w := post(em, first); w.Code != 202 {
				t.Fatalf("%d %s", w.Code, w.Body)
			}
			want := 409
			if c.same {
				want = 200
			}
			if w := post(em, c.payload); w.Code != want || len(stored(t, store)) != 1 {
				t.Errorf("%d %s, want %d", w.Code, w.Body, want)
			}
		})
	}
}

// Large integers are compared digit by digit: a double has only 53 bits.
func TestIdempotencyDoesNotRoundIntegers(t *testing.T) {
	em, _ := newEmitter()
	payload := `{"event":"user.posted_comment","idempotency_key":"k","data":{"discussion_id":"d","comment_id":"m","comment_text":"","comment_length":9007199254740993}}`
	if w := post(em, payload); w.Code != 202 {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	if w := post(em, strings.Replace(payload, "740993", "740992", 1)); w.Code != 409 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// A key that an earlier release stored, with the digest of the request's text, is known.
func TestKeysOfEarlierReleasesStayValid(t *testing.T) {
	em, store := newEmitter()
	keyed := strings.Replace(joined, `{"event"`, `{"idempotency_key":"k","event"`, 1)
	id := event.NewID(em.Now())
	if _, err := store.ReserveKey(t.Context(), "default", "k", event.Reservation{EventID: id, Digest: "07f4dbe34bca67bc2db3927b9f5c209f"}, em.Now().Add(emit.KeyRetention)); err != nil {
		t.Fatal(err)
	}
	if w := post(em, keyed); w.Code != 202 || !strings.Contains(w.Body.String(), id) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if w := post(em, strings.Replace(keyed, "c_7", "c_8", 1)); w.Code != 409 {
		t.Errorf("another event: %d %s", w.Code, w.Body)
	}
}

// post sends a request to the function URL.
func post(em *emit.Emitter, body string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	em.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/", strings.NewReader(body)))
	return w
}

// set sets a text attribute of the first record.
func set(batch *events.DynamoDBEvent, attribute, text string) {
	batch.Records[0].Change.NewImage[attribute] = events.NewStringAttribute(text)
}

// A request whose event could not be stored is repeated 73 hours later. It keeps its ID, and
// the stream tells dispatch when the event was stored: its age counts from then.
func TestALateRetryKeepsItsIDAndIsStoredNow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		em, store := newEmitter()
		em.Events = &dying{Events: store}
		keyed := strings.Replace(joined, `{"event"`, `{"idempotency_key":"k","event"`, 1)
		if w := post(em, keyed); w.Code != 503 {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
		first := time.Now()
		time.Sleep(73 * time.Hour)
		if w := post(em, keyed); w.Code != 202 {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel() // Records then returns what is there, and does not wait
		records, err := store.Records(ctx, dynamoitem.Events, "", 10)
		if err != nil || len(records) != 1 {
			t.Fatalf("%d records, %v", len(records), err)
		}
		batch, err := json.Marshal(events.DynamoDBEvent{Records: records})
		if err != nil {
			t.Fatal(err)
		}
		changes, err := dynamoitem.ReadEvents(batch)
		if err != nil || len(changes) != 1 {
			t.Fatal(err)
		}
		made, err := event.IDTime(changes[0].Event.ID)
		if err != nil || !made.Equal(first.Truncate(time.Millisecond)) || changes[0].At.Sub(made) < 73*time.Hour-time.Second {
			t.Errorf("made at %s, stored at %s, %v", made, changes[0].At, err)
		}
	})
}

// Producers parse this.
func TestTheResponseToAListWithRefusedItems(t *testing.T) {
	em, _ := newEmitter()
	em.NewID = func(time.Time) string { return "01KG4VZS4NCPSXFR1K7QEWBC9B" }
	w := post(em, `[{"foo":1},`+joined+`,{"event":"user.joined_community","request_id":"a\nb","data":{"community_id":"c"}}]`)
	const want = `{"results":[` +
		`{"duplicate":false,"error":{"code":"invalid_field","message":"foo: is not a field of an event; names are case-sensitive, and the fields are event, version, tenant, timestamp, actor_user_id, data, request_id, idempotency_key","field":"foo","index":0}},` +
		`{"id":"01KG4VZS4NCPSXFR1K7QEWBC9B","duplicate":false},` +
		`{"duplicate":false,"error":{"code":"invalid_text","message":"request_id: has the control character U+000A at byte 1","field":"request_id","index":2}}]}`
	if got := strings.TrimSpace(w.Body.String()); w.Code != 207 || got != want {
		t.Errorf("%d %s, want\n%s", w.Code, got, want)
	}
}
