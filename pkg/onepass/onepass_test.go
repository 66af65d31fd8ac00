package onepass_test

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/pkg/onepass"
	"github.com/tidings-dev/tidings/test/jsontest"
)

// thing has a field of each kind that can be read.
type thing struct {
	Text  string          `json:"text"`
	Whole int             `json:"whole"`
	Flag  bool            `json:"flag"`
	At    time.Time       `json:"at"`
	Raw   json.RawMessage `json:"raw"`
	List  []string        `json:"list"`
	Inner struct {
		Text string `json:"text"`
	} `json:"inner"`
}

func read(text []byte) (t thing, err error) {
	err = onepass.Read(text, func(r *onepass.Reader) error {
		return r.Object(func(name []byte) (err error) {
			switch string(name) {
			case "text":
				return r.String(&t.Text)
			case "whole":
				return r.Int(&t.Whole)
			case "flag":
				return r.Bool(&t.Flag)
			case "at":
				return r.Time(&t.At)
			case "raw":
				t.Raw, err = r.Raw()
				return err
			case "list":
				t.List = []string{}
				return r.Array(func() error {
					var b []byte
					err := r.Bytes(&b)
					t.List = append(t.List, string(b))
					return err
				})
			case "inner":
				return r.Object(func(name []byte) error {
					if string(name) == "text" {
						return r.String(&t.Inner.Text)
					}
					return r.Skip()
				})
			}
			return r.Skip()
		})
	})
	return t, err
}

var texts = []string{
	`{}`, `null`, ` { "text" : "a" } `, `{"text":"a","whole":-7,"flag":true,"at":"2026-01-29T12:34:56.789+01:00","raw":[1, {"a":"b"}],"list":["x","\u0041\n\"\\\/\ud83c\udf9f"],"inner":{"text":"deep","more":[{}]},"unknown":{"a":[1.5e9,null]}}`,
	`{"text":null,"whole":null,"flag":null,"at":null,"raw":null,"inner":null}`, `{"text":"first","text":"last"}`, `{"t\u0065xt":"a"}`, "{\"text\":\"Gr\u00fc\u00dfe \u2028 \U0001F39F\"}",
	`{"text":5}`, `{"whole":"5"}`, `{"whole":1.5}`, `{"whole":1e3}`, `{"whole":9223372036854775808}`, `{"flag":"true"}`, `{"at":5}`, `{"at":"yesterday"}`, `{"list":{}}`, `{"list":[5]}`, `{"inner":[]}`, `[]`, `"text"`,
	``, `{`, `{"text"}`, `{"text":"a"}}`, `{"text":"a"} 5`, `{"text":"a",}`, `{'text':'a'}`, `{"text":"a\x"}`, `{"text":"` + "\x01" + `"}`, `{"raw":tru}`, "\xef\xbb\xbf{}", `{"text":"\ud83c"}`, `{"unknown":"\udf9f"}`, "{\"text\":\"\xff\"}", "{\"te\xffxt\":\"a\"}", `{"list":["a"`,
}

// same reports how two readings differ; "" where they don't.
func same(t *testing.T, text []byte) {
	t.Helper()
	var want thing
	wantErr := json.Unmarshal(text, &want)
	got, err := read(text)
	if (err != nil) != (wantErr != nil) {
		t.Fatalf("%.200q: %v; encoding/json says %v", text, err, wantErr)
	}
	if err != nil {
		return
	}
	if !got.At.Equal(want.At) {
		t.Errorf("%.200q: at %s; encoding/json says %s", text, got.At, want.At)
	}
	got.At, want.At = time.Time{}, time.Time{}
	if len(got.List) == 0 && len(want.List) == 0 {
		got.List, want.List = nil, nil
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%.200q:\n%+v; encoding/json says\n%+v", text, got, want)
	}
}

func TestWhatIsReadIsWhatEncodingJSONReads(t *testing.T) {
	deep := `{"raw":` + strings.Repeat("[", 9000) + strings.Repeat("]", 9000) + `}`
	for _, text := range append(texts, deep) {
		same(t, []byte(text))
	}
}

// FuzzRead: what one pass makes of a text is what encoding/json makes of it.
func FuzzRead(f *testing.F) {
	for _, text := range texts {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		text, ok := jsontest.Comparable(text, "text", "whole", "flag", "at", "raw", "list", "inner")
		if !ok {
			return
		}
		same(t, text)
	})
}

func TestDoneEndsTheReading(t *testing.T) {
	var first string
	err := onepass.Read([]byte(`{"list":[{"text":"a"},{"text":"b"}`), func(r *onepass.Reader) error {
		return r.Object(func([]byte) error {
			return r.Array(func() error {
				return r.Object(func([]byte) error {
					if err := r.String(&first); err != nil {
						return err
					}
					return onepass.ErrDone
				})
			})
		})
	})
	if err != nil || first != "a" {
		t.Errorf("%q, %v", first, err)
	}
}

func TestWhatWasReadStaysWhenTheReaderIsUsedAgain(t *testing.T) {
	one, err := read([]byte(`{"text":"plain","raw":{"a":1},"list":["b","c\n"]}`))
	if err != nil {
		t.Fatal(err)
	}
	for range 100 {
		if _, err := read([]byte(`{"text":"XXXXX","raw":{"X":9},"list":["X","XX"]}`)); err != nil {
			t.Fatal(err)
		}
	}
	if one.Text != "plain" || string(one.Raw) != `{"a":1}` || one.List[0] != "b" || one.List[1] != "c\n" {
		t.Errorf("%+v", one)
	}
}

func TestAnErrorSaysWhere(t *testing.T) {
	for text, says := range map[string]string{
		``:                                 "no value stands there",
		` `:                                "no value stands there",
		`5`:                                "number stands where { should",
		`{"text":5}`:                       `"/text": number stands where a string should`,
		`{"text":"a","inner":{"text":{}}}`: `"/inner/text": { stands where a string should`,
		`{"list":["a",5]}`:                 `"/list/1": number stands where a string should`,
		`{"whole":1.5}`:                    `"/whole": the number is not a whole one, or too large`,
		`{"flag":5}`:                       `"/flag": number stands where true or false should`,
		`{"text":"a"} 5`:                   "something follows the value at byte 14",
	} {
		_, err := read([]byte(text))
		if err == nil || err.Error() != says {
			t.Errorf("%s: %v, want %s", text, err, says)
		}
	}
}
