package catalog_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/tidings-dev/tidings/pkg/event/catalog"
	"github.com/tidings-dev/tidings/pkg/event/catalog/compat"
)

func TestATypeSaysHowLongItsEventsAreKept(t *testing.T) {
	was, _ := catalog.Default().Type("user.registered_event")
	if was.RetentionDays != 0 {
		t.Errorf("a type without the keyword has %d days", was.RetentionDays)
	}
	for _, days := range []int{1, 365} {
		text := strings.Replace(string(was.Schema), "{", fmt.Sprintf(`{"x-retention-days": %d,`, days), 1)
		is, err := catalog.Parse([]byte(text))
		if err != nil || is.RetentionDays != days {
			t.Errorf("%d days are read as %d: %v", days, is.RetentionDays, err)
		}
		changes, err := compat.Compare(was.Schema, is.Schema)
		if err != nil || len(changes) != 1 || changes[0].Breaking || !strings.Contains(changes[0].String(), "x-retention-days") {
			t.Errorf("the change is %v, %v; it breaks no receiver", changes, err)
		}
	}
}
