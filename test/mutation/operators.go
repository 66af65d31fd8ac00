package main

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/format"
	"go/parser"
	"go/token"
	"slices"
	"strings"
)

// mutant is one change of the source.
type mutant struct {
	id       int
	file     string // relative to the repository
	line     int
	operator string
	source   string // the line
}

func (m mutant) String() string {
	return fmt.Sprintf("%s:%d: %s: %s", m.file, m.line, m.operator, m.source)
}

// name is what survivors.list calls it. It does not change when other lines do.
func (m mutant) name() string { return m.file + ": " + m.operator + ": " + m.source }

// change replaces a piece of the source by one that behaves as before unless its mutant is
// switched on. Pieces nest; format applies them from the inside out.
type change struct {
	from, to int // offsets
	write    func(inside string) string
}

// instrumenter puts all mutants of one file into its source.
type instrumenter struct {
	name    string
	text    []byte
	files   *token.FileSet
	next    func() int
	changes []change
	mutants []mutant
	silent  map[ast.Node]bool // clauses that are left out
}

// instrument returns a file's source with every mutant in it, each behind a switch.
func instrument(name string, text []byte, next func() int) (string, []mutant, error) {
	in := &instrumenter{name: name, text: text, files: token.NewFileSet(), next: next, silent: map[ast.Node]bool{}}
	file, err := parser.ParseFile(in.files, name, text, parser.SkipObjectResolution)
	if err != nil {
		return "", nil, err
	}
	for _, d := range file.Decls {
		if f, ok := d.(*ast.FuncDecl); ok && f.Body != nil {
			in.body(f.Body, returnsError(f.Type))
		}
	}
	out, err := format.Source([]byte(in.render(0, len(text))))
	if err != nil {
		return "", nil, fmt.Errorf("%s with its mutants is no Go: %w", name, err)
	}
	return string(out), in.mutants, nil
}

func returnsError(f *ast.FuncType) bool {
	if f.Results == nil || len(f.Results.List) == 0 {
		return false
	}
	last, ok := f.Results.List[len(f.Results.List)-1].Type.(*ast.Ident)
	return ok && last.Name == "error"
}

// body finds the mutants of a function.
func (in *instrumenter) body(body *ast.BlockStmt, fails bool) {
	ast.Inspect(body, func(n ast.Node) bool {
		if s, ok := n.(ast.Stmt); ok && (in.reports(s) || in.silent[s]) {
			return false
		}
		switch n := n.(type) {
		case *ast.FuncLit:
			in.body(n.Body, returnsError(n.Type))
			return false
		case *ast.IfStmt:
			in.negate(n.Cond)
		case *ast.ForStmt:
			if n.Cond != nil {
				in.negate(n.Cond)
			}
		case *ast.SwitchStmt:
			if n.Tag == nil {
				in.clauses(n.Body.List)
			}
		case *ast.BinaryExpr:
			in.binary(n)
		case *ast.CallExpr:
			in.call(n)
		case *ast.BlockStmt:
			in.statements(n.List)
		case *ast.CaseClause:
			in.statements(n.Body)
		case *ast.ReturnStmt:
			if fails && len(n.Results) > 0 {
				in.result(n.Results[len(n.Results)-1])
			}
		}
		return true
	})
}

// clauses finds the mutants of the conditions of a switch without a tag. The last ones, if
// they only report, decide about nothing else.
func (in *instrumenter) clauses(list []ast.Stmt) {
	last := len(list)
	for last > 0 && !slices.ContainsFunc(list[last-1].(*ast.CaseClause).Body, func(s ast.Stmt) bool { return !in.reports(s) }) {
		last--
		in.silent[list[last]] = true
	}
	for _, clause := range list[:last] {
		for _, e := range clause.(*ast.CaseClause).List {
			in.negate(e)
		}
	}
}

func (in *instrumenter) offset(p token.Pos) int { return in.files.Position(p).Offset }

func (in *instrumenter) of(n ast.Node) string {
	return string(in.text[in.offset(n.Pos()):in.offset(n.End())])
}

// add adds a mutant of a piece of the source.
func (in *instrumenter) add(n ast.Node, operator string, write func(inside string, id int) string) {
	in.addRange(n.Pos(), n.End(), operator, write)
}

func (in *instrumenter) addRange(from, to token.Pos, operator string, write func(inside string, id int) string) {
	id, line := in.next(), in.files.Position(from).Line
	source := strings.TrimSpace(strings.Split(string(in.text), "\n")[line-1])
	in.mutants = append(in.mutants, mutant{id, in.name, line, operator, source})
	in.changes = append(in.changes, change{in.offset(from), in.offset(to), func(inside string) string { return write(inside, id) }})
}

