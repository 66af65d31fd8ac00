package onepass_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"reflect"
	"slices"
	"testing"

	"github.com/tidings-dev/tidings/pkg/onepass"
)

func tree(text []byte) (v any, err error) {
	err = onepass.Read(text, func(r *onepass.Reader) (err error) {
		v, err = r.Tree()
		return err
	})
	return v, err
}

// standard is what encoding/json makes of a text, and whether a name stands twice
// in one of its objects.
func standard(text []byte) (v any, twice bool, err error) {
	in := json.NewDecoder(bytes.NewReader(text))
	in.UseNumber()
	if err := in.Decode(&v); err != nil {
		return nil, false, err
	}
	if _, err := in.Token(); err != io.EOF {
		return nil, false, errors.New("more follows")
	}
	// Written again, an object has each name once, and is shorter if it had one twice.
	in = json.NewDecoder(bytes.NewReader(text))
	in.UseNumber()
	tokens := 0
	for {
		if _, err := in.Token(); err != nil {
			break
		}
		tokens++
	}
	again, err := json.Marshal(v)
	if err != nil {
		return nil, false, err
	}
	in = json.NewDecoder(bytes.NewReader(again))
	in.UseNumber()
	for {
		if _, err := in.Token(); err != nil {
			break
		}
		tokens--
	}
	return v, tokens != 0, nil
}

// FuzzTree: a tree is what encoding/json makes of the text, unless a name stands
// twice.
func FuzzTree(f *testing.F) {
	for _, seed := range append(slices.Clone(texts), `{"a":1,"a":2}`, `{"a":{"b":[{"c":1,"\u0063":2}]}}`, `[{"a":1},{"a":1}]`, `-0.5e+10`, `[true,false,null,"x",{},[]]`, "{\"\xff\":1,\"\ufffd\":2}", `"\ud800"`) {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		want, twice, wrong := standard(text)
		got, err := tree(text)
		var found *onepass.TwiceError
		switch {
		case errors.As(err, &found):
			if wrong == nil && !twice {
				t.Errorf("%s: %v", text, err)
			}
		case (err == nil) != (wrong == nil):
			t.Errorf("%s is read with %v; encoding/json says %v", text, err, wrong)
		case err == nil && (twice || !reflect.DeepEqual(got, want)):
			t.Errorf("%s is read as %#v, want %#v, a name twice: %v", text, got, want, twice)
		}
	})
}

func TestANameThatStandsTwice(t *testing.T) {
	for text, path := range map[string][]string{
		`{"a":1,"a":2}`:                         {"a"},
		`{"a":{"b":[0,{"c":1,"d":0,"c":2}]}}`:   {"a", "b", "c"},
		`{"a":{"x":1},"b":{"x":1,"\u0078":{}}}`: {"b", "x"},
		`[{"a":1},{"a":1},{"b":[],"b":[]}]`:     {"b"},
	} {
		_, err := tree([]byte(text))
		var twice *onepass.TwiceError
		if !errors.As(err, &twice) || !slices.Equal(twice.Path, path) {
			t.Errorf("%s: %v, want %q", text, err, path)
		}
	}
}
