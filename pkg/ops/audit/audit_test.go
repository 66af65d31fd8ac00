package audit_test

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/tidings-dev/tidings/pkg/ops/audit"
)

func TestAnIDHasTheTimeOfItsChange(t *testing.T) {
	now := time.Date(2026, 1, 29, 12, 34, 56, 789_000_000, time.UTC)
	if at := (audit.Entry{ID: audit.NewID(now)}).At(); !at.Equal(now) {
		t.Errorf("At = %s, want %s", at, now)
	}
	if at := (audit.Entry{ID: "not an id"}).At(); !at.IsZero() {
		t.Errorf("At of an invalid id = %s", at)
	}
}

func TestClipKeepsWholeCharacters(t *testing.T) {
	short := strings.Repeat("x", audit.MaxDetailBytes)
	if got := audit.Clip(short); got != short {
		t.Errorf("a detail of the maximum length became %d bytes", len(got))
	}
	for lead := range 4 { // the limit falls on each byte of a character
		got := audit.Clip(strings.Repeat("x", lead) + strings.Repeat("🎟", audit.MaxDetailBytes))
		if !utf8.ValidString(got) || !strings.HasSuffix(got, "🎟…") || len(got) > audit.MaxDetailBytes+len("…") || len(got) < audit.MaxDetailBytes-3 {
			t.Errorf("after %d bytes: %d bytes, valid %v", lead, len(got), utf8.ValidString(got))
		}
	}
}
