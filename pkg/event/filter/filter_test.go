package filter_test

import (
	"encoding/json"
	"fmt"
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
		`{"a":[{"numeric":[">"]}]}`:                                     "one or two comparisons",
		`{"a":[{"numeric":["~",1]}]}`:                                   "is not one of",
		`{"a":[{"numeric":[">","1"]}]}`:                                 "is not a number",
		`{"a":[{"anything-but":[]}]}`:                                   "at least one value",
		`{"a":[{"anything-but":{"numeric":[1]}}]}`:                      "is not one of prefix",
		`{"a":[{"wildcard":"**"}]}`:                                     "must not contain **",
		`{"$or":[{"a":["x"]}]}`:                                         "at least two",
		strings.Repeat(`{"a":`, 40) + `["x"]` + strings.Repeat(`}`, 40): "nests deeper",
	} {
		if _, err := filter.Compile(json.RawMessage(p)); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("Compile(%s) = %v, want it to say %q", p, err, says)
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
