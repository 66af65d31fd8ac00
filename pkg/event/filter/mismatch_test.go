package filter_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/tidings-dev/tidings/pkg/event/filter"
)

func TestMismatchNamesTheFieldAndItsValue(t *testing.T) {
	body := `{"event":"a","data":{"status":"pending","n":1500,"small":-0.00012,"big":1e30,"ok":true,"none":null,"list":["x","y"],"long":"` + strings.Repeat("é", 50) + `"}}`
	doc, err := filter.Parse([]byte(body))
	if err != nil {
		t.Fatal(err)
	}
	for pattern, want := range map[string]string{
		`{"event":["a"]}`:                                           "",
		`{"data":{"status":["success"]}}`:                           `data.status is "pending"`,
		`{"data":{"n":[{"numeric":[">",2000]}]}}`:                   `data.n is 1500`,
		`{"data":{"small":[1]}}`:                                    `data.small is -0.00012`,
		`{"data":{"big":[1]}}`:                                      `data.big is 0.1e31`,
		`{"data":{"ok":[false]}}`:                                   `data.ok is true`,
		`{"data":{"none":["a"]}}`:                                   `data.none is null`,
		`{"data":{"list":["z"]}}`:                                   `data.list is "x", "y"`,
		`{"data":{"gone":["z"]}}`:                                   `data.gone is missing`,
		`{"data":{"long":["z"]}}`:                                   `data.long is "` + strings.Repeat("é", 40) + `"…`,
		`{"data":{"status":["success"],"list":["z"]}}`:              `data.list is "x", "y"`,
		`{"$or":[{"data":{"status":["success"]}},{"event":["b"]}]}`: `no pattern of $or matches: data.status is "pending"; event is "a"`,
		`{"$or":[{"data":{"status":["success"]}},{"event":["a"]}]}`: "",
		`{"event":["b"],"$or":[{"event":["a"]},{"event":["c"]}]}`:   `event is "a"`,
	} {
		p, err := filter.Compile(json.RawMessage(pattern))
		if err != nil {
			t.Fatal(err)
		}
		if got := p.Mismatch(doc); got != want {
			t.Errorf("%s: %q, want %q", pattern, got, want)
		}
		if p.Matches(doc) != (want == "") {
			t.Errorf("%s: Matches and Mismatch disagree", pattern)
		}
	}
}
