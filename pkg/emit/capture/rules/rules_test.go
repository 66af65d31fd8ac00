package rules_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tidings-dev/tidings/pkg/emit/capture"
	"github.com/tidings-dev/tidings/pkg/emit/capture/rules"
	"github.com/tidings-dev/tidings/pkg/platform"
	"github.com/tidings-dev/tidings/pkg/store/dynamoitem"
)

const ordersARN = "arn:aws:dynamodb:eu-central-1:123456789012:table/shop-Orders-1ABC/stream/2026-01-29T00:00:00.000"

// orderText is an order as DynamoDB writes it, of every type of attribute.
const orderText = `{"order_id":{"S":"o_1"},"status":{"S":"placed"},"total":{"N":"12.5"},"count":{"N":"3"},"big":{"N":"12345678901234567890.123456789"},"exact":{"N":"7.50"},"gift":{"BOOL":true},` +
	`"coupon":{"NULL":true},"photo":{"B":"aGk="},"tags":{"SS":["new","sale"]},"sizes":{"NS":["1","2.5"]},"blobs":{"BS":["aGk="]},` +
	`"address":{"M":{"city":{"S":"Berlin"},"geo":{"L":[{"N":"52.5"},{"N":"13"}]}}},"lines":{"L":[{"M":{"sku":{"S":"a"},"qty":{"N":"2"}}},{"M":{"sku":{"S":"b"},"qty":{"N":"1"}}}]},"placed_at":{"N":"1769690096789"}}`

