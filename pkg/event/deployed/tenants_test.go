package deployed_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidings-dev/tidings/pkg/event/catalog"
	"github.com/tidings-dev/tidings/pkg/event/deployed"
	"github.com/tidings-dev/tidings/pkg/store/memory"
)

// source counts what is read, and fails reads of parts whose key contains a text.
type source struct {
	deployed.Source
	heads, parts int
	broken       string
}

func (s *source) ReadDocument(ctx context.Context, name string) ([]byte, int, error) {
	s.heads++
	return s.Source.ReadDocument(ctx, name)
}

func (s *source) GetValue(ctx context.Context, key string) (string, error) {
	s.parts++
	if s.broken != "" && strings.Contains(key, s.broken) {
		return "", errors.New("the table is away")
	}
	return s.Source.GetValue(ctx, key)
}

func writeTenant(t *testing.T, s deployed.Store, tenant, writer string, types ...catalog.Type) {
	t.Helper()
	set, err := deployed.Read(t.Context(), s, -1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := deployed.WriteTenant(t.Context(), s, set, tenant, types, "op", writer, time.Now()); err != nil {
		t.Fatal(err)
	}
}

func names(t *testing.T, l *deployed.Live, tenant string) string {
	t.Helper()
	known, err := l.Of(t.Context(), tenant)
	if err != nil {
		t.Fatal(err)
	}
	own := known.Types()
	return strings.Join(slices.DeleteFunc(own, func(name string) bool { return !strings.HasPrefix(name, "order.") && !strings.HasPrefix(name, "acme.") }), " ")
}

func live(s deployed.Source) *deployed.Live {
	return &deployed.Live{Source: s, CacheTime: deployed.CacheTime, Now: time.Now, Log: slog.New(slog.DiscardHandler)}
}

func TestATenantHasTheTypesOfTheDeploymentAndItsOwn(t *testing.T) {
	s := memory.New(time.Now)
	writeTenant(t, s, "acme", "a", kind(t, "acme.opened", "x"), kind(t, "acme.closed", "x")) // before the deployment has any
	set, err := deployed.Read(t.Context(), s, -1)
	if err != nil {
		t.Fatal(err)
	}
	set.Types = []catalog.Type{kind(t, "order.paid", "x")}
	set = write(t, s, set, "b") // keeps those of tenants
	if got := set.Tenants(); !slices.Equal(got, []string{"acme"}) {
		t.Errorf("the tenants with types of their own are %q", got)
	}
	in := &source{Source: s}
	l := live(in)
	for tenant, want := range map[string]string{"": "order.paid", "globex": "order.paid", "acm": "order.paid", "acme#": "order.paid"} {
		if got := names(t, l, tenant); got != want {
			t.Errorf("tenant %q has %q, want %q", tenant, got, want)
		}
	}
	if in.heads != 1 || in.parts != 1 {
		t.Errorf("%d and %d reads for tenants without types of their own, want one of each, for the deployment", in.heads, in.parts)
	}
	for range 3 {
		if got := names(t, l, "acme"); got != "acme.closed acme.opened order.paid" {
			t.Errorf("acme has %q", got)
		}
	}
	if in.heads != 1 || in.parts != 2 {
		t.Errorf("%d and %d reads after the first event of acme, want one more", in.heads, in.parts)
	}
	writeTenant(t, s, "acme", "c") // none any more
	if got := names(t, live(s), "acme"); got != "order.paid" {
		t.Errorf("after the removal acme has %q", got)
	}
	if set, err := deployed.Read(t.Context(), s, -1); err != nil || len(set.Tenants()) != 0 {
		t.Errorf("%v, %v", set.Tenants(), err)
	}
}

// What a tenant changes is read within a minute, without an error in between and without
// reading the deployment's types again, and the other way round.
func TestTypesOfTenantsAndOfTheDeploymentAreReadApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memory.New(time.Now)
		write(t, s, deployed.Set{Types: []catalog.Type{kind(t, "order.paid", "x")}}, "a")
		writeTenant(t, s, "acme", "b", kind(t, "acme.opened", "x"))
		writeTenant(t, s, "globex", "c", kind(t, "order.lost", "x"))
		in := &source{Source: s}
		l := live(in)
		first := names(t, l, "acme") + ", " + names(t, l, "globex")
		if first != "acme.opened order.paid, order.lost order.paid" {
			t.Fatal(first)
		}
		deployment, _ := l.Current(t.Context())

		in.parts = 0
		writeTenant(t, s, "acme", "d", kind(t, "acme.closed", "x"))
		if got := names(t, l, "acme"); got != "acme.opened order.paid" || in.parts != 0 {
			t.Errorf("at once acme has %q, after %d reads", got, in.parts)
		}
		time.Sleep(deployed.CacheTime)
		if got := names(t, l, "acme") + ", " + names(t, l, "globex"); got != "acme.closed order.paid, order.lost order.paid" || in.parts != 1 {
			t.Errorf("after a minute: %q, with %d reads of parts, want 1", got, in.parts)
		}
		if now, _ := l.Current(t.Context()); now != deployment {
			t.Error("the types of the deployment, with their compiled schemas, were thrown away")
		}

		in.parts = 0
		set, _ := deployed.Read(t.Context(), s, -1)
		set.Types = append(set.Types, kind(t, "order.sent", "x"))
		write(t, s, set, "e")
		time.Sleep(deployed.CacheTime)
		if got := names(t, l, "acme"); got != "acme.closed order.paid order.sent" || in.parts != 1 {
			t.Errorf("after a change of the deployment: %q, with %d reads of parts, want 1", got, in.parts)
		}

		// A worker that has not used the tenant's types yet knows only where they were.
		late := live(in)
		if _, err := late.Current(t.Context()); err != nil {
			t.Fatal(err)
		}
		writeTenant(t, s, "acme", "f", kind(t, "acme.moved", "x"))
		if got := names(t, late, "acme"); got != "acme.moved order.paid order.sent" {
			t.Errorf("a late worker has %q", got)
		}
	})
}

