package console_test

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/pkg/console"
)

// Of two operators who extend a discussion from the same page, one is told that it has
// another end now.
func TestASecondExtensionFromTheSamePageIsAConflict(t *testing.T) {
	w, _, _ := seeded(t)
	first, second := w.login(console.Admin, "default"), w.login(console.Admin, "default")
	d, err := w.store.GetDiscussion(t.Context(), "default", "d1")
	if err != nil {
		t.Fatal(err)
	}
	seen := w.end("d1")
	if a := first.post("/discussions/d1/extend", url.Values{"days": {"7"}, "seen": {seen}}); a.Code != http.StatusSeeOther {
		t.Fatalf("the first extension: %d %s", a.Code, a.Body)
	}
	w.pass(time.Second)
	extended := d.ExpiresAt.Add(7 * 24 * time.Hour)
	a := second.post("/discussions/d1/extend", url.Values{"days": {"7"}, "seen": {seen}})
	if body := text(t, a.Body.String()); a.Code != http.StatusConflict ||
		!strings.Contains(body, d.ExpiresAt.UTC().Format(time.RFC3339)) || !strings.Contains(body, extended.UTC().Format(time.RFC3339)) {
		t.Errorf("the second extension: %d %s, want 409 with the end that was seen and the current one", a.Code, body)
	}
	api := second.api(http.MethodPost, "/api/discussions/d1/extend",
		`{"to":"`+extended.Add(time.Hour).UTC().Format(time.RFC3339)+`","seen":"`+d.ExpiresAt.UTC().Format(time.RFC3339Nano)+`"}`)
	if api.Code != http.StatusConflict || !strings.Contains(api.Body.String(), "it is now "+extended.UTC().Format(time.RFC3339)) {
		t.Errorf("the API: %d %s, want 409 with both ends", api.Code, api.Body)
	}
	if d, err = w.store.GetDiscussion(t.Context(), "default", "d1"); err != nil || !d.ExpiresAt.Equal(extended) {
		t.Errorf("the discussion ends at %s, %v; want %s", d.ExpiresAt, err, extended)
	}
	if a := second.post("/discussions/d1/extend", url.Values{"days": {"7"}, "seen": {w.end("d1")}}); a.Code != http.StatusSeeOther {
		t.Errorf("an extension after a reload: %d %s", a.Code, a.Body)
	}
	for _, form := range []url.Values{{"days": {"7"}}, {"days": {"7"}, "seen": {"soon"}}, {"days": {"0"}, "seen": {w.end("d1")}}} {
		if a := second.post("/discussions/d1/extend", form); a.Code != http.StatusUnprocessableEntity {
			t.Errorf("extend with %v: %d, want 422", form, a.Code)
		}
	}
}

// An operator is not a user of the platform, so the login is not in the user id's field.
func TestConsoleChangesNameTheLogin(t *testing.T) {
	w, _, _ := seeded(t)
	b := w.login(console.Admin, "default")
	b.post("/discussions/d1/extend", url.Values{"days": {"7"}, "seen": {w.end("d1")}})
	b.post("/discussions/d2/close", nil)
	one, err := w.store.GetDiscussion(t.Context(), "default", "d1")
	if err != nil || !strings.HasPrefix(one.ExtendedByLogin, "console:") || one.ExtendedBy != "" {
		t.Errorf("extended by %q, login %q, %v", one.ExtendedBy, one.ExtendedByLogin, err)
	}
	two, err := w.store.GetDiscussion(t.Context(), "default", "d2")
	if err != nil || !strings.HasPrefix(two.ClosedByLogin, "console:") || two.ClosedBy != "" {
		t.Errorf("closed by %q, login %q, %v", two.ClosedBy, two.ClosedByLogin, err)
	}
	if body := text(t, b.get("/discussions").Body.String()); !strings.Contains(body, one.ExtendedByLogin) {
		t.Errorf("the page does not show %s", one.ExtendedByLogin)
	}
}

func TestAnExpiredOpenDiscussionSaysWhenItIsClosed(t *testing.T) {
	for every, want := range map[time.Duration]string{4 * time.Minute: "expired 3 min ago, closes within 5 min", 0: "expired 3 min ago"} {
		w := newWorld(t)
		w.console.CloseEvery = every
		w.discussion("d1", "Who brings the projector?")
		w.pass(-63*time.Minute - 10*time.Second)
		w.discussion("d2", "Parking")
		w.pass(63*time.Minute + 10*time.Second)
		b := w.login(console.Admin, "default")
		body := text(t, b.get("/discussions").Body.String())
		if !strings.Contains(body, want) || strings.Contains(body, "in 0 s") || every == 0 && strings.Contains(body, "closes within") {
			t.Errorf("closed every %s: %s; want %q", every, body, want)
		}
		if seen := strconv.FormatInt(w.now().Add(time.Hour).UnixMilli(), 10); !strings.Contains(b.get("/discussions").Body.String(), `name="seen" value="`+seen+`"`) {
			t.Error("the form does not carry the end that the page shows")
		}
	}
}
