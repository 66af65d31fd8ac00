package rules

import (
	"fmt"
	"maps"
	"math"
	"math/big"
	"reflect"
	"slices"
	"strconv"

	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"

	"github.com/tidings-dev/tidings/pkg/platform"
)

// fields are named values: an item's attributes, or those of a map in it.
type fields interface {
	Value(name string) any
	Names() []string
}

// record is a map of attributes in CEL. A missing attribute is null, like one that is
// NULL, so that rules need no presence tests. Attributes are converted when they are read:
// lists, maps and bytes once, because an expression can read them in a loop.
type record struct {
	of    fields
	known map[string]ref.Val // lists, maps and bytes that were read
}

// value returns an attribute's value, null if it is missing.
func (r *record) value(name string) ref.Val {
	if v, ok := r.known[name]; ok {
		return v
	}
	v := valueOf(r.of.Value(name))
	switch v.(type) {
	case traits.Lister, traits.Mapper, types.Bytes:
		if r.known == nil {
			r.known = map[string]ref.Val{}
		}
		r.known[name] = v
	}
	return v
}

// none is the item that did not exist before an insertion, or does not after a removal.
type none struct{}

func (none) Value(string) any { return nil }
func (none) Names() []string  { return nil }

// nested is a map in an item.
type nested map[string]any

func (n nested) Value(name string) any { return n[name] }
func (n nested) Names() []string       { return slices.Collect(maps.Keys(n)) }

// itemOf returns an image as a map.
func itemOf(image platform.Image) *record {
	if image == nil {
		return &record{of: none{}}
	}
	return &record{of: image}
}

// Find implements traits.Mapper.
func (r *record) Find(key ref.Val) (ref.Val, bool) {
	name, ok := key.(types.String)
	if !ok {
		return failed("attributes have names: a key must be a string"), false
	}
	return r.value(string(name)), true
}

// Get implements traits.Indexer.
func (r *record) Get(key ref.Val) ref.Val {
	value, _ := r.Find(key)
	return value
}

// Contains implements traits.Container.
func (r *record) Contains(key ref.Val) ref.Val {
	value, ok := r.Find(key)
	if !ok {
		return value
	}
	return types.Bool(value != types.NullValue)
}

// Size implements traits.Sizer.
func (r *record) Size() ref.Val { return types.Int(len(r.of.Names())) }

// Iterator implements traits.Iterable. The order of the names is theirs.
func (r *record) Iterator() traits.Iterator {
	names := slices.Sorted(slices.Values(r.of.Names()))
	return types.NewStringList(types.DefaultTypeAdapter, names).Iterator()
}

// ConvertToNative implements ref.Val.
func (r *record) ConvertToNative(to reflect.Type) (any, error) {
	return nil, fmt.Errorf("a map of attributes cannot be converted to %s", to)
}

// ConvertToType implements ref.Val.
func (r *record) ConvertToType(to ref.Type) ref.Val {
	switch to {
	case types.MapType:
		return r
	case types.TypeType:
		return types.MapType
	}
	return failed("a map cannot be converted to %s", to.TypeName())
}

// Equal implements ref.Val.
func (r *record) Equal(other ref.Val) ref.Val {
	m, ok := other.(traits.Mapper)
	if !ok || m.Size() != r.Size() {
		return types.False
	}
	for _, name := range r.of.Names() {
		value, found := m.Find(types.String(name))
		if !found || types.Equal(r.value(name), value) != types.True {
			return types.False
		}
	}
	return types.True
}

// Type implements ref.Val.
func (r *record) Type() ref.Type { return types.MapType }

// Value implements ref.Val.
func (r *record) Value() any { return r.of }

// valueOf returns an attribute's value in CEL.
func valueOf(value any) ref.Val {
	switch v := value.(type) {
	case string:
		return types.String(v)
	case platform.Number:
		return numberOf(string(v))
	case bool:
		return types.Bool(v)
	case []byte:
		return types.Bytes(v)
	case map[string]any:
		return &record{of: nested(v)}
	case []any:
		all := make([]ref.Val, len(v))
		for n, one := range v {
			all[n] = valueOf(one)
		}
		return types.NewRefValList(types.DefaultTypeAdapter, all)
	}
	return types.NullValue
}

// numberOf returns a number: an int or a double if that has the very digits, otherwise a
// decimal.
func numberOf(text string) ref.Val {
	if n, err := strconv.ParseInt(text, 10, 64); err == nil && strconv.FormatInt(n, 10) == text {
		return types.Int(n)
	}
	if f, err := strconv.ParseFloat(text, 64); err == nil && isPlain(f) && formatDouble(f) == text {
		return types.Double(f)
	}
	return decimal(text)
}

// isPlain reports whether JSON's usual form of a number has no exponent.
func isPlain(f float64) bool { return f == 0 || math.Abs(f) >= 1e-6 && math.Abs(f) < 1e21 }

func formatDouble(f float64) string { return strconv.FormatFloat(f, 'f', -1, 64) }

// decimal is a number that neither an int nor a double holds exactly: DynamoDB's have up to
// 38 digits. It can be compared and put into data, where it keeps its digits; double()
// and int() convert it for calculations.
type decimal string

var decimalType = types.NewObjectType("decimal", traits.ComparerType)

// Compare implements traits.Comparer.
func (d decimal) Compare(other ref.Val) ref.Val {
	var text string
	switch o := other.(type) {
	case decimal:
		text = string(o)
	case types.Int:
		text = strconv.FormatInt(int64(o), 10)
	case types.Uint:
		text = strconv.FormatUint(uint64(o), 10)
	case types.Double:
		text = formatDouble(float64(o))
	default:
		return types.MaybeNoSuchOverloadErr(other)
	}
	a, okA := parseDecimal(string(d))
	b, okB := parseDecimal(text)
	if !okA || !okB {
		return failed("not a number")
	}
	return types.Int(a.Cmp(b))
}

// parseDecimal keeps more digits than DynamoDB's numbers have. Unlike a big.Rat, its time
// does not depend on the exponent.
func parseDecimal(text string) (*big.Float, bool) {
	f, _, err := big.ParseFloat(text, 10, 192, big.ToNearestEven)
	return f, err == nil
}

// ConvertToNative implements ref.Val.
func (d decimal) ConvertToNative(to reflect.Type) (any, error) {
	return nil, fmt.Errorf("a decimal number cannot be converted to %s", to)
}

// ConvertToType implements ref.Val.
func (d decimal) ConvertToType(to ref.Type) ref.Val {
	switch to {
	case types.StringType:
		return types.String(d)
	case types.DoubleType:
		if f, err := strconv.ParseFloat(string(d), 64); err == nil {
			return types.Double(f)
		}
	case types.IntType:
		if f, ok := parseDecimal(string(d)); ok {
			if n, _ := f.Int64(); n != math.MaxInt64 && n != math.MinInt64 { // out of range
				return types.Int(n)
			}
		}
	case decimalType:
		return d
	case types.TypeType:
		return decimalType
	}
	return failed("the number cannot be converted to %s", to.TypeName())
}

// Equal implements ref.Val.
func (d decimal) Equal(other ref.Val) ref.Val {
	return types.Bool(d.Compare(other) == types.IntZero)
}

// Type implements ref.Val.
func (d decimal) Type() ref.Type { return decimalType }

// Value implements ref.Val.
func (d decimal) Value() any { return string(d) }
