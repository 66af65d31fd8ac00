// Package process runs other people's servers as child processes, for the local
// runner and the tests. It promises that a child ends with its parent, however
// that one ends, and that whoever waits for a child to answer hears of its end.
package process

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"runtime"
	"time"
)

// ErrEnded says that the process ended before it answered.
var ErrEnded = errors.New("the process ended before it answered")

// Process is a running child.
type Process struct {
	command *exec.Cmd
	ended   chan struct{}
}

// Start starts a command.
func Start(c *exec.Cmd) (*Process, error) {
	p := &Process{command: c, ended: make(chan struct{})}
	dieWithParent(c)
	started := make(chan error)
	go func() {
		// The kernel ends the child when the thread that started it ends, so that
		// thread has to live as long as the process.
		runtime.LockOSThread()
		err := c.Start()
		started <- err
		if err == nil {
			_ = c.Wait() // how it ended shows in whoever talks to it
			close(p.ended)
		}
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return p, nil
}

// Ready waits until the process answers.
func (p *Process) Ready(ctx context.Context, within time.Duration, answers func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	for {
		err := answers(ctx)
		select {
		case <-p.ended:
			return fmt.Errorf("%s: %w", p.command.Path, ErrEnded)
		default:
		}
		if err == nil {
			return nil
		}
		select {
		case <-p.ended:
		case <-ctx.Done():
			return fmt.Errorf("%s did not answer within %s: %w", p.command.Path, within, err)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// Stop ends the process and waits for its end.
func (p *Process) Stop() {
	_ = p.command.Process.Kill() // fails only where it has ended already
	<-p.ended
}

// Ended is closed when the process has ended, by Stop or by itself.
func (p *Process) Ended() <-chan struct{} { return p.ended }

// FreePort returns a port of this machine that is free now.
func FreePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}
