package jsontest_test

import (
	"testing"

	"github.com/tidings-dev/tidings/test/jsontest"
)

func TestComparable(t *testing.T) {
	for name, c := range map[string]struct {
		text, want string
		ok         bool
	}{
		"what is plain stays as it is":                  {`{"a": [1e700, {"b":"\u00fc"}]}`, `{"a": [1e700, {"b":"\u00fc"}]}`, true},
		"a name twice is there once, the last":          {`{"c":1,"a":{"x":"<","x":2}}`, `{"a":{"x":2},"c":1}`, true},
		"so is one spelt in two ways":                   {`{"c":1,"\u0063":2}`, `{"c":2}`, true},
		"another case is not to be compared":            {`{"A":1}`, `{"A":1}`, false},
		"nor is it deep inside":                         {`{"x":[0,{"y":{"ſ":1}}]}`, `{"x":[0,{"y":{"ſ":1}}]}`, false},
		"a stranger's name may have any":                {`{"X":1}`, `{"X":1}`, true},
		"what is no JSON stays":                         {`{"a":1,"a":`, `{"a":1,"a":`, true},
		"what follows stays, for both to refuse":        {`{"a":1,"a":2} x`, `{"a":2} x`, true},
		"and where nothing stood twice":                 {`{"a":1} x`, `{"a":1} x`, true},
		"what is not UTF-8 is both's to read":           {"{\"a\":\"\xff\"}", "{\"a\":\"\xff\"}", true},
		"an object in a list that has a name twice":     {`[{"a":1,"a":2}]`, `[{"a":2}]`, true},
		"the same name in two objects stands once each": {`[{"a":1},{"a":2}]`, `[{"a":1},{"a":2}]`, true},
	} {
		got, ok := jsontest.Comparable([]byte(c.text), "a", "s")
		if string(got) != c.want || ok != c.ok {
			t.Errorf("%s: %s, %t", name, got, ok)
		}
	}
}
