package rules

import (
	"cel.dev/cel-go/common/cost"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
)

// costs estimates what an expression costs before it runs, and tells what its calls cost
// when it does. CEL's own count is one for a function that it does not know and for a
// comparison of lists and maps, whatever their size.
type costs struct{}

// readsText are the functions that read a text and may return another one, by whose size
// they cost.
var readsText = map[string]bool{
	"text": true, "label": true, "cut": true, "email": true, "trim": true, "lower": true, "id": true, "status": true, "tenant": true,
	"optional_id": true, "actor_id": true, "number": true, "yes": true, "time": true, "end_time": true, "first": true, "string": true, "bytes": true,
}

// EstimateSize implements cost.Estimator: a value that is not in the expression is no
// larger than an item.
func (costs) EstimateSize(cost.AstNode) *cost.SizeEstimate {
	return &cost.SizeEstimate{Min: 0, Max: maxValueBytes}
}

// EstimateCallCost implements cost.Estimator. Its maximum is a tenth of the highest
// that CallCost tells, so that the costs of a few calls need not be counted.
func (costs) EstimateCallCost(function, _ string, _ *cost.AstNode, _ []cost.AstNode) *cost.CallEstimate {
	if !readsText[function] {
		return nil
	}
	return cost.NewCallEstimate(cost.RangedCostEstimate(1, maxValueBytes/100), &cost.SizeEstimate{Min: 0, Max: maxValueBytes})
}

// CallCost implements cel's ActualCostEstimator.
func (costs) CallCost(function, _ string, args []ref.Val, result ref.Val) *uint64 {
	total := uint64(1)
	switch function {
	case operators.Equals, operators.NotEquals, operators.In:
		for _, arg := range args {
			total += weight(arg, maxNesting)
		}
	case "matches": // an automaton takes some ten times as long as other reading
		for _, arg := range args {
			total += 10 * weight(arg, 0)
		}
	default:
		for _, arg := range args {
			total += weight(arg, 0)
		}
		total += weight(result, 0)
	}
	return &total
}

// weight is what reading a value costs: one for ten bytes, and for each element as deep as
// it is read.
func weight(v ref.Val, depth int) uint64 {
	switch v := v.(type) {
	case types.String:
		return uint64(len(v)) / 10
	case types.Bytes:
		return uint64(len(v)) / 10
	case traits.Mapper:
		if depth == 0 {
			return 0
		}
		total := uint64(0)
		for it := v.Iterator(); it.HasNext() == types.True; {
			key := it.Next()
			value, _ := v.Find(key)
			total += 1 + weight(key, depth-1) + weight(value, depth-1)
		}
		return total
	case traits.Lister:
		if depth == 0 {
			return 0
		}
		total := uint64(0)
		for it := v.Iterator(); it.HasNext() == types.True; {
			total += 1 + weight(it.Next(), depth-1)
		}
		return total
	}
	return 0
}