// negate turns a condition round.
func (in *instrumenter) negate(e ast.Expr) {
	if plain(e) {
		return // turned round, it leads to a nil pointer or hides one: both say nothing
	}
	in.add(e, "condition negated", func(inside string, id int) string { return fmt.Sprintf("((%s) != mutantOn(%d))", inside, id) })
}

// plain reports whether a condition is only about an error: the result operator has it.
func plain(e ast.Expr) bool {
	b, ok := e.(*ast.BinaryExpr)
	if !ok || b.Op != token.NEQ && b.Op != token.EQL {
		return false
	}
	x, isName := b.X.(*ast.Ident)
	y, isNil := b.Y.(*ast.Ident)
	return isName && isNil && x.Name == "err" && y.Name == "nil"
}

// binary moves bounds and exchanges "and" and "or".
func (in *instrumenter) binary(e *ast.BinaryExpr) {
	x, y := in.of(e.X), in.of(e.Y)
	switch e.Op {
	case token.LSS, token.GTR:
		in.add(e, "bound moved: "+e.Op.String()+" to "+e.Op.String()+"=", func(inside string, id int) string {
			return fmt.Sprintf("(%s || mutantOn(%d) && (%s) == (%s))", inside, id, x, y)
		})
	case token.LEQ, token.GEQ:
		in.add(e, "bound moved: "+e.Op.String()+" to "+e.Op.String()[:1], func(inside string, id int) string {
			return fmt.Sprintf("(%s && !(mutantOn(%d) && (%s) == (%s)))", inside, id, x, y)
		})
	case token.LAND:
		in.add(e, "&& for ||", func(inside string, id int) string {
			return fmt.Sprintf("(%s || mutantOn(%d) && ((%s) || (%s)))", inside, id, x, y)
		})
	case token.LOR:
		in.add(e, "|| for &&", func(inside string, id int) string {
			return fmt.Sprintf("((%s) && !(mutantOn(%d) && !((%s) && (%s))))", inside, id, x, y)
		})
	}
}

// call moves bounds of times, exchanges min and max, and drops what is added to a time.
func (in *instrumenter) call(e *ast.CallExpr) {
	switch f := e.Fun.(type) {
	case *ast.SelectorExpr:
		if len(e.Args) != 1 {
			return
		}
		x, y := in.of(f.X), in.of(e.Args[0])
		if x == "time" {
			return
		}
		switch f.Sel.Name {
		case "Before", "After":
			in.add(e, "bound moved: "+f.Sel.Name+" or equal", func(inside string, id int) string {
				return fmt.Sprintf("(%s || mutantOn(%d) && (%s).Equal(%s))", inside, id, x, y)
			})
		case "Add":
			if !strings.ContainsAny(y, ".") && y != "wait" && y != "cost" && y != "limit" && y != "to" || strings.Contains(x, "WaitGroup") {
				return // a number, not a duration
			}
			in.add(e.Args[0], "nothing added", func(inside string, id int) string { return fmt.Sprintf("mutantZero(%d, %s)", id, inside) })
		}
	case *ast.Ident:
		if (f.Name == "min" || f.Name == "max") && len(e.Args) == 2 {
			other := map[string]string{"min": "max", "max": "min"}[f.Name]
			arguments := in.of(e.Args[0]) + ", " + in.of(e.Args[1])
			in.add(e, f.Name+" for "+other, func(inside string, id int) string {
				return fmt.Sprintf("mutantPick(%d, %s, %s(%s))", id, inside, other, arguments)
			})
		}
	}
}

// result swallows an error.
func (in *instrumenter) result(e ast.Expr) {
	if name, ok := e.(*ast.Ident); ok && name.Name == "nil" {
		return
	}
	if call, ok := e.(*ast.CallExpr); ok && !strings.HasPrefix(in.of(call.Fun), "fmt.Errorf") && !strings.HasPrefix(in.of(call.Fun), "errors.") {
		return // it returns more than the error, or is the work itself
	}
	in.add(e, "error swallowed", func(inside string, id int) string { return fmt.Sprintf("mutantNoError(%d, %s)", id, inside) })
}