func TestTypesOfATenantThatCannotBeReadStayAsTheyWere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memory.New(time.Now)
		writeTenant(t, s, "acme", "a", kind(t, "acme.opened", "x"))
		writeTenant(t, s, "globex", "b", kind(t, "order.lost", "x"))
		in := &source{Source: s}
		l := live(in)
		names(t, l, "acme")
		writeTenant(t, s, "acme", "c", kind(t, "acme.closed", "x"))
		time.Sleep(deployed.CacheTime)
		in.broken = "#acme#"
		in.parts = 0
		for range 5 {
			if got := names(t, l, "acme"); got != "acme.opened" {
				t.Errorf("acme has %q", got)
			}
		}
		if in.parts != 1 {
			t.Errorf("%d tries to read in one minute, want 1", in.parts)
		}
		if got := names(t, l, "globex"); got != "order.lost" {
			t.Errorf("globex has %q", got)
		}
		if _, err := live(in).Of(t.Context(), "acme"); err == nil || !strings.Contains(err.Error(), "tenant acme") {
			t.Errorf("without older types: %v", err)
		}
		in.broken = ""
		time.Sleep(deployed.CacheTime)
		if got := names(t, l, "acme"); got != "acme.closed" {
			t.Errorf("acme has %q", got)
		}
	})
}

// damaged changes the stored parts of a tenant, or the store's answers.
type damaged struct {
	deployed.Source
	part    func(string) string // nil for the stored ones
	reads   int
	headsOK int // how many reads of the head succeed; 0: all
}

func (d *damaged) ReadDocument(ctx context.Context, name string) ([]byte, int, error) {
	if d.reads++; d.headsOK > 0 && d.reads > d.headsOK {
		return nil, 0, errors.New("the table is away")
	}
	return d.Source.ReadDocument(ctx, name)
}

func (d *damaged) GetValue(ctx context.Context, key string) (string, error) {
	value, err := d.Source.GetValue(ctx, key)
	if strings.Contains(key, "#acme#") && d.part != nil && err == nil {
		value = d.part(value)
	}
	return value, err
}

