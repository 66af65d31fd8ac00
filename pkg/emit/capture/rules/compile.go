package rules

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"

	"github.com/tidings-dev/tidings/pkg/platform"
)

// Limits of an expression. Costs are CEL's: about one for each operation, each element
// that is visited, and each ten bytes of text that are read.
const (
	MaxExpressionBytes = 4096
	MaxCost            = 1_000_000
	// maxChangeCost is the maximum cost of all expressions for one change, as far as their
	// costs are counted.
	maxChangeCost = 5 * MaxCost
	maxLoops      = 2  // macros within macros, such as exists in map
	maxDepth      = 50 // levels of parentheses and calls
	// maxValueBytes bounds the value of a let, from which others can be built: an item of
	// DynamoDB's has at most as many.
	maxValueBytes = 400 << 10
	// untracked is the highest estimate of an expression's cost for which the costs are not
	// counted while it runs.
	untracked = 100_000
)

// The variables of expressions.
const (
	varChange   = "change"
	varOld      = "old"
	varNew      = "new"
	varItem     = "item"
	varByTTL    = "by_ttl"
	varTable    = "table"
	varRecorded = "recorded"
)

var operations = map[platform.Operation]types.String{platform.Insert: "insert", platform.Modify: "modify", platform.Remove: "remove"}

// baseEnv returns CEL's standard environment with the rules' variables and functions.
var baseEnv = sync.OnceValues(func() (*cel.Env, error) {
	item := cel.MapType(cel.StringType, cel.DynType)
	options := []cel.EnvOption{
		cel.StdLib(), cel.ClearMacros(), cel.Macros(macros()...), // in this order: StdLib brings macros
		cel.ParserExpressionSizeLimit(MaxExpressionBytes), cel.ParserRecursionLimit(maxDepth), cel.ParserErrorRecoveryLimit(4),
		cel.CrossTypeNumericComparisons(true), cel.DefaultUTCTimeZone(true),
		cel.ASTValidators(cel.ValidateDurationLiterals(), cel.ValidateTimestampLiterals(), cel.ValidateRegexLiterals(), cel.ValidateComprehensionNestingLimit(maxLoops)),
		cel.Variable(varChange, cel.StringType), cel.Variable(varOld, item), cel.Variable(varNew, item), cel.Variable(varItem, item),
		cel.Variable(varByTTL, cel.BoolType), cel.Variable(varTable, cel.StringType), cel.Variable(varRecorded, cel.TimestampType),
	}
	return cel.NewCustomEnv(append(options, functions()...)...)
})

// expression is a compiled expression.
type expression struct {
	text    string
	program cel.Program
	ast     *cel.Ast
	// constant is the value of an expression that is a literal; nil for any other.
	constant ref.Val
}

// let is a named expression that others of its rule use. It is evaluated at most once for
// each change, and only if it is used.
type let struct {
	name string
	expression
}

// expressionProblem is what is wrong with an expression, at a place in it.
type expressionProblem struct {
	line, column int // starting at 1 and 0
	message      string
}

// compile compiles an expression whose result has one of the types; any if there are none.
func compile(env *cel.Env, text string, results ...*cel.Type) (expression, []expressionProblem) {
	fail := func(format string, args ...any) (expression, []expressionProblem) {
		return expression{}, []expressionProblem{{1, 0, fmt.Sprintf(format, args...)}}
	}
	switch {
	case strings.TrimSpace(text) == "":
		return fail("the expression is empty")
	case len(text) > MaxExpressionBytes:
		return fail("the expression has %d bytes; the maximum is %d", len(text), MaxExpressionBytes)
	}
	checked, issues := env.Compile(text)
	if issues.Err() != nil {
		var problems []expressionProblem
		for _, e := range issues.Errors() {
			message, _, _ := strings.Cut(e.Message, "\n")
			problems = append(problems, expressionProblem{max(e.Location.Line(), 1), max(e.Location.Column(), 0), message})
		}
		return expression{}, problems
	}
	if !isOneOf(checked.OutputType(), results) {
		return fail("the result is a %s; it must be a %s", checked.OutputType(), results[0])
	}
	estimate, err := env.EstimateCost(checked, costs{})
	if err != nil {
		return fail("its cost cannot be estimated: %s", err)
	}
	if estimate.Min > MaxCost {
		return fail("the expression is too costly: at least %d; the maximum is %d", estimate.Min, MaxCost)
	}
	options := []cel.ProgramOption{cel.EvalOptions(cel.OptOptimize)}
	if estimate.Max > untracked {
		options = append(options, cel.CostLimit(MaxCost), cel.CostTracking(costs{}))
	}
	program, err := env.Program(checked, options...)
	if err != nil {
		return fail("%s", err)
	}
	e := expression{text: text, program: program, ast: checked}
	if root := checked.NativeRep().Expr(); root.Kind() == ast.LiteralKind {
		e.constant = root.AsLiteral()
	}
	return e, nil
}

