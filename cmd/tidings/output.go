package main

import (
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"
	"time"
)

// printJSON prints v as indented JSON.
func (a *app) printJSON(v any) error {
	enc := json.NewEncoder(a.out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// table prints aligned columns below a heading.
func (a *app) table(heading string, rows func(row func(cells ...any))) error {
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, heading)
	rows(func(cells ...any) { printRow(w, cells...) })
	return w.Flush()
}

// fields prints alternating names and values as aligned lines; it omits empty values.
func (a *app) fields(list ...any) error {
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	for i := 0; i+1 < len(list); i += 2 {
		if text := fmt.Sprint(list[i+1]); text != "" {
			printRow(w, list[i], text)
		}
	}
	return w.Flush()
}

func printRow(w io.Writer, cells ...any) {
	for i, c := range cells {
		if i > 0 {
			fmt.Fprint(w, "\t")
		}
		fmt.Fprint(w, cell(fmt.Sprint(c)))
	}
	fmt.Fprintln(w)
}

// formatTime formats a time in the local zone, to the second; "" for the zero time.
func formatTime(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Local().Format("2006-01-02 15:04:05")
}
