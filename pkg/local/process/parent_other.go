//go:build !linux

package process

import "os/exec"

// dieWithParent does nothing outside Linux: after a kill -9 the child keeps running, and
// the next start reports that its port is taken.
func dieWithParent(*exec.Cmd) {}
