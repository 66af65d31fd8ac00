package lambdamain

import (
	"io"
	"sync"
	"time"
)

// maxLines is the number of lines per minute that libraries may log.
const maxLines = 20

// boundedLog is the output of the standard library's logger, which Tidings itself does not
// use. net/http logs a line for each unknown HTTP/2 frame and for unsolicited responses:
// without a bound, a receiver could fill the function's log, at the operator's cost.
type boundedLog struct {
	out io.Writer
	now func() time.Time

	mu    sync.Mutex
	since time.Time
	lines int
}

// Write drops what is above the limit.
func (b *boundedLog) Write(line []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if now := b.now(); now.Sub(b.since) >= time.Minute {
		b.since, b.lines = now, 0
	}
	if b.lines++; b.lines > maxLines {
		return len(line), nil
	}
	return b.out.Write(line)
}
