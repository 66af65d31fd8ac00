package lambdamain

import (
	"bytes"
	"log"
	"testing"
	"time"
)

func TestLibrariesLogABoundedNumberOfLines(t *testing.T) {
	var out bytes.Buffer
	now := time.Now()
	logger := log.New(&boundedLog{out: &out, now: func() time.Time { return now }}, "", 0)
	lines := func() int { return bytes.Count(out.Bytes(), []byte("\n")) }
	for range 1000 {
		logger.Print("Transport: unhandled response frame type")
	}
	if got := lines(); got != maxLines {
		t.Errorf("%d lines in the first minute, want %d", got, maxLines)
	}
	now = now.Add(time.Minute)
	logger.Print("later")
	if got := lines(); got != maxLines+1 {
		t.Errorf("%d lines a minute later, want %d", got, maxLines+1)
	}
}
