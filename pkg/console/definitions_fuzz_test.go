package console

import (
	"errors"
	"strings"
	"testing"
)

// A text is split into the definitions that stand in it, at the places that are said; or the
// error names a line of it.
func FuzzSplitDefinitions(f *testing.F) {
	for _, text := range []string{
		`{"title":"a.b"}`, "[\n {\"a\":1},\n\n  {\"b\":[{}]} ]\n{}", `{"a":1}{"a":2} 7 "x"`, `[[{}],[]]`, "", "[", "{", `{"a":1,"a":2}`, "{},", "\xff", `{"a":"\ud800"}`, strings.Repeat("[", 20_000),
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		list, begin, err := splitDefinitions(text)
		if err != nil {
			var wrong *Error
			if !errors.As(err, &wrong) || wrong.Kind != Invalid {
				t.Fatalf("%q: %v", text, err)
			}
			return
		}
		if len(list) == 0 || len(list) != len(begin) {
			t.Fatalf("%q: %d definitions, %d places", text, len(list), len(begin))
		}
		lines := strings.SplitAfter(text, "\n")
		for i, at := range begin {
			rest := strings.Join(lines[at.line:], "")[at.column:]
			if !strings.HasPrefix(rest, string(list[i])) {
				t.Fatalf("%q: definition %d, %q, is not at line %d, column %d", text, i, list[i], at.line+1, at.column+1)
			}
		}
	})
}
