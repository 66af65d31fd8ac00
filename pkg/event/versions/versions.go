package versions

import (
	jsonv1 "encoding/json"
	"errors"
	"fmt"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/event/catalog"
	"github.com/tidings-dev/tidings/pkg/event/validate"
)

// pair is the mappings of a version to and from the one before; an error if they do not
// compile.
type pair struct {
	downgrade, upgrade *mapping // upgrade is nil if the definition has none
	err                error
}

type pairKey struct{}

// mappings returns the mappings of a version that has one before it. They are compiled once.
func mappings(before, t catalog.Type) (*pair, error) {
	p := t.Derive(pairKey{}, func(t catalog.Type) any { return compilePair(before, t) }).(*pair)
	return p, p.err
}

func compilePair(before, t catalog.Type) *pair {
	p := &pair{}
	if p.downgrade, p.err = compile(t.Downgrade, before); p.err == nil && t.Upgrade != nil {
		p.upgrade, p.err = compile(t.Upgrade, t)
	}
	return p
}

// Made is an event's data in all versions of its type.
type Made struct {
	Version int               // the newest
	Data    jsonv1.RawMessage // of the newest version
	// Stored is the versions as event.Accepted has them; nil if the type has one.
	Stored []byte
}

// UnknownVersionError says that a type does not have a version, or that the newest cannot
// be made of it.
type UnknownVersionError struct{ text string }

func (e *UnknownVersionError) Error() string { return e.text }

// MappingError says that data conforms to its version of a type, and that another version
// cannot be made of it.
type MappingError struct {
	Type    string
	Version int // the one that cannot be made
	Err     error
}

func (e *MappingError) Error() string {
	return fmt.Sprintf("%s: version %d cannot be made of this data: %s", e.Type, e.Version, e.Err)
}

func (e *MappingError) Unwrap() error { return e.Err }

// Make checks data that was published as a version of its type, and makes it in every
// version. A given of 0 means the newest version to whose schema the data conforms: those
// from which the newest can be made. The errors are those of Validate,
// *UnknownVersionError and *MappingError.
func Make(types *validate.Catalog, name string, given int, data jsonv1.RawMessage) (Made, error) {
	list := types.Versions(name)
	if len(list) < 2 {
		if len(list) == 1 && given != 0 && given != list[0].Version {
			return Made{}, &UnknownVersionError{fmt.Sprintf("%s has no version %d; it has version %d", name, given, list[0].Version)}
		}
		if len(list) == 0 && given > 1 && types.Allows(name) {
			return Made{}, &UnknownVersionError{fmt.Sprintf("%s has no definition, and so no version %d", name, given)}
		}
		made := Made{Data: data}
		if len(list) == 1 {
			made.Version = list[0].Version
		}
		return made, types.Validate(name, data)
	}
	from, err := published(types, list, given, data)
	if err != nil {
		return Made{}, err
	}
	made, err := makeFrom(types, list, from, data)
	if given != 0 {
		return made, err
	}
	// The data of a publisher that does not know the newest version yet can conform to it.
	for older := from; older > 0 && errors.As(err, new(*MappingError)) && list[older].Upgrade != nil; {
		if older--; types.ValidateVersion(list[older], data) == nil {
			if other, failed := makeFrom(types, list, older, data); failed == nil {
				return other, nil
			}
		}
	}
	return made, err
}

// makeFrom makes the data of every version from that of the one at a place in list.
func makeFrom(types *validate.Catalog, list []catalog.Type, from int, data jsonv1.RawMessage) (made Made, err error) {
	name := list[from].Name
	all := make([]jsonv1.RawMessage, len(list)) // by place in list
	all[from] = data
	step := func(to int, apply *mapping, of int) error {
		failed := func(err error) error { return &MappingError{name, list[to].Version, err} }
		if all[to], err = apply.apply(all[of]); err != nil {
			return failed(err)
		}
		if err := types.ValidateVersion(list[to], all[to]); err != nil {
			return failed(err)
		}
		return nil
	}
	for to := from + 1; to < len(list); to++ {
		p, err := mappings(list[to-1], list[to])
		if err != nil {
			return Made{}, &validate.SchemaError{Type: list[to].Label(), Err: err}
		}
		if err := step(to, p.upgrade, to-1); err != nil {
			return Made{}, err
		}
	}
	for to := from - 1; to >= 0; to-- {
		p, err := mappings(list[to], list[to+1])
		if err != nil {
			return Made{}, &validate.SchemaError{Type: list[to+1].Label(), Err: err}
		}
		if err := step(to, p.downgrade, to+1); err != nil {
			return Made{}, err
		}
	}
	return stored(list, all)
}

