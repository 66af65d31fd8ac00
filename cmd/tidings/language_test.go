package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// unclear matches phrases that operators could not understand. Write instead: pending,
// skipped, circuit open, attempt number, usage error, maximum, total.
var unclear = regexp.MustCompile(`(?i)\b(how-?manieth|what(ever)? waits|what waited|who(so)?ever|words? (are|is) wrong|wrong words|left alone|` +
	`stands? twice|stands there|of which so many|so many|nothing to see|did not like|tell that|forget an|by hand|at the least)\b`)

func TestHelpTextsUsePlainLanguage(t *testing.T) {
	var visit func(*cobra.Command)
	visit = func(c *cobra.Command) {
		check := func(what, text string) {
			if m := unclear.FindString(text); m != "" {
				t.Errorf("%s: %s says %q: %s", c.CommandPath(), what, m, text)
			}
		}
		check("Short", c.Short)
		check("Long", c.Long)
		c.LocalFlags().VisitAll(func(f *pflag.Flag) { check("--"+f.Name, f.Usage) })
		for _, sub := range c.Commands() {
			visit(sub)
		}
	}
	visit((&app{}).command())
}

func TestTemplateDescriptionsUsePlainLanguage(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "template.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for i, line := range strings.Split(string(text), "\n") {
		if strings.HasPrefix(strings.TrimSpace(line), "#") || !strings.Contains(line, "Description:") {
			continue
		}
		if m := unclear.FindString(line); m != "" {
			t.Errorf("template.yaml:%d says %q: %s", i+1, m, line)
		}
	}
}
