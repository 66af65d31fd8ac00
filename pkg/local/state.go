//go:build unix

package local

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// OpenStateDir creates the state directory, or makes an existing one and its files
// readable by the user alone: they hold signing secrets and this run's access key. It
// refuses a directory of another user, who could read what is written to it. Files that
// this process and its children create later are readable by the user alone, too.
func OpenStateDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("state directory: %w", err)
	}
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("state directory: %w", err)
	}
	if owner, ok := info.Sys().(*syscall.Stat_t); ok && int(owner.Uid) != os.Geteuid() {
		return fmt.Errorf("the state directory %s belongs to another user, who can read the secrets in it: choose another with --state-dir", dir)
	}
	syscall.Umask(0o077)
	if err := os.Chmod(dir, 0o700); err != nil { //nolint:gosec // G302: a directory needs the right to enter it
		return fmt.Errorf("state directory: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("state directory: %w", err)
	}
	for _, e := range entries {
		if !e.Type().IsRegular() {
			continue
		}
		if err := os.Chmod(filepath.Join(dir, e.Name()), 0o600); err != nil {
			return fmt.Errorf("state directory: %w", err)
		}
	}
	return nil
}
