//go:build rig

package deploy_test

import (
	"net/http"
	"path/filepath"
	"slices"
	"strings"

	"github.com/tidings-dev/tidings/pkg/console"
	"github.com/tidings-dev/tidings/test/ministack"
)

const (
	second = "/second" // path of the receiver for the second stack's endpoint
	joined = "user.joined_community"
)

// besides deploys a stack beside another one, with a key of its own and a console that
// needs no AWS credentials, deletes it, and deploys it again over what remains.
func (s *stack) besides(first *stack, receiver *receiver, built string) {
	s.t.Helper()
	step := func(name string, do func()) { s.t.Helper(); step(s.t, name, do) }
	parameters := map[string]string{
		"AllowHttp": "true", "AllowNetworks": "127.0.0.0/8", "ConsoleAccess": "NONE", "SecretsKeyArn": "create",
		"SourceAddresses": "198.51.100.10,203.0.113.16/28",
	}
	emitted := 0
	deliver := func() {
		s.t.Helper()
		emitted++
		s.tidings(nil, "emit", "--file", filepath.Join("events", "emit-user-joined-community.json"))
		s.delivered(receiver, second, joined, emitted)
	}
	step("sam deploy of a second stack beside it, with ConsoleAccess=NONE", func() { s.deploy(built, "default", parameters) })
	var endpoint string
	step("each stack delivers its own events", func() {
		endpoint = s.endpoint(receiver, second)
		n := len(receiver.ids("/all", joined))
		deliver()
		first.tidings(nil, "emit", "--file", filepath.Join("events", "emit-user-joined-community.json"))
		first.delivered(receiver, "/all", joined, n+1)
		its, others := receiver.ids(second, joined), receiver.ids("/all", joined)
		if slices.ContainsFunc(its, func(id string) bool { return slices.Contains(others, id) }) || len(its) != emitted {
			s.t.Errorf("the second stack's endpoint has got %q, the first's %q", its, others)
		}
	})
	step("sign in to the console with a link, without AWS credentials", func() {
		if status, _ := s.call(false, "console", http.MethodGet, "/api/endpoints", "", nil); status != http.StatusUnauthorized {
			s.t.Errorf("without a session: %d", status)
		}
		link := strings.TrimSpace(s.tidings(nil, "console", "login"))
		_, path, _ := strings.Cut(strings.TrimPrefix(link, "https://"), "/")
		if status, body := s.call(false, "console", http.MethodGet, "/"+path, "", nil); status != http.StatusOK {
			s.t.Errorf("the link: %d %s", status, body)
		}
	})
	step("the source addresses, without a session", func() {
		const want = `{"addresses":["198.51.100.10/32","203.0.113.16/28"]}`
		if status, body := s.call(false, "console", http.MethodGet, console.SourceAddressesPath, "", nil); status != http.StatusOK || strings.TrimSpace(string(body)) != want {
			s.t.Errorf("%d %s, want %s", status, body, want)
		}
	})
	step("sam delete: six tables remain", func() {
		if out, err := s.emulator.Sam(s.t.Context(), "", "delete", "--stack-name", s.name, "--region", ministack.Region, "--no-prompts"); err != nil {
			s.t.Fatalf("%v\n%s\n%s", err, out, s.emulator.Tail())
		}
		if got := s.tables(); len(got) != 6 {
			s.t.Errorf("these tables remain: %q", got)
		}
	})
	step("import what remains, sam deploy: the endpoint is there, its secret too", func() {
		if out, err := s.emulator.Python(s.t.Context(), "tools/cloud/import.py", s.name, "SecretsKeyArn=create"); err != nil {
			s.t.Fatalf("%v\n%s\n%s", err, out, s.emulator.Tail())
		}
		s.deploy(built, "default", parameters)
		if out := s.tidings(nil, "endpoint", "list"); !strings.Contains(out, endpoint) {
			s.t.Errorf("the endpoint is gone:\n%s", out)
		}
		deliver()
	})
}
