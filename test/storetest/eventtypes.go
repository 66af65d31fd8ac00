package storetest

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/tidings-dev/tidings/pkg/event/catalog"
	"github.com/tidings-dev/tidings/pkg/event/deployed"
)

// eventTypes checks that the event types of the deployment and of tenants are replaced
// together or not at all.
func eventTypes(t *testing.T, s Store) {
	ctx := t.Context()
	kind := func(name string) []catalog.Type {
		text := fmt.Sprintf(`{"title":%q,"description":"x","type":"object","examples":[{}]}`, name)
		return []catalog.Type{must[catalog.Type](t)(catalog.Parse([]byte(text)))}
	}
	read := func() deployed.Set { t.Helper(); return must[deployed.Set](t)(deployed.Read(ctx, s, -1)) }
	own := func(tenant string) string {
		t.Helper()
		var names []string
		for _, one := range must[[]catalog.Type](t)(deployed.ReadTenant(ctx, s, read(), tenant)) {
			names = append(names, one.Name)
		}
		return strings.Join(names, " ")
	}
	empty := read()
	same(t, empty.Revision, 0)
	set := must[deployed.Set](t)(deployed.WriteTenant(ctx, s, empty, "acme", kind("acme.opened"), "op", "a", start))
	set.Types = kind("order.paid")
	set = must[deployed.Set](t)(deployed.Write(ctx, s, set, "op", "b", start))
	must[deployed.Set](t)(deployed.WriteTenant(ctx, s, set, "globex", kind("globex.opened"), "op", "c", start))
	same(t, own("acme"), "acme.opened")
	same(t, own("globex"), "globex.opened")
	same(t, own("default"), "")
	same(t, len(read().Types), 1)
	same(t, strings.Join(read().Tenants(), " "), "acme globex")
	if _, err := deployed.WriteTenant(ctx, s, set, "acme", nil, "op", "d", start); !errors.Is(err, deployed.ErrConflict) {
		t.Errorf("a write over an older revision: %v", err)
	}

	var wins atomic.Int32
	var all sync.WaitGroup
	for set, i := read(), 0; i < 16; i++ {
		all.Go(func() {
			writer := fmt.Sprint("racer", i)
			var err error
			if i%2 == 0 {
				_, err = deployed.Write(ctx, s, set, "op", writer, start)
			} else {
				_, err = deployed.WriteTenant(ctx, s, set, "acme", kind("acme.raced"), "op", writer, start)
			}
			if err == nil {
				wins.Add(1)
			} else if !errors.Is(err, deployed.ErrConflict) {
				t.Error(err)
			}
		})
	}
	all.Wait()
	same(t, int(wins.Load()), 1)
	same(t, own("globex"), "globex.opened")
	set = must[deployed.Set](t)(deployed.WriteTenant(ctx, s, read(), "acme", nil, "op", "e", start))
	same(t, strings.Join(set.Tenants(), " "), "globex")
	same(t, own("acme"), "")
}
