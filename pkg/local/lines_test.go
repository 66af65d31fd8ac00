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

// paper is what lines are written on.
type paper struct {
	mu     sync.Mutex
	text   bytes.Buffer
	writes int
}

func (p *paper) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.writes++
	return p.text.Write(b)
}

func (p *paper) is(t *testing.T, when, text string, writes int) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.text.String() != text || p.writes != writes {
		t.Errorf("%s: %q by %d writes, want %q by %d", when, p.text.String(), p.writes, text, writes)
	}
}

func TestLinesThatComeFastAreWrittenTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p paper
		l := &local.Lines{Out: &p}
		say := func(line string) {
			t.Helper()
			if n, err := l.Write([]byte(line)); n != len(line) || err != nil {
				t.Errorf("%d bytes of %q, %v", n, line, err)
			}
		}
		say("a\n")
		p.is(t, "the first line", "a\n", 1)
		say("b\n")
		say("c\n")
		p.is(t, "what follows", "a\n", 1)
		time.Sleep(local.LinesTime + 1)
		synctest.Wait()
		p.is(t, "after its time", "a\nb\nc\n", 2)
		say("d\n")
		if err := l.Flush(); err != nil {
			t.Error(err)
		}
		p.is(t, "flushed", "a\nb\nc\nd\n", 3)
		time.Sleep(local.LinesTime)
		synctest.Wait()
		say("e\n")
		p.is(t, "after a pause", "a\nb\nc\nd\ne\n", 4)
		long := strings.Repeat("x", 70_000) + "\n"
		say(long)
		p.is(t, "a full page", "a\nb\nc\nd\ne\n"+long, 5)
	})
}

func TestWarningsDoNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p paper
		log := (&local.Lines{Out: &p}).Logger()
		log.Info("first")
		log.Info("second")
		inGroup := log.With("a", 1).WithGroup("g")
		inGroup.Info("third", "b", 2)
		inGroup.Warn("now", "b", 3)
		p.mu.Lock()
		defer p.mu.Unlock()
		lines := strings.Split(strings.TrimSpace(p.text.String()), "\n")
		if len(lines) != 4 || p.writes != 2 || !strings.Contains(lines[3], `"msg":"now","a":1,"g":{"b":3}`) {
			t.Errorf("%d writes: %s", p.writes, &p.text)
		}
	})
}
