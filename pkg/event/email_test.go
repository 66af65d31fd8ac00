package event_test

import (
	"strings"
	"testing"

	"github.com/tidings-dev/tidings/pkg/event"
)

func TestIsEmail(t *testing.T) {
	for _, text := range []string{
		"ada@example.org", "a@b", "ada.lovelace+news@mail.example.org", "o'brien@example.org", "jörg@exämple.de", "用户@例子.广告",
		`"ada lovelace"@example.org`, "ada@[192.0.2.1]", "a..b@example.org", strings.Repeat("a", 308) + "@example.org",
	} {
		if !event.IsEmail(text) {
			t.Errorf("%q is refused", text)
		}
	}
	for _, text := range []string{
		"", "@", "ada", "ada@", "@example.org", "ada@example.org.", "ada@.example.org", "ada@example..org", "ada @example.org", "ada@exam ple.org",
		"Ada <ada@example.org>", "ada@@example.org", "a@b@example.org", "ada@example.org,grace@example.org", "ada@example.org\r\nBcc: x", "mailto:ada@example.org",
		strings.Repeat("a", 309) + "@example.org", "\xff@example.org",
	} {
		if event.IsEmail(text) {
			t.Errorf("%q is accepted", text)
		}
	}
}
