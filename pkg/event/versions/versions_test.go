package versions_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/pkg/event/catalog"
	"github.com/tidings-dev/tidings/pkg/event/validate"
	"github.com/tidings-dev/tidings/pkg/event/versions"
)

const first = `{"title":"order.paid","description":"An order was paid","x-subject":"order_id","type":"object",
	"properties":{"order_id":{"type":"string"},"status":{"enum":["paid","late"]},"total":{"type":"number"},"note":{"type":"string"},"number":{"type":"integer"}},
	"required":["order_id","status"],"additionalProperties":false,"examples":[{"order_id":"o_1","status":"paid"}]}`

// second splits total into amount and currency, and renames status and its values.
const second = `{"title":"order.paid","x-version":2,"description":"An order was paid","x-subject":"order_id","type":"object",
	"properties":{"order_id":{"type":"string"},"state":{"enum":["settled","overdue"]},"price":{"type":"object","properties":{"amount":{"type":"number"},"currency":{"type":"string"}},"required":["amount","currency"]},
		"note":{"type":"string"},"lines":{"type":"array","items":{"type":"object"}},"number":{"type":"integer"}},
	"required":["order_id","state"],"additionalProperties":false,
	"x-downgrade":{"status":"data.state == 'settled' ? 'paid' : 'late'","total":"data.?price.?amount"},
	"x-upgrade":{"state":"{'paid': 'settled', 'late': 'overdue'}[data.status]","price":"has(data.total) ? optional.of({'amount': data.total, 'currency': 'EUR'}) : optional.none()"},
	"examples":[{"order_id":"o_1","state":"settled","price":{"amount":12.5,"currency":"EUR"}}]}`

// third drops the note.
const third = `{"title":"order.paid","x-version":3,"description":"An order was paid","type":"object",
	"properties":{"order_id":{"type":"string"},"state":{"enum":["settled","overdue"]},"shop":{"type":"string"},"lines":{"type":"array"}},"required":["order_id","shop"],
	"x-downgrade":{"state":"'state' in data ? data.state : 'settled'","lines":null},"examples":[{"order_id":"o_1","shop":"s"}]}`

func parse(t *testing.T, text string) catalog.Type {
	t.Helper()
	parsed, err := catalog.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Check(parsed); err != nil {
		t.Fatal(err)
	}
	return parsed
}

func known(t *testing.T, texts ...string) *validate.Catalog {
	t.Helper()
	var list []catalog.Type
	for i, text := range texts {
		list = append(list, parse(t, text))
		if i > 0 {
			list[i].AddedAt = time.Date(2026, 1, i+1, 0, 0, 0, 0, time.UTC)
		}
	}
	types, err := catalog.New(list)
	if err != nil {
		t.Fatal(err)
	}
	return validate.New(types)
}

