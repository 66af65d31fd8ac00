// Package process runs servers as child processes, for the local runner and the
// tests. On Linux a child is killed when its parent ends, even by kill -9. Waiting for
// a child to become ready fails as soon as the child exits.
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

// ErrExited is returned by Ready if the process exited before it was ready.
var ErrExited = errors.New("the process exited before it was ready")

// Process is a running child process.
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
		// The parent death signal is sent when the thread that started the child ends, so
		// keep that thread.
		runtime.LockOSThread()
		err := c.Start()
		started <- err
		if err == nil {
			_ = c.Wait() // the exit status is not used
			close(p.ended)
		}
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return p, nil
}

// Ready polls the probe until it succeeds, for at most the given time. It returns
// ErrExited if the process exits first.
func (p *Process) Ready(ctx context.Context, within time.Duration, probe func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	for {
		err := probe(ctx)
		select {
		case <-p.ended:
			return fmt.Errorf("%s: %w", p.command.Path, ErrExited)
		default:
		}
		if err == nil {
			return nil
		}
		select {
		case <-p.ended:
		case <-ctx.Done():
			return fmt.Errorf("%s was not ready within %s: %w", p.command.Path, within, err)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// Stop kills the process and waits for its exit.
func (p *Process) Stop() {
	_ = p.command.Process.Kill() // fails only if it has exited already
	<-p.ended
}

// Ended is closed when the process has exited, by Stop or on its own.
func (p *Process) Ended() <-chan struct{} { return p.ended }

// FreePort returns a TCP port on the loopback interface that is free now.
func FreePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}
