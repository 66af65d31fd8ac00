package catalog

import "bytes"

// What one part of a definition takes in memory at most, in bytes, compiled. A test measures
// it.
const (
	versionMemory    = 4 << 10
	subschemaMemory  = 1 << 10
	expressionMemory = 3 << 10
)

// Memory estimates how many bytes a version takes in memory with what is derived from it, its
// compiled schema and mappings: about 30 for each of a usual definition, and 100 where it has
// many short fields.
func (t Type) Memory() int {
	size := versionMemory + 3*len(t.Schema)
	for _, begin := range []string{"{", "true", "false"} { // a boolean can be a schema, too
		size += bytes.Count(t.Schema, []byte(begin)) * subschemaMemory
	}
	for _, m := range []Mapping{t.Downgrade, t.Upgrade} {
		for _, expression := range m {
			if expression != nil {
				size += expressionMemory + 100*len(*expression)
			}
		}
	}
	return size
}
