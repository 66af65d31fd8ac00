package stats_test

import (
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/pkg/ops/stats"
)

func TestAProcessCountsTwentyNamesInABucket(t *testing.T) {
	var n stats.Names
	now := time.Date(2026, 1, 29, 12, 0, 0, 0, time.UTC)
	for i := range 20 {
		name := fmt.Sprint("name ", i)
		if got := n.Name(name, now); got != name {
			t.Errorf("%s is counted as %s", name, got)
		}
	}
	if got := n.Name("one more", now.Add(9*time.Minute)); got != stats.OtherNames {
		t.Errorf("one more is counted as %s", got)
	}
	if got := n.Name("name 7", now); got != "name 7" {
		t.Errorf("a name that is counted already becomes %s", got)
	}
	if got := n.Name("one more", now.Add(stats.BucketTime)); got != "one more" {
		t.Errorf("in the next bucket, it is counted as %s", got)
	}
}

func TestTypesWithoutADefinitionAreListedByTheirEvents(t *testing.T) {
	at := time.Date(2026, 1, 29, 12, 0, 0, 0, time.UTC)
	s := stats.Summary{UndefinedTypes: map[string]stats.Seen{
		stats.OtherNames: {Count: 3, Last: at}, "order.defined": {Count: 99, Last: at}, "order.payd": {Count: 7, Last: at.Add(-time.Hour)},
	}}
	for i := range 50 {
		s.UndefinedTypes[fmt.Sprintf("rare.type_%02d", i)] = stats.Seen{Count: 2, Last: at.Add(time.Duration(i) * time.Minute)}
	}
	got := s.Types(func(name string) bool { return name != "order.defined" }) // it has a definition by now
	if len(got) != 51 || !reflect.DeepEqual(got[0], stats.Type{Type: "order.payd", Events: 7, Last: at.Add(-time.Hour)}) || got[1].Type != "rare.type_00" {
		t.Errorf("%d: %+v", len(got), got[:2])
	}
	// The last of the rare types and those that were not counted by name.
	if last := got[len(got)-1]; !reflect.DeepEqual(last, stats.Type{Type: stats.OtherNames, Events: 5, Last: at.Add(49 * time.Minute)}) {
		t.Errorf("the rest is %+v", last)
	}
	if got := (stats.Summary{}).Types(func(string) bool { return true }); got == nil || len(got) != 0 {
		t.Errorf("without any: %#v", got)
	}
}
