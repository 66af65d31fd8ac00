// Package checkout finds files of this repository from a test or a rig, wherever
// in the checkout it runs. It promises not to depend on paths that the compiler
// recorded, which -trimpath removes.
package checkout

import (
	"errors"
	"os"
	"path/filepath"
)

// Path returns the absolute path of a file of the repository, given by the names
// below its root. It fails outside a checkout.
func Path(names ...string) (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return filepath.Join(append([]string{dir}, names...)...), nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("no go.mod in the working directory or above it: run this inside the checkout")
		}
		dir = parent
	}
}
