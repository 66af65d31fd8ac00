package filter

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// maxShown is the maximum number of values, and of a text's characters, that Mismatch
// shows.
const maxShown = 40

// Mismatch returns which field of the body the pattern does not match, with its value, such
// as `data.status is "pending"`. It is empty if the pattern matches. If several fields do not match,
// it is the first by name.
func (p *Pattern) Mismatch(d Document) string {
	byPath := slices.SortedFunc(slices.Values(p.fields), func(a, b field) int { return cmp.Compare(a.path, b.path) })
	for _, f := range byPath {
		values := d.leaves[f.path]
		if !slices.ContainsFunc(f.tests, func(holds test) bool { return holds(values) }) {
			return strings.ReplaceAll(f.path, separator, ".") + " " + show(values)
		}
	}
	for _, alternatives := range p.either {
		var why []string
		for _, a := range alternatives {
			why = append(why, a.Mismatch(d))
		}
		if !slices.Contains(why, "") {
			slices.Sort(why)
			return "no pattern of $or matches: " + strings.Join(slices.Compact(why), "; ")
		}
	}
	return ""
}

func show(values []value) string {
	if len(values) == 0 {
		return "is missing"
	}
	shown := make([]string, 0, len(values))
	for _, v := range values[:min(len(values), maxShown)] {
		shown = append(shown, v.String())
	}
	if len(values) > maxShown {
		shown = append(shown, "…")
	}
	return "is " + strings.Join(shown, ", ")
}

func (v value) String() string {
	switch v.kind {
	case 's':
		if characters := []rune(v.text); len(characters) > maxShown {
			return fmt.Sprintf("%q…", string(characters[:maxShown]))
		}
		return fmt.Sprintf("%q", v.text)
	case 'n':
		return v.number.String()
	case 't':
		return "true"
	case 'f':
		return "false"
	}
	return "null"
}
