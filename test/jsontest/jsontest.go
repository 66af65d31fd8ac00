// Package jsontest prepares JSON for tests that hold what package onepass reads
// to what encoding/json reads. The two differ on purpose in one thing, and in
// another nobody relies on: encoding/json takes a name in any case, and merges what
// stands twice. It promises texts of which both must make the same.
package jsontest

import (
	"bytes"
	"encoding/json"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// Comparable returns the text, written again if a name stands twice in one of its
// objects, and whether the two must read it alike: false if a name is one of names
// but for its case. What is no JSON comes back as it is; both must refuse it.
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
	if jsontext.Value(text[:in.InputOffset()]).IsValid(jsontext.AllowInvalidUTF8(true)) { // which refuses what stands twice
		return text, true
	}
	again, err := json.Marshal(document)
	if err != nil {
		return text, false
	}
	return append(again, rest...), true
}

// spelt tells whether no name in the value is one of names in another case.
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
