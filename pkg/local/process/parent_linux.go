package process

import (
	"os/exec"
	"syscall"
)

// dieWithParent lets the kernel end the child when this process is killed.
func dieWithParent(c *exec.Cmd) {
	if c.SysProcAttr == nil {
		c.SysProcAttr = &syscall.SysProcAttr{}
	}
	c.SysProcAttr.Pdeathsig = syscall.SIGKILL
}
