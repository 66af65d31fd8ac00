package cost_test

import (
	"fmt"
	"math"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/tidings-dev/tidings/pkg/cost"
)

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// The page's table is the function's, and says of when the prices are.
func TestThePagesTableIsComputed(t *testing.T) {
	page, table := read(t, "../../docs/cost.md"), cost.Table(cost.Measured, cost.List)
	if !strings.Contains(page, table) {
		t.Errorf("docs/cost.md does not hold this table:\n%s", table)
	}
	if !strings.Contains(page, cost.List.Date) || !strings.Contains(page, cost.List.Region) {
		t.Errorf("docs/cost.md does not say that the prices are of %s, %s", cost.List.Date, cost.List.Region)
	}
}

// The units are those that the README says were measured.
func TestTheUnitsAreMeasured(t *testing.T) {
	page := read(t, "../../README.md")
	for what, want := range map[string]float64{
		"write units of one event, 1 endpoint": cost.Measured.EventWriteUnits + cost.Measured.DeliveryWriteUnits,
		"write units of one event, 3 endpoint": cost.Measured.EventWriteUnits + 3*cost.Measured.DeliveryWriteUnits,
		"read units of one event, 1 endpoint":  cost.Measured.EventReadUnits,
	} {
		m := regexp.MustCompile(regexp.QuoteMeta(what) + `\(s\) +([0-9.]+)`).FindStringSubmatch(page)
		if m == nil {
			t.Errorf("the README has no figure %q", what)
			continue
		}
		var measured float64
		if _, err := fmt.Sscan(m[1], &measured); err != nil || measured > want {
			t.Errorf("%s: measured %s, reckoned with %v, %v", what, m[1], want, err)
		}
	}
}

// By hand, for a million deliveries a month.
func TestOneMillion(t *testing.T) {
	got := map[string]float64{}
	for _, l := range cost.Of(1e6, cost.Measured, cost.List).Lines {
		got[l.Name] = l.Dollars
	}
	// 3 M units for events and deliveries, 0.2 M for retries, 3.05 M statistics and
	// keys at one a run; 1 M reads and 16 a minute.
	if want := 6.25*0.625 + (1+43200*16/1e6)*0.125; math.Abs(got["DynamoDB"]-want) > 0.01 {
		t.Errorf("DynamoDB is %.3f, want %.3f", got["DynamoDB"], want)
	}
	if want := 1.8 * 0.45; math.Abs(got["storage"]-want) > 0.001 {
		t.Errorf("storage is %.3f, want %.3f", got["storage"], want)
	}
}

func TestMoreCostsMoreAndEachCostsLess(t *testing.T) {
	var before cost.Month
	for i, v := range cost.Volumes {
		m := cost.Of(v, cost.Measured, cost.List)
		if i > 0 && (m.Total <= before.Total || m.PerMillion() >= before.PerMillion()) {
			t.Errorf("%.0f deliveries cost %.2f, %.2f a million; %.0f cost %.2f, %.2f", v, m.Total, m.PerMillion(), before.Deliveries, before.Total, before.PerMillion())
		}
		before = m
	}
}
