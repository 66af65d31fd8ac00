package event

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxEmail is the maximum length of an address, in characters.
const maxEmail = 320

// IsEmail reports whether a text is an email address that the catalog accepts. It checks
// the form of RFC 6531, which allows addresses in every script, and not whether the
// domain exists: that is decided by who sends to it.
func IsEmail(text string) bool {
	at := strings.LastIndexByte(text, '@')
	if at < 1 || utf8.RuneCountInString(text) > maxEmail || !utf8.ValidString(text) {
		return false
	}
	local, domain := text[:at], text[at+1:]
	if domain == "" || strings.HasPrefix(domain, ".") || strings.HasSuffix(domain, ".") || strings.Contains(domain, "..") {
		return false
	}
	quoted := len(local) > 2 && strings.HasPrefix(local, `"`) && strings.HasSuffix(local, `"`)
	for i, r := range text {
		switch {
		case unicode.IsControl(r):
			return false
		case quoted && i < at:
		case unicode.IsSpace(r), strings.ContainsRune(`<>()[],;:"\`, r) && !(i > at && strings.ContainsRune("[]:", r)):
			return false
		case r == '@' && i != at:
			return false
		}
	}
	return true
}
