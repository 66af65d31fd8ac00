package eventtypes_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tidings-dev/tidings/pkg/admin/eventtypes"
	"github.com/tidings-dev/tidings/pkg/admin/eventtypes/compile"
	"github.com/tidings-dev/tidings/pkg/event/catalog"
)

const orderV2 = `{"title":"order.paid","x-version":2,"x-downgrade":{"status":"data.state"},"description":"An order was paid","x-subject":"order_id","type":"object",
	"properties":{"order_id":{"type":"string"},"state":{"enum":["paid","late"]}},
	"required":["order_id","state"],"additionalProperties":false,"examples":[{"order_id":"o_1","state":"paid"}]}`

// wrongWith returns the problems of a request.
func (w *world) wrongWith(r eventtypes.Request) []eventtypes.Problem {
	w.Helper()
	_, err := w.Plan(w.Context(), r)
	var wrong *eventtypes.WrongError
	if !errors.As(err, &wrong) {
		w.Fatalf("error %v, want a WrongError", err)
	}
	return wrong.Problems
}

// A definition is tried with the versions before and after it, also with those that are
// stored. What is wrong is said of the definition of the request.
func TestADefinitionIsCheckedWithItsNeighbours(t *testing.T) {
	w := newWorld(t)
	w.apply(eventtypes.Request{Types: []catalog.Type{parse(t, orderV2)}}, false, nil)
	other := parse(t, strings.ReplaceAll(order, "order.paid", "order.sent"))
	first := parse(t, strings.ReplaceAll(order, `"paid"`, `"settled"`)) // which version 2 cannot be made of
	problems := w.wrongWith(eventtypes.Request{Types: []catalog.Type{other, first}})
	if len(problems) != 1 || problems[0].At != 1 || problems[0].Type != "order.paid.v2" || problems[0].Line != 0 || !strings.Contains(problems[0].Message, "x-downgrade") {
		t.Errorf("a first version that the second one does not fit: %+v", problems)
	}
	second := parse(t, strings.Replace(orderV2, "data.state", "data.sate", 1))
	problems = w.wrongWith(eventtypes.Request{Types: []catalog.Type{second, parse(t, strings.Replace(order, "was paid", "is paid", 1))}})
	if len(problems) != 1 || problems[0].At != 0 || problems[0].Line != 1 || problems[0].Column == 0 {
		t.Errorf("a second version that does not fit the first: %+v", problems)
	}
}

func TestAMarkIsSetOnWhatIsStored(t *testing.T) {
	w := newWorld(t)
	w.apply(eventtypes.Request{Types: []catalog.Type{parse(t, orderV2)}}, false, nil)
	since := &catalog.Deprecation{Since: "2026-11-30", Instead: "user.joined_platform"}
	p := w.apply(eventtypes.Request{Deprecate: []eventtypes.Mark{{Type: "order.paid", Version: 1, Deprecation: since}}}, false, nil)
	if len(p.Items) != 1 || p.Items[0].Action != eventtypes.Change || p.Items[0].Version != 0 {
		t.Errorf("plan %+v", p.Items)
	}
	deprecated := func(version int) *catalog.Deprecation {
		set, err := w.Plan(t.Context(), eventtypes.Request{Deprecate: []eventtypes.Mark{{Type: "order.paid", Version: version, Deprecation: since}}})
		if err != nil {
			t.Fatal(err)
		}
		if set.Items[0].Action == eventtypes.Keep {
			return since
		}
		return nil
	}
	if deprecated(1) == nil || deprecated(2) != nil || deprecated(0) != nil {
		t.Error("version 1 alone should be deprecated; 0 is the newest")
	}
	for name, m := range map[string]eventtypes.Mark{
		`"order.lost" is not an event type`:                {Type: "order.lost"},
		"order.paid has no version 3":                      {Type: "order.paid", Version: 3},
		`order.paid.v2: x-deprecated: since "yesterday"`:   {Type: "order.paid", Deprecation: &catalog.Deprecation{Since: "yesterday"}},
		"order.paid is deprecated in favour of order.lost": {Type: "order.paid", Deprecation: &catalog.Deprecation{Since: "2026-11-30", Instead: "order.lost"}},
	} {
		if problems := w.wrongWith(eventtypes.Request{Deprecate: []eventtypes.Mark{m}}); len(problems) != 1 || problems[0].At != -1 || !strings.Contains(problems[0].Message, name) {
			t.Errorf("%s: %+v", name, problems)
		}
	}
}

// emit is asked in requests that Lambda accepts, and its answer says which definitions of
// the whole list are wrong.
func TestALargeSetIsCheckedInSeveralRequests(t *testing.T) {
	calls := 0
	remote := eventtypes.Remote(func(ctx context.Context, command, answer any) error {
		text, err := json.Marshal(command)
		if err != nil {
			return err
		}
		if calls++; len(text) > 6_000_000 {
			return fmt.Errorf("a request of %d bytes", len(text))
		}
		var c struct {
			Action string
			Types  []eventtypes.Definition
		}
		if err := json.Unmarshal(text, &c); err != nil || c.Action != "check_types" {
			return fmt.Errorf("command %s: %w", c.Action, err)
		}
		checked := answer.(*eventtypes.Checked)
		checked.Problems = []eventtypes.Problem{}
		var wrong *eventtypes.WrongError
		if errors.As(compile.Check(ctx, c.Types), &wrong) {
			checked.Problems = wrong.Problems
		}
		return nil
	})
	var list []eventtypes.Definition
	comment := strings.Repeat("<", 60_000) // each of which takes six bytes
	for i := range 30 {
		text := strings.Replace(order, `"title"`, fmt.Sprintf(`"$comment":%q,"title"`, comment), 1)
		if i == 7 || i == 29 {
			text = strings.Replace(text, `"o_1"`, "7", 1)
		}
		list = append(list, eventtypes.Definition{Text: text})
	}
	err := remote(t.Context(), list)
	var wrong *eventtypes.WrongError
	if !errors.As(err, &wrong) || calls < 2 {
		t.Fatalf("%d calls, error %.200v", calls, err)
	}
	var at []int
	for _, p := range wrong.Problems {
		at = append(at, p.At)
	}
	if diff := cmp.Diff([]int{7, 29}, at); diff != "" {
		t.Error(diff)
	}
	if err := remote(t.Context(), nil); err != nil || remote(t.Context(), list[:2]) != nil {
		t.Errorf("sets without a problem: %v", err)
	}
}

// A function that does not know the command, or fails, finds nothing right.
func TestADefinitionIsWrongUnlessEmitSaysOtherwise(t *testing.T) {
	for name, answer := range map[string]func(*eventtypes.Checked) error{
		"another answer": func(*eventtypes.Checked) error { return nil },
		"an error":       func(c *eventtypes.Checked) error { c.Problems = []eventtypes.Problem{}; return errors.New("throttled") },
	} {
		remote := eventtypes.Remote(func(_ context.Context, _, into any) error { return answer(into.(*eventtypes.Checked)) })
		err := remote(t.Context(), []eventtypes.Definition{{Text: order}})
		if wrong := (*eventtypes.WrongError)(nil); err == nil || errors.As(err, &wrong) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
