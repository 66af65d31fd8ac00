package emit_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/aws/aws-lambda-go/events"

	emithandler "github.com/tidings-dev/tidings/functions/emit/handler"
	"github.com/tidings-dev/tidings/pkg/aws/lambdaevent"
	"github.com/tidings-dev/tidings/pkg/emit"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/event/validate"
)

// maxRefusal is the maximum length of an error. A request can have 6 MB; its error must
// be short.
const maxRefusal = 2048

// FuzzHandle checks that any payload gets an answer or a short error, that each answer
// without an error has one stored event and everything else none, and that stored
// events are valid and can be read.
func FuzzHandle(f *testing.F) {
	wrapped := func(method, body string, base64 bool) string {
		r := url(method, body)
		r.IsBase64Encoded = base64
		text, err := json.Marshal(r)
		if err != nil {
			f.Fatal(err)
		}
		return string(text)
	}
	for _, seed := range []string{
		joined, `[` + joined + `,` + joined + `]`, `{"events":[` + joined + `,null]}`, `[null]`, `null`, `5`, ``, `{"Records":[{"eventSource":"aws:sqs"}]}`,
		`{"event":"user.joined_community","data":{"community_id":"c_7","community_name":"A","x":1}}`, `{"event":"user.joined_community","data":{"community_id":5}}`,
		`{"event":"user.joined_community","data":{"community_id":"a","community_id":"b"}}`, `{"event":"x","data":1e999}`, `{"evnt":"x"}`, `{"event":1234567890}`,
		`{"event":"discussion.auto_closed","timestamp":"2026-02-30T00:00:00Z","data":{"discussion_id":"d","closed_at":"2026-01-01T00:00:00Z"}}`,
		`{"` + strings.Repeat("x", 5000) + `":1}`, `{"event":` + strings.Repeat("1", 5000) + `}`, `{"event":"` + strings.Repeat("é", 5000) + `","data":{}}`, `{"event":"user.joined_platform","timestamp":"` + strings.Repeat("1", 5000) + `","data":{}}`,
		`{"event":"user.joined_platform","data":{"` + strings.Repeat("x", 5000) + `":1}}`, `{"event":"user.joined_platform","data":{` + strings.Repeat(`"a":{`, 500) + strings.Repeat("}", 501) + `}`, `{"event":"user.joined_platform","data":{` + many(500) + `}}`,
		wrapped("POST", joined, false), wrapped("POST", "eyJldmVudCI6IngifQ==", true), wrapped("GET", "", false), wrapped("", "", false), wrapped("POST", "%", true), wrapped("POST", `[`+joined+`,{}]`, false),
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, payload string) {
		em, store := newEmitter()
		answer, err := emithandler.Route(em)(t.Context(), json.RawMessage(payload))
		var results []emit.Result
		switch answer := answer.(type) {
		case nil:
			if err == nil {
				t.Fatal("neither an answer nor an error")
			}
			if text := err.Error(); text == "" || len(text) > maxRefusal {
				t.Errorf("refused with %d bytes", len(text))
			}
		case emit.Result:
			results = []emit.Result{answer}
		case map[string][]emit.Result:
			results = answer["results"]
		case events.LambdaFunctionURLResponse:
			results = ofResponse(t, answer)
		case lambdaevent.BatchResponse:
			return // what is stored of a message, and what is refused, is not in the answer
		default:
			t.Fatalf("answered with a %T", answer)
		}
		taken := map[string]bool{}
		for _, r := range results {
			if r.Error == nil {
				taken[r.ID] = true
			} else if len(r.Error.Message) > maxRefusal || r.Error.Message == "" || !utf8.ValidString(r.Error.Message) || len(r.Error.Field) > maxRefusal {
				t.Errorf("refused with %d bytes about a field of %d", len(r.Error.Message), len(r.Error.Field))
			}
		}
		for _, a := range stored(t, store) {
			if !taken[a.ID] {
				t.Errorf("stored %s, which no answer speaks of", a.ID)
			}
			delete(taken, a.ID)
			e, err := event.Decode(a.Body)
			if err == nil {
				err = validate.Default().Validate(e.Type, e.Data)
			}
			if err != nil || e.ID != a.ID || len(a.Body) > event.MaxBodyBytes || !json.Valid(a.Body) {
				t.Errorf("stored %s: %v", a.Body, err)
			}
		}
		if len(taken) > 0 {
			t.Errorf("answered for %v, which is not stored", taken)
		}
	})
}