func isOneOf(t *cel.Type, types []*cel.Type) bool {
	for _, one := range types {
		if one.IsAssignableType(t) || t.IsExactType(cel.DynType) {
			return true
		}
	}
	return len(types) == 0
}

// evaluation is the evaluation of rules for one change. It implements cel.Activation.
type evaluation struct {
	change   platform.Change
	table    string
	recorded time.Time
	old, new *record
	item     *record
	rule     *rule
	lets     []ref.Val // of the rule; nil for those that were not used yet
	cost     uint64    // of the expressions so far whose cost is counted
}

func newEvaluation(c platform.Change) *evaluation {
	on := &evaluation{change: c, table: c.Table(), recorded: c.At.UTC(), old: itemOf(c.Old), new: itemOf(c.New)}
	on.item = on.new
	if c.New == nil {
		on.item = on.old
	}
	return on
}

// begin begins with a rule.
func (on *evaluation) begin(r *rule) {
	on.rule = r
	if on.lets = nil; len(r.lets) > 0 {
		on.lets = make([]ref.Val, len(r.lets))
	}
}

// Parent implements cel.Activation.
func (*evaluation) Parent() cel.Activation { return nil }

// ResolveName implements cel.Activation.
func (on *evaluation) ResolveName(name string) (any, bool) {
	switch name {
	case varChange:
		return operations[on.change.Operation], true
	case varOld:
		return on.old, true
	case varNew:
		return on.new, true
	case varItem:
		return on.item, true
	case varByTTL:
		return types.Bool(on.change.ByTTL), true
	case varTable:
		return types.String(on.table), true
	case varRecorded:
		return types.Timestamp{Time: on.recorded}, true
	}
	for n := range on.rule.lets {
		if one := &on.rule.lets[n]; one.name == name {
			if on.lets[n] == nil {
				on.lets[n] = on.letValue(one)
			}
			return on.lets[n], true
		}
	}
	return nil, false
}

func (on *evaluation) letValue(l *let) ref.Val {
	value := on.run(&l.expression)
	if bytesOf(value, maxValueBytes) < 0 {
		return failed("the value of %q is larger than %d bytes", l.name, maxValueBytes)
	}
	return value
}

// run evaluates an expression. The result can be a *types.Err.
func (on *evaluation) run(e *expression) ref.Val {
	if e.constant != nil {
		return e.constant
	}
	if on.cost > maxChangeCost {
		return failed("the rules are too costly for this change")
	}
	value, details, err := e.program.Eval(on)
	if cost := details.ActualCost(); cost != nil {
		on.cost += *cost
	}
	if err != nil {
		return types.WrapErr(safe(err))
	}
	return value
}

// value evaluates an expression of the rule. part names it in the error.
func (on *evaluation) value(part string, e *expression) (ref.Val, error) {
	value := on.run(e)
	if err, isErr := value.(*types.Err); isErr {
		return nil, on.fail(part, e, err)
	}
	return value, nil
}

func (on *evaluation) fail(part string, e *expression, err error) error {
	return &EvaluationError{Rule: on.rule.Rule, Part: part, Expression: e.text, Err: safe(err)}
}

// condition tells, without CEL, whether an expression can be true. It is exact where it says
// no: CEL's && is false if an operand is, even if another one fails.
type condition func(*evaluation) bool

