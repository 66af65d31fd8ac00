package console_test

import (
	"encoding/json"
	"html"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/pkg/console"
	"github.com/tidings-dev/tidings/pkg/ops/stats"
)

// cells returns the texts of the rows of a table, by its id.
func cells(t *testing.T, page, id string) [][]string {
	t.Helper()
	_, table, found := strings.Cut(page, `id="`+id+`"`)
	_, table, rows := strings.Cut(table, "<tbody>")
	if !found || !rows {
		t.Fatalf("the page has no table %q", id)
	}
	table, _, _ = strings.Cut(table, "</tbody>")
	var out [][]string
	for _, row := range strings.Split(table, "<tr>")[1:] {
		var line []string
		for _, cell := range strings.Split(row, "<td")[1:] {
			cell = regexp.MustCompile(`^[^>]*>`).ReplaceAllString(cell, "")
			text := html.UnescapeString(regexp.MustCompile(`<[^>]*>`).ReplaceAllString(cell, " "))
			line = append(line, strings.Join(strings.Fields(text), " "))
		}
		out = append(out, line)
	}
	return out
}

// The figures are of all tenants, as the overview's; whose circuit breaker is open is not
// shown.
func TestMetricsPageShowsTheWholeDeploymentToEverySession(t *testing.T) {
	w, e, _ := seeded(t) // 2 delivered, 1 dead, one circuit breaker open in tenant default
	yesterday := stats.Midnight(w.now()).Add(-24 * time.Hour)
	for i, day := range []stats.Day{
		{Counts: stats.Counts{Delivered: 99, Dead: 1, Captured: 5}, Complete: true},
		{Counts: stats.Counts{Delivered: 95, Dead: 50, Captured: 3, CaptureFailed: 1}, OpenCircuits: 2},
	} {
		day.Date, day.At = yesterday.Add(-time.Duration(i)*24*time.Hour), w.now()
		if stored, err := w.store.PutDay(t.Context(), day, time.Time{}); err != nil || !stored {
			t.Fatal(stored, err)
		}
	}
	for _, session := range []*browser{w.login(console.Admin, "default"), w.login(console.Viewer, "other")} {
		page := session.get("/metrics").Body.String()
		if strings.Contains(page, e.ID) || strings.Contains(page, e.URL) {
			t.Error("the page names an endpoint")
		}
		now := cells(t, page, "now")
		want := [][]string{
			{"Delivery success rate", "66.66 %", "66.66 % missed !", "> 95 %", "missed", ""},
			{"Average latency (p95)", "40 ms", "40 ms", "< 1 min", "ok", ""},
			{"Failed deliveries (24 h)", "1", "–", "< 50", "ok", ""},
			{"Circuit breakers open", "1", "–", "0", "missed", ""},
			{"Events captured", "–", "–", "100 %", "no data", ""},
		}
		want[1][1], want[1][2] = now[1][1], now[1][2] // an estimate
		if !slices.EqualFunc(now, want, slices.Equal) {
			t.Errorf("now\n%q\nwant\n%q", now, want)
		}
		days := cells(t, page, "days")
		if len(days) != console.MaxDays {
			t.Errorf("%d days, want %d", len(days), console.MaxDays)
		}
		date := func(ago int) string {
			return stats.Midnight(w.now()).Add(-time.Duration(ago) * 24 * time.Hour).Format(time.DateOnly)
		}
		wantDays := [][]string{
			{date(0) + " so far", "66.66 % missed !", days[0][2], "1", "0", "–"},
			{date(1), "99 %", "–", "1", "0", "100 %"},
			{date(2) + " incomplete", "65.51 % missed !", "–", "50 missed !", "2 missed !", "75 % missed !"},
			{date(3), "–", "–", "–", "–", "–"},
		}
		if got := days[:4]; !slices.EqualFunc(got, wantDays, slices.Equal) {
			t.Errorf("days\n%q\nwant\n%q", got, wantDays)
		}
		if !strings.Contains(page, `aria-label="Last 30 days: 1 ok, 2 missed, 27 without data"`) {
			t.Error("the marks of the success rate have no text")
		}
		var api console.Metrics
		answer := session.api("GET", "/api/metrics?days=2", "")
		if err := json.Unmarshal(answer.Body.Bytes(), &api); err != nil || len(api.Metrics) != 5 || len(api.Days) != 2 || api.Metrics[3].Status != stats.Missed {
			t.Errorf("the API answers %s, %v", answer.Body, err)
		}
	}
}

func TestOverviewShowsTheShareOfCapturedChanges(t *testing.T) {
	w, _, _ := seeded(t)
	for i, c := range []stats.Counts{{Captured: 999_999}, {CaptureFailed: 1}} {
		if err := w.store.AddStatistics(t.Context(), stats.Batch{ID: "c" + string(rune('0'+i)), At: w.now().Add(-time.Duration(i) * 2 * time.Hour), Counts: c}); err != nil {
			t.Fatal(err)
		}
	}
	page := w.login(console.Viewer, "default").get("/").Body.String()
	_, tile, _ := strings.Cut(page, "Events captured")
	tile, _, _ = strings.Cut(tile, "</div>")
	for _, want := range []string{"100 %", "99.9 % in 24 h, 1 failed"} {
		if !strings.Contains(tile, want) {
			t.Errorf("the overview does not say %q: %s", want, tile)
		}
	}
}
