package samtemplate

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Statement is an Allow statement of a function's IAM role.
type Statement struct {
	Sid                string
	Actions, Resources []string
	// Conditions are the values by operator and condition key; all of them must hold.
	Conditions map[string]map[string][]string
	// ForLambda means that Lambda uses the statement, and not the function's code.
	ForLambda bool
}

// Request is a call as IAM evaluates it.
type Request struct {
	Action, Resource string
	// Context are the values of the condition keys that the call has.
	Context map[string][]string
}

// WithoutContext returns the call without its condition keys.
func (r Request) WithoutContext() Request {
	r.Context = nil
	return r
}

func (r Request) String() string {
	text := r.Action + " on " + r.Resource
	if keys := r.Context["dynamodb:LeadingKeys"]; len(keys) > 0 {
		text += " with the keys " + strings.Join(keys, ", ")
	}
	return text
}

// Allows reports whether the statement allows a call. As in IAM policies, * matches any
// text and ? one character.
func (s Statement) Allows(r Request) bool {
	if !matchesAny(s.Actions, r.Action) || !matchesAny(s.Resources, r.Resource) {
		return false
	}
	for operator, keys := range s.Conditions {
		for key, patterns := range keys {
			if values, present := r.Context[key]; !operators[operator](patterns, values, present) {
				return false
			}
		}
	}
	return true
}

// Allows reports whether any of the statements allows a call.
func Allows(statements []Statement, r Request) bool {
	return slices.ContainsFunc(statements, func(s Statement) bool { return s.Allows(r) })
}

// operators are the condition operators that the template uses (IAM User Guide, "IAM
// JSON policy elements: Condition operators"). ForAllValues is true if the call has no
// value of the key.
var operators = map[string]func(patterns, values []string, present bool) bool{
	"StringEquals": func(patterns, values []string, present bool) bool {
		return present && len(values) == 1 && slices.Contains(patterns, values[0])
	},
	"StringEqualsIfExists": func(patterns, values []string, present bool) bool {
		return !present || len(values) == 1 && slices.Contains(patterns, values[0])
	},
	"ForAllValues:StringEquals": func(patterns, values []string, _ bool) bool {
		return !slices.ContainsFunc(values, func(v string) bool { return !slices.Contains(patterns, v) })
	},
	"ForAllValues:StringLike": func(patterns, values []string, _ bool) bool {
		return !slices.ContainsFunc(values, func(v string) bool { return !matchesAny(patterns, v) })
	},
}

func matchesAny(patterns []string, text string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return wildcardMatch(p, text) })
}

// wildcardMatch reports whether the whole text matches: * is any text, ? one byte. At a
// mismatch it goes back to the latest *, which takes one byte more.
func wildcardMatch(pattern, text string) bool {
	p, t, star, from := 0, 0, -1, 0
	for t < len(text) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, from = p, t
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == text[t]):
			p, t = p+1, t+1
		case star >= 0:
			from++
			p, t = star+1, from
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}

// lambdasPolicy is the name of the policy with the statements that Lambda itself needs.
const lambdasPolicy = "lambda"

// writtenPolicy is a policy of a role as the template has it.
type writtenPolicy struct {
	PolicyName     string
	PolicyDocument struct {
		Version   string
		Statement []struct {
			Sid, Effect      string
			Action, Resource oneOrMore
			Condition        map[string]map[string]oneOrMore
		}
	}
}

// statements returns the policies' statements.
func statements(policies []writtenPolicy) (list []Statement, err error) {
	for _, policy := range policies {
		for _, w := range policy.PolicyDocument.Statement {
			s := Statement{Sid: w.Sid, Actions: w.Action, Resources: w.Resource, ForLambda: policy.PolicyName == lambdasPolicy}
			if w.Effect != "Allow" {
				return nil, fmt.Errorf("statement %s: effect %q is not supported", w.Sid, w.Effect)
			}
			for operator, keys := range w.Condition {
				if operators[operator] == nil {
					return nil, fmt.Errorf("statement %s: condition operator %s is not supported; the operators are %s",
						w.Sid, operator, strings.Join(slices.Sorted(maps.Keys(operators)), ", "))
				}
				for key, values := range keys {
					if s.Conditions == nil {
						s.Conditions = map[string]map[string][]string{}
					}
					if s.Conditions[operator] == nil {
						s.Conditions[operator] = map[string][]string{}
					}
					s.Conditions[operator][key] = values
				}
			}
			list = append(list, s)
		}
	}
	return list, nil
}
