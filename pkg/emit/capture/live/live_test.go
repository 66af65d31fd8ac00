package live_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/tidings-dev/tidings/pkg/emit/capture/live"
	"github.com/tidings-dev/tidings/pkg/emit/capture/rules"
	"github.com/tidings-dev/tidings/pkg/event/deployed"
)

const posted = `rules:
  - event: user.posted_comment
    when: change == "insert"
    data:
      comment_id: id(new.id)
`

// source is a deployment as it is now.
type source struct {
	now deployed.Both
	err error
}

func (s *source) Both(context.Context) (deployed.Both, error) { return s.now, s.err }

// set stores types and rules as another revision.
func (s *source) set(t *testing.T, without []string, r deployed.Rules) {
	t.Helper()
	known, err := deployed.Set{Without: without}.Catalog()
	if err != nil {
		t.Fatal(err)
	}
	s.now = deployed.Both{Types: known, Rules: r}
}

func current(t *testing.T, r *live.Rules) *rules.Set {
	t.Helper()
	set, err := r.Current(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func TestTheRulesAreTheShippedAndTheDeploymentsOwn(t *testing.T) {
	all := len(rules.Shipped().Rules())
	comments := 0
	for _, r := range rules.Shipped().Rules() {
		if r.Event == "user.posted_comment" {
			comments++
		}
	}
	if all == 0 || comments == 0 {
		t.Fatalf("%d shipped rules, %d of them for comments", all, comments)
	}
	own := []deployed.RuleFile{{Name: "own", Text: posted}}
	for name, c := range map[string]struct {
		without []string
		rules   deployed.Rules
		want    int
	}{
		"unchanged":                   {nil, deployed.Rules{}, all},
		"one more":                    {nil, deployed.Rules{Files: own}, all + 1},
		"only one's own":              {nil, deployed.Rules{Files: own, WithoutShipped: true}, 1},
		"none":                        {nil, deployed.Rules{WithoutShipped: true}, 0},
		"a type is switched off":      {[]string{"user.posted_comment"}, deployed.Rules{}, all - comments},
		"and one's own rule names it": {[]string{"user.posted_comment"}, deployed.Rules{Files: own}, all - comments + 1},
	} {
		s := &source{}
		s.set(t, c.without, c.rules)
		if got := len(current(t, &live.Rules{Source: s}).Rules()); got != c.want {
			t.Errorf("%s: %d rules, want %d", name, got, c.want)
		}
	}
}

func TestRulesThatCannotBeUsedDoNotReplaceTheLast(t *testing.T) {
	var log bytes.Buffer
	s := &source{}
	r := &live.Rules{Source: s, Log: slog.New(slog.NewTextHandler(&log, nil))}
	broken := deployed.Rules{Files: []deployed.RuleFile{{Name: "own", Text: "rules: ["}}}
	s.set(t, nil, broken)
	if _, err := r.Current(t.Context()); err == nil || !strings.Contains(err.Error(), "own:1:") {
		t.Errorf("broken rules at the start: %v", err)
	}
	s.set(t, nil, deployed.Rules{})
	good := current(t, r)
	if current(t, r) != good {
		t.Error("unchanged rules are compiled again")
	}
	s.set(t, nil, broken)
	if current(t, r) != good || strings.Count(log.String(), "capture_rules.stale") != 1 {
		t.Errorf("broken rules replace others, or are not logged: %s", log.String())
	}
	if current(t, r); strings.Count(log.String(), "capture_rules.stale") != 1 {
		t.Errorf("they are compiled at each change: %s", log.String())
	}
	s.set(t, nil, deployed.Rules{Files: []deployed.RuleFile{{Name: "own", Text: posted}}})
	if len(current(t, r).Rules()) != len(good.Rules())+1 {
		t.Error("mended rules are not used")
	}
	s.err = errors.New("unreachable")
	if _, err := r.Current(t.Context()); !errors.Is(err, s.err) {
		t.Errorf("error %v", err)
	}
}

var _ live.Source = (*deployed.Live)(nil)

// The shipped rules are for the platform's table, and a deployment's own for the tables that
// they name, or all.
func TestTheShippedRulesAreForThePlatformsTable(t *testing.T) {
	s := &source{}
	s.set(t, nil, deployed.Rules{Files: []deployed.RuleFile{{Name: "own", Text: posted}}})
	for _, r := range current(t, &live.Rules{Source: s, PlatformTable: "stack-Platform"}).Rules() {
		want := "stack-Platform"
		if r.File == "own" {
			want = ""
		}
		if r.Table != want {
			t.Errorf("the rule for %s of %s is for the table %q", r.Event, r.File, r.Table)
		}
	}
	for _, r := range rules.Shipped().Rules() {
		if r.Table != "" {
			t.Errorf("the shipped rule for %s is for the table %q elsewhere, too", r.Event, r.Table)
		}
	}
}

// A change of one file, or of an event type, does not compile the other files again.
func TestOnlyChangedFilesAreCompiled(t *testing.T) {
	large := deployed.RuleFile{Name: "large", Text: "rules:\n" + strings.Repeat("  - {event: order.placed, when: new.kind == \"order\", data: {id: id(new.id)}}\n", 150)}
	s := &source{}
	r := &live.Rules{Source: s}
	again := testing.AllocsPerRun(1, func() { // the first of two calls, which compiles, does not count
		s.set(t, nil, deployed.Rules{Files: []deployed.RuleFile{large, {Name: "own", Text: posted}}})
		current(t, r)
	})
	if set, err := rules.Parse("large", []byte(large.Text)); err != nil || len(set.Rules()) != 150 {
		t.Fatal(err)
	}
	whole := testing.AllocsPerRun(1, func() { _, _ = rules.Parse("large", []byte(large.Text)) })
	if again > whole {
		t.Errorf("%.0f allocations for a set of which no file changed, %.0f to compile one", again, whole)
	}
}
