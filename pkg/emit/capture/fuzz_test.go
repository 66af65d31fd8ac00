package capture_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/tidings-dev/tidings/pkg/emit/capture/rules"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/event/catalog"
	"github.com/tidings-dev/tidings/pkg/event/validate"
	"github.com/tidings-dev/tidings/pkg/platform"
	"github.com/tidings-dev/tidings/pkg/store/dynamoitem"
)

// FuzzEvents checks that a record always gives the same events with unique IDs, that
// their types are in the catalog and they can be encoded, that deletions by TTL give
// none, and that errors are short.
func FuzzEvents(f *testing.F) {
	for i, c := range changes() {
		text, err := json.Marshal(c.record(i))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	for _, seed := range []string{`{}`, `{"eventName":"INSERT"}`, `{"eventName":"INSERT","dynamodb":{"NewImage":{"pk":{"S":"USER#1"},"sk":{"N":"1"}}}}`, `{"eventName":"MODIFY","dynamodb":{"NewImage":{"kind":{"L":[{"M":{}}]}},"OldImage":null}}`} {
		f.Add([]byte(seed))
	}
	known := map[string]bool{}
	for _, name := range catalog.Default().Types() {
		known[name] = true
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		batch, err := dynamoitem.ReadChanges(fmt.Appendf(nil, `{"Records":[%s]}`, text))
		if err != nil || len(batch) != 1 {
			return
		}
		r := batch[0]
		got, err := rules.Shipped().Events(r)
		again, errAgain := rules.Shipped().Events(r)
		if !reflect.DeepEqual(got, again) || (err == nil) != (errAgain == nil) {
			t.Errorf("read twice, it means %+v (%v) and %+v (%v)", got, err, again, errAgain)
		}
		if err != nil {
			if len(err.Error()) > 512 || len(got) != 0 {
				t.Errorf("an error of %d bytes beside %d events", len(err.Error()), len(got))
			}
			return
		}
		if r.Operation == platform.Remove && r.ByTTL && len(got) != 0 {
			t.Errorf("what TTL removed means %+v", got)
		}
		for _, c := range got {
			if !known[c.Event.Type] || c.Tenant == "" {
				t.Errorf("%s of tenant %q", c.Event.Type, c.Tenant)
			}
			if _, err := event.IDTime(c.Event.ID); err != nil {
				t.Error(err)
			}
			// Only an id can be too long for the catalog: all else is made to fit.
			var invalid *validate.InvalidDataError
			if err := validate.Default().Validate(c.Event.Type, c.Event.Data); errors.As(err, &invalid) {
				for _, p := range invalid.Problems {
					if !strings.HasSuffix(p.Message, "characters; the maximum is 256") || !strings.HasSuffix(p.Field, "_id") {
						t.Errorf("the catalog refuses %s: %v", c.Event.Data, err)
					}
				}
			}
			body, err := c.Event.Encode()
			if err != nil {
				t.Errorf("%s: %v", c.Event.Data[:min(len(c.Event.Data), 200)], err)
				continue
			}
			if back, err := event.Decode(body); err != nil || back.ID != c.Event.ID || back.Type != c.Event.Type {
				t.Errorf("%s is read back as %+v (%v)", body, back, err)
			}
		}
		moved := r
		moved.SequenceNumber += "1"
		if others, err := rules.Shipped().Events(moved); err == nil && len(got) > 0 && len(others) > 0 && others[0].Event.ID == got[0].Event.ID {
			t.Errorf("two records give one id, %s", got[0].Event.ID)
		}
	})
}
