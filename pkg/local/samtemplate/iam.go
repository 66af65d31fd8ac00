package samtemplate

import (
	"regexp"
	"slices"
	"strings"
)

// Statement is an Allow statement of a function's IAM role.
type Statement struct {
	Sid                string
	Actions, Resources []string
}

// Allows reports whether the statement allows an action on a resource. As in IAM
// policies, * matches any text and ? one character.
func (s Statement) Allows(action, resource string) bool {
	matches := func(patterns []string, text string) bool {
		return slices.ContainsFunc(patterns, func(p string) bool { return wildcardMatch(p, text) })
	}
	return matches(s.Actions, action) && matches(s.Resources, resource)
}

func wildcardMatch(pattern, text string) bool {
	quoted := strings.NewReplacer(`\*`, ".*", `\?`, ".").Replace(regexp.QuoteMeta(pattern))
	return regexp.MustCompile("^(?s:" + quoted + ")$").MatchString(text)
}
