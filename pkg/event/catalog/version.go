package catalog

import (
	"cmp"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// The keywords of versions.
const (
	versionKeyword   = "x-version"
	downgradeKeyword = "x-downgrade"
	upgradeKeyword   = "x-upgrade"
)

// MaxVersion is the largest number of a version.
const MaxVersion = 100

// Mapping says how the data of one version of a type is made of another's: CEL expressions
// over data, by the field that they give. A field without an expression (null) is left out.
// Fields that a mapping does not name are copied, if the version to be made has them.
type Mapping map[string]*string

// FromStored reads a definition that Parse has read before.
func FromStored(text []byte) (Type, error) {
	var t Type
	if err := json.Unmarshal(text, &t); err != nil {
		return t, err
	}
	t.Schema = json.RawMessage(text)
	t.Version = max(t.Version, 1)
	return t, nil
}

// order sorts the versions of a type, and makes the newest its type.
func (c *Catalog) order(name string) error {
	list := c.all[name]
	slices.SortFunc(list, func(a, b Type) int { return a.Version - b.Version })
	for i, t := range list[1:] {
		switch before := list[i]; {
		case t.Version == before.Version:
			if t.Version == 1 {
				return fmt.Errorf("event type %s is defined twice", name)
			}
			return fmt.Errorf("version %d of event type %s is defined twice", t.Version, name)
		case t.Version > before.Version+1:
			return fmt.Errorf("event type %s has the versions %d and %d, and none between them", name, before.Version, t.Version)
		}
	}
	for _, t := range list {
		if other := Label(name, t.Version); other != name && len(c.all[other]) > 0 {
			return fmt.Errorf("event type %s cannot have version %d: there is an event type %s", name, t.Version, other)
		}
	}
	c.types[name] = &list[len(list)-1]
	return nil
}

// Label names a version of a type: order.paid for version 1, order.paid.v2 for version 2.
func Label(name string, version int) string {
	if version <= 1 {
		return name
	}
	return name + ".v" + strconv.Itoa(version)
}

// Label names the type and its version.
func (t Type) Label() string { return Label(t.Name, t.Version) }

// Order orders types by name and version.
func Order(a, b Type) int { return cmp.Or(strings.Compare(a.Name, b.Name), a.Version-b.Version) }

// Versions returns the versions of a type, the oldest first; none if there is no such type.
// The list must not be modified.
func (c *Catalog) Versions(name string) []Type {
	if list, ok := c.all[name]; ok || c.base == nil {
		return list
	}
	return c.base.Versions(name)
}

// Version returns a version of a type, or false if there is none.
func (c *Catalog) Version(name string, version int) (Type, bool) {
	for _, t := range c.Versions(name) {
		if t.Version == version {
			return t, true
		}
	}
	return Type{}, false
}

// Labelled returns the type or version that a label names, or false if there is none.
func (c *Catalog) Labelled(label string) (Type, bool) {
	if t, ok := c.Version(label, 1); ok {
		return t, true
	}
	parts := labelForm.FindStringSubmatch(label)
	if parts == nil {
		return Type{}, false
	}
	version, err := strconv.Atoi(parts[2])
	if err != nil {
		return Type{}, false
	}
	return c.Version(parts[1], version)
}

// labelForm is the form of a label of a version from 2 on.
var labelForm = regexp.MustCompile(`^(.+)\.v([2-9]|[1-9][0-9]+)$`)

// checkVersion checks the keywords of versions, strictly.
func (d *definition) checkVersion() error {
	var form map[string]jsontext.Value
	if err := json.Unmarshal(d.text, &form); err != nil {
		return d.errorAt("", "%s", err)
	}
	at := func(keyword string) jsontext.Pointer { return jsontext.Pointer("").AppendToken(keyword) }
	version := 1
	if text, ok := form[versionKeyword]; ok {
		if err := json.Unmarshal(text, &version); err != nil || version < 1 || version > MaxVersion || text.Kind() == 'n' {
			return d.errorAt(at(versionKeyword), "%s must be a whole number from 1 to %d", versionKeyword, MaxVersion)
		}
	}
	for _, keyword := range []string{downgradeKeyword, upgradeKeyword} {
		text, ok := form[keyword]
		if !ok {
			continue
		}
		var m Mapping
		if err := json.Unmarshal(text, &m); err != nil || m == nil {
			return d.errorAt(at(keyword), "%s must be an object: for each field a CEL expression over data, or null to leave it out", keyword)
		}
		if version == 1 {
			return d.errorAt(at(keyword), "%s belongs to a version from 2 on: version 1 has none before it", keyword)
		}
	}
	if _, ok := form[downgradeKeyword]; !ok && version > 1 {
		return d.errorAt(at(versionKeyword), "%s is missing: it says how the data of version %d is made of this one's, such as {\"status\": \"data.state\"}; {} copies all fields", downgradeKeyword, version-1)
	}
	return nil
}
