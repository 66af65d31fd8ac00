package main

import (
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"charm.land/lipgloss/v2"
)

// screen is what all commands print to. A terminal obeys control characters, and shows text
// behind a bidirectional one in another order; what Tidings prints is in part written by
// others (comments, responses, descriptions). Write therefore makes such characters visible,
// as \u001b, which in JSON is the same text. Only styles made by paint reach the terminal.
type screen struct {
	out io.Writer

	mu   sync.Mutex
	rest []byte // begin of a character whose end has not been written yet
}

func newScreen(out io.Writer) *screen { return &screen{out: out} }

// escape stands for the escape character of styles until the text is written. It differs in
// each process, so no text can have it.
var escape = func() string {
	text := ""
	for range 6 {
		text += string(rune(0x100000 + rand.IntN(0xfffd)))
	}
	return text
}()

// paint returns a text in a style.
func paint(style lipgloss.Style, text string) string {
	return strings.ReplaceAll(style.Render(visible(text)), "\x1b", escape)
}

// Write implements io.Writer. Lines may end and tabulators are kept.
func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	text := slices.Concat(s.rest, p)
	end := len(text)
	for i := max(0, end-utf8.UTFMax+1); i < end; i++ {
		if utf8.RuneStart(text[i]) && !utf8.FullRune(text[i:]) {
			end = i
			break
		}
	}
	s.rest = text[end:]
	shown := strings.ReplaceAll(visible(string(text[:end])), escape, "\x1b")
	if _, err := lipgloss.Fprint(s.out, shown); err != nil {
		return 0, err
	}
	return len(p), nil
}

// visible replaces control characters other than line ends and tabulators, invisible and
// bidirectional format characters, and bytes that are no UTF-8.
func visible(text string) string {
	if strings.IndexFunc(text, isHidden) < 0 && utf8.ValidString(text) {
		return text
	}
	var b strings.Builder
	for i, r := range text {
		switch {
		case r == utf8.RuneError && !strings.HasPrefix(text[i:], string(utf8.RuneError)):
			fmt.Fprintf(&b, `\x%02x`, text[i])
		case !isHidden(r):
			b.WriteRune(r)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			fmt.Fprintf(&b, `\u%04x\u%04x`, high, low)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}

// isHidden reports whether a character moves, hides or reorders what a terminal shows. The
// joiners of emoji and of Persian do not.
func isHidden(r rune) bool {
	switch r {
	case '\n', '\t', '\u200c', '\u200d':
		return false
	case utf8.RuneError:
		return false
	}
	return unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp)
}

// cell returns a text for a cell of a table, in one line.
func cell(text string) string {
	return strings.NewReplacer("\n", `\n`, "\t", `\t`).Replace(text)
}