func TestDataIsMadeInEveryVersion(t *testing.T) {
	const since = `"since":1767312000000`
	for name, c := range map[string]struct {
		types []string
		given int
		data  string
		want  string // the newest, and what is stored
	}{
		"one version":              {[]string{first}, 0, `{"order_id":"o","status":"paid"}`, `{"order_id":"o","status":"paid"} `},
		"one version, named":       {[]string{first}, 1, `{"order_id":"o","status":"paid"}`, `{"order_id":"o","status":"paid"} `},
		"the newest":               {[]string{first, second}, 0, `{"order_id":"o","state":"overdue","price":{"amount":1,"currency":"EUR"}}`, `{"order_id":"o","state":"overdue","price":{"amount":1,"currency":"EUR"}} [{"version":2,` + since + `},{"version":1,"data":{"order_id":"o","status":"late","total":1}}]`},
		"the newest, named":        {[]string{first, second}, 2, `{"order_id":"o","state":"settled"}`, `{"order_id":"o","state":"settled"} [{"version":2,` + since + `},{"version":1,"data":{"order_id":"o","status":"paid"}}]`},
		"an old publisher":         {[]string{first, second}, 0, `{"order_id":"o","status":"late","total":2.5}`, `{"order_id":"o","price":{"amount":2.5,"currency":"EUR"},"state":"overdue"} [{"version":2,` + since + `},{"version":1,"data":{"order_id":"o","status":"late","total":2.5}}]`},
		"an old version, named":    {[]string{first, second}, 1, `{"order_id":"o","status":"late"}`, `{"order_id":"o","state":"overdue"} [{"version":2,` + since + `},{"version":1,"data":{"order_id":"o","status":"late"}}]`},
		"copied as it is written":  {[]string{first, second}, 0, `{"order_id":"\u006f<","state":"settled","number":12345678901234567890}`, `{"order_id":"\u006f<","state":"settled","number":12345678901234567890} [{"version":2,` + since + `},{"version":1,"data":{"number":12345678901234567890,"order_id":"\u006f<","status":"paid"}}]`},
		"three versions":           {[]string{first, second, third}, 0, `{"order_id":"o","shop":"s","lines":[1]}`, `{"order_id":"o","shop":"s","lines":[1]} [{"version":3,"since":1767398400000},{"version":2,` + since + `,"data":{"order_id":"o","state":"settled"}},{"version":1,"data":{"order_id":"o","status":"paid"}}]`},
		"no such version":          {[]string{first, second}, 3, `{"order_id":"o"}`, `error order.paid has no version 3; it has the versions 1 to 2`},
		"no such version, one":     {[]string{first}, 2, `{"order_id":"o"}`, `error order.paid has no version 2; it has version 1`},
		"no way up":                {[]string{first, second, third}, 2, `{"order_id":"o","state":"settled"}`, `error order.paid is published as version 3 now: the definition of version 3 has no x-upgrade, which would make it of version 2`},
		"not the named one":        {[]string{first, second}, 1, `{"order_id":"o","state":"settled"}`, `error order.paid: data.state: is not a field of this event; data.status: is missing`},
		"neither":                  {[]string{first, second}, 0, `{"order_id":"o"}`, `error order.paid: data.state: is missing`},
		"does not conform":         {[]string{first, second, third}, 0, `{"order_id":"o","shop":"s","state":7}`, `error order.paid: data.state: must be one of settled, overdue`},
		"an expression that fails": {[]string{first, strings.Replace(second, "data.?price.?amount", "data.price.amount", 1)}, 0, `{"order_id":"o","state":"settled"}`, `error order.paid: version 1 cannot be made of this data: total: the data, or a map of the expression, has no such key: data.?name is an optional field`},
		"the mapped does not conform": {[]string{first, strings.Replace(second, "data.?price.?amount", "string(data.?price.?amount.orValue(0.0))", 1)}, 0, `{"order_id":"o","state":"settled"}`,
			`error order.paid: version 1 cannot be made of this data: order.paid: data.total: must be number, not string`},
		"too costly": {[]string{first, strings.Replace(second, "data.?price.?amount", "double(size(data.lines.map(a, data.lines.map(b, a == b))))", 1)}, 0, `{"order_id":"o","state":"settled","lines":[` + strings.Repeat(`{},`, 999) + `{}]}`,
			`error order.paid: version 1 cannot be made of this data: total: it is too costly for this data`},
		"large although cheap": {[]string{strings.Replace(first, `"note":{"type":"string"}`, `"note":{}`, 1), strings.Replace(second, `"total":"data.?price.?amount"`, `"note":"data.lines.map(i, data.lines.map(j, data.lines))"`, 1)}, 0, `{"order_id":"o","state":"settled","lines":[` + strings.Repeat(`{"x":"`+strings.Repeat("y", 2000)+`"},`, 39) + `{}]}`,
			`error order.paid: version 1 cannot be made of this data: note: gives more than 389120 bytes`},
		"an old one that conforms to the newest": {[]string{strings.Replace(first, `"required":["order_id","status"]`, `"required":["order_id"]`, 1), strings.NewReplacer(`"required":["order_id","state"]`, `"required":["order_id"]`, `"price":{"type":"object"`, `"total":{"type":"number"},"price":{"type":"object"`, `"x-upgrade":{"state":"{'paid': 'settled', 'late': 'overdue'}[data.status]",`, `"x-upgrade":{`).Replace(second)}, 0,
			`{"order_id":"o","total":2}`, `{"order_id":"o","price":{"amount":2,"currency":"EUR"},"total":2} [{"version":2,` + since + `},{"version":1,"data":{"order_id":"o","total":2}}]`},
	} {
		t.Run(name, func(t *testing.T) {
			types := known(t, c.types...)
			for range 2 { // the second time with the compiled mappings
				made, err := versions.Make(types, "order.paid", c.given, []byte(c.data))
				got := fmt.Sprintf("%s %s", made.Data, made.Stored)
				if err != nil {
					got = "error " + err.Error()
				}
				if got != c.want {
					t.Errorf("%s\nwant\n%s", got, c.want)
				}
			}
		})
	}
}

