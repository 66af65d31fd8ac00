package local

import (
	"context"
	"io"
	"log/slog"
	"sync"
	"time"
)

// Lines writes the lines of a log together where they come fast: writing each by
// itself is a call to the operating system for each. The first line after a pause
// is written at once; what follows it, after LinesTime at the latest, and before a
// line that warns. What a killed process had not written yet is lost.
type Lines struct {
	Out io.Writer

	mu      sync.Mutex
	pending []byte
	timer   *time.Timer // nil while nothing is pending
	last    time.Time   // when something was written
}

// LinesTime is how long a line may wait, and maxPending how many bytes may.
const (
	LinesTime  = 50 * time.Millisecond
	maxPending = 64 << 10
)

// Write takes a line.
func (l *Lines) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now := time.Now(); len(l.pending) == 0 && now.Sub(l.last) >= LinesTime {
		l.last = now
		return l.Out.Write(line)
	}
	l.pending = append(l.pending, line...)
	if len(l.pending) >= maxPending {
		return len(line), l.flush()
	}
	if l.timer == nil {
		l.timer = time.AfterFunc(LinesTime, func() { _ = l.Flush() }) // nobody is there to be told
	}
	return len(line), nil
}

// Flush writes what is pending.
func (l *Lines) Flush() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.flush()
}

func (l *Lines) flush() error {
	if l.timer != nil {
		l.timer.Stop()
		l.timer = nil
	}
	if len(l.pending) == 0 {
		return nil
	}
	_, err := l.Out.Write(l.pending)
	l.pending, l.last = l.pending[:0], time.Now()
	return err
}

// Logger returns a logger whose lines of JSON go here. Warnings and errors do not
// wait.
func (l *Lines) Logger() *slog.Logger {
	return slog.New(urgent{slog.NewJSONHandler(l, nil), l})
}

type urgent struct {
	slog.Handler
	lines *Lines
}

func (u urgent) Handle(ctx context.Context, r slog.Record) error {
	err := u.Handler.Handle(ctx, r)
	if r.Level >= slog.LevelWarn {
		_ = u.lines.Flush() // the log is where it would be said
	}
	return err
}

func (u urgent) WithAttrs(attrs []slog.Attr) slog.Handler {
	return urgent{u.Handler.WithAttrs(attrs), u.lines}
}

func (u urgent) WithGroup(name string) slog.Handler {
	return urgent{u.Handler.WithGroup(name), u.lines}
}
