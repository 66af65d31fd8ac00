package dynamoemulator_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/tidings-dev/tidings/pkg/local/dynamoemulator"
)

// parentVariable makes the test binary run as the parent that the test kills.
const parentVariable = "DYNAMOEMULATOR_TEST_PARENT"

func TestTheServerEndsWithAKilledParent(t *testing.T) {
	if os.Getenv(parentVariable) != "" {
		s, err := dynamoemulator.Start(t.Context(), dynamoemulator.Options{})
		if err != nil {
			t.Fatal(err)
		}
		fmt.Println("at", s.URL)
		<-s.Ended()
		return
	}
	parent := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.timeout=1m")
	parent.Env = append(os.Environ(), parentVariable+"=1")
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	address := ""
	for lines := bufio.NewScanner(out); address == "" && lines.Scan(); {
		if found, ok := strings.CutPrefix(lines.Text(), "at "); ok {
			address = found
		}
	}
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = parent.Wait() // it was killed
	if address == "" {
		t.Fatal("the parent started no server")
	}
	// Start fails if the port is still taken.
	start(t, dynamoemulator.Options{Port: port(t, address)})
}
