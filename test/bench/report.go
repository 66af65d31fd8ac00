package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Cell is one figure: the median of its samples and how far they lie apart.
type Cell struct {
	Median float64   `json:"median"`
	Min    float64   `json:"min"`
	Max    float64   `json:"max"`
	All    []float64 `json:"all,omitempty"`
	// Text stands in the place of a figure that is none.
	Text string `json:"text,omitempty"`
}

// of is a figure of several samples.
func of(samples ...float64) Cell {
	if len(samples) == 0 {
		return Cell{Text: "–"}
	}
	sorted := slices.Sorted(slices.Values(samples))
	median := sorted[len(sorted)/2]
	if len(sorted)%2 == 0 {
		median = (sorted[len(sorted)/2-1] + median) / 2
	}
	c := Cell{Median: median, Min: sorted[0], Max: sorted[len(sorted)-1]}
	if len(samples) > 1 {
		c.All = samples
	}
	return c
}

// times is the figure in another unit.
func (c Cell) times(n float64) Cell {
	c.Median, c.Min, c.Max, c.All = c.Median*n, c.Min*n, c.Max*n, slices.Clone(c.All)
	for i := range c.All {
		c.All[i] *= n
	}
	return c
}

func (c Cell) String() string {
	if c.Text != "" {
		return c.Text
	}
	text := number(c.Median)
	if number(c.Min) != number(c.Max) {
		text += " (" + number(c.Min) + "–" + number(c.Max) + ")"
	}
	return text
}

// number writes a figure with three digits that tell something.
func number(v float64) string {
	switch size := max(v, -v); {
	case size >= 100 || v == float64(int64(v)):
		return strconv.FormatFloat(v, 'f', 0, 64)
	case size >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	case size >= 0.1:
		return strconv.FormatFloat(v, 'f', 2, 64)
	}
	return strconv.FormatFloat(v, 'g', 2, 64)
}

// Row is one line of a table.
type Row struct {
	Name  string `json:"name"`
	Cells []Cell `json:"cells"`
}

// Table is what one part of the benchmark measured. A column's name ends in its unit.
type Table struct {
	Key     string   `json:"key"`
	Title   string   `json:"title"`
	What    string   `json:"what"` // names the rows
	Columns []string `json:"columns"`
	Rows    []Row    `json:"rows"`
	Notes   []string `json:"notes,omitempty"`
}

func (t *Table) add(name string, cells ...Cell) { t.Rows = append(t.Rows, Row{name, cells}) }

// Goal is what a figure must reach.
type Goal struct {
	What     string  `json:"what"`
	Measured float64 `json:"measured"`
	Sign     string  `json:"sign"` // < or >
	Limit    float64 `json:"limit"`
	Unit     string  `json:"unit"`
	Reached  bool    `json:"reached"`
}

// Report is everything that one run measured.
type Report struct {
	Machine string    `json:"machine"`
	Commit  string    `json:"commit"`
	Go      string    `json:"go"`
	Taken   time.Time `json:"taken"`
	Load    string    `json:"load"` // of the machine, when it began
	Took    string    `json:"took"`
	Tables  []*Table  `json:"tables"`
	Goals   []Goal    `json:"goals"`
}

func newReport() *Report {
	return &Report{Machine: machine(), Commit: commit(), Go: runtime.Version(), Taken: time.Now().UTC().Truncate(time.Second), Load: load()}
}

func (r *Report) table(key, title, what string, columns ...string) *Table {
	t := &Table{Key: key, Title: title, What: what, Columns: columns}
	r.Tables = append(r.Tables, t)
	return t
}

// under and over hold a figure against what it must reach.
func (r *Report) under(limit, measured float64, unit, what string) {
	r.Goals = append(r.Goals, Goal{what, measured, "<", limit, unit, measured < limit})
}
func (r *Report) over(limit, measured float64, unit, what string) {
	r.Goals = append(r.Goals, Goal{what, measured, ">", limit, unit, measured > limit})
}

// atMost is under, the limit itself included.
func (r *Report) atMost(limit, measured float64, unit, what string) {
	r.Goals = append(r.Goals, Goal{what, measured, "≤", limit, unit, measured <= limit})
}

func (r *Report) missed() (n int) {
	for _, g := range r.Goals {
		if !g.Reached {
			n++
		}
	}
	return n
}

// verdict counts the goals that are missed, and fails for them where it must.
func (r *Report) verdict(strict bool) error {
	missed := r.missed()
	if missed == 0 {
		return nil
	}
	err := fmt.Errorf("%d of %d figures do not reach what they must: they are marked MISSED", missed, len(r.Goals))
	if strict {
		return err
	}
	fmt.Fprintf(os.Stderr, "bench: %v\n", err)
	return nil
}

// lines are a table's cells as text, the heading first.
func (t *Table) lines() [][]string {
	lines := [][]string{append([]string{t.What}, t.Columns...)}
	for _, row := range t.Rows {
		line := []string{row.Name}
		for _, c := range row.Cells {
			line = append(line, c.String())
		}
		lines = append(lines, line)
	}
	return lines
}

