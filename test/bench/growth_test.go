package main

import (
	"math"
	"testing"
)

func TestThousands(t *testing.T) {
	for n, want := range map[int]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567"} {
		if got := thousands(n); got != want {
			t.Errorf("%d is %s, want %s", n, got, want)
		}
	}
}

// What is called beside delivering reads as much whatever is stored, and the health
// report little; on a real DynamoDB API, by the functions as they are assembled.
func TestChoresReadAsMuchWhateverIsStored(t *testing.T) {
	if testing.Short() {
		t.Skip("fills a store")
	}
	t.Chdir("../..")
	few, err := countChores(t.Context(), 3, 200)
	if err != nil {
		t.Fatal(err)
	}
	many, err := countChores(t.Context(), 3, 2000)
	if err != nil {
		t.Fatal(err)
	}
	if len(few) != len(chores)+1 || few["health report"].requests < 3 || few["health report"].requests > 12 || few["sweep"].units == 0 {
		t.Errorf("few read %+v", few)
	}
	for chore, a := range few {
		// How many buckets of statistics are still open depends on the minute.
		if b := many[chore]; a.requests != b.requests || math.Abs(a.units-b.units) > 2 {
			t.Errorf("%s: with 200 deliveries %+v, with 2,000 %+v", chore, a, b)
		}
	}
}
