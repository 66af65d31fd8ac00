package docs_test

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/tidings-dev/tidings/pkg/delivery"
)

// The state diagram of a delivery has the states of the code, and settled states are
// left by a replay only.
func TestStateDiagramMatchesTheCode(t *testing.T) {
	_, after, _ := strings.Cut(page(t, "architecture.md"), "stateDiagram-v2\n")
	diagram, _, _ := strings.Cut(after, "```")
	states := map[delivery.State]bool{}
	for _, m := range regexp.MustCompile(`(?m)^  (\S+) --> (\S+?)(?:: (.+))?$`).FindAllStringSubmatch(diagram, -1) {
		for _, name := range m[1:3] {
			if name != "[*]" {
				states[delivery.State(name)] = true
			}
		}
		if from := delivery.State(m[1]); from.Settled() && m[2] != "[*]" && m[3] != "replay" {
			t.Errorf("the settled state %s changes to %s by %q", m[1], m[2], m[3])
		}
		if m[2] == "[*]" && !delivery.State(m[1]).Settled() {
			t.Errorf("the state %s is final but not settled", m[1])
		}
	}
	for _, s := range delivery.States {
		if !states[s] {
			t.Errorf("the diagram lacks the state %s", s)
		}
	}
	for s := range states {
		if !slices.Contains(delivery.States, s) {
			t.Errorf("the diagram has the unknown state %s", s)
		}
	}
}
