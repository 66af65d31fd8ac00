package rules

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
	"cel.dev/cel-go/parser"

	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/platform"
)

// reason is an error whose text contains no values, so that it can be shown.
type reason struct{ text string }

func (p *reason) Error() string { return p.text }

func failed(format string, args ...any) ref.Val {
	return types.WrapErr(&reason{fmt.Sprintf(format, args...)})
}

// functions are those that rules have beyond CEL's. Those that read a text take a string
// or a number and return "" for anything else, as platforms write ids as both.
func functions() []cel.EnvOption {
	return []cel.EnvOption{
		// Texts.
		unary("text", cel.StringType, func(v ref.Val) ref.Val { return types.String(textOf(v)) }),
		unary("label", cel.StringType, func(v ref.Val) ref.Val { return types.String(label(textOf(v))) }),
		cel.Function("cut", cel.Overload("cut_dyn_int", []*cel.Type{cel.DynType, cel.IntType}, cel.StringType, cel.BinaryBinding(func(v, limit ref.Val) ref.Val {
			n, ok := limit.(types.Int)
			if !ok || n < 1 {
				return failed("the number of characters must be at least 1")
			}
			return types.String(cut(textOf(v), int(min(n, event.MaxBodyBytes))))
		}))),
		unary("email", cel.StringType, func(v ref.Val) ref.Val { return types.String(address(textOf(v))) }),
		unary("trim", cel.StringType, func(v ref.Val) ref.Val { return types.String(strings.TrimSpace(textOf(v))) }),
		unary("lower", cel.StringType, func(v ref.Val) ref.Val { return types.String(strings.ToLower(textOf(v))) }),
		// Ids.
		named("id", cel.StringType, func(v ref.Val, name string) ref.Val { return mustID(v, name, false) }),
		named("status", cel.StringType, func(v ref.Val, name string) ref.Val { return mustID(v, name, true) }),
		named("tenant", cel.StringType, func(v ref.Val, name string) ref.Val {
			if v == types.NullValue || v == types.String("") {
				return types.String(event.DefaultTenant)
			}
			return mustID(v, name, false)
		}),
		unary("optional_id", cel.StringType, func(v ref.Val) ref.Val { return types.String(optionalID(textOf(v))) }),
		unary("actor_id", cel.StringType, func(v ref.Val) ref.Val { return types.String(actorID(textOf(v))) }),
		// Numbers, booleans and times.
		unary("number", cel.DynType, func(v ref.Val) ref.Val {
			if n := number(textOf(v)); n != "" {
				return numberOf(string(n))
			}
			return types.NullValue
		}),
		unary("yes", cel.BoolType, func(v ref.Val) ref.Val {
			if b, ok := v.(types.Bool); ok {
				return b
			}
			text := strings.ToLower(textOf(v))
			return types.Bool(text == "true" || text == "1" || text == "yes")
		}),
		unary("time", cel.DynType, timeOf),
		named("end_time", cel.DynType, func(v ref.Val, name string) ref.Val {
			at := timeOf(v)
			if text := textOf(v); at == types.NullValue && v != types.NullValue && text != "0" && v != types.String("") {
				return failed("attribute %q is not a time", name)
			}
			return at
		}),
		cel.Function("before", cel.Overload("before_dyn_dyn", []*cel.Type{cel.DynType, cel.DynType}, cel.BoolType, cel.BinaryBinding(func(a, b ref.Val) ref.Val {
			first, ok := a.(types.Timestamp)
			second, also := b.(types.Timestamp)
			return types.Bool(ok && also && first.Time.Before(second.Time))
		}))),
		conversion("double", types.DoubleType), conversion("int", types.IntType), conversion("string", types.StringType),
		// Choice.
		unary("first", cel.DynType, func(v ref.Val) ref.Val {
			list, ok := v.(traits.Lister)
			if !ok {
				return failed("first takes a list")
			}
			for it := list.Iterator(); it.HasNext() == types.True; {
				if one := it.Next(); !isEmpty(one) {
					return one
				}
			}
			return types.NullValue
		}),
	}
}

func unary(name string, result *cel.Type, do func(ref.Val) ref.Val) cel.EnvOption {
	return cel.Function(name, cel.Overload(name+"_dyn", []*cel.Type{cel.DynType}, result, cel.UnaryBinding(do)))
}

// conversion lets one of CEL's conversions take a decimal.
func conversion(name string, to *types.Type) cel.EnvOption {
	return cel.Function(name, cel.Overload("decimal_to_"+name, []*cel.Type{decimalType}, to, cel.UnaryBinding(func(v ref.Val) ref.Val { return v.ConvertToType(to) })))
}

