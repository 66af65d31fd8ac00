package filter_test

import (
	"encoding/json"
	"fmt"

	"github.com/tidings-dev/tidings/pkg/event/filter"
)

func ExampleCompile() {
	pattern, err := filter.Compile(json.RawMessage(`{"data": {"status": ["success"], "amount": [{"numeric": [">", 100]}]}}`))
	if err != nil {
		panic(err)
	}
	for _, body := range []string{
		`{"data": {"status": "success", "amount": 250}}`,
		`{"data": {"status": "failed", "amount": 250}}`,
	} {
		doc, err := filter.Parse([]byte(body))
		if err != nil {
			panic(err)
		}
		fmt.Println(pattern.Matches(doc))
	}
	// Output:
	// true
	// false
}
