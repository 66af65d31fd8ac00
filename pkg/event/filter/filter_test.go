package filter_test

import (
	"encoding/json"
	"fmt"
	"math/big"
	"strings"
	"testing"

	"github.com/tidings-dev/tidings/pkg/event/filter"
)

const body = `{"event":"user.registered_event","actor_user_id":"u_1","data":{"status":"success","amount":12.50,"free":false,"note":null,
	"city":"Berlin","tags":["go","aws"],"deep":{"er":{"x":1}},"list":[{"a":1},{"a":2}],"empty":[]}}`

func TestMatches(t *testing.T) {
	doc, err := filter.Parse([]byte(body))
	if err != nil {
		t.Fatal(err)
	}
	for p, want := range map[string]bool{
		`{"event":["user.registered_event"]}`:                                  true,
		`{"event":["a","user.registered_event"]}`:                              true,
		`{"event":["user"]}`:                                                   false,
		`{"data":{"status":["success"],"city":["Berlin"]}}`:                    true,
		`{"data":{"status":["success"],"city":["Paris"]}}`:                     false,
		`{"data":{"missing":["x"]}}`:                                           false,
		`{"data":{"amount":[12.5]}}`:                                           true,
		`{"data":{"amount":[1.25e1]}}`:                                         true,
		`{"data":{"amount":["12.50"]}}`:                                        false, // a string is not a number
		`{"data":{"free":[false]}}`:                                            true,
		`{"data":{"free":[true]}}`:                                             false,
		`{"data":{"note":[null]}}`:                                             true,
		`{"data":{"status":[null]}}`:                                           false,
		`{"data":{"tags":["aws"]}}`:                                            true, // any element
		`{"data":{"tags":["gcp"]}}`:                                            false,
		`{"data":{"deep":{"er":{"x":[1]}}}}`:                                   true,
		`{"data":{"list":{"a":[2]}}}`:                                          true,
		`{"data":{"status":[{"prefix":"suc"}]}}`:                               true,
		`{"data":{"status":[{"prefix":"SUC"}]}}`:                               false,
		`{"data":{"status":[{"prefix":{"equals-ignore-case":"SUC"}}]}}`:        true,
		`{"data":{"status":[{"suffix":"ess"}]}}`:                               true,
		`{"data":{"status":[{"suffix":"successful"}]}}`:                        false,
		`{"data":{"amount":[{"prefix":"12"}]}}`:                                false,
		`{"data":{"status":[{"equals-ignore-case":"SUCCESS"}]}}`:               true,
		`{"data":{"status":[{"wildcard":"s*c*s"}]}}`:                           true,
		`{"data":{"status":[{"wildcard":"*"}]}}`:                               true,
		`{"data":{"status":[{"wildcard":"s*x*s"}]}}`:                           false,
		`{"data":{"status":[{"wildcard":"success*success"}]}}`:                 false, // prefix and suffix must not overlap
		`{"data":{"status":[{"anything-but":"failed"}]}}`:                      true,
		`{"data":{"status":[{"anything-but":["failed","success"]}]}}`:          false,
		`{"data":{"missing":[{"anything-but":"x"}]}}`:                          false, // the field is missing
		`{"data":{"tags":[{"anything-but":"aws"}]}}`:                           false, // one element is excluded
		`{"data":{"status":[{"anything-but":{"prefix":"fail"}}]}}`:             true,
		`{"data":{"status":[{"anything-but":{"suffix":["ess","ed"]}}]}}`:       false,
		`{"data":{"amount":[{"anything-but":12.5}]}}`:                          false,
		`{"data":{"city":[{"exists":true}]}}`:                                  true,
		`{"data":{"city":[{"exists":false}]}}`:                                 false,
		`{"data":{"missing":[{"exists":false}]}}`:                              true,
		`{"data":{"note":[{"exists":true}]}}`:                                  true,  // null exists
		`{"data":{"deep":[{"exists":true}]}}`:                                  false, // exists matches leaves only
		`{"data":{"empty":[{"exists":true}]}}`:                                 false,
		`{"data":{"missing":[{"exists":false},"x"]}}`:                          true, // one match is enough
		`{"data":{"amount":[{"numeric":[">",12,"<=",12.5]}]}}`:                 true,
		`{"data":{"amount":[{"numeric":["<",12]}]}}`:                           false,
		`{"data":{"amount":[{"numeric":["=",12.5]}]}}`:                         true,
		`{"data":{"amount":[{"numeric":[">=",12.5]}]}}`:                        true,
		`{"data":{"status":[{"numeric":[">",0]}]}}`:                            false,
		`{"$or":[{"event":["x"]},{"data":{"city":["Berlin"]}}]}`:               true,
		`{"$or":[{"event":["x"]},{"data":{"city":["Paris"]}}]}`:                false,
		`{"event":["x"],"$or":[{"event":["x"]},{"data":{"city":["Berlin"]}}]}`: false,
		`{"data":{"$or":[{"city":["Paris"]},{"status":["success"]}]}}`:         true,
	} {
		compiled, err := filter.Compile(json.RawMessage(p))
		if err != nil {
			t.Errorf("Compile(%s): %v", p, err)
			continue
		}
		if got := compiled.Matches(doc); got != want {
			t.Errorf("%s matches: %v, want %v", p, got, want)
		}
	}
}