// named declares a function whose errors name the attribute. The macro of the same name
// adds the name to its argument.
func named(name string, result *cel.Type, do func(v ref.Val, name string) ref.Val) cel.EnvOption {
	return cel.Function(name, cel.Overload(name+"_dyn_string", []*cel.Type{cel.DynType, cel.StringType}, result, cel.BinaryBinding(func(v, attribute ref.Val) ref.Val {
		return do(v, textOf(attribute))
	})))
}

// macros are those of CEL, less the ones that only serve to nest, and the rules' own.
func macros() []parser.Macro {
	all := []parser.Macro{
		parser.AllMacro, parser.ExistsMacro, parser.ExistsOneMacro, parser.MapMacro, parser.MapFilterMacro, parser.FilterMacro,
		parser.NewGlobalMacro("has", 1, expandHas),
	}
	for _, name := range []string{"id", "status", "tenant", "end_time"} {
		all = append(all, parser.NewGlobalMacro(name, 1, func(h parser.ExprHelper, _ ast.Expr, args []ast.Expr) (ast.Expr, *common.Error) {
			return h.NewCall(name, args[0], h.NewLiteral(types.String(attributeName(args[0])))), nil
		}))
	}
	return all
}

// attributeName returns the name of the attribute that an expression reads.
func attributeName(e ast.Expr) string {
	switch e.Kind() {
	case ast.SelectKind:
		return e.AsSelect().FieldName()
	case ast.IdentKind:
		return e.AsIdent()
	case ast.CallKind:
		if args := e.AsCall().Args(); len(args) > 0 {
			return attributeName(args[0])
		}
	}
	return "value"
}

// expandHas makes has(new.a.b) of new.a != null && new.a.b != null: here a missing
// attribute is null.
func expandHas(h parser.ExprHelper, _ ast.Expr, args []ast.Expr) (ast.Expr, *common.Error) {
	e := args[0]
	if e.Kind() != ast.SelectKind {
		return nil, h.NewError(e.ID(), "has takes an attribute, such as has(new.status)")
	}
	var all ast.Expr
	for ; e.Kind() == ast.SelectKind; e = e.AsSelect().Operand() {
		there := h.NewCall(operators.NotEquals, h.Copy(e), h.NewLiteral(types.NullValue))
		if all == nil {
			all = there
		} else {
			all = h.NewCall(operators.LogicalAnd, there, all)
		}
	}
	return all, nil
}

// textOf returns the text of a string or a number, "" for anything else.
func textOf(v ref.Val) string {
	switch v := v.(type) {
	case types.String:
		return string(v)
	case types.Double:
		return formatDouble(float64(v))
	case types.Int:
		return strconv.FormatInt(int64(v), 10)
	case types.Uint:
		return strconv.FormatUint(uint64(v), 10)
	case decimal:
		return string(v)
	}
	return ""
}

// mustID returns an identifier; an error if it has none.
func mustID(v ref.Val, name string, isText bool) ref.Val {
	switch v := v.(type) {
	case types.Null:
		return failed("attribute %q is missing", name)
	case types.String:
		if v == "" {
			return failed("attribute %q is empty", name)
		}
		return v
	case types.Int, types.Uint, types.Double, decimal:
		if !isText {
			return types.String(textOf(v))
		}
	}
	return failed("attribute %q is not a string", name)
}

// timeOf returns the time that a value states, null if it states none.
func timeOf(v ref.Val) ref.Val {
	if at, ok := v.(types.Timestamp); ok {
		return at
	}
	if at, ok := platform.ParseTime(textOf(v)); ok {
		return types.Timestamp{Time: at}
	}
	return types.NullValue
}

// formatTime formats a time for events' data.
func formatTime(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z07:00") }

// isEmpty reports whether a value is null or an empty text.
func isEmpty(v ref.Val) bool { return v == types.NullValue || v == types.String("") }

// safe returns an error of CEL's without the values that it may contain.
func safe(err error) error {
	var own *reason
	if errors.As(err, &own) {
		return own
	}
	text := err.Error()
	for _, known := range []struct{ part, message string }{
		{"no such overload", "an operator or a function does not take a value of this type (a missing attribute is null)"},
		{"iterable", "an operator or a function does not take a value of this type (a missing attribute is null)"},
		{"no such key", "a map has no such key (a missing attribute is null, and null has no keys)"},
		{"index out of", "a list has no such index"},
		{"cost limit", "it is too costly for this change"},
		{"division by zero", "division by zero"},
		{"modulus by zero", "division by zero"},
		{"overflow", "a number overflows"},
		{"range", "a number or a time is out of range"},
	} {
		if strings.Contains(text, known.part) {
			return &reason{known.message}
		}
	}
	return &reason{"a value cannot be converted"}
}
