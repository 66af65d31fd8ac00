package handler

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/tidings-dev/tidings/pkg/signature"
)

func TestTheDiscussionsSecretIsReadOnce(t *testing.T) {
	want, reads := signature.NewSecret(), 0
	get := cachedSecret(func(_ context.Context, name string) (string, error) {
		if reads++; name != "tidings-discussions" {
			t.Errorf("read %q", name)
		}
		return `{"signing_secret":"` + want.Reveal() + `"}`, nil
	}, "tidings-discussions")
	for range 2 {
		if got, err := get(t.Context()); err != nil || got.Reveal() != want.Reveal() {
			t.Errorf("%v", err)
		}
	}
	if reads != 1 {
		t.Errorf("read %d times", reads)
	}
}

// A failure is not kept, and says what to do without the secret's text.
func TestADiscussionsSecretThatCannotBeUsedIsAnError(t *testing.T) {
	text, failure := "", errors.New("denied")
	get := cachedSecret(func(context.Context, string) (string, error) { return text, failure }, "tidings-discussions")
	if _, err := get(t.Context()); !errors.Is(err, failure) {
		t.Errorf("%v, want the reader's error", err)
	}
	failure = nil
	for _, text = range []string{"", "private", `{"signing_secret":"private"}`, `{"signing_secret":""}`} {
		_, err := get(t.Context())
		if err == nil || !strings.Contains(err.Error(), "DiscussionsSecret") || strings.Contains(err.Error(), "private") {
			t.Errorf("%q: %v", text, err)
		}
	}
	text = `{"signing_secret":"` + signature.NewSecret().Reveal() + `"}`
	if _, err := get(t.Context()); err != nil {
		t.Errorf("after it was mended: %v", err)
	}
}
