package emit

import (
	"reflect"
	"testing"
)

// FuzzRead: what is read at once is what is read strictly.
func FuzzRead(f *testing.F) {
	for _, seed := range []string{
		`{"event":"a","tenant":"t","timestamp":"x","actor_user_id":"u","data":{"a":[1, 2]},"request_id":"r","idempotency_key":"k"}`, `[{"event":"a"},null,{"data":null}]`, `{"events":[{"event":"a","data":1}]}`,
		`{"events":[],"event":"a"}`, `{"event":"a","events":[]}`, `{"events":null}`, `{"events":[{"event":"a"}],"events":[]}`, `{"Event":"a"}`, `{"evnt":"a"}`, `{"event":null,"data":null}`, `{"event":"a","event":"b","data":1,"data":2}`,
		`null`, `[]`, ` [ ] `, `5`, `"x"`, ``, `{`, `{"event":5}`, `{"event":"a"} x`, "{\"event\":\"\xff\",\"data\":\"\xff\"}", `{"event":"\ud800"}`, `{"\u0065vent":"a"}`, `{"events":{}}`, `{"events":[5]}`, `[[]]`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		got, list, err := read(payload)
		if err != nil {
			return // it is read strictly then
		}
		want, strictList, err := readStrictly(payload)
		if err != nil || list != strictList || len(got) != len(want) || len(got) > 0 && !reflect.DeepEqual(got, want) {
			t.Errorf("%s is read as %+v (a list: %v); strictly as %+v (%v), %v", payload, got, list, want, strictList, err)
		}
	})
}

// The usual is what is read at once.
func TestTheUsualIsReadOnce(t *testing.T) {
	for _, payload := range []string{
		`{"event":"a","tenant":"t","timestamp":"x","actor_user_id":"u","data":{},"request_id":"r","idempotency_key":"k"}`, `[{"event":"a","data":{}},{"event":"b","data":{}}]`, `{"events":[{"event":"a","data":{}}]}`,
	} {
		if _, _, err := read([]byte(payload)); err != nil {
			t.Errorf("%s: %v", payload, err)
		}
	}
}
