package local

import (
	"context"
	"io"
	"log/slog"
	"sync"
	"time"
)

// LogWriter batches log lines, to save one system call per line under load. It
// writes the first line after a pause immediately, and later ones within
// FlushInterval. It is safe for concurrent use. A killed process loses the lines
// that are still buffered.
type LogWriter struct {
	Out io.Writer

	mu      sync.Mutex
	pending []byte
	timer   *time.Timer // nil while nothing is pending
	last    time.Time   // of the last write
}

const (
	// FlushInterval is the longest time that a line stays in the buffer.
	FlushInterval = 50 * time.Millisecond
	maxPending    = 64 << 10 // bytes
)

// Write adds a line.
func (l *LogWriter) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now := time.Now(); len(l.pending) == 0 && now.Sub(l.last) >= FlushInterval {
		l.last = now
		return l.Out.Write(line)
	}
	l.pending = append(l.pending, line...)
	if len(l.pending) >= maxPending {
		return len(line), l.flush()
	}
	if l.timer == nil {
		l.timer = time.AfterFunc(FlushInterval, func() { _ = l.Flush() }) // nobody to report an error to
	}
	return len(line), nil
}

// Flush writes the buffered lines.
func (l *LogWriter) Flush() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.flush()
}

func (l *LogWriter) flush() error {
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

// Logger returns a JSON logger on this writer. Warnings and errors are flushed
// immediately.
func (l *LogWriter) Logger() *slog.Logger {
	return slog.New(flushingHandler{slog.NewJSONHandler(l, nil), l})
}

type flushingHandler struct {
	slog.Handler
	writer *LogWriter
}

func (h flushingHandler) Handle(ctx context.Context, r slog.Record) error {
	err := h.Handler.Handle(ctx, r)
	if r.Level >= slog.LevelWarn {
		_ = h.writer.Flush() // a failed write could only be reported in this log
	}
	return err
}

func (h flushingHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return flushingHandler{h.Handler.WithAttrs(attrs), h.writer}
}

func (h flushingHandler) WithGroup(name string) slog.Handler {
	return flushingHandler{h.Handler.WithGroup(name), h.writer}
}