// statements drops statements, and swaps neighbours.
func (in *instrumenter) statements(list []ast.Stmt) {
	for i, s := range list {
		if !in.moves(s) {
			continue
		}
		in.add(s, "statement dropped", func(inside string, id int) string { return fmt.Sprintf("if !mutantOn(%d) {\n%s\n}", id, inside) })
		if i+1 < len(list) && in.moves(list[i+1]) && i%2 == 0 && in.depend(s, list[i+1]) {
			a, b := in.of(s), in.of(list[i+1])
			in.addRange(s.Pos(), list[i+1].End(), "swapped with the next", func(inside string, id int) string {
				return fmt.Sprintf("if mutantOn(%d) {\n%s\n%s\n} else {\n%s\n}", id, b, a, inside)
			})
		}
	}
}

// moves reports whether a statement can be left out: a call or an assignment that declares
// nothing.
func (in *instrumenter) moves(s ast.Stmt) bool {
	if in.reports(s) {
		return false
	}
	switch s := s.(type) {
	case *ast.ExprStmt:
		call, ok := s.X.(*ast.CallExpr)
		if !ok {
			return false
		}
		name := in.of(call.Fun)
		return name != "panic" && name != "end" && !strings.HasSuffix(name, ".Grow") &&
			!strings.HasSuffix(name, "Wait") && !strings.HasSuffix(name, ".Done") && !strings.HasSuffix(name, ".Lock") && !strings.HasSuffix(name, ".Unlock")
	case *ast.AssignStmt:
		if s.Tok == token.DEFINE {
			return false
		}
		for _, left := range s.Lhs {
			if name, ok := left.(*ast.Ident); ok && name.Name == "_" {
				return false
			}
		}
		return true
	case *ast.IncDecStmt:
		return true
	}
	return false
}

// builder is how the stores' files begin a call that adds a clause to an update expression. Such
// clauses are of different attributes and apply at once, so their order is none.
const builder = "u."

// depend reports whether the order of two statements can matter: one is a call, or uses
// what the other one sets.
func (in *instrumenter) depend(a, b ast.Stmt) bool {
	if strings.HasPrefix(in.of(a), builder) && strings.HasPrefix(in.of(b), builder) {
		return false
	}
	uses := func(s ast.Stmt, list []ast.Expr) bool {
		return slices.ContainsFunc(list, func(e ast.Expr) bool { return strings.Contains(in.of(s), in.of(e)) })
	}
	sets := func(s ast.Stmt) []ast.Expr {
		switch s := s.(type) {
		case *ast.AssignStmt:
			return s.Lhs
		case *ast.IncDecStmt:
			return []ast.Expr{s.X}
		}
		return nil
	}
	first, second := sets(a), sets(b)
	return first == nil || second == nil || uses(a, second) || uses(b, first)
}

// reports reports whether a statement only logs, traces or counts, which is not a matter of
// correctness here: such a call, a log level or annotations, or a condition for those.
func (in *instrumenter) reports(s ast.Stmt) bool {
	switch s := s.(type) {
	case *ast.ExprStmt:
		call, ok := s.X.(*ast.CallExpr)
		if !ok {
			return false
		}
		name := in.of(call.Fun)
		last := name[strings.LastIndexByte(name, '.')+1:]
		return strings.Contains(name, ".Log.") || strings.HasPrefix(last, "log") || last == "recordRead" || last == "recordWrite"
	case *ast.AssignStmt:
		value := in.of(s.Rhs[0])
		return len(s.Rhs) == 1 && (strings.HasPrefix(value, "slog.") || strings.HasPrefix(value, "map[string]any{"))
	case *ast.IfStmt:
		return s.Else == nil && s.Init == nil && len(s.Body.List) > 0 && !slices.ContainsFunc(s.Body.List, func(s ast.Stmt) bool { return !in.reports(s) })
	}
	return false
}

// render returns a part of the source with the changes in it.
func (in *instrumenter) render(from, to int) string {
	slices.SortStableFunc(in.changes, func(a, b change) int {
		if a.from != b.from {
			return a.from - b.from
		}
		return b.to - a.to
	})
	text, _ := in.apply(from, to, 0)
	return text
}

// apply renders from..to, with the changes from the given index on, and returns the index of
// the first change after it.
func (in *instrumenter) apply(from, to, index int) (string, int) {
	var b bytes.Buffer
	at := from
	for index < len(in.changes) && in.changes[index].from < to {
		c := in.changes[index]
		b.Write(in.text[at:c.from])
		inside, next := in.apply(c.from, c.to, index+1)
		b.WriteString(c.write(inside))
		at, index = c.to, next
	}
	b.Write(in.text[at:to])
	return b.String(), index
}
