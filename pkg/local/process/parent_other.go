//go:build !linux

package process

import "os/exec"

// dieWithParent does nothing here: a killed parent leaves the child running, and
// the next start finds its port taken and says so.
func dieWithParent(*exec.Cmd) {}