func TestCompileErrorsNameTheField(t *testing.T) {
	for p, says := range map[string]string{
		``:                              "not JSON",
		`{}`:                            "omit the filter",
		`[]`:                            "must be an object",
		`{"a":["x"]} {}`:                "data after",
		`{"data":{}}`:                   "data: is an empty object",
		`{"data":{"status":"success"}}`: "data.status: must be a list",
		`{"data":{"status":[]}}`:        "data.status: is an empty list",
		`{"data":{"status":[["x"]]}}`:   "data.status[0]: is a list in a list",
		`{"data":{"status":["a",{"regex":"x"}]}}`:                       `data.status[1]: operator "regex" is unknown`,
		`{"a":[{"prefix":"x","suffix":"y"}]}`:                           "has 2 operators",
		`{"a":[{"prefix":5}]}`:                                          "a[0].prefix: must be a string",
		`{"a":[{"prefix":""}]}`:                                         "must not be empty",
		`{"a":[{"exists":"yes"}]}`:                                      "must be true or false",
		`{"a":[{"numeric":[">"]}]}`:                                     "must be a comparison",
		`{"a":[{"numeric":["~",1]}]}`:                                   "is not one of",
		`{"a":[{"numeric":[">","1"]}]}`:                                 "is not a number",
		`{"a":[{"anything-but":[]}]}`:                                   "at least one value",
		`{"a":[{"anything-but":{"numeric":[1]}}]}`:                      "is not one of prefix",
		`{"a":[{"wildcard":"**"}]}`:                                     "must not contain **",
		`{"$or":[{"a":["x"]}]}`:                                         "at least two",
		`{"a":[{"cidr":"10.0.0.0"}]}`:                                   "a[0].cidr: must be a block",
		`{"a":[{"cidr":7}]}`:                                            "a[0].cidr: must be a block",
		strings.Repeat(`{"a":`, 40) + `["x"]` + strings.Repeat(`}`, 40): "nests deeper",
	} {
		if _, err := filter.Compile(json.RawMessage(p)); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("Compile(%s) = %v, want it to say %q", p, err, says)
		}
	}
}

// rule is one pattern on one body.
type rule struct {
	pattern, body string
	want          bool
}

func check(t *testing.T, rules []rule) {
	t.Helper()
	for _, r := range rules {
		p, err := filter.Compile(json.RawMessage(r.pattern))
		if err != nil {
			t.Errorf("Compile(%s): %v", r.pattern, err)
			continue
		}
		doc, err := filter.Parse([]byte(r.body))
		if err != nil {
			t.Errorf("Parse(%s): %v", r.body, err)
			continue
		}
		if got := p.Matches(doc); got != r.want {
			t.Errorf("%s on %s: %v, want %v", r.pattern, r.body, got, r.want)
		}
	}
}