// Who reads the types of a tenant can tell what time heals from what it does not.
func TestDamagedTypesOfATenantAreToldFromAStoreThatIsAway(t *testing.T) {
	s := memory.New(time.Now)
	writeTenant(t, s, "acme", "a", kind(t, "acme.opened", "x"))
	missing := func(string) string { return "" }
	for name, c := range map[string]struct {
		in      damaged
		damaged bool
	}{
		"a part is missing":             {damaged{part: missing}, true},
		"no base64":                     {damaged{part: func(v string) string { return "!" + v }}, true},
		"half of it":                    {damaged{part: func(v string) string { return v[:len(v)/2/4*4] }}, true},
		"not compressed":                {damaged{part: func(string) string { return "e30=" }}, true},
		"the list cannot be read again": {damaged{part: missing, headsOK: 1}, false}, // the part may be a removed one
	} {
		c.in.Source = s
		_, err := live(&c.in).Of(t.Context(), "acme")
		var is *deployed.UnreadableError
		if errors.As(err, &is) != c.damaged || err == nil || is != nil && is.Tenant != "acme" {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err := live(&source{Source: s, broken: "#acme#"}).Of(t.Context(), "acme")
	if is := (*deployed.UnreadableError)(nil); err == nil || errors.As(err, &is) {
		t.Errorf("a store that is away: %v", err)
	}
}

// A Live keeps the types of the tenants that used theirs last, up to a number of bytes, and
// nothing for other tenants.
func TestTheTypesOfManyTenantsTakeABoundedPartOfTheMemory(t *testing.T) {
	s := memory.New(time.Now)
	const tenants = 12
	const tooLarge = "toolarge" // alone takes more
	many := func(braces int) (list []catalog.Type, memory int) {
		for i := range 16 {
			list = append(list, kind(t, fmt.Sprint("order.n", i), strings.Repeat("{", braces))) // counted as schemas
			memory += list[i].Memory()
		}
		return list, memory
	}
	large, memory := many(500)
	for i := range tenants {
		writeTenant(t, s, fmt.Sprint("t", i), fmt.Sprint("w", i), large...)
	}
	in := &source{Source: s}
	l := live(in)
	reads := func(tenant string) int {
		before := in.parts
		names(t, l, tenant)
		return in.parts - before
	}
	for i := range tenants {
		reads(fmt.Sprint("t", i))
	}
	kept := 0
	for i := tenants - 1; i >= 0; i-- { // what is read pushes out others
		if reads(fmt.Sprint("t", i)) > 0 {
			break
		}
		kept++
	}
	if want := deployed.MaxKeptBytes / memory; kept != want || want < 2 {
		t.Errorf("the types of %d tenants are kept, want %d", kept, want)
	}
	huge, memory := many(5000)
	writeTenant(t, s, tooLarge, "x", huge...)
	l = live(in)
	if first, again := reads(tooLarge), reads(tooLarge); memory <= deployed.MaxKeptBytes || first == 0 || again != 0 {
		t.Errorf("types of %d bytes are read %d and %d times", memory, first, again)
	}
	if reads("t0"); reads(tooLarge) == 0 {
		t.Error("they are kept beside others")
	}
	in.heads, in.parts = 0, 0
	burst := testing.AllocsPerRun(1, func() {
		for i := range 10_000 {
			if _, err := l.Of(t.Context(), fmt.Sprint("new", i)); err != nil {
				t.Fatal(err)
			}
		}
	})
	if in.heads+in.parts > 0 || burst > 3*10_000 {
		t.Errorf("10,000 new tenants take %d reads and %.0f allocations", in.heads+in.parts, burst)
	}
}

func TestUnusableTypesOfATenantAreNotWritten(t *testing.T) {
	s := memory.New(time.Now)
	large := kind(t, "order.paid", "x")
	large.Schema = make([]byte, deployed.MaxTenantBytes+1)
	var many []catalog.Type
	for i := range deployed.MaxTenantTypes + 1 {
		many = append(many, kind(t, fmt.Sprintf("order.n%d", i), "x"))
	}
	one := []catalog.Type{kind(t, "order.paid", "x")}
	for name, c := range map[string]struct {
		tenant string
		types  []catalog.Type
		want   string
	}{
		"twice":            {"acme", append(one, one...), "defined twice"},
		"too large":        {"acme", []catalog.Type{large}, "the maximum of a tenant is 1048576"},
		"too many":         {"acme", many, "1001 event types; the maximum of a tenant is 1000"},
		"no tenant's name": {"a#b", one, "must be 1 to 64"},
		"no name":          {"", one, "must be 1 to 64"},
	} {
		if _, err := deployed.WriteTenant(t.Context(), s, deployed.Set{}, c.tenant, c.types, "op", name, time.Now()); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %q", name, err, c.want)
		}
	}
	if set, err := deployed.Read(t.Context(), s, -1); err != nil || set.Revision != 0 {
		t.Errorf("%+v, %v", set, err)
	}
}

// The names of all tenants with types of their own fit into one item, of 400 KB.
func TestTheIndexOfTenantsIsBounded(t *testing.T) {
	if testing.Short() {
		t.Skip("writes a thousand tenants")
	}
	s := memory.New(time.Now)
	tenant := func(i int) string { return fmt.Sprintf("%064d", i) }
	set := deployed.Set{}
	var err error
	for i := range deployed.MaxTenants {
		if set, err = deployed.WriteTenant(t.Context(), s, set, tenant(i), []catalog.Type{kind(t, "order.paid", "x")}, "op", fmt.Sprintf("%026d", i), time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	index, _, err := s.ReadDocument(t.Context(), "catalog")
	if err != nil || len(index) > 200<<10 {
		t.Errorf("the index has %d bytes, %v", len(index), err)
	}
	t.Logf("%d tenants: %d bytes", deployed.MaxTenants, len(index))
	if _, err = deployed.WriteTenant(t.Context(), s, set, "one-more", []catalog.Type{kind(t, "order.paid", "x")}, "op", "x", time.Now()); err == nil || !strings.Contains(err.Error(), "1000 tenants have event types of their own") {
		t.Errorf("one tenant more: %v", err)
	}
	if _, err = deployed.WriteTenant(t.Context(), s, set, tenant(7), []catalog.Type{kind(t, "order.sent", "x")}, "op", "y", time.Now()); err != nil {
		t.Errorf("a change of one that has: %v", err)
	}
}

// Events of a tenant meet one revision of its types or the next, and no error, while its types
// and those of the deployment are replaced.
func TestATenantsReadersNeverSeeHalfOfAChange(t *testing.T) {
	s := memory.New(time.Now)
	writeTenant(t, s, "acme", "w", kind(t, "acme.x", "0"), kind(t, "acme.y", "0"))
	l := live(s)
	l.CacheTime = 0 // asks every time
	names(t, l, "acme")
	var readers sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	for range 4 {
		readers.Go(func() {
			for ctx.Err() == nil {
				known, err := l.Of(t.Context(), "acme")
				if err != nil {
					t.Error(err)
					return
				}
				x, okX := known.Type("acme.x")
				y, okY := known.Type("acme.y")
				if !okX || !okY || x.Description != y.Description {
					t.Errorf("half of a change: %q, %q", x.Description, y.Description)
					return
				}
			}
		})
	}
	for i := range 100 {
		text := fmt.Sprint(i + 1)
		writeTenant(t, s, "acme", "w"+text, kind(t, "acme.x", text), kind(t, "acme.y", text))
		set, err := deployed.Read(t.Context(), s, -1)
		if err != nil {
			t.Fatal(err)
		}
		set.Types = []catalog.Type{kind(t, "order.paid", text)}
		write(t, s, set, "d"+text)
	}
	cancel()
	readers.Wait()
}

// losing is a store where a write of the head loses against another one, which comes before
// it, or after it while its answer is lost.
type losing struct {
	*memory.Store
	values        map[string]bool
	before, after func()
	err           error
}

func (l *losing) PutValueIfAbsent(ctx context.Context, key, value string, expires time.Time) (string, error) {
	l.values[key] = true
	return l.Store.PutValueIfAbsent(ctx, key, value, expires)
}

func (l *losing) DeleteValue(ctx context.Context, key string) error {
	delete(l.values, key)
	return l.Store.DeleteValue(ctx, key)
}

func (l *losing) WriteDocument(ctx context.Context, name string, document []byte, was int, writer string) (bool, error) {
	if l.err != nil {
		return false, l.err
	}
	if l.before != nil {
		l.before()
		return l.Store.WriteDocument(ctx, name, document, was, writer)
	}
	if _, err := l.Store.WriteDocument(ctx, name, document, was, writer); err != nil {
		return false, err
	}
	l.after()
	return false, nil
}

func TestAWriteThatLosesLeavesNothingAndTakesNothing(t *testing.T) {
	writes := map[string]func(context.Context, deployed.Store, deployed.Set) error{
		"deployment": func(ctx context.Context, s deployed.Store, set deployed.Set) error {
			set.Types = []catalog.Type{kind(t, "order.mine", "x")}
			_, err := deployed.Write(ctx, s, set, "op", "loser", time.Now())
			return err
		},
		"tenant": func(ctx context.Context, s deployed.Store, set deployed.Set) error {
			_, err := deployed.WriteTenant(ctx, s, set, "acme", []catalog.Type{kind(t, "acme.opened", "x")}, "op", "loser", time.Now())
			return err
		},
	}
	for of, do := range writes {
		for name, c := range map[string]struct {
			stored bool // although it is said to have lost
			err    error
			left   int // parts
		}{"lost": {left: 0}, "stored, and the answer lost": {stored: true, left: 1}, "an error": {err: errors.New("the table is away"), left: 1}} {
			t.Run(of+" "+name, func(t *testing.T) {
				s := memory.New(time.Now)
				set := write(t, s, deployed.Set{Types: []catalog.Type{kind(t, "order.paid", "x")}}, "first")
				other := func() { writeTenant(t, s, "globex", "other", kind(t, "order.lost", "x")) }
				l := &losing{Store: s, values: map[string]bool{}, err: c.err}
				if c.stored {
					l.after = other
				} else {
					l.before = other
				}
				if err := do(t.Context(), l, set); err == nil || c.err == nil && !errors.Is(err, deployed.ErrConflict) {
					t.Fatal(err)
				}
				if len(l.values) != c.left {
					t.Errorf("it leaves the parts %v, want %d", l.values, c.left)
				}
				want := "order.paid"
				if c.stored && of == "deployment" {
					want = "order.mine"
				} else if c.stored {
					want = "acme.opened order.paid"
				}
				if got := names(t, live(s), "acme"); got != want {
					t.Errorf("acme has %q, want %q", got, want)
				}
			})
		}
	}
}
