package console_test

import (
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/pkg/destination"
	"github.com/tidings-dev/tidings/pkg/destination/builtin"
	"github.com/tidings-dev/tidings/pkg/event"
)

// protocols returns all protocols, as in a deployment.
func protocols(t *testing.T) *destination.Router {
	t.Helper()
	r, err := builtin.Open(builtin.Settings{}, builtin.Clouds{})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// shell returns the arguments that a POSIX shell passes to a curl command.
func shell(t *testing.T, command string) []string {
	t.Helper()
	c := exec.Command("sh", "-c", `curl() { for word in "$@"; do printf '%s\0' "$word"; done; }; `+command)
	out, err := c.Output()
	if err != nil {
		t.Fatalf("sh: %v\n%s", err, command)
	}
	return strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00")
}

func eventTime(id string) (time.Time, error) { return event.IDTime(id) }

func newID(w *world) string { return event.NewID(w.now()) }