// change returns a change of the orders' table; an image is "" if there is none.
func change(t testing.TB, before, after string, more ...string) platform.Change {
	t.Helper()
	name, images := "MODIFY", ""
	if before == "" {
		name = "INSERT"
	} else {
		images += `,"OldImage":` + before
	}
	if after == "" {
		name = "REMOVE"
	} else {
		images += `,"NewImage":` + after
	}
	by := ""
	if slices.Contains(more, "ttl") {
		by = `,"userIdentity":{"type":"Service","principalId":"dynamodb.amazonaws.com"}`
	}
	c, err := dynamoitem.ReadChange(fmt.Appendf(nil, `{"eventID":"1","eventName":%q,"eventSourceARN":%q%s,"dynamodb":{"ApproximateCreationDateTime":1769697296,"SequenceNumber":"7","Keys":{"pk":{"S":"o_1"}}%s}}`, name, ordersARN, by, images))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// with returns an image with some attributes changed, as `"name":{"S":"x"}`; one that is
// {} is removed.
func with(t testing.TB, image string, changes ...string) string {
	t.Helper()
	all := map[string]json.RawMessage{}
	if err := json.Unmarshal([]byte(image), &all); err != nil {
		t.Fatal(err)
	}
	for _, one := range changes {
		if err := json.Unmarshal([]byte("{"+one+"}"), &all); err != nil {
			t.Fatal(err)
		}
	}
	for name, value := range all {
		if string(value) == "{}" {
			delete(all, name)
		}
	}
	text, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func parse(t testing.TB, text string) *rules.Set {
	t.Helper()
	set, err := rules.Parse("test.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// one returns a file with one rule, for every change, that has one field.
func one(value string) string {
	return "rules:\n- event: order.placed\n  when: 'true'\n  data:\n    v: " + value + "\n"
}

func TestValuesOfAttributesAndFunctions(t *testing.T) {
	order := change(t, "", orderText)
	for expression, want := range map[string]string{
		`new.order_id`: `"o_1"`, `new.total`: `12.5`, `new.count`: `3`, `new.big`: `12345678901234567890.123456789`, `new.gift`: `true`,
		`new.photo`: `"aGk="`, `new.tags`: `["new","sale"]`, `new.sizes`: `[1,2.5]`, `new.blobs`: `["aGk="]`, `new.address`: `{"city":"Berlin","geo":[52.5,13]}`,
		`new.address.city`: `"Berlin"`, `new.address.geo[1]`: `13`, `new.lines[0].sku`: `"a"`,
		`new.lines.map(l, l.sku)`: `["a","b"]`, `new.lines.filter(l, l.qty > 1).size()`: `1`, `new.lines.exists(l, l.sku == "b")`: `true`,
		`new.missing == null`: `true`, `new.coupon == null`: `true`, `has(new.coupon)`: `false`, `has(new.total)`: `true`, `has(new.address.zip)`: `false`, `has(new.nothing.zip)`: `false`,
		`"total" in new`: `true`, `"coupon" in new`: `false`, `new["order_id"]`: `"o_1"`, `size(old)`: `0`, `old.status == null`: `true`, `item.status`: `"placed"`,
		`new.total * 2.0`: `25`, `new.count + 1`: `4`, `new.big > 5`: `true`, `new.big < new.big`: `false`, `double(new.big) > 1.0`: `true`, `int(new.exact)`: `7`, `new.exact`: `7.50`, `string(new.exact)`: `"7.50"`,
		`new.total == 12.5`: `true`, `new.count == 3.0`: `true`, `new.count > 2.5`: `true`,
		`change`: `"insert"`, `table`: `"shop-Orders-1ABC"`, `by_ttl`: `false`, `recorded`: `"2026-01-29T14:34:56.000Z"`,
		`time(new.placed_at)`: `"2026-01-29T12:34:56.789Z"`, `time(new.placed_at) + duration("1h")`: `"2026-01-29T13:34:56.789Z"`, `recorded - time(new.placed_at)`: `"1h59m59.211s"`,
		`time(new.placed_at).getFullYear()`: `2026`, `time(new.status) == null`: `true`, `before(time(new.placed_at), recorded)`: `true`, `before(null, recorded)`: `false`,
		`text(new.count)`: `"3"`, `text(new.gift)`: `""`, `label(new.status)`: `"placed"`, `cut(new.status, 3)`: `"pl…"`, `lower("ÄB")`: `"äb"`, `trim(" a ")`: `"a"`,
		`email("Ann <ann@example.com>")`: `"ann@example.com"`, `email("ask Ann")`: `""`, `id(new.count)`: `"3"`, `id(new.order_id)`: `"o_1"`, `tenant(new.org)`: `"default"`, `tenant(new.count)`: `"3"`,
		`status(new.status)`: `"placed"`, `optional_id(new.order_id)`: `"o_1"`, `actor_id(new.order_id)`: `"o_1"`, `number(" 12.50 ")`: `12.50`, `number(new.total)`: `12.5`,
		`yes("YES")`: `true`, `yes(new.gift)`: `true`, `yes(new.coupon)`: `false`, `first([new.coupon, "", new.status])`: `"placed"`, `end_time(new.placed_at)`: `"2026-01-29T12:34:56.789Z"`,
		`new.status.matches("^pl.*d$")`: `true`, `new.status.startsWith("pl")`: `true`, `{"a": new.count, "b": [new.status]}`: `{"a":3,"b":["placed"]}`, `b"hi"`: `"aGk="`, `type(new.total) == double`: `true`,
		`new.lines == new.lines`: `true`, `new.address == new.address`: `true`, `new.address == old.address`: `false`, `1`: `1`, `"a < b"`: `"a < b"`, `[1, null]`: `[1,null]`,
	} {
		t.Run(expression, func(t *testing.T) {
			got, err := parse(t, one("'"+strings.ReplaceAll(expression, "'", "''")+"'")).Events(order)
			if err != nil || len(got) != 1 {
				t.Fatalf("%v, %v", got, err)
			}
			if text := string(got[0].Event.Data); text != `{"v":`+want+`}` {
				t.Errorf("the data are %s, want %s", text, want)
			}
		})
	}
}

// One wrong rule does not stop the others, and its error says whose change it is.
func TestARuleThatFailsDoesNotStopTheOthers(t *testing.T) {
	line := "- {event: order.%s, when: '%s', tenant: %s, data: {v: '1'}}\n"
	set := parse(t, "rules:\n"+fmt.Sprintf(line, "a", "new.missing > 1", "new.status")+fmt.Sprintf(line, "b", "true", "new.status")+fmt.Sprintf(line, "c", "new.missing > 1", "new.tags"))
	events, err := set.Events(change(t, "", orderText))
	var at *rules.EvaluationError
	if len(events) != 1 || events[0].Event.Type != "order.b" || !errors.As(err, &at) || at.Rule.Event != "order.a" || at.Tenant != "placed" || !strings.HasSuffix(err.Error(), "and 1 more") {
		t.Errorf("%v, %v", events, err)
	}
	if v := set.Explain(change(t, "", orderText)); !errors.As(v[2].Err, &at) || at.Tenant != "" {
		t.Errorf("%+v", v)
	}
}

// What cannot be evaluated is an error that names the rule and the expression, and contains
// no value of the item.
func TestErrorsNameTheExpressionAndNoValues(t *testing.T) {
	order := change(t, "", with(t, orderText, `"secret":{"S":"hunter2"}`, `"nan":{"N":"abc"}`, `"empty":{"S":""}`))
	for expression, want := range map[string]string{
		`new.missing`:                   `the result is null: write "v?"`,
		`new.missing > 5`:               "does not take a value of this type",
		`new.missing.zip`:               "a map has no such key",
		`int(new.secret)`:               "cannot be converted",
		`timestamp(new.secret)`:         "cannot be converted",
		`duration(new.secret)`:          "cannot be converted",
		`{"a": 1}[new.secret]`:          "a map has no such key",
		`new.secret.matches(new.order)`: "does not take a value of this type",
		`new.tags[7]`:                   "a list has no such index",
		`new.count / 0`:                 "division by zero",
		`id(new.missing)`:               `attribute "missing" is missing`,
		`id(new.empty)`:                 `attribute "empty" is empty`,
		`id(new.tags)`:                  `attribute "tags" is not a string`,
		`status(new.count)`:             `attribute "count" is not a string`,
		`end_time(new.secret)`:          `attribute "secret" is not a time`,
		`tenant(new.gift)`:              `attribute "gift" is not a string`,
		`cut(new.secret, 0)`:            "at least 1",
		`first(new.secret)`:             "takes a list",
		`new.nan`:                       "not a number",
		`0.0 / 0.0`:                     "infinite",
		`type(1)`:                       "cannot be in an event",
		`int(new.big)`:                  "cannot be converted to int",
		`{1: 2}`:                        "keys of a map must be strings",
		`new.order_id.map(x, x)`:        "does not take a value of this type",
		`[1, 2, 3].map(a, new.lines.map(b, new.big + a))`: "does not take a value of this type",
	} {
		t.Run(expression, func(t *testing.T) {
			got, err := parse(t, one("'"+expression+"'")).Events(order)
			var text string
			if err != nil {
				text = err.Error()
			}
			if !strings.Contains(text, want) || !strings.HasPrefix(text, "order.placed (test.yaml:2): data.v: "+expression+": ") || len(got) > 0 {
				t.Errorf("%v, %v; want an error that says %s", got, err, want)
			}
			if strings.Contains(text, "hunter2") || len(text) > 512 {
				t.Errorf("the error is %s", text)
			}
		})
	}
}

const ordersRules = `
let:
  was_open: old.status in ["placed", "paid"]
defaults:
  table: '*Orders*'
  tenant: tenant(item.org)
rules:
- event: order.placed
  when: change == "insert" && new.status == "placed"
  actor: new.customer
  timestamp: new.placed_at
  request_id: new.request
  data:
    order_id: id(new.order_id)
    coupon?: new.coupon
    address?:
      city?: new.address.city
      zip?: new.address.zip
    nothing?:
      zip?: new.zip
- event: order.shipped
  when: change == "modify" && new.status != old.status && new.status == "shipped" && was_open
  data: {order_id: id(new.order_id)}
- event: order.expired
  when: change == "remove" && by_ttl
  data: {order_id: id(old.order_id)}
- event: order.removed
  when: change == "remove"
  data: {order_id: id(old.order_id)}
- event: user.joined
  table: Users
  when: 'true'
  data: {order_id: '"x"'}
`

func TestRulesOfAnotherTable(t *testing.T) {
	set := parse(t, ordersRules)
	customer := with(t, orderText, `"customer":{"N":"42"}`, `"org":{"S":"acme"}`, `"request":{"S":" req\n1 "}`)
	for _, c := range []struct {
		name   string
		change platform.Change
		want   []string
		failed string
	}{
		{name: "an order is placed", change: change(t, "", customer), want: []string{`acme order.placed 42 2026-01-29T12:34:56.789Z "req1" {"order_id":"o_1","address":{"city":"Berlin"}}`}},
		{name: "an order with a time that cannot be read", change: change(t, "", with(t, orderText, `"placed_at":{"S":"noon"}`)), want: []string{`default order.placed  2026-01-29T14:34:56.000Z "" {"order_id":"o_1","address":{"city":"Berlin"}}`}},
		{name: "an order with another status", change: change(t, "", with(t, orderText, `"status":{"S":"draft"}`))},
		{name: "an item of another kind", change: change(t, "", `{"pk":{"S":"x"}}`)},
		{name: "an order is shipped", change: change(t, orderText, with(t, orderText, `"status":{"S":"shipped"}`)), want: []string{`default order.shipped  2026-01-29T14:34:56.000Z "" {"order_id":"o_1"}`}},
		{name: "a shipped order gets a note", change: change(t, with(t, orderText, `"status":{"S":"shipped"}`), with(t, orderText, `"status":{"S":"shipped"}`, `"note":{"S":"x"}`))},
		{name: "a cancelled order is shipped", change: change(t, with(t, orderText, `"status":{"S":"cancelled"}`), with(t, orderText, `"status":{"S":"shipped"}`))},
		{name: "an order is removed", change: change(t, orderText, ""), want: []string{`default order.removed  2026-01-29T14:34:56.000Z "" {"order_id":"o_1"}`}},
		{name: "an order is removed by TTL: only a rule that names by_ttl sees it", change: change(t, orderText, "", "ttl"), want: []string{`default order.expired  2026-01-29T14:34:56.000Z "" {"order_id":"o_1"}`}},
		{name: "an order without an id is shipped", change: change(t, orderText, with(t, orderText, `"status":{"S":"shipped"}`, `"order_id":{}`)), failed: `order.shipped (test.yaml:21): data.order_id: id(new.order_id): attribute "order_id" is missing`},
	} {
		t.Run(c.name, func(t *testing.T) {
			events, err := set.Events(c.change)
			if text := fmt.Sprint(err); c.failed != "" && text != c.failed || c.failed == "" && err != nil {
				t.Fatalf("failed with %v, want %q", err, c.failed)
			}
			if diff := cmp.Diff(c.want, written(events)); diff != "" {
				t.Errorf("gives (-want +got):\n%s", diff)
			}
		})
	}
}

func written(events []capture.Captured) (all []string) {
	for _, e := range events {
		all = append(all, fmt.Sprintf("%s %s %s %s %q %s", e.Tenant, e.Event.Type, e.Event.ActorUserID, e.Event.Timestamp.Format("2006-01-02T15:04:05.000Z07:00"), e.Event.RequestID, e.Event.Data))
	}
	return all
}

// Two rules for one type give two events with their own IDs, which do not depend on the
// other rule: if it is changed between two tries, no event is lost or doubled.
func TestEventsOfOneTypeHaveTheirOwnIDs(t *testing.T) {
	line := "- {event: order.placed, when: '%s', data: {v: '1'}}\n"
	always, never, wrong := fmt.Sprintf(line, "true"), fmt.Sprintf(line, "false"), fmt.Sprintf(line, "new.missing > 1")
	c := change(t, "", orderText)
	ids := func(set *rules.Set) (ids []string) {
		list, _ := set.Events(c)
		for _, one := range list {
			ids = append(ids, one.Event.ID)
		}
		return ids
	}
	both := parse(t, "rules:\n"+always+always)
	two := ids(both)
	if len(two) != 2 || two[0] == two[1] {
		t.Fatalf("two rules give %v", two)
	}
	for text, want := range map[string][]string{always: two[:1], always + never: two[:1], never + always: two[1:], wrong + always: two[1:]} {
		if got := ids(parse(t, "rules:\n"+text)); !slices.Equal(got, want) {
			t.Errorf("%s gives %v, want %v", text, got, want)
		}
	}
	other, err := rules.Parse("other.yaml", []byte("rules:\n"+always))
	if err != nil {
		t.Fatal(err)
	}
	if got := ids(rules.Join(both, other)); len(got) != 3 || !slices.Equal(got[:2], two) || slices.Contains(two, got[2]) {
		t.Errorf("joined sets give %v", got)
	}
	if left := both.Only(func(rules.Rule) bool { return false }); len(left.Rules()) != 0 {
		t.Errorf("%v", left.Rules())
	}
}

func TestExplainSaysWhatEachRuleMakesOfAChange(t *testing.T) {
	var got []string
	for _, v := range parse(t, ordersRules).Explain(change(t, "", with(t, orderText, `"order_id":{}`))) {
		got = append(got, fmt.Sprintf("%s %s %v", v.Rule.Event, v.Outcome, v.Err != nil))
	}
	want := []string{"order.placed error true", "order.shipped no match false", "order.expired no match false", "order.removed no match false", "user.joined other table false"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestFactsThatAreWrittenTwiceShareKeys(t *testing.T) {
	set := parse(t, "rules:\n- event: order.placed\n  when: 'true'\n  once: [id(new.order_id), new.count]\n  data: {v: '1'}\n")
	c := change(t, "", orderText)
	a, err := set.Events(c)
	if err != nil {
		t.Fatal(err)
	}
	c.SequenceNumber = "8"
	b, _ := set.Events(c)
	if len(a[0].OnceKeys) != 2 || !slices.Equal(a[0].OnceKeys, b[0].OnceKeys) || a[0].Event.ID == b[0].Event.ID || !b[0].IsSame(a[0].Reservation()) {
		t.Errorf("%v and %v", a, b)
	}
	if _, err := set.Events(change(t, "", with(t, orderText, `"count":{}`))); err == nil {
		t.Error("a part that is missing identifies a fact")
	}
}

// A file is refused with every problem, each at its line and column.
func TestProblemsHavePlaces(t *testing.T) {
	rule := "rules:\n- event: order.placed\n  when: change == \"insert\"\n  data:\n    v: new.a\n"
	for _, c := range []struct {
		name, text string
		want       []string
	}{
		{"an empty file", "", []string{"1:1: the file has no rules"}},
		{"no YAML", "rules: [", []string{"1:1: did not find expected node content"}},
		{"a list", "- a", []string{"1:1: the file must be a mapping", "1:1: rules must be a list"}},
		{"an unknown key", rule + "  subject: new.a\nversion: 1\n", []string{`6:3: a rule has no "subject"`, `7:1: the file has no "version"`}},
		{"a key twice", rule + "  when: 'true'\n", []string{`6:3: "when" stands here twice`}},
		{"no event, when and data", "rules:\n- table: t\n", []string{"2:3: event is missing", "2:3: when is missing", "2:3: data is missing"}},
		{"no rule", "rules: []\n", []string{"1:8: rules must be a list"}},
		{"an event that is no name", strings.Replace(rule, "order.placed", "Order", 1), []string{"2:10: event must be the name"}},
		{"a pattern of tables that is none", rule + "  table: 'a[b'\n", []string{"6:10: table must be the name"}},
		{"a variable that does not exist", strings.Replace(rule, "new.a", "newer.a", 1), []string{"5:8: data.v: undeclared reference to 'newer'"}},
		{"a function that does not exist", strings.Replace(rule, "new.a", "new.a + upper(new.b)", 1), []string{"5:21: data.v: undeclared reference to 'upper'"}},
		{"a place in quotes", strings.Replace(rule, "new.a", "'1 + '", 1), []string{"5:13: data.v: Syntax error"}},
		{"a place in a block", strings.Replace(rule, "new.a", "|\n      new.a &&\n      oops(1)", 1), []string{"7:11: data.v: undeclared reference to 'oops'"}},
		{"a place in a folded text", strings.Replace(rule, "new.a", ">-\n      new.a &&\n      oops(1)", 1), []string{"5:8: data.v: undeclared reference to 'oops'"}},
		{"a condition that is a text", strings.Replace(rule, `change == "insert"`, "change", 1), []string{"3:9: when: the result is a string; it must be a bool"}},
		{"a list as an expression", strings.Replace(rule, "new.a", "[new.a]", 1), []string{"5:8: data.v must be an expression: put one that begins with ["}},
		{"a tag", strings.Replace(rule, `change == "insert"`, "!by_ttl", 1), []string{"3:9: when must be an expression: put one that begins with !"}},
		{"an alias", strings.Replace(rule, "new.a", "&a new.a\n    w: *a", 1), []string{"5:8: anchors and aliases are not", "6:8: anchors and aliases are not"}},
		{"an empty expression", strings.Replace(rule, "new.a", "", 1), []string{"5:7: data.v: the expression is empty"}},
		{"a field twice", rule + "    v?: new.b\n", []string{`6:5: the field "v" stands here twice`}},
		{"a let with a variable's name", "let:\n  new: '1'\n" + rule, []string{`2:3: "new" is a variable's name`}},
		{"a let that uses a later one", "let:\n  a: b\n  b: '1'\n" + rule, []string{"2:6: let a: undeclared reference to 'b'"}},
		{"a let twice", "let:\n  a: '1'\n" + rule + "  let:\n    a: '2'\n", []string{`9:5: "a" is the name of another let`}},
		{"shortening what is not there", rule + "  shorten: {field: w, characters: 0, truncated: v}\n", []string{`6:20: shorten: the data have no field "w"`, "6:35: characters must be", "6:49: truncated must be"}},
		{"once without parts", rule + "  once: []\n", []string{"6:9: once must be a list"}},
		{"a pattern that RE2 does not have", strings.Replace(rule, "new.a", `new.a.matches("(?=x)")`, 1), []string{"5:22: data.v: invalid matches argument"}},
		{"loops in loops in loops", strings.Replace(rule, "new.a", "new.a.map(x, x.map(y, y.map(z, z)))", 1), []string{"5:35: data.v: comprehension exceeds nesting limit"}},
		{"a long expression", strings.Replace(rule, "new.a", strings.Repeat("1+", 2100)+"1", 1), []string{"5:8: data.v: the expression has 4201 bytes; the maximum is 4096"}},
		{"a deep expression", strings.Replace(rule, "new.a", strings.Repeat("(", 300)+"1"+strings.Repeat(")", 300), 1), []string{"5:8: data.v: expression recursion limit exceeded"}},
		{"an expression that costs much whatever the change", strings.Replace(rule, "new.a", costly(), 1), []string{"5:9: data.v: the expression is too costly"}},
		{"a large file", rule + strings.Repeat("#", rules.MaxFileBytes), []string{"1:1: the file has 262221 bytes"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := rules.Parse("f.yaml", []byte(c.text))
			var got []string
			for _, p := range rules.Problems(err) {
				got = append(got, p.Error())
			}
			if len(got) != len(c.want) {
				t.Fatalf("the problems are\n%v", err)
			}
			for n := range got {
				if !strings.HasPrefix(got[n], "f.yaml:"+c.want[n]) {
					t.Errorf("%q; want %q", got[n], c.want[n])
				}
			}
		})
	}
}

// costly goes through a list of 700 numbers 700 times.
func costly() string {
	list := "[" + strings.TrimSuffix(strings.Repeat("1,", 700), ",") + "]"
	return "'" + list + ".map(x, " + list + ".map(y, x + y))'"
}

// What is built from a change ends, in time and in memory.
func TestWhatIsBuiltIsBounded(t *testing.T) {
	numbers := `{"L":[` + strings.TrimSuffix(strings.Repeat(`{"N":"1"},`, 20_000), ",") + `]}`
	order := change(t, "", with(t, orderText, `"many":`+numbers, `"twin":`+numbers, `"long":{"S":"`+strings.Repeat("x", 300_000)+`"}`))
	doubling := "let:\n  a0: text(new.long)\n"
	for n := range 30 {
		doubling += fmt.Sprintf("  a%d: a%d + a%d\n", n+1, n, n)
	}
	for name, c := range map[string]struct{ text, want string }{
		"loops in loops over a long list":      {one("new.many.map(x, new.many.exists(y, y > x))"), "too costly"},
		"a comparison of long lists in a loop": {one("new.many.filter(x, new.many == new.twin).size()"), "too costly"},
		"a search of a long list in a loop":    {one("new.many.filter(x, new.many in [new.twin]).size()"), "too costly"},
		"a long text for each element":         {one("new.many.map(x, lower(new.long)).size()"), "too costly"},
		"a long text for each of a few":        {one("'[" + strings.Repeat("1,", 300) + "1].map(x, lower(new.long)).size()'"), "too costly"},
		"long bytes for each element":          {one("new.many.map(x, bytes(new.long)).size()"), "too costly"},
		"a pattern for each element":           {one("new.many.exists(x, new.long.matches('x*y'))"), "too costly"},
		"names that double each other":         {doubling + one("a30"), "is larger than"},
		"a list of long texts":                 {one("new.many.map(x, new.long)"), "the event is larger than"},
	} {
		t.Run(name, func(t *testing.T) {
			began := time.Now()
			got, err := parse(t, c.text).Events(order)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%d events, %v; want an error that says %s", len(got), err, c.want)
			}
			if took := time.Since(began); took > time.Minute {
				t.Errorf("took %s", took)
			}
		})
	}
	many := "rules:\n"
	for range 100 {
		many += "- {event: order.placed, when: 'new.many.exists(x, x > 1)', data: {v: '1'}}\n"
	}
	verdicts := map[rules.Outcome]int{}
	for _, v := range parse(t, many).Explain(order) {
		verdicts[v.Outcome]++
	}
	if verdicts[rules.NoMatch] < 10 || verdicts[rules.Failed] < 10 {
		t.Errorf("of many costly rules, %v", verdicts)
	}
	// A list is read from the record once, however often an expression names it.
	began := time.Now()
	if got, err := parse(t, one("new.many.all(x, x == new.many[0])")).Events(order); err != nil || string(got[0].Event.Data) != `{"v":true}` || time.Since(began) > 20*time.Second {
		t.Errorf("%v, %v, after %s", got, err, time.Since(began))
	}
	if got, err := parse(t, one("new.many.map(x, x + 1).size()")).Events(order); err != nil || string(got[0].Event.Data) != `{"v":20000}` {
		t.Errorf("%v, %v: a loop over a long list is possible", got, err)
	}
}

func TestTheLongestTextIsShortened(t *testing.T) {
	set := parse(t, one("text(new.note)\n    w: '1'\n  shorten: {field: v, characters: 5, truncated: cut, length: length}"))
	for note, want := range map[string]string{"short": `{"v":"short","w":1}`, "longer": `{"v":"long…","cut":true,"length":6,"w":1}`, "äöüßé": `{"v":"äöüßé","w":1}`} {
		got, err := set.Events(change(t, "", with(t, orderText, `"note":{"S":"`+note+`"}`)))
		if err != nil || string(got[0].Event.Data) != want {
			t.Errorf("%s, %v; want %s", got[0].Event.Data, err, want)
		}
	}
}

// What a rule tells without CEL is what CEL says.
func TestConditionsAreExact(t *testing.T) {
	conditions := []string{
		`change == "insert"`, `"modify" == change`, `change in ["insert", "remove"]`, `new.status == "placed"`, `old.status == "placed"`, `item.status == ""`, `new.status == ""`,
		`new.status != old.status`, `old.count != new.count`, `!by_ttl`, `new.tags != old.tags`, `id(new.order_id) == "o_1"`, `new.address.zip == null`,
	}
	var texts []string
	for _, a := range conditions {
		texts = append(texts, a, "!("+a+")")
		for _, b := range conditions {
			texts = append(texts, a+" && "+b, a+" || "+b, "("+a+" || "+b+") && new.gift")
		}
	}
	other := with(t, orderText, `"status":{"S":""}`, `"count":{"S":"3"}`, `"tags":{"SS":["x"]}`, `"order_id":{}`)
	nothing := `{"status":{"N":"1"}}`
	images := []string{"", orderText, other, nothing}
	file, plain := "rules:\n", "rules:\n"
	for n, text := range texts {
		file += fmt.Sprintf("- {event: a.e%d, when: '%s', data: {v: '1'}}\n", n, text)
		plain += fmt.Sprintf("- {event: a.e%d, when: '(%s) ? true : false', data: {v: '1'}}\n", n, text)
		if n%100 != 99 && n != len(texts)-1 {
			continue
		}
		quick, slow := parse(t, file), parse(t, plain)
		file, plain = "rules:\n", "rules:\n"
		for _, before := range images {
			for _, after := range images {
				if before == "" && after == "" {
					continue
				}
				c := change(t, before, after)
				a, b := quick.Explain(c), slow.Explain(c)
				for i := range a {
					if a[i].Outcome != b[i].Outcome {
						t.Errorf("%s of %s, %s: %s, by CEL %s", a[i].Rule.When, before, after, a[i].Outcome, b[i].Outcome)
					}
				}
			}
		}
	}
}

// No file keeps the parsers of YAML and CEL busy, whatever it nests or repeats.
func TestFilesThatNestAndRepeatAreReadAtOnce(t *testing.T) {
	closing := map[string]string{"(": ")", "[": "]", "a(": ")", "a[": "]", "!(": ")", "-(": ")", "id(": ")", "[a,": "]", "new.a.map(x,": ")"}
	var files []string
	for _, part := range []string{"(", "[", "{", "!", "-", "a?b:", "a<", "a.", "a(", "a[", "a&&", "a||", "!(", "-(", "has(new.a)&&", "\"", "new.a.map(x,", "id(", "[a,", "{a:", "1+", ")", "a b ", "$"} {
		for _, n := range []int{48, 4000} {
			n = min(n, 2000/len(part))
			for _, end := range []string{"", "1" + strings.Repeat(closing[part], n)} {
				files = append(files, one("|\n      "+strings.Repeat(part, n)+end))
			}
		}
	}
	for _, part := range []string{"[", "{", "- ", "? ", "a: ", "&a ", "!a ", "#", "a:\n "} {
		files = append(files, strings.Repeat(part, rules.MaxFileBytes/len(part)))
	}
	for _, file := range files {
		began := time.Now()
		_, _ = rules.Parse("f", []byte(file))
		if took := time.Since(began); took > time.Minute {
			t.Errorf("%.100q took %s", file, took)
		}
	}
}

// FuzzParse checks that no file makes the compiler panic, and that every problem has a place
// in the file.
func FuzzParse(f *testing.F) {
	f.Add(string(rules.ShippedText()))
	f.Add(ordersRules)
	f.Add(one("new.a"))
	f.Fuzz(func(t *testing.T, text string) {
		set, err := rules.Parse("f", []byte(text))
		if err == nil {
			_, _ = set.Events(change(t, orderText, orderText))
			return
		}
		lines := strings.Count(text, "\n") + 1
		for _, p := range rules.Problems(err) {
			if p.Line < 1 || p.Line > lines+1 || p.Column < 1 || p.Message == "" {
				t.Errorf("%q: %v", text, p)
			}
		}
		if len(rules.Problems(err)) == 0 {
			t.Errorf("%q: %v is no problem with a place", text, err)
		}
	})
}
