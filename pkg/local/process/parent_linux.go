package process

import (
	"os/exec"
	"syscall"
)

// dieWithParent has the kernel kill the child when this process ends.
func dieWithParent(c *exec.Cmd) {
	if c.SysProcAttr == nil {
		c.SysProcAttr = &syscall.SysProcAttr{}
	}
	c.SysProcAttr.Pdeathsig = syscall.SIGKILL
}
