package catalog

import (
	"strconv"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/tidings-dev/tidings/pkg/event"
)

// retentionKeyword is the keyword of a type's definition for how many days its events are
// kept.
const retentionKeyword = "x-retention-days"

// checkRetention checks the keyword of a definition.
func (d *definition) checkRetention() error {
	if !d.names[retentionKeyword] {
		return nil
	}
	var form struct {
		Days jsontext.Value `json:"x-retention-days"`
	}
	err := json.Unmarshal(d.text, &form)
	days := 0
	if err == nil {
		days, err = strconv.Atoi(string(form.Days))
	}
	if err != nil || days < 1 || days > event.MaxRetentionDays {
		return d.errorAt(jsontext.Pointer("").AppendToken(retentionKeyword), "%s must be a whole number of days from 1 to %d", retentionKeyword, event.MaxRetentionDays)
	}
	return nil
}
