package main

import (
	"path/filepath"
	"testing"
)

// A mutant whose text is gone from the source is no mutant.
func TestEachMutantChangesItsFile(t *testing.T) {
	names := map[string]bool{}
	for _, m := range mutants {
		if names[m.name] || m.old == m.new {
			t.Errorf("%q is there twice, or changes nothing", m.name)
		}
		names[m.name] = true
		m.file = filepath.Join("..", "..", m.file)
		if _, err := m.overlay(t.TempDir()); err != nil {
			t.Error(err)
		}
	}
	if len(mutants) < 10 {
		t.Errorf("there are %d mutants", len(mutants))
	}
}
