package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestOf(t *testing.T) {
	for _, c := range []struct {
		samples []float64
		want    string
	}{
		{nil, "–"},
		{[]float64{3}, "3"},
		{[]float64{5, 1, 3}, "3 (1–5)"},
		{[]float64{4, 1, 2, 3}, "2.50 (1–4)"},
		{[]float64{100.1, 100.2, 100.3}, "100"}, // what is not shown does not spread
		{[]float64{0.012}, "0.012"},
		{[]float64{0.5, 12.34, 1234.5}, "12.3 (0.50–1234)"},
		{[]float64{-1.5}, "-1.50"},
	} {
		if got := of(c.samples...).String(); got != c.want {
			t.Errorf("%v is %q, want %q", c.samples, got, c.want)
		}
	}
	samples := []float64{3, 1, 2}
	c := of(samples...)
	if twice := c.times(2); twice.Median != 4 || twice.Min != 2 || twice.Max != 6 || twice.All[0] != 6 || c.All[0] != 3 || samples[0] != 3 {
		t.Errorf("twice %+v is %+v", c, twice)
	}
}

func TestGoals(t *testing.T) {
	r := &Report{}
	r.under(3, 3, "$", "below three")
	r.under(3, 2.9, "$", "below three")
	r.atMost(3, 3, "", "three at most")
	r.over(0.5, 0.5, "", "above a half")
	r.over(0.5, 0.51, "", "above a half")
	if r.missed() != 2 {
		t.Errorf("%d are missed, want 2", r.missed())
	}
	if err := r.verdict(true); err == nil || !strings.Contains(err.Error(), "2 of 5 figures") {
		t.Errorf("strict, it says %v", err)
	}
	if err := r.verdict(false); err != nil {
		t.Errorf("it fails for what is missed without being asked to: %v", err)
	}
	if err := new(Report).verdict(true); err != nil {
		t.Errorf("nothing is missed: %v", err)
	}
	var verdicts []string
	for _, line := range r.goalTable().lines()[1:] {
		verdicts = append(verdicts, strings.Join(line[1:], " "))
	}
	want := "3 $ < 3 $ MISSED,2.90 $ < 3 $ reached,3 ≤ 3 reached,0.50 > 0.50 MISSED,0.51 > 0.50 reached"
	if got := strings.Join(verdicts, ","); got != want {
		t.Errorf("the table says %s\nwant %s", got, want)
	}
}

func TestATableIsAligned(t *testing.T) {
	r := &Report{Machine: "a machine", Commit: "abc", Go: "go1"}
	table := r.table("key", "A title", "what", "ms", "per µ")
	table.add("ä|b", of(1, 2, 3), of(0.5))
	table.Notes = []string{"A note."}
	r.table("none", "Nothing was measured", "what", "ms")
	var out strings.Builder
	r.print(&out)
	if want := "\nA title\n  what       ms  per µ\n  ä|b   2 (1–3)   0.50\n  A note.\n"; !strings.Contains(out.String(), want) {
		t.Errorf("printed as\n%s\nwant in it\n%s", out.String(), want)
	}
	if strings.Contains(out.String(), "Nothing was measured") {
		t.Error("an empty table is printed")
	}
	if got, want := table.markdown(), "| what | ms | per µ |\n|---|--:|--:|\n| ä\\|b | 2 (1–3) | 0.50 |\n\nA note.\n"; got != want {
		t.Errorf("in Markdown it is\n%s\nwant\n%s", got, want)
	}
}

func TestADocumentIsRewrittenBetweenItsMarkers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "page.md")
	page := "# Page\n<!-- bench:goals -->\nold\n<!-- /bench:goals -->\n<!-- bench:taken -->\n<!-- /bench:taken -->\nmine\n<!-- bench:key -->\nold\n<!-- /bench:key -->\n<!-- bench:other -->\nstays\n<!-- /bench:other -->\nend\n"
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(page)
	r := &Report{Machine: "a machine", Took: "1s"}
	r.table("key", "A title", "what", "ms").add("a", of(1))
	r.table("other", "Not measured in this run", "what", "ms")
	for range 2 { // again, it is the same
		if err := r.rewrite(path); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	// No goal was measured, so what was said of goals and of when stays.
	if want := strings.Replace(page, "<!-- bench:key -->\nold\n", "<!-- bench:key -->\n| what | ms |\n|---|--:|\n| a | 1 |\n", 1); string(got) != want {
		t.Errorf("it became\n%s\nwant\n%s", got, want)
	}
	r.under(1, 2, "", "a goal")
	if err := r.rewrite(path); err != nil {
		t.Fatal(err)
	}
	if got, err = os.ReadFile(path); err != nil || !strings.Contains(string(got), "| a goal | 2 | < 1 | MISSED |\n<!-- /bench:goals -->") || !strings.Contains(string(got), "a machine") {
		t.Errorf("it became\n%s\n%v", got, err)
	}
	r.table("new", "A table without a place", "what", "ms").add("a", of(1))
	write(page)
	if err := r.rewrite(path); err == nil || !strings.Contains(err.Error(), "<!-- bench:new -->") {
		t.Errorf("a table without a place: %v", err)
	}
	if got, err = os.ReadFile(path); err != nil || string(got) != page {
		t.Errorf("what could not be rewritten has become\n%s\n%v", got, err)
	}
}

// The page has a place for every table, so that a run of all parts can write it.
func TestThePageHasAPlaceForEveryTable(t *testing.T) {
	page, err := os.ReadFile("../../docs/performance.md")
	if err != nil {
		t.Fatal(err)
	}
	sources, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, source := range sources {
		if strings.HasSuffix(source, "_test.go") {
			continue
		}
		text, err := os.ReadFile(source)
		if err != nil {
			t.Fatal(err)
		}
		for _, part := range strings.Split(string(text), `r.table("`)[1:] {
			key, _, _ := strings.Cut(part, `"`)
			found++
			for _, marker := range []string{"<!-- bench:" + key + " -->", "<!-- /bench:" + key + " -->"} {
				if strings.Count(string(page), marker) != 1 {
					t.Errorf("%s: docs/performance.md has %s %d times", source, marker, strings.Count(string(page), marker))
				}
			}
		}
	}
	if found < 8 {
		t.Errorf("found %d tables in the sources", found)
	}
}

func TestWhatCantBeMeantIsRefused(t *testing.T) {
	for says, o := range map[string]options{
		"names no part":        {only: ","},
		"there is no such":     {only: "engines"},
		"name one of the two":  {quick: true, only: "engine"},
		"not to be quoted":     {short: true, docs: "docs/performance.md"},
		"part engine":          {only: "units", profile: "x.prof"},
		"no such file or dire": {only: "start", json: filepath.Join(t.TempDir(), "none", "x.json")},
	} {
		if err := run(t.Context(), o); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%+v: %v, want %q", o, err, says)
		}
	}
}
