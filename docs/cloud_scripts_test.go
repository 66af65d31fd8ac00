package docs_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// standIn puts a command on PATH that records its arguments, one call per line, and runs
// body.
func standIn(t *testing.T, name, body string) (calls func() []string, environment []string) {
	t.Helper()
	dir := t.TempDir()
	log := filepath.Join(dir, "calls")
	script := "#!/bin/sh\necho \"$*\" >> " + log + "\n" + body + "\n"
	if err := os.WriteFile(filepath.Join(dir, name), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	return func() []string {
		text, err := os.ReadFile(log)
		if err != nil {
			t.Fatal(err)
		}
		return strings.Split(strings.TrimSpace(string(text)), "\n")
	}, append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"))
}

func run(t *testing.T, environment []string, command string, args ...string) string {
	t.Helper()
	c := exec.CommandContext(t.Context(), command, args...)
	c.Env = environment
	out, err := c.Output()
	if err != nil {
		t.Fatalf("%s %v: %v", command, args, err)
	}
	return string(out)
}

func TestGoogleTopicScriptGivesOneRoleOnEachResource(t *testing.T) {
	// Nothing exists yet: describe fails.
	calls, environment := standIn(t, "gcloud", `case "$3" in describe) exit 1;; esac`)
	out := run(t, environment, "../tools/cloud/gcp-test-topic", "my-project", "user:ann@example.com")
	var changes []string
	for _, c := range calls() {
		if !strings.Contains(c, " describe ") {
			changes = append(changes, c)
		}
	}
	want := []string{
		"pubsub topics create tidings-test --project=my-project --message-retention-duration=1d",
		"pubsub subscriptions create tidings-test --project=my-project --topic=tidings-test --enable-message-ordering --message-retention-duration=1d",
		"pubsub topics add-iam-policy-binding tidings-test --project=my-project --role=roles/pubsub.publisher --member=user:ann@example.com",
		"pubsub subscriptions add-iam-policy-binding tidings-test --project=my-project --role=roles/pubsub.subscriber --member=user:ann@example.com",
	}
	if strings.Join(changes, "\n") != strings.Join(want, "\n") {
		t.Errorf("calls:\n%s\nwant:\n%s", strings.Join(changes, "\n"), strings.Join(want, "\n"))
	}
	for _, line := range []string{"TIDINGS_TEST_TOPIC=pubsub://my-project/tidings-test", "TIDINGS_TEST_SUBSCRIPTION=projects/my-project/subscriptions/tidings-test"} {
		if !strings.Contains(out, line) {
			t.Errorf("the script does not print %s:\n%s", line, out)
		}
	}
}

func TestGoogleTopicScriptCreatesNothingTwice(t *testing.T) {
	calls, environment := standIn(t, "gcloud", "exit 0") // everything exists
	run(t, environment, "../tools/cloud/gcp-test-topic", "my-project")
	for _, c := range calls() {
		if strings.Contains(c, "create") {
			t.Errorf("creates what exists: gcloud %s", c)
		}
	}
}

func TestAWSQueueScriptPrintsWhatTheTestNeeds(t *testing.T) {
	calls, environment := standIn(t, "sam", `[ "$1" = list ] && echo '[
		{"OutputKey": "QueueUrl", "OutputValue": "sqs://webhooks-tidings-test?region=eu-central-1"},
		{"OutputKey": "RoleArn", "OutputValue": "arn:aws:iam::123456789012:role/webhooks-tidings-test"},
		{"OutputKey": "TestPolicyArn", "OutputValue": "arn:aws:iam::123456789012:policy/t"}]'
		exit 0`)
	sender := "arn:aws:iam::123456789012:role/tidings-DispatchFunctionRole-X"
	out := run(t, environment, "../tools/cloud/aws-test-queue", sender)
	for _, line := range []string{
		`TIDINGS_TEST_QUEUE="sqs://webhooks-tidings-test?region=eu-central-1"`,
		"TIDINGS_TEST_ROLE=arn:aws:iam::123456789012:role/webhooks-tidings-test", "make test-cloud",
	} {
		if !strings.Contains(out, line) {
			t.Errorf("the script does not print %s:\n%s", line, out)
		}
	}
	if deploy := calls()[0]; !strings.HasPrefix(deploy, "deploy ") || !strings.Contains(deploy, "Sender="+sender) {
		t.Errorf("the first call is `sam %s`", deploy)
	}
}
