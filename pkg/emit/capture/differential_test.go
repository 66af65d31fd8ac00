package capture_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/tidings-dev/tidings/pkg/emit/capture"
	"github.com/tidings-dev/tidings/pkg/emit/capture/rules"
	"github.com/tidings-dev/tidings/pkg/platform"
	"github.com/tidings-dev/tidings/pkg/store/dynamoitem"
	"github.com/tidings-dev/tidings/test/streamtest"
)

// differs compares the old code with the rules for one change.
func differs(c platform.Change) string {
	want, errWant := capture.Events(c)
	got, err := rules.Shipped().Events(c)
	switch {
	case errWant != nil && err == nil && len(got) == 0:
		return "" // checked by whether the old code ignoring errors gives an event
	case errWant != nil && strings.Contains(errWant.Error(), "is not a time") && len(got) == 1 && got[0].Event.Type == "discussion.auto_closed":
		return ""
	case (err == nil) != (errWant == nil):
		return fmt.Sprintf("old %v, %v; new %v, %v", want, errWant, got, err)
	}
	if err != nil {
		return ""
	}
	return cmp.Diff(want, got, cmpopts.EquateEmpty(), cmp.AllowUnexported(capture.Captured{}), cmp.Transformer("text", func(b json.RawMessage) string { return string(b) }))
}

func TestRulesEqualTheOldCode(t *testing.T) {
	all := changes()
	for n, c := range all {
		if diff := differs(c.change(n)); diff != "" {
			t.Errorf("%s: %s", c.name, diff)
		}
	}
	var names []string
	var values []types.AttributeValue
	kinds := map[string]bool{}
	for _, c := range all {
		for _, i := range []dynamoitem.Item{c.before, c.after} {
			for name, v := range i {
				if !kinds[name] {
					kinds[name] = true
					names = append(names, name)
				}
				if s, ok := v.(*types.AttributeValueMemberS); ok && len(s.Value) > 1000 {
					continue
				}
				values = append(values, v)
			}
		}
	}
	values = append(values, dynamoitem.S(""), dynamoitem.S("0"), dynamoitem.N(0), &types.AttributeValueMemberN{Value: "1e3"}, &types.AttributeValueMemberN{Value: "12.50"},
		&types.AttributeValueMemberN{Value: "123456789012345678901234567890"}, &types.AttributeValueMemberBOOL{Value: false}, binary)
	r := rand.New(rand.NewPCG(1, 2))
	bad, events, failures := 0, 0, 0
	for n := range 5_000 {
		c := all[r.IntN(len(all))]
		c.before, c.after, c.byTTL = mutate(r, c.before, names, values), mutate(r, c.after, names, values), r.IntN(20) == 0
		if c.before != nil && r.IntN(4) == 0 {
			c.after = mutate(r, c.before, names, values)
		}
		if c.before == nil && c.after == nil {
			continue
		}
		change := streamtest.Changes(c.record(n))[0]
		if list, err := capture.Events(change); err != nil {
			failures++
		} else {
			events += len(list)
		}
		if diff := differs(change); diff != "" {
			bad++
			text, _ := json.Marshal(c.record(n))
			if t.Errorf("%s\n%s", text, diff); bad > 5 {
				break
			}
		}
	}
	t.Logf("%d events, %d failures", events, failures)
}

func mutate(r *rand.Rand, i dynamoitem.Item, names []string, values []types.AttributeValue) dynamoitem.Item {
	if i == nil {
		return nil
	}
	changed := dynamoitem.Item{}
	for name, v := range i {
		changed[name] = v
	}
	for range r.IntN(3) {
		name := names[r.IntN(len(names))]
		switch r.IntN(4) {
		case 0:
			delete(changed, name)
		case 1:
			if status := []string{"open", "closed", "success", "pending", "failed", "cancelled", "canceled", "waitlisted", "left", "active", "expired"}; true {
				changed["status"] = dynamoitem.S(status[r.IntN(len(status))])
			}
		default:
			changed[name] = values[r.IntN(len(values))]
		}
	}
	return changed
}

func BenchmarkOld(b *testing.B) { benchmark(b, func(c platform.Change) { _, _ = capture.Events(c) }) }
func BenchmarkRules(b *testing.B) {
	set := rules.Shipped()
	benchmark(b, func(c platform.Change) { _, _ = set.Events(c) })
}

func benchmark(b *testing.B, capture func(platform.Change)) {
	var all []platform.Change
	for n, c := range changes() {
		size := 0
		for _, v := range c.after {
			if s, ok := v.(*types.AttributeValueMemberS); ok {
				size += len(s.Value)
			}
		}
		if size < 10_000 {
			all = append(all, c.change(n))
		}
	}
	b.ReportAllocs()
	for n := 0; b.Loop(); n++ {
		capture(all[n%len(all)])
	}
}