// published returns the place in list of the version as which data is published.
func published(types *validate.Catalog, list []catalog.Type, given int, data jsonv1.RawMessage) (int, error) {
	newest := len(list) - 1
	from := newest
	if given != 0 {
		if from = given - list[0].Version; from < 0 || from > newest {
			return 0, &UnknownVersionError{fmt.Sprintf("%s has no version %d; it has the versions %d to %d", list[0].Name, given, list[0].Version, list[newest].Version)}
		}
		for _, above := range list[from+1:] {
			if above.Upgrade == nil {
				return 0, &UnknownVersionError{fmt.Sprintf("%s is published as version %d now: the definition of version %d has no x-upgrade, which would make it of version %d", list[0].Name, list[newest].Version, above.Version, above.Version-1)}
			}
		}
		return from, types.ValidateVersion(list[from], data)
	}
	err := types.ValidateVersion(list[newest], data)
	if err == nil {
		return newest, nil
	}
	var invalid *validate.InvalidDataError
	if !errors.As(err, &invalid) {
		return 0, err
	}
	// A publisher that does not know the newest version yet.
	for from > 0 && list[from].Upgrade != nil {
		from--
		if types.ValidateVersion(list[from], data) == nil {
			return from, nil
		}
	}
	return 0, err
}

func stored(list []catalog.Type, all []jsonv1.RawMessage) (Made, error) {
	newest := len(list) - 1
	made := Made{Version: list[newest].Version, Data: all[newest]}
	versions := make([]event.Version, 0, len(list))
	size := 0
	for i := newest; i >= 0; i-- {
		v := event.Version{Number: list[i].Version, Since: list[i].AddedAt}
		if i != newest {
			v.Data = all[i]
		}
		size += len(all[i])
		versions = append(versions, v)
	}
	if size > event.MaxVersionsBytes {
		return Made{}, &event.TooLargeError{Bytes: size, Versions: len(list)}
	}
	text, err := event.EncodeVersions(versions)
	made.Stored = text
	return made, err
}

// Check reports why a version cannot be used beside the version before it: a mapping does
// not compile, or does not make data of an example. before is nil if it is not known; then
// only the expressions are checked. The error is a *catalog.DefinitionError.
func Check(before *catalog.Type, t catalog.Type) error {
	if t.Version < 2 {
		return nil
	}
	other := t // its own fields stand for those of a version that is not known
	if before != nil {
		other = *before
	}
	for _, one := range []struct {
		keyword  string
		rules    catalog.Mapping
		from, to catalog.Type
	}{{"x-downgrade", t.Downgrade, t, other}, {"x-upgrade", t.Upgrade, other, t}} {
		if one.rules == nil {
			continue
		}
		compiled, err := compile(one.rules, one.to)
		if err != nil {
			return wrong(t, one.keyword, err)
		}
		if before == nil {
			continue
		}
		known, err := catalog.New([]catalog.Type{*before, t})
		if err != nil {
			return catalog.At(t.Schema, "/x-version", "%s", err)
		}
		types := validate.New(known)
		if err := distinct(types, *before, t, one.keyword, compiled); err != nil {
			return err
		}
		for i, sample := range one.from.Samples {
			made, err := compiled.apply(sample)
			if err == nil {
				err = types.ValidateVersion(one.to, made)
			}
			if err != nil {
				return wrong(t, one.keyword, fmt.Errorf("of example %d of version %d: %w", i+1, one.from.Version, err))
			}
		}
	}
	return nil
}

// distinct refuses a version that accepts an example of the version before and gives it back
// as something else: an old publisher's data would be taken for the new version's.
func distinct(types *validate.Catalog, before, t catalog.Type, keyword string, downgrade *mapping) error {
	if keyword != "x-downgrade" {
		return nil
	}
	for i, sample := range before.Samples {
		if types.ValidateVersion(t, sample) != nil {
			continue
		}
		back, err := downgrade.apply(sample)
		was, is := jsontext.Value(sample).Clone(), jsontext.Value(back)
		if err == nil {
			err = errors.Join(was.Canonicalize(), is.Canonicalize())
		}
		if err != nil || string(was) != string(is) {
			return catalog.At(t.Schema, "/x-version", "example %d of version %d conforms to version %d, too, and would not reach the endpoints of version %d as it is: close the schema (additionalProperties: false), or require a new field", i+1, before.Version, t.Version, before.Version)
		}
	}
	return nil
}

// wrong returns an error at the keyword of a mapping, or at the field that it names.
func wrong(t catalog.Type, keyword string, err error) error {
	at := jsontext.Pointer("").AppendToken(keyword)
	var field *FieldError
	if errors.As(err, &field) && field.Field != "" {
		at = at.AppendToken(field.Field)
	}
	return catalog.At(t.Schema, string(at), "%s: %s", keyword, err)
}
