package platform

import (
	"math"
	"strconv"
	"strings"
	"time"
)

// The unit of an epoch time is told by its size: each range is the time from March 1973
// to the year 5138 in one unit, so that no time of a platform's record is in two of
// them. Smaller numbers are not times.
const (
	seconds      = 1e8
	milliseconds = 1e11
	microseconds = 1e14
	nanoseconds  = 1e17
)

// layouts are the forms of a date and time: ISO 8601, and what databases and languages
// print by default. A time without an offset is UTC. Parsing accepts a fraction of a
// second after each of them.
var layouts = func() []string {
	var all []string
	for _, separator := range []string{"T", " "} {
		for _, zone := range []string{"Z07:00", "Z0700", "Z07", " Z07:00", " Z0700", " UTC", ""} {
			all = append(all, "2006-01-02"+separator+"15:04:05"+zone)
		}
	}
	return append(all, "2006-01-02T15:04Z07:00", "2006-01-02T15:04", "20060102T150405Z07:00", "20060102T150405Z0700", "20060102T150405", time.DateOnly, "20060102")
}()

// ParseTime reads a time as platforms write it: epoch seconds, milliseconds,
// microseconds or nanoseconds, also with a fraction, or an ISO 8601 date and time. The
// result is in UTC. It reports false for anything else, and for times before 1970 or
// after 9999, which no event can have.
func ParseTime(text string) (time.Time, bool) {
	text = strings.TrimSpace(text)
	at, ok := parseEpoch(text)
	for _, layout := range layouts {
		if ok {
			break
		}
		parsed, err := time.Parse(layout, text)
		at, ok = parsed.UTC(), err == nil
	}
	if !ok || at.Unix() <= 0 || at.Year() > 9999 {
		return time.Time{}, false
	}
	return at, true
}

func parseEpoch(text string) (time.Time, bool) {
	if n, err := strconv.ParseInt(text, 10, 64); err == nil { // exact, unlike a float64
		switch {
		case n < seconds:
			return time.Time{}, false
		case n < milliseconds:
			return time.Unix(n, 0).UTC(), true
		case n < microseconds:
			return time.UnixMilli(n).UTC(), true
		case n < nanoseconds:
			return time.UnixMicro(n).UTC(), true
		}
		return time.Unix(0, n).UTC(), true
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil || math.IsNaN(f) || f < seconds || f >= math.MaxInt64 {
		return time.Time{}, false
	}
	perSecond := 1.0
	switch {
	case f >= nanoseconds:
		perSecond = 1e9
	case f >= microseconds:
		perSecond = 1e6
	case f >= milliseconds:
		perSecond = 1e3
	}
	whole := math.Floor(f / perSecond)
	fraction := (f - whole*perSecond) / perSecond
	// A float64 of today's seconds is exact to less than a microsecond.
	return time.Unix(int64(whole), int64(fraction*1e9)).Round(time.Microsecond).UTC(), true
}
