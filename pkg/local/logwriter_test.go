package local_test

import (
	"bytes"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidings-dev/tidings/pkg/local"
)

// countingWriter records what is written and by how many writes.
type countingWriter struct {
	mu     sync.Mutex
	text   bytes.Buffer
	writes int
}

func (w *countingWriter) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.writes++
	return w.text.Write(b)
}

func (w *countingWriter) expect(t *testing.T, when, text string, writes int) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.text.String() != text || w.writes != writes {
		t.Errorf("%s: %q by %d writes, want %q by %d", when, w.text.String(), w.writes, text, writes)
	}
}

func TestLogWriterBatchesLinesWithinTheFlushInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out countingWriter
		l := &local.LogWriter{Out: &out}
		write := func(line string) {
			t.Helper()
			if n, err := l.Write([]byte(line)); n != len(line) || err != nil {
				t.Errorf("%d bytes of %q, %v", n, line, err)
			}
		}
		write("a\n")
		out.expect(t, "first line", "a\n", 1)
		write("b\n")
		write("c\n")
		out.expect(t, "within the interval", "a\n", 1)
		time.Sleep(local.FlushInterval + 1)
		synctest.Wait()
		out.expect(t, "after the interval", "a\nb\nc\n", 2)
		write("d\n")
		if err := l.Flush(); err != nil {
			t.Error(err)
		}
		out.expect(t, "after Flush", "a\nb\nc\nd\n", 3)
		time.Sleep(local.FlushInterval)
		synctest.Wait()
		write("e\n")
		out.expect(t, "after a pause", "a\nb\nc\nd\ne\n", 4)
		long := strings.Repeat("x", 70_000) + "\n"
		write(long)
		out.expect(t, "full buffer", "a\nb\nc\nd\ne\n"+long, 5)
	})
}

func TestLoggerFlushesWarningsImmediately(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out countingWriter
		log := (&local.LogWriter{Out: &out}).Logger()
		log.Info("first")
		log.Info("second")
		inGroup := log.With("a", 1).WithGroup("g")
		inGroup.Info("third", "b", 2)
		inGroup.Warn("now", "b", 3)
		out.mu.Lock()
		defer out.mu.Unlock()
		lines := strings.Split(strings.TrimSpace(out.text.String()), "\n")
		if len(lines) != 4 || out.writes != 2 || !strings.Contains(lines[3], `"msg":"now","a":1,"g":{"b":3}`) {
			t.Errorf("%d writes: %s", out.writes, &out.text)
		}
	})
}