// many is the inside of an object with n names that no schema has.
func many(n int) string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf(`"unknown_field_%d":1`, i)
	}
	return strings.Join(names, ",")
}

// ofResponse reads the results in a function URL's answer.
func ofResponse(t *testing.T, r events.LambdaFunctionURLResponse) []emit.Result {
	t.Helper()
	if !slices.Contains([]int{200, 202, 207, 400, 405, 409, 413, 422, 503}, r.StatusCode) {
		t.Errorf("status %d", r.StatusCode)
	}
	if r.Headers["Content-Type"] != "application/json" {
		t.Errorf("headers %v", r.Headers)
	}
	var many struct{ Results []emit.Result }
	if err := json.Unmarshal([]byte(r.Body), &many); err != nil {
		t.Fatalf("answered %q: %v", r.Body, err)
	}
	results := many.Results
	if results == nil {
		var one emit.Result
		if err := json.Unmarshal([]byte(r.Body), &one); err != nil {
			t.Fatalf("answered %q: %v", r.Body, err)
		}
		results = []emit.Result{one}
	}
	refused := slices.ContainsFunc(results, func(r emit.Result) bool { return r.Error != nil })
	if refused != (r.StatusCode > 202) {
		t.Errorf("status %d for %s", r.StatusCode, r.Body)
	}
	return results
}

// FuzzIdempotencyKey checks that a repeated request gets the same ID and stores nothing,
// that other data under the key is rejected, and that tenants do not share keys.
func FuzzIdempotencyKey(f *testing.F) {
	f.Add("join-c_7-u_1042", "default", "other", "a", "b")
	f.Add("#", "a", "a#", "", " ")
	f.Add("\x00", "a.b", "a", "\u2028", "\u2029")
	f.Add("a#b", "t", "t#a", "x", "x")
	f.Fuzz(func(t *testing.T, key, tenant, otherTenant, first, second string) {
		em, store := newEmitter()
		request := func(tenant, text string) emit.Request {
			data, err := json.Marshal(map[string]string{"discussion_id": "d", "comment_id": "c", "comment_text": text})
			if err != nil {
				t.Fatal(err)
			}
			return emit.Request{Event: "user.posted_comment", Tenant: tenant, IdempotencyKey: key, Data: data}
		}
		one := em.Emit(t.Context(), request(tenant, first))
		if one.Error != nil {
			if len(one.Error.Message) > maxRefusal {
				t.Errorf("refused with %d bytes", len(one.Error.Message))
			}
			if n := len(stored(t, store)); n != 0 {
				t.Errorf("refused, and %d events stored", n)
			}
			return
		}
		again := em.Emit(t.Context(), request(tenant, first))
		if key != "" && (again.ID != one.ID || !again.Duplicate || again.Error != nil) {
			t.Errorf("the same request again: %+v, first %+v", again, one)
		}
		if key == "" && (again.ID == one.ID || again.Duplicate) {
			t.Errorf("without a key two events are one: %+v", again)
		}
		different := string(request("", first).Data) != string(request("", second).Data)
		conflict := em.Emit(t.Context(), request(tenant, second))
		if key != "" && different && (conflict.Error == nil || conflict.Error.Code != emit.KeyConflict) {
			t.Errorf("one key for two events: %+v", conflict)
		}
		before := len(stored(t, store))
		elsewhere := em.Emit(t.Context(), request(otherTenant, second))
		if same := otherTenant == tenant || tenant == "" && otherTenant == event.DefaultTenant || otherTenant == "" && tenant == event.DefaultTenant; !same && elsewhere.Error == nil &&
			(elsewhere.ID == one.ID || elsewhere.Duplicate || len(stored(t, store)) != before+1) {
			t.Errorf("tenant %q shares the key of %q: %+v", otherTenant, tenant, elsewhere)
		}
	})
}