func TestNumbersAreEqualByValueNotByText(t *testing.T) {
	check(t, []rule{
		{`{"a":[3]}`, `{"a":3}`, true},
		{`{"a":[3]}`, `{"a":3.0}`, true},
		{`{"a":[3.0]}`, `{"a":3}`, true},
		{`{"a":[300]}`, `{"a":3.0e2}`, true},
		{`{"a":[300]}`, `{"a":3E+2}`, true},
		{`{"a":[0.03]}`, `{"a":3e-2}`, true},
		{`{"a":[0.03]}`, `{"a":0.030}`, true},
		{`{"a":[0]}`, `{"a":-0.0e7}`, true},
		{`{"a":[-1]}`, `{"a":1}`, false},
		{`{"a":[3]}`, `{"a":"3"}`, false},
		{`{"a":["3"]}`, `{"a":3}`, false},
		{`{"a":[{"anything-but":300}]}`, `{"a":3e2}`, false},
		{`{"a":[{"numeric":["=",300]}]}`, `{"a":3e2}`, true},
	})
}

func TestNumbersAreExact(t *testing.T) {
	const even, odd = "9007199254740992", "9007199254740993" // 2^53, and the first integer that no 64-bit float has
	check(t, []rule{
		{`{"a":[` + odd + `]}`, `{"a":` + odd + `}`, true},
		{`{"a":[` + odd + `]}`, `{"a":` + even + `}`, false},
		{`{"a":[` + even + `]}`, `{"a":` + odd + `}`, false},
		{`{"a":[{"anything-but":` + even + `}]}`, `{"a":` + odd + `}`, true},
		{`{"a":[{"numeric":[">",` + even + `]}]}`, `{"a":` + odd + `}`, true},
		{`{"a":[{"numeric":["<",` + odd + `]}]}`, `{"a":` + even + `}`, true},
		{`{"a":[{"numeric":["=",` + even + `]}]}`, `{"a":` + odd + `}`, false},
		{`{"a":[0.1]}`, `{"a":0.1000000000000000055511151231257827}`, false}, // the float nearest to 0.1
		{`{"a":[{"numeric":["<",1e400]}]}`, `{"a":1e399}`, true},             // outside the range of a float
		{`{"a":[{"numeric":["<",-1e-400]}]}`, `{"a":-1e-399}`, true},
		{`{"a":[1e99999999999999999999]}`, `{"a":1}`, false},
	})
}

// TestNumbersAreOrderedAsRationalsAre compares with math/big.
func TestNumbersAreOrderedAsRationalsAre(t *testing.T) {
	numbers := []string{"0", "-0", "0.0", "1", "-1", "10", "9", "1.5", "1.50", "15e-1", "0.15E+1", "-1.5", "100", "99.9999", "1e2", "0.001", "1e-3", "12", "123", "1230e-1",
		"-12", "-123", "9007199254740992", "9007199254740993", "-9007199254740993", "1e22", "10000000000000000000000"}
	for _, bound := range numbers {
		for _, n := range numbers {
			want, _ := new(big.Rat).SetString(n)
			b, _ := new(big.Rat).SetString(bound)
			c := want.Cmp(b)
			check(t, []rule{
				{`{"a":[{"numeric":["<",` + bound + `]}]}`, `{"a":` + n + `}`, c < 0},
				{`{"a":[{"numeric":["<=",` + bound + `]}]}`, `{"a":` + n + `}`, c <= 0},
				{`{"a":[{"numeric":["=",` + bound + `]}]}`, `{"a":` + n + `}`, c == 0},
				{`{"a":[{"numeric":[">=",` + bound + `]}]}`, `{"a":` + n + `}`, c >= 0},
				{`{"a":[{"numeric":[">",` + bound + `]}]}`, `{"a":` + n + `}`, c > 0},
				{`{"a":[` + bound + `]}`, `{"a":` + n + `}`, c == 0},
			})
		}
	}
}

