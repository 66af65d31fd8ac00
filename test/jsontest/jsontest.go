// Package jsontest prepares JSON for tests that compare a reader of this project with
// encoding/json. The two differ in two things: encoding/json matches names in any
// case, and merges the values of duplicate keys. Comparable returns a text that both
// must read alike.
package jsontest

import (
	"bytes"
	"encoding/json"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// Comparable returns the text, rewritten if it has duplicate keys. ok is false if a
// key equals one of names except for its case: then the two readers may differ. Text
// that is not JSON is returned unchanged.
func Comparable(text []byte, names ...string) ([]byte, bool) {
	var document any
	in := json.NewDecoder(bytes.NewReader(text))
	in.UseNumber() // 1e700 is a number, if none that a float64 holds
	if in.Decode(&document) != nil {
		return text, true
	}
	if !spelt(document, names) {
		return text, false
	}
	rest := text[in.InputOffset():]
	if jsontext.Value(text[:in.InputOffset()]).IsValid(jsontext.AllowInvalidUTF8(true)) { // which refuses duplicate keys
		return text, true
	}
	again, err := json.Marshal(document)
	if err != nil {
		return text, false
	}
	return append(again, rest...), true
}

// spelt reports whether no key in the value is one of names in another case.
func spelt(value any, names []string) bool {
	switch value := value.(type) {
	case map[string]any:
		for name, inner := range value {
			for _, ours := range names {
				if name != ours && strings.EqualFold(name, ours) {
					return false
				}
			}
			if !spelt(inner, names) {
				return false
			}
		}
	case []any:
		for _, inner := range value {
			if !spelt(inner, names) {
				return false
			}
		}
	}
	return true
}
