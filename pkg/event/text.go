package event

import (
	"errors"
	"fmt"
	"unicode"
	"unicode/utf8"
)

// Unsendable reports whether no header and message attribute can have the character: it is
// a control character, or no character.
func Unsendable(r rune) bool {
	return unicode.IsControl(r) || r == utf8.RuneError || r == 0xFFFE || r == 0xFFFF
}

// CheckText returns an error if a text cannot be a header or a message attribute on every
// protocol: it has a control character, a code point that is no character, or white space
// at its beginning or end, which HTTP removes. U+FFFD is refused too, because decoders put
// it in place of what they cannot read: two different texts would become one. The error
// does not repeat the text.
func CheckText(text string) error {
	if text == "" {
		return nil
	}
	if !utf8.ValidString(text) {
		return errors.New("is not valid UTF-8")
	}
	for at, r := range text {
		switch {
		case !Unsendable(r):
		case r == utf8.RuneError:
			return fmt.Errorf("has U+FFFD or a lone surrogate at byte %d, where a text could not be decoded", at)
		case unicode.IsControl(r):
			return fmt.Errorf("has the control character U+%04X at byte %d", r, at)
		default:
			return fmt.Errorf("has U+%04X at byte %d, which is not a character", r, at)
		}
	}
	first, _ := utf8.DecodeRuneInString(text)
	last, _ := utf8.DecodeLastRuneInString(text)
	if unicode.IsSpace(first) || unicode.IsSpace(last) {
		return errors.New("begins or ends with white space")
	}
	return nil
}

// MaxTenantBytes is the maximum length of a tenant's name.
const MaxTenantBytes = 64

// CheckTenant returns an error if a text is not a tenant's name: 1 to MaxTenantBytes
// letters, digits, dots, hyphens and underscores (ASCII).
func CheckTenant(name string) error {
	valid := len(name) >= 1 && len(name) <= MaxTenantBytes
	for i := range len(name) {
		switch c := name[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '.', c == '_', c == '-':
		default:
			valid = false
		}
	}
	if !valid {
		return fmt.Errorf("must be 1 to %d letters, digits, dots, hyphens and underscores", MaxTenantBytes)
	}
	return nil
}
