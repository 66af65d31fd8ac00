package platform_test

import (
	"math"
	"strconv"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/pkg/platform"
)

func TestTimesAreReadInEveryUnit(t *testing.T) {
	at := time.Date(2026, 1, 29, 12, 34, 56, 0, time.UTC)
	withMillis := at.Add(789 * time.Millisecond)
	for text, want := range map[string]time.Time{
		"1769690096": at, "1769690096789": withMillis, "1769690096789000": withMillis, "1769690096789000000": withMillis,
		"1769690096.789": withMillis, "1.769690096789E12": withMillis, " 1769690096 ": at,
		// The first and the last number of each unit.
		"100000000": time.Unix(1e8, 0).UTC(), "99999999999": time.Unix(99999999999, 0).UTC(),
		"100000000000": time.UnixMilli(1e11).UTC(), "99999999999999": time.UnixMilli(99999999999999).UTC(),
		"100000000000000": time.UnixMicro(1e14).UTC(), "100000000000000000": time.Unix(0, 1e17).UTC(),
		// ISO 8601 and its relatives.
		"2026-01-29T12:34:56Z": at, "2026-01-29T12:34:56.789Z": withMillis, "2026-01-29T12:34:56,789Z": withMillis,
		"2026-01-29T13:34:56.789+01:00": withMillis, "2026-01-29T13:34:56+0100": at, "2026-01-29T12:34:56": at,
		"2026-01-29 12:34:56": at, "2026-01-29 12:34:56.789+00": withMillis, "2026-01-29 12:34:56 UTC": at, "2026-01-29 12:34:56 +0000": at,
		"20260129T123456Z": at, "2026-01-29T12:34Z": at.Truncate(time.Minute), "2026-01-29": at.Truncate(24 * time.Hour), "20260129": at.Truncate(24 * time.Hour),
	} {
		if got, ok := platform.ParseTime(text); !ok || !got.Equal(want) || got.Location() != time.UTC {
			t.Errorf("%q is read as %s (%t), want %s", text, got, ok, want)
		}
	}
}

func TestWhatIsNoTimeIsNotRead(t *testing.T) {
	for _, text := range []string{"", "yesterday", "0", "-1769690096", "1", "99999999", "NaN", "Inf", "1e300", "-0.5", "2026-13-01", "2026-01-29T25:00:00Z", "1960-01-01T00:00:00Z", "99999-01-01T00:00:00Z", "12:34", "true"} {
		if got, ok := platform.ParseTime(text); ok {
			t.Errorf("%q is read as %s", text, got)
		}
	}
}

// Whatever is read is a time that an event can have.
func FuzzParseTime(f *testing.F) {
	for _, seed := range []string{"1769690096", "1769690096789.25", "2026-01-29T12:34:56.789+01:00", "9223372036854775807", strconv.FormatFloat(math.MaxInt64, 'f', -1, 64)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if at, ok := platform.ParseTime(text); ok && (at.Year() < 1970 || at.Year() > 9999) || !ok && !at.IsZero() {
			t.Errorf("%q is read as %s (%t)", text, at, ok)
		}
	})
}
