package filter_test

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/tidings-dev/tidings/pkg/event/filter"
)

// FuzzCompileAndMatch: white space does not change the result of a match, nor does an
// $or of the pattern with itself. An error is not much longer than the pattern.
func FuzzCompileAndMatch(f *testing.F) {
	for _, p := range []string{
		`{"data":{"status":[{"prefix":"a"}]}}`, `{"a":[{"anything-but":{"wildcard":"*x*"}}]}`, `{"$or":[{"a":[1]},{"b":[null]}]}`, `{"a":[{"numeric":[">",0,"<=",1e3]}]}`,
		`{"a":[{"exists":false}],"b":{"c":[true,false,null]}}`, `{"a":[{"suffix":{"equals-ignore-case":"X"}}]}`, `{"a":[{"anything-but":["x",1]}]}`, `{"a":[{"equals-ignore-case":"ſ"}]}`,
		`{"a":[[1]]}`, `{"a":[{"prefix":""}]}`, `{}`, `[]`, `{"a":[{"wildcard":"a**b"}]}`, `{"a":[{"numeric":["=",1e999]}]}`,
		`{"a":[{"wildcard":"\\*\\\\"}]}`, `{"a":[{"cidr":"::/3"}]}`, `{"a":[9007199254740993,1.50e1]}`, `{"a":[1],"a":[2]}`,
	} {
		f.Add(p, body)
		f.Add(p, `{"a":[[1,"x",null,"a"],{"b":1}],"b":null,"c":{"a":"b"}}`)
	}
	f.Fuzz(func(t *testing.T, p, b string) {
		compiled, err := filter.Compile(json.RawMessage(p))
		if err != nil {
			if len(err.Error()) > 4*len(p)+512 {
				t.Errorf("an error of %d bytes about a pattern of %d", len(err.Error()), len(p))
			}
			return
		}
		doc, err := filter.Parse([]byte(b))
		if err != nil {
			return
		}
		matches := compiled.Matches(doc)
		if matches != compiled.Matches(doc) {
			t.Error("the second match has another result")
		}
		var spaced bytes.Buffer
		if err := json.Indent(&spaced, []byte(p), " ", "\t"); err != nil {
			t.Fatalf("%q compiles but is not JSON: %v", p, err)
		}
		either := `{"$or":[` + p + `,` + spaced.String() + `]}`
		for _, same := range []string{spaced.String(), either} {
			again, err := filter.Compile(json.RawMessage(same))
			if err != nil {
				t.Fatalf("%q compiles, %q does not: %v", p, same, err)
			}
			if again.Matches(doc) != matches {
				t.Errorf("%q on %q: %v, but %q: %v", p, b, matches, same, !matches)
			}
		}
	})
}