func TestNumericRangesHaveALowerAndAGreaterUpperBound(t *testing.T) {
	for _, numeric := range []string{
		`[">",9,"<",5]`, `["<",5,">",9]`, `[">=",5,"<=",5]`, `[">",5.0,"<",5]`, // nothing is in it
		`[">",1,">",2]`, `["<",1,"<=",2]`, `["=",1,"=",1]`, `["=",1,"<",2]`, `[">",1,"=",2]`, // not a range
		`[]`, `[">",1,"<"]`, `[">",0,"<",1,"<",2]`,
	} {
		if _, err := filter.Compile(json.RawMessage(`{"a":[{"numeric":` + numeric + `}]}`)); err == nil || !strings.HasPrefix(err.Error(), "a[0].numeric: ") {
			t.Errorf("%s: %v, want a refusal", numeric, err)
		}
	}
	check(t, []rule{
		{`{"a":[{"numeric":[">",5,"<",9]}]}`, `{"a":7}`, true},
		{`{"a":[{"numeric":[">",5,"<",9]}]}`, `{"a":9}`, false},
		{`{"a":[{"numeric":["<",9,">=",5]}]}`, `{"a":5}`, true},
		{`{"a":[{"numeric":["<",9,">=",5]}]}`, `{"a":4}`, false},
	})
}

func TestWildcardEscapes(t *testing.T) {
	check(t, []rule{
		{`{"a":[{"wildcard":"a\\*b"}]}`, `{"a":"a*b"}`, true},
		{`{"a":[{"wildcard":"a\\*b"}]}`, `{"a":"axb"}`, false},
		{`{"a":[{"wildcard":"a\\*b"}]}`, `{"a":"a\\*b"}`, false},
		{`{"a":[{"wildcard":"*\\*"}]}`, `{"a":"five*"}`, true}, // anything, then a star
		{`{"a":[{"wildcard":"*\\*"}]}`, `{"a":"five"}`, false},
		{`{"a":[{"wildcard":"\\**"}]}`, `{"a":"*five"}`, true},
		{`{"a":[{"wildcard":"\\**"}]}`, `{"a":"five"}`, false},
		{`{"a":[{"wildcard":"c:\\\\*"}]}`, `{"a":"c:\\dir"}`, true},
		{`{"a":[{"wildcard":"c:\\\\*"}]}`, `{"a":"c:dir"}`, false},
		{`{"a":[{"wildcard":"\\\\\\*"}]}`, `{"a":"\\*"}`, true},
		{`{"a":[{"wildcard":""}]}`, `{"a":""}`, true},
		{`{"a":[{"wildcard":""}]}`, `{"a":"x"}`, false},
		{`{"a":[{"anything-but":{"wildcard":"\\*"}}]}`, `{"a":"x"}`, true},
		{`{"a":[{"anything-but":{"wildcard":"\\*"}}]}`, `{"a":"*"}`, false},
	})
	for p, says := range map[string]string{
		`{"a":[{"wildcard":"a\\b"}]}`:                    "escapes nothing",
		`{"a":[{"wildcard":"a\\"}]}`:                     "escapes nothing",
		`{"a":[{"wildcard":"\\***"}]}`:                   "must not contain **",
		`{"a":[{"anything-but":{"wildcard":["a\\b"]}}]}`: "escapes nothing",
	} {
		if _, err := filter.Compile(json.RawMessage(p)); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("Compile(%s) = %v, want it to say %q", p, err, says)
		}
	}
}

func TestANameOccursOnce(t *testing.T) {
	for p, where := range map[string]string{
		`{"a":["x"],"a":["y"]}`:                           "a: ",
		`{"a":["x"],"\u0061":["y"]}`:                      "a: ",
		`{"data":{"a":["x"],"b":["x"],"a":["y"]}}`:        "data.a: ",
		`{"data":{"a":["x"]},"data":{"b":["x"]}}`:         "data: ",
		`{"a":[{"prefix":"x","prefix":"y"}]}`:             "a.0.prefix: ",
		`{"$or":[{"a":["x"],"a":["y"]},{"b":["x"]}]}`:     "$or.0.a: ",
		`{"$or":[{"a":[1]},{"b":[1]}],"$or":[{"c":[1]}]}`: "$or: ",
	} {
		if _, err := filter.Compile(json.RawMessage(p)); err == nil || err.Error() != where+"the name occurs twice in its object" {
			t.Errorf("Compile(%s) = %v", p, err)
		}
	}
}