// conditionOf returns an expression's condition, nil if none is known. isWhole means that
// the condition is the expression's value.
func conditionOf(e ast.Expr) (c condition, isWhole bool) {
	if e.Kind() != ast.CallKind {
		return nil, false
	}
	name := e.AsCall().FunctionName()
	if name != operators.LogicalAnd && name != operators.LogicalOr {
		c = simpleCondition(e)
		return c, c != nil
	}
	var known []condition
	isWhole = true
	for _, operand := range e.AsCall().Args() {
		one, whole := conditionOf(operand)
		isWhole = isWhole && whole
		if one != nil {
			known = append(known, one)
		} else if name == operators.LogicalOr {
			return nil, false
		}
	}
	wanted := name == operators.LogicalOr
	if len(known) == 0 {
		return nil, false
	}
	return func(on *evaluation) bool {
		for _, one := range known {
			if one(on) == wanted {
				return wanted
			}
		}
		return !wanted
	}, isWhole
}

func simpleCondition(e ast.Expr) condition {
	call := e.AsCall()
	args := call.Args()
	switch name := call.FunctionName(); {
	case name == operators.LogicalNot && isVariable(args[0], varByTTL):
		return func(on *evaluation) bool { return !on.change.ByTTL }
	case name == operators.Equals && isText(args[1]):
		return equals(args[0], textIn(args[1]))
	case name == operators.Equals && isText(args[0]):
		return equals(args[1], textIn(args[0]))
	case name == operators.In && isVariable(args[0], varChange) && args[1].Kind() == ast.ListKind:
		var values []string
		for _, one := range args[1].AsList().Elements() {
			if !isText(one) {
				return nil
			}
			values = append(values, textIn(one))
		}
		return func(on *evaluation) bool {
			return slices.Contains(values, string(operations[on.change.Operation]))
		}
	case name == operators.NotEquals:
		return differs(args[0], args[1])
	}
	return nil
}

// equals is the condition that the change or an attribute is a text.
func equals(e ast.Expr, text string) condition {
	if isVariable(e, varChange) {
		return func(on *evaluation) bool { return string(operations[on.change.Operation]) == text }
	}
	root, name, ok := attributeIn(e)
	if !ok {
		return nil
	}
	return func(on *evaluation) bool {
		image := on.image(root)
		if text == "" { // Text returns "" for what is no text, too
			return image != nil && image.Value(name) == ""
		}
		return image != nil && image.Text(name) == text
	}
}

// differs is the condition that two attributes are not equal. It is false where they are
// the same text; all else is left to CEL.
func differs(a, b ast.Expr) condition {
	rootA, nameA, okA := attributeIn(a)
	rootB, nameB, okB := attributeIn(b)
	if !okA || !okB {
		return nil
	}
	return func(on *evaluation) bool {
		return types.Equal(on.attribute(rootA, nameA), on.attribute(rootB, nameB)) != types.True
	}
}

func (on *evaluation) image(root string) platform.Image {
	switch {
	case root == varOld || root == varItem && on.change.New == nil:
		return on.change.Old
	default:
		return on.change.New
	}
}

func (on *evaluation) attribute(root, name string) ref.Val {
	switch root {
	case varOld:
		return on.old.value(name)
	case varNew:
		return on.new.value(name)
	}
	return on.item.value(name)
}

func isVariable(e ast.Expr, name string) bool {
	return e.Kind() == ast.IdentKind && e.AsIdent() == name
}

func isText(e ast.Expr) bool {
	if e.Kind() != ast.LiteralKind {
		return false
	}
	_, ok := e.AsLiteral().(types.String)
	return ok
}

func textIn(e ast.Expr) string {
	text, _ := e.AsLiteral().(types.String)
	return string(text)
}

// attributeIn returns the item and the attribute's name, if an expression only reads one.
func attributeIn(e ast.Expr) (root, name string, ok bool) {
	if e.Kind() != ast.SelectKind || e.AsSelect().IsTestOnly() {
		return "", "", false
	}
	operand := e.AsSelect().Operand()
	for _, root := range []string{varOld, varNew, varItem} {
		if isVariable(operand, root) {
			return root, e.AsSelect().FieldName(), true
		}
	}
	return "", "", false
}

// names reports whether an expression uses a variable, itself or by one of its lets.
func names(e ast.Expr, variable string, lets []let) bool {
	found := false
	ast.PreOrderVisit(e, ast.NewExprVisitor(func(e ast.Expr) {
		if e.Kind() != ast.IdentKind || found {
			return
		}
		if found = e.AsIdent() == variable; found {
			return
		}
		for n, l := range lets {
			if l.name == e.AsIdent() {
				found = names(l.ast.NativeRep().Expr(), variable, lets[:n])
			}
		}
	}))
	return found
}
