package main

import (
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestInitTimesAddUp(t *testing.T) {
	said := "init internal/cpu @0.31 ms, 0.004 ms clock, 120 bytes, 3 allocs\ninit crypto/x509 @1.2 ms, 1.5 ms clock, 99 bytes, 1 allocs\n{\"message\":\"0.9 ms clock\"}\n"
	got, err := initTime([]byte(said))
	if err != nil || math.Abs(got-1.504) > 1e-9 {
		t.Errorf("it took %v ms, %v", got, err)
	}
	if rest := packageInit.ReplaceAllString(said, ""); rest != "{\"message\":\"0.9 ms clock\"}\n" {
		t.Errorf("what the function said itself is %q", rest)
	}
}

// Each function is started with a sample that is there.
func TestEachFunctionHasASample(t *testing.T) {
	t.Chdir("../..")
	s, err := resolved()
	if err != nil {
		t.Fatal(err)
	}
	started := map[string]bool{}
	for _, sample := range samples {
		if _, err := os.Stat(filepath.Join("events", sample+".json")); err != nil {
			t.Error(err)
		}
		if f := s.ForSample(sample); f != nil {
			started[f.Folder] = true
		}
	}
	var missing []string
	for _, f := range s.Functions {
		if !started[f.Folder] {
			missing = append(missing, f.Folder)
		}
	}
	if missing != nil {
		t.Errorf("never started: %s", strings.Join(missing, ", "))
	}
}
