package versions_test

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/tidings-dev/tidings/pkg/event/catalog"
	"github.com/tidings-dev/tidings/pkg/event/validate"
	"github.com/tidings-dev/tidings/pkg/event/versions"
)

func heap() int {
	runtime.GC()
	runtime.GC() // what the first one left to finalizers
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

// joined returns the text of n fields, each from its number.
func joined(n int, format string) string {
	var all []string
	for i := range n {
		all = append(all, strings.ReplaceAll(format, "N", fmt.Sprint(i)))
	}
	return strings.Join(all, ",")
}

// compiled returns types with all their schemas and expressions compiled, the estimate of what
// they take, and the length of their definitions.
func compiled(t *testing.T, types int, fields, mappings string) (known *validate.Catalog, estimate, length int) {
	t.Helper()
	var list []catalog.Type
	for i := range types {
		for _, more := range []string{"", fmt.Sprintf(`"x-version":2,"x-downgrade":{%s},`, mappings)} {
			parsed, err := catalog.Parse(fmt.Appendf(nil, `{"title":"a.n%d",%s"description":"x","type":"object","properties":{%s},"examples":[{}]}`, i, more, fields))
			if err != nil {
				t.Fatal(err)
			}
			list = append(list, parsed)
			estimate, length = estimate+parsed.Memory(), length+len(parsed.Schema)
		}
	}
	own, err := catalog.New(list)
	if err != nil {
		t.Fatal(err)
	}
	known = validate.New(own)
	for _, name := range own.Types() {
		_, _ = versions.Make(known, name, 0, []byte(`{}`)) // compiles, also if the expressions fail
		for _, v := range own.Versions(name) {
			if err := known.ValidateVersion(v, []byte(`{}`)); err != nil {
				t.Fatal(err)
			}
		}
	}
	return known, estimate, length
}

// The types of tenants take a bounded part of the memory by this estimate.
func TestCompiledTypesTakeNoMoreMemoryThanEstimated(t *testing.T) {
	compiled(t, 1, `"f0":{}`, `"f0":"data.f0"`) // the first expression also takes what CEL makes once
	for name, c := range map[string]struct {
		types            int
		fields, mappings string
	}{
		"smallest":                {200, `"f":{}`, ""},
		"usual":                   {100, joined(10, `"fN":{"type":"string","maxLength":9}`), ""},
		"many fields":             {3, joined(1000, `"fN":{"type":"string","maxLength":9}`), ""},
		"many short fields":       {3, joined(2000, `"fN":{}`), ""},
		"boolean schemas":         {3, joined(2000, `"fN":true`), ""},
		"an expression":           {200, `"f0":{}`, joined(1, `"fN":"data.fN"`)},
		"many expressions":        {3, joined(500, `"fN":{}`), joined(500, `"fN":"data.fN"`)},
		"a long expression":       {10, `"f0":{}`, `"f0":"` + strings.Repeat("1+", 200) + `1"`},
		"expressions with macros": {3, joined(100, `"fN":{}`), joined(100, `"fN":"has(data.fN) ? data.fN : 'none'"`)},
	} {
		t.Run(name, func(t *testing.T) {
			before := heap()
			known, estimate, length := compiled(t, c.types, c.fields, c.mappings)
			took := heap() - before
			t.Logf("%d bytes of definitions: %d times as many in memory, estimated %d times", length, took/length, estimate/length)
			if took > estimate {
				t.Errorf("they take %d bytes, estimated %d", took, estimate)
			}
			runtime.KeepAlive(known)
		})
	}
}
