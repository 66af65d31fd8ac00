package samtemplate

import "testing"

func TestWildcardsMatchAsInPolicies(t *testing.T) {
	for _, c := range []struct {
		pattern, text string
		want          bool
	}{
		{"dynamodb:GetItem", "dynamodb:GetItem", true},
		{"dynamodb:GetItem", "dynamodb:GetItems", false},
		{"dynamodb:GetItem", "dynamodb:GetIte", false},
		{"dynamodb:*", "dynamodb:", true},
		{"*", "", true},
		{"", "", true},
		{"", "a", false},
		{"?", "", false},
		{"a?c", "abc", true},
		{"a?c", "ac", false},
		{"*:table/*-Events/index/*", "arn:aws:dynamodb:us-east-1:1:table/a-Events/index/due", true},
		{"*:table/*-Events/index/*", "arn:aws:dynamodb:us-east-1:1:table/a-Events", false},
		{"*ab", "aab", true},
		{"*ab*ab", "abab", true},
		{"*ab*ab", "abaab.ab", true},
		{"*ab*ab", "ab", false},
		{"a**b", "a\nb", true},
		{"a.c", "abc", false},
		{"stats#*", "stats-day#2026-11-29", false},
	} {
		if got := wildcardMatch(c.pattern, c.text); got != c.want {
			t.Errorf("%q matches %q: %t, want %t", c.pattern, c.text, got, c.want)
		}
	}
}