func TestDataThatIsTooLargeInAllVersionsIsRefused(t *testing.T) {
	note := strings.Repeat("x", 200*1024)
	if _, err := versions.Make(known(t, first, second), "order.paid", 0, []byte(`{"order_id":"o","state":"settled","note":"`+note+`"}`)); err == nil || !strings.Contains(err.Error(), "in the 2 versions of its type together") {
		t.Error(err)
	}
}

func TestAMappingIsCheckedWhereItStands(t *testing.T) {
	changed := func(old, new string) string { return strings.Replace(second, old, new, 1) }
	before := parse(t, first)
	for name, c := range map[string]struct {
		text  string
		alone bool // without the version before
		want  string
	}{
		"good":               {second, false, ""},
		"good, alone":        {second, true, ""},
		"syntax":             {changed(`"data.?price.?amount"`, `"data.?price."`), true, "line 5, column 70: x-downgrade: total: column"},
		"an unknown name":    {changed(`"data.?price.?amount"`, `"date.price"`), true, "undeclared reference to 'date'"},
		"a wrong type":       {changed(`"data.?price.?amount"`, `"'a' + 1"`), true, "no matching overload"},
		"fails":              {changed(`"data.?price.?amount"`, `"data.amount"`), false, "x-downgrade: of example 1 of version 2: total: the data, or a map of the expression, has no such key"},
		"does not conform":   {changed(`? 'paid'`, `? 'done'`), false, "x-downgrade: of example 1 of version 2: order.paid: data.status: must be one of paid, late"},
		"the way up fails":   {changed(`[data.status]`, `[data.state]`), false, "x-upgrade: of example 1 of version 1: state: the data, or a map of the expression, has no such key"},
		"an example of both": {changed(`"required":["order_id","state"],"additionalProperties":false`, `"required":["order_id"]`), false, "line 1, column 23: example 1 of version 1 conforms to version 2, too"},
		"a field left over":  {changed(`"x-downgrade":{`, `"x-downgrade":{"shop":"'s'",`), false, "data.shop: is not a field of this event"},
	} {
		of := &before
		if c.alone {
			of = nil
		}
		err := versions.Check(of, parse(t, c.text))
		if (c.want == "") != (err == nil) || !strings.Contains(fmt.Sprint(err), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

// Errors are logged, and data is not.
func TestAnErrorOfAMappingHasNoValueOfTheData(t *testing.T) {
	for _, expression := range []string{`{'a': 1.0}[data.note]`, `double(data.note)`, `data.note + 1.0`, `[1.0][int(data.number)]`, `duration(data.note) == duration('1s') ? 1.0 : 2.0`} {
		types := known(t, first, strings.Replace(second, "data.?price.?amount", expression, 1))
		_, err := versions.Make(types, "order.paid", 2, []byte(`{"order_id":"o","state":"settled","note":"Ann <ann@x.example>","number":424242}`))
		if err == nil || strings.Contains(err.Error(), "Ann") || strings.Contains(err.Error(), "424242") {
			t.Errorf("%s: %v", expression, err)
		}
	}
}
