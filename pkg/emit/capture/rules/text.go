package rules

import (
	"encoding/json"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/tidings-dev/tidings/pkg/event"
)

// maxLabel is the limit of the catalog's schemas for ids, names and titles, in characters.
const maxLabel = 256

// Limits in bytes.
const (
	maxActor     = 256 // of emit, for actor_user_id
	maxRequestID = 256 // of emit, for request_id
	// maxData leaves room for the envelope: two texts of 256 bytes, of which each can
	// take six times that in JSON, and the ids.
	maxData = event.MaxBodyBytes - 4096
)

// ellipsis marks a text that was cut.
const ellipsis = "…"

// cut shortens a text to a number of characters; the last one is then an ellipsis.
func cut(text string, limit int) string {
	if len(text) <= limit { // at most one character per byte
		return text
	}
	last, n := 0, 0
	for at := range text {
		if n++; n == limit {
			last = at
		}
		if n > limit {
			return text[:last] + ellipsis
		}
	}
	return text
}

// cutBytes shortens a text to a number of bytes, without splitting a character.
func cutBytes(text string, limit int) string {
	if len(text) <= limit {
		return text
	}
	at := limit - len(ellipsis)
	for at > 0 && !utf8.RuneStart(text[at]) {
		at--
	}
	return text[:at] + ellipsis
}

// label shortens a name or a title to what the catalog accepts.
func label(text string) string { return cut(text, maxLabel) }

// optionalID leaves out an id that the catalog would reject: a part of an id names
// something else.
func optionalID(id string) string {
	if utf8.RuneCountInString(id) > maxLabel {
		return ""
	}
	return id
}

// actorID leaves out an actor that emit would reject.
func actorID(id string) string {
	if len(id) > maxActor || event.CheckText(id) != nil {
		return ""
	}
	return id
}

// requestID removes what emit would reject from a request's ID, and shortens it.
func requestID(id string) string {
	id = strings.Map(func(r rune) rune {
		if event.Unsendable(r) {
			return -1
		}
		return r
	}, id)
	return cutBytes(strings.TrimSpace(id), maxRequestID)
}

// address returns the address of an email field, without a display name; "" if it has
// none.
func address(text string) string {
	text = strings.TrimSpace(text)
	if start := strings.LastIndexByte(text, '<'); start >= 0 && strings.HasSuffix(text, ">") {
		text = strings.TrimSpace(text[start+1 : len(text)-1])
	}
	if !event.IsEmail(text) {
		return ""
	}
	return text
}

// number returns a decimal number as JSON; "" if the text is none.
func number(text string) json.Number {
	text = strings.TrimSpace(text)
	if len(text) > 40 || !json.Valid([]byte(text)) {
		return ""
	}
	if f, err := strconv.ParseFloat(text, 64); err != nil || math.IsInf(f, 0) {
		return ""
	}
	return json.Number(text)
}

// encodedLen is how many bytes a character takes in a JSON string, at most.
func encodedLen(r rune) int {
	switch {
	case r == '"', r == '\\', r == '\n', r == '\r', r == '\t':
		return 2
	case r < ' ', r == utf8.RuneError, r == '\u2028', r == '\u2029':
		return 6
	}
	return utf8.RuneLen(r)
}
