package catalog_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/tidings-dev/tidings/pkg/event/catalog"
)

// versioned returns a definition with keywords of versions.
func versioned(name, keywords string) string {
	return `{"title":"` + name + `",` + keywords + `"description":"d","type":"object","properties":{"id":{}},"examples":[{}]}`
}

func TestTheKeywordsOfVersionsAreChecked(t *testing.T) {
	for keywords, want := range map[string]string{
		``:                                "",
		`"x-version":1,`:                  "",
		`"x-version":2,"x-downgrade":{},`: "",
		`"x-version":2,"x-downgrade":{"id":null,"a":"data.b"},"x-upgrade":{},`: "",
		`"x-version":0,"x-downgrade":{},`:                                      "x-version must be a whole number from 1 to 100",
		`"x-version":101,"x-downgrade":{},`:                                    "x-version must be a whole number from 1 to 100",
		`"x-version":"2",`:                                                     "x-version must be a whole number from 1 to 100",
		`"x-version":1.5,`:                                                     "x-version must be a whole number from 1 to 100",
		`"x-version":null,`:                                                    "x-version must be a whole number from 1 to 100",
		`"x-version":2,`:                                                       "x-downgrade is missing",
		`"x-downgrade":{},`:                                                    "x-downgrade belongs to a version from 2 on",
		`"x-version":2,"x-downgrade":{},"x-upgrade":null,`:                     "x-upgrade must be an object",
		`"x-version":2,"x-downgrade":{"a":1},`:                                 "x-downgrade must be an object: for each field a CEL expression",
		`"x-version":2,"x-downgrade":[],`:                                      "x-downgrade must be an object",
		`"x-version":2,"x-downgrade":{},"x-downgrades":{"a":""},`:              `"x-downgrades" is not a keyword`,
	} {
		_, err := catalog.Parse([]byte(versioned("order.paid", keywords)))
		if (want == "") != (err == nil) || !strings.Contains(fmt.Sprint(err), want) || err != nil && !strings.Contains(err.Error(), "line 1, column") {
			t.Errorf("%s: %v, want %q", keywords, err, want)
		}
	}
}

func TestACatalogHasAllVersionsInOrder(t *testing.T) {
	of := func(name string, version int) string {
		if version == 1 {
			return versioned(name, "")
		}
		return versioned(name, fmt.Sprintf(`"x-version":%d,"x-downgrade":{},`, version))
	}
	for name, c := range map[string]struct {
		definitions []string
		want        string // versions of order.paid, or an error
	}{
		"one":               {[]string{of("order.paid", 1)}, "1"},
		"reversed":          {[]string{of("order.paid", 3), of("a.b", 1), of("order.paid", 2), of("order.paid", 1)}, "1 2 3"},
		"without the first": {[]string{of("order.paid", 3), of("order.paid", 2)}, "2 3"},
		"twice":             {[]string{of("order.paid", 1), of("order.paid", 1)}, "event type order.paid is defined twice"},
		"a version twice":   {[]string{of("order.paid", 2), of("order.paid", 2)}, "version 2 of event type order.paid is defined twice"},
		"a gap":             {[]string{of("order.paid", 1), of("order.paid", 3)}, "event type order.paid has the versions 1 and 3, and none between them"},
		"a type's label":    {[]string{of("order.paid", 1), of("order.paid", 2), of("order.paid.v2", 1)}, "event type order.paid cannot have version 2: there is an event type order.paid.v2"},
	} {
		var list []catalog.Type
		for _, text := range c.definitions {
			parsed, err := catalog.Parse([]byte(text))
			if err != nil {
				t.Fatal(err)
			}
			list = append(list, parsed)
		}
		known, err := catalog.New(list)
		if err != nil {
			if err.Error() != c.want {
				t.Errorf("%s: %v, want %s", name, err, c.want)
			}
			continue
		}
		var got []string
		for _, v := range known.Versions("order.paid") {
			got = append(got, fmt.Sprint(v.Version))
			if labelled, ok := known.Labelled(v.Label()); !ok || labelled.Version != v.Version || labelled.Name != v.Name {
				t.Errorf("%s: %q is %q, %v", name, v.Label(), labelled.Label(), ok)
			}
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
		if newest, _ := known.Type("order.paid"); fmt.Sprint(newest.Version) != got[len(got)-1] {
			t.Errorf("%s: the type is version %d", name, newest.Version)
		}
		for _, label := range []string{"order.paid.v1", "order.paid.v4", "order.paid.v", "order.paid.2", "v2", ".v2", "", "order.v2"} {
			if labelled, ok := known.Labelled(label); ok {
				t.Errorf("%s: %q is %s", name, label, labelled.Label())
			}
		}
	}
}

func TestAnOpenCatalogAllowsNamesThatTypesCanHave(t *testing.T) {
	open := catalog.Default().Opened()
	for name, want := range map[string]bool{
		"stock.counted": true, "a.b.c": true, "user.joined_platform": false, "user.welcome_email_sent": false, "tidings.test": false,
		"stock": false, "Stock.counted": false, "stock.*": false, "": false, "a." + strings.Repeat("b", 62): true, "a." + strings.Repeat("b", 63): false,
	} {
		if open.Allows(name) != want || catalog.Default().Allows(name) {
			t.Errorf("%q: %v, want %v; closed: %v", name, open.Allows(name), want, catalog.Default().Allows(name))
		}
	}
	if open.Gone("stock.counted") != "the type has no definition" || len(open.Types()) != 9 {
		t.Error(open.Gone("stock.counted"), open.Types())
	}
}
