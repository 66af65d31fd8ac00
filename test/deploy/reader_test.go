//go:build rig

package deploy_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"go.yaml.in/yaml/v3"

	"github.com/tidings-dev/tidings/pkg/console"
	"github.com/tidings-dev/tidings/pkg/event/deployed"
	"github.com/tidings-dev/tidings/test/ministack"
)

// commandTime limits one command of the page. Two deployments by one took seven minutes on a
// busy machine.
const commandTime = 20 * time.Minute

// reader follows docs/deploying.md, and sections of other pages: it runs the commands as they are written there, in a
// checkout of its own, with an administrator's credentials.
type reader struct {
	t        *testing.T
	emulator *ministack.Emulator
	dir      string // the checkout
	commands map[string][]string
	values   map[string]string // in the place of the page's words for the reader's own
	// after are checks and preparations after a command, by how it begins. Each runs once.
	after map[string]func(out string)
}

// tag is the tag that the page rolls back to. The checkout has it.
const tag = "v1.2.2"

// newReader makes the checkout, a clone of a repository with the files of this one, and
// sets the parameters in its samconfig.toml as the page says.
func newReader(t *testing.T, e *ministack.Emulator, root, work string, parameters map[string]string) *reader {
	t.Helper()
	r := &reader{t: t, emulator: e, dir: filepath.Join(work, "checkout"), values: map[string]string{}, after: map[string]func(string){}}
	page := func(name string) map[string][]string {
		t.Helper()
		text, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(name)))
		if err != nil {
			t.Fatal(err)
		}
		return commands(string(text))
	}
	r.commands = page("docs/deploying.md")
	for name, section := range more {
		r.commands[section] = page(name)[section]
	}
	origin := filepath.Join(work, "origin")
	script := `set -e
mkdir -p ` + origin + `
git ls-files -co --exclude-standard -z | tar --null -T - --ignore-failed-read -cf - | tar -xf - -C ` + origin + `
cd ` + origin + `
git init -q && git add -A && git -c user.name=test -c user.email=test@example.com commit -qm all && git tag ` + tag + `
git clone -q ` + origin + ` ` + r.dir
	for _, cache := range []string{"tools/sam/.cache"} { // fetched before the test
		script += "\nln -sfn " + filepath.Join(root, cache) + " " + filepath.Join(r.dir, cache)
	}
	if out, err := r.bash(root, script); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	config := filepath.Join(r.dir, "samconfig.toml")
	text, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	set := ""
	for name, value := range parameters {
		set += " " + name + "=" + value
	}
	const list = `parameter_overrides = "`
	changed := strings.ReplaceAll(string(text), list, list+strings.TrimSpace(set)+" ")
	changed = strings.Replace(changed, "[default.deploy.parameters]\n", "[default.deploy.parameters]\n"+list+`SecretsKeyArn=create ConsoleAccess=NONE SourceAddresses=198.51.100.10,203.0.113.16/28`+set+"\"\n", 1)
	if err := os.WriteFile(config, []byte(changed), 0o600); err != nil {
		t.Fatal(err)
	}
	// `aws configure get region` reads a file.
	if err := os.WriteFile(filepath.Join(work, "aws.config"), []byte("[default]\nregion = "+ministack.Region+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return r
}

// bash runs a script in a folder. Each question is answered with yes.
func (r *reader) bash(dir, script string) (string, error) {
	ctx, cancel := context.WithTimeout(r.t.Context(), commandTime)
	defer cancel()
	c := exec.CommandContext(ctx, "bash", "-c", script)
	tools := filepath.Join(r.dir, "tools", "sam", ".cache")
	c.Dir, c.Stdin = dir, strings.NewReader(strings.Repeat("y\n", 20))
	c.Env = append(r.emulator.Environment(), "AWS_CONFIG_FILE="+filepath.Join(filepath.Dir(r.dir), "aws.config"), "TIDINGS_GOARCH="+runtime.GOARCH,
		"AWS_PAGER=", "PATH="+filepath.Join(tools, "sam", "bin")+":"+filepath.Join(tools, "aws", "bin")+":"+os.Getenv("PATH"))
	out, err := c.CombinedOutput()
	return string(out), err
}

// built is where `sam build` writes.
func (r *reader) built() string { return filepath.Join(r.dir, ".aws-sam", "build") }

// follow runs the commands of a section.
func (r *reader) follow(section string) {
	r.t.Helper()
	list := r.commands[section]
	if len(list) == 0 || !slices.Contains(slices.AppendSeq(slices.Clone(sections), maps.Values(more)), section) {
		r.t.Fatalf("no page has commands in the section %q", section)
	}
	for _, command := range list {
		r.run(command)
	}
}

// run runs one command of the page.
func (r *reader) run(command string) {
	r.t.Helper()
	written, from := command, time.Now()
	for _, e := range edits {
		command = strings.ReplaceAll(command, e.from, e.to)
	}
	for name, value := range r.values {
		command = strings.ReplaceAll(command, name, value)
	}
	out, err := r.bash(r.dir, command)
	why := reason(written)
	switch {
	case why == "" && err != nil:
		r.t.Fatalf("$ %s\n%v\n%s\n%s", command, err, out, r.emulator.Tail())
	case why != "" && err == nil:
		r.t.Fatalf("$ %s\nIt works, although %s: remove the reason.\n%s", command, why, out)
	}
	if strings.HasPrefix(written, "sam build") {
		if err := ministack.Adapt(r.built()); err != nil {
			r.t.Fatal(err)
		}
	}
	for begins, check := range r.after {
		if strings.HasPrefix(written, begins) {
			delete(r.after, begins)
			check(out)
		}
	}
	if r.t.Failed() {
		r.t.FailNow()
	}
	first, _, _ := strings.Cut(written, "\n")
	fmt.Printf("%6.1f s  $ %s\n", time.Since(from).Seconds(), first)
}

// sendsATestEvent follows the section about it, on a stack that the page has deployed.
func (r *reader) sendsATestEvent(s *stack, receiver *receiver) {
	r.t.Helper()
	r.values["https://crm.example.com/hooks"] = receiver.url + second
	r.after["bin/tidings --stack tidings endpoint add"] = func(out string) {
		receiver.know(second, regexp.MustCompile(`whsec_\S+`).FindString(out))
		var list []console.Endpoint
		s.tidings(&list, "endpoint", "list")
		if len(list) != 1 {
			r.t.Fatalf("the stack has the endpoints %+v", list)
		}
		r.values["ENDPOINT"] = list[0].ID
	}
	r.follow("3. Send a test event")
	s.delivered(receiver, second, joined, onThePage)
}

// addsATable follows the section about more tables of docs/capture.md, with the types and
// rules of examples/shop. It returns when they were applied.
func (r *reader) addsATable() (applied time.Time) {
	r.t.Helper()
	r.shell("aws dynamodb create-table --table-name Orders --billing-mode PAY_PER_REQUEST " +
		"--attribute-definitions AttributeName=order_id,AttributeType=S --key-schema AttributeName=order_id,KeyType=HASH")
	words := map[string]string{" types/": " examples/shop/types", " rules/": " examples/shop/rules"}
	maps.Copy(r.values, words)
	r.after["aws dynamodb describe-table"] = func(out string) {
		r.values["arn:aws:dynamodb:REGION:ACCOUNT:table/Orders/stream/LABEL"] = strings.TrimSpace(out)
	}
	r.after["bin/tidings --stack tidings capture apply"] = func(string) { applied = time.Now() }
	r.follow(more["docs/capture.md"])
	for word := range words {
		delete(r.values, word)
	}
	return applied
}

// sellsOrders lets the shop write orders as its page says, once the rules that were applied
// then are in effect. Each change that is an event arrives as a webhook.
func (r *reader) sellsOrders(s *stack, receiver *receiver, applied time.Time) {
	r.t.Helper()
	time.Sleep(time.Until(applied.Add(deployed.CacheTime))) // emit uses what it has read for so long; other steps take longer as a rule
	var printed string
	r.after["go run ./examples/shop"] = func(out string) { printed = out }
	r.follow(more["examples/shop/README.md"])
	counts := regexp.MustCompile(`(?m)^ +(\d+)  (order\.\w+)$`).FindAllStringSubmatch(printed, -1)
	if len(counts) != 3 {
		r.t.Fatalf("the shop prints no counts of three types:\n%s", printed)
	}
	for _, c := range counts {
		n, err := strconv.Atoi(c[1])
		if err != nil {
			r.t.Fatal(err)
		}
		s.delivered(receiver, second, c[2], n)
		if got := len(receiver.ids(second, c[2])); got != n {
			r.t.Errorf("%d webhooks %s, want %d", got, c[2], n)
		}
	}
}

// onThePage is how many webhooks of the type joined the page's commands send: a sample of
// tidings test, and an event.
const onThePage = 2

// shell runs commands that are not on the page.
func (r *reader) shell(script string) string {
	r.t.Helper()
	out, err := r.bash(r.dir, script)
	if err != nil {
		r.t.Fatalf("$ %s\n%v\n%s\n%s", script, err, out, r.emulator.Tail())
	}
	return strings.TrimSpace(out)
}

// followTheRest follows the sections after the first event, with the stacks that the page
// has deployed: it deploys a new version, deletes a stack, deploys it again over what
// remains, and rolls back.
func (r *reader) followTheRest(s, prod *stack, receiver *receiver) {
	r.t.Helper()
	r.follow("Static source addresses")

	before := s.live("dispatch")
	r.shell("cd ../origin && git -c user.name=test -c user.email=test@example.com commit -q --allow-empty -m 'a new version'")
	r.follow("Deploy a new version")
	if after := s.live("dispatch"); aws.ToString(after.CodeSha256) == aws.ToString(before.CodeSha256) {
		r.t.Fatal("the new version has the old code")
	}

	key := func() string {
		r.t.Helper()
		return r.shell("aws cloudformation describe-stack-resource --stack-name tidings --logical-resource-id SecretsKey --query StackResourceDetail.PhysicalResourceId --output text")
	}
	r.values["KEY"] = key()
	r.after["sam delete"] = func(string) {
		if got := s.tables(); len(got) != 6 {
			r.t.Errorf("these tables remain: %q", got)
		}
	}
	r.after["sam deploy"] = func(string) {
		if got := key(); got != r.values["KEY"] {
			r.t.Errorf("the stack has the key %s, it was %s", got, r.values["KEY"])
		}
		if out := s.tidings(nil, "endpoint", "list"); !strings.Contains(out, r.values["ENDPOINT"]) {
			r.t.Errorf("the endpoint is gone:\n%s", out)
		}
		s.tidings(nil, "emit", "--file", filepath.Join("events", "emit-user-joined-community.json"))
		s.delivered(receiver, second, joined, onThePage+1)
		r.shell("sam delete --stack-name tidings") // for the page's other way
	}
	r.after["for table in"] = func(string) {
		if got := s.tables(); len(got) != 0 {
			r.t.Errorf("these tables remain: %q", got)
		}
	}
	r.follow("Delete a stack, and what remains")
	step(r.t, "sam deploy --guided, with the default answer to each question", func() {
		// Enter takes what is offered. There is one more question for each URL without
		// authentication, which offers no.
		text, err := os.ReadFile(filepath.Join(r.built(), "template.yaml"))
		if err != nil {
			r.t.Fatal(err)
		}
		var template struct {
			Parameters map[string]any `yaml:"Parameters"`
		}
		if err := yaml.Unmarshal(text, &template); err != nil {
			r.t.Fatal(err)
		}
		answers := strings.Repeat("\n", 2+len(template.Parameters)+3) + "y\ny\nn\n"
		out, err := r.emulator.Sam(r.t.Context(), answers, "deploy", "--guided", "-t", filepath.Join(r.built(), "template.yaml"), "--stack-name", s.name,
			"--region", ministack.Region, "--no-progressbar", "--parameter-overrides", "Architecture="+ministack.Architecture(), "ConsoleAccess=NONE")
		if err != nil {
			r.t.Fatalf("%v\n%s\n%s", err, out, r.emulator.Tail())
		}
	})

	r.values["STACK_ROLE_ARN"], r.values["RECEIVER_URL"] = ministack.StackRole(prod.name), prod.testReceiver()
	newest := prod.live("dispatch")
	r.after["aws lambda list-versions"] = func(out string) {
		var versions []string
		if err := json.Unmarshal([]byte(out), &versions); err != nil || len(versions) < 2 {
			r.t.Fatalf("%v: %s", err, out)
		}
		r.values["PREVIOUS"] = versions[len(versions)-2]
	}
	r.follow("Roll back")
	if live := prod.live("dispatch"); aws.ToString(live.CodeSha256) != aws.ToString(newest.CodeSha256) {
		r.t.Error("live is not the version before the last")
	}
}
