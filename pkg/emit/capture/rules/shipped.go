package rules

import (
	_ "embed"
	"sync"
)

//go:embed shipped.yaml
var shippedText []byte

// ShippedFile is the name of the file of the shipped rules.
const ShippedFile = "shipped.yaml"

// ShippedText returns the file of the shipped rules.
func ShippedText() []byte { return shippedText }

// Shipped returns the rules of the community platform's events. They are compiled at the
// first call, which takes some milliseconds.
var Shipped = sync.OnceValue(func() *Set {
	set, err := Parse(ShippedFile, shippedText)
	if err != nil {
		panic("rules: " + err.Error()) // a test parses them
	}
	for _, r := range set.rules {
		r.source = "" // there is one for each type
	}
	return set
})