// goalTable is the goals as a table.
func (r *Report) goalTable() *Table {
	t := &Table{Key: "goals", Title: "What it must reach", What: "figure", Columns: []string{"measured", "must be", ""}}
	for _, g := range r.Goals {
		verdict := "reached"
		if !g.Reached {
			verdict = "MISSED"
		}
		unit := g.Unit
		if unit != "" {
			unit = " " + unit
		}
		t.add(g.What, Cell{Text: number(g.Measured) + unit}, Cell{Text: g.Sign + " " + number(g.Limit) + unit}, Cell{Text: verdict})
	}
	return t
}

// print writes all tables that have anything, aligned.
func (r *Report) print(to io.Writer) {
	fmt.Fprintf(to, "%s\ncommit %s, %s, %s, load %s\n", r.Machine, r.Commit, r.Go, r.Taken.Format(time.RFC3339), r.Load)
	for _, t := range append(slices.Clone(r.Tables), r.goalTable()) {
		if len(t.Rows) == 0 {
			continue
		}
		fmt.Fprintf(to, "\n%s\n", t.Title)
		lines := t.lines()
		widths := make([]int, len(lines[0]))
		for _, line := range lines {
			for i, text := range line {
				widths[i] = max(widths[i], utf8.RuneCountInString(text))
			}
		}
		for _, line := range lines {
			var out strings.Builder
			for i, text := range line {
				pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(text))
				if i == 0 {
					out.WriteString("  " + text + pad)
				} else {
					out.WriteString("  " + pad + text)
				}
			}
			fmt.Fprintln(to, strings.TrimRight(out.String(), " "))
		}
		for _, note := range t.Notes {
			fmt.Fprintln(to, "  "+note)
		}
	}
}

func (r *Report) write(path string) error {
	text, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(text, '\n'), 0o644)
}

// markdown is a table for the documentation.
func (t *Table) markdown() string {
	var out strings.Builder
	for n, line := range t.lines() {
		for i, text := range line {
			line[i] = strings.ReplaceAll(text, "|", `\|`)
		}
		out.WriteString("| " + strings.Join(line, " | ") + " |\n")
		if n == 0 {
			out.WriteString("|---" + strings.Repeat("|--:", len(t.Columns)) + "|\n")
		}
	}
	for _, note := range t.Notes {
		out.WriteString("\n" + wrap(note) + "\n")
	}
	return out.String()
}

// wrap breaks a text into lines of the docs' width.
func wrap(text string) string {
	const width = 118
	var out strings.Builder
	at := 0
	for _, word := range strings.Fields(text) {
		n := utf8.RuneCountInString(word)
		switch {
		case at == 0:
		case at+1+n > width:
			out.WriteByte('\n')
			at = 0
		default:
			out.WriteByte(' ')
			at++
		}
		out.WriteString(word)
		at += n
	}
	return out.String()
}

// rewrite puts the report's tables into a document, each between its markers
// `<!-- bench:KEY -->` and `<!-- /bench:KEY -->`.
func (r *Report) rewrite(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	document := string(text)
	stamp := fmt.Sprintf("Taken %s on %s; commit %s, %s; load average when it began: %s; took %s.\n",
		r.Taken.Format("2006-01-02 15:04 UTC"), r.Machine, r.Commit, r.Go, r.Load, r.Took)
	parts := map[string]string{}
	for _, t := range r.Tables {
		if len(t.Rows) > 0 {
			parts[t.Key] = t.markdown()
		}
	}
	if len(r.Goals) > 0 {
		parts["goals"] = r.goalTable().markdown()
		parts["taken"] = stamp
	}
	for key, part := range parts {
		begin, end := "<!-- bench:"+key+" -->", "<!-- /bench:"+key+" -->"
		before, rest, found := strings.Cut(document, begin)
		_, after, ended := strings.Cut(rest, end)
		if !found || !ended {
			return fmt.Errorf("%s has no place for the table %q: it needs the lines %s and %s", path, key, begin, end)
		}
		document = before + begin + "\n" + part + end + after
	}
	return os.WriteFile(path, []byte(document), 0o644)
}

// machine says what this ran on.
func machine() string {
	model := runtime.GOARCH
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(text)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				model = strings.TrimSpace(value)
				break
			}
		}
	}
	memory := ""
	if text, err := os.ReadFile("/proc/meminfo"); err == nil {
		var kb int
		if _, err := fmt.Sscanf(string(text), "MemTotal: %d kB", &kb); err == nil {
			memory = fmt.Sprintf(", %.1f GB", float64(kb)/1e6)
		}
	}
	return fmt.Sprintf("%d × %s%s, %s", runtime.NumCPU(), model, memory, runtime.GOOS)
}

func commit() string {
	out, err := exec.Command("git", "describe", "--always", "--dirty").Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}

// load is the machine's load average over a minute, which is what else it did.
func load() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	one, _, _ := strings.Cut(string(text), " ")
	return one
}