func TestBlocksOfAddresses(t *testing.T) {
	check(t, []rule{
		{`{"a":[{"cidr":"10.0.0.0/24"}]}`, `{"a":"10.0.0.255"}`, true},
		{`{"a":[{"cidr":"10.0.0.7/24"}]}`, `{"a":"10.0.0.255"}`, true},
		{`{"a":[{"cidr":"10.0.0.0/24"}]}`, `{"a":"10.0.1.0"}`, false},
		{`{"a":[{"cidr":"10.0.0.0/24"}]}`, `{"a":"10.0.0"}`, false},
		{`{"a":[{"cidr":"10.0.0.0/24"}]}`, `{"a":10}`, false},
		{`{"a":[{"cidr":"0.0.0.0/0"}]}`, `{"a":"::1"}`, false},
		{`{"a":[{"cidr":"2001:db8::/32"}]}`, `{"a":"2001:db8:0::1"}`, true},
		{`{"a":[{"cidr":"2001:db8::/32"}]}`, `{"a":"2001:db9::1"}`, false},
	})
}

// TestDifferences has each difference from EventBridge that the package comment and
// docs/filters.md list.
func TestDifferences(t *testing.T) {
	check(t, []rule{
		// Numbers: see TestNumbersAreEqualByValueNotByText and TestNumbersAreExact.
		{`{"a":[{"anything-but":"x"}]}`, `{"a":["x","y"]}`, false},
		{`{"a":[{"anything-but":{"prefix":"x"}}]}`, `{"a":["x1","y"]}`, false},
		{`{"l":{"a":[1],"b":[2]}}`, `{"l":[{"a":1,"b":1},{"a":2,"b":2}]}`, true},
		{`{"a":[1],"$or":[{"a":[2]},{"b":[2]}]}`, `{"a":2}`, false},
		{`{"a.b":[1]}`, `{"a.b":1}`, true},
		{`{"a.b":[1]}`, `{"a":{"b":1}}`, false},
		{`{"a":[{"equals-ignore-case":"straSSe"}]}`, `{"a":"STRASSE"}`, true},
		{`{"a":[{"equals-ignore-case":"strasse"}]}`, `{"a":"straße"}`, false},
		{`{"a":[{"equals-ignore-case":"É"}]}`, `{"a":"é"}`, true},
		// Accepted here, refused there.
		{`{"a":[{"anything-but":["x",1]}]}`, `{"a":1}`, false},
		{`{"a":[{"anything-but":["x",1]}]}`, `{"a":2}`, true},
		{`{"a":[{"numeric":["<",9,">",5]}]}`, `{"a":7}`, true},
		{`{"$or":[{"prefix":["x"]},{"b":["y"]}]}`, `{"prefix":"x"}`, true},
	})
	for _, refused := range []string{`{"a":["x"],"a":["y"]}`, `{"a":[{"prefix":""}]}`, `{"a":[{"suffix":""}]}`, strings.Repeat(`{"a":`, 33) + `["x"]` + strings.Repeat(`}`, 33)} {
		if _, err := filter.Compile(json.RawMessage(refused)); err == nil {
			t.Errorf("%s is accepted", refused)
		}
	}
}

func BenchmarkTenThousandPatterns(b *testing.B) {
	doc, err := filter.Parse([]byte(body))
	if err != nil {
		b.Fatal(err)
	}
	var all []*filter.Pattern
	for i := range 10_000 {
		p, err := filter.Compile(fmt.Appendf(nil, `{"data":{"city":["c%d"]}}`, i))
		if err != nil {
			b.Fatal(err)
		}
		all = append(all, p)
	}
	for b.Loop() {
		for _, p := range all {
			if p.Matches(doc) {
				b.Fatal("matched")
			}
		}
	}
}
