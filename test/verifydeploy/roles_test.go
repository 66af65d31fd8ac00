package verifydeploy_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/tidings-dev/tidings/test/checkout"
)

// services are the IAM prefixes of the resources that the template makes, with those that
// SAM adds for a function: roles, versions and traffic shifting.
var services = map[string][]string{
	"AWS::CloudWatch::Alarm": {"cloudwatch"}, "AWS::CloudWatch::Dashboard": {"cloudwatch"}, "AWS::DynamoDB::Table": {"dynamodb"},
	"AWS::IAM::Policy": {"iam"}, "AWS::IAM::Role": {"iam"}, "AWS::KMS::Alias": {"kms"}, "AWS::KMS::Key": {"kms"}, "AWS::Lambda::EventSourceMapping": {"lambda"}, "AWS::Lambda::Permission": {"lambda"}, "AWS::Logs::LogGroup": {"logs"},
	"AWS::SNS::Subscription": {"sns"}, "AWS::SNS::Topic": {"sns"}, "AWS::SQS::Queue": {"sqs"},
	"AWS::Serverless::Function": {"lambda", "iam", "codedeploy", "scheduler"},
}

// CloudFormation's role has permissions for each kind of resource, and for nothing else
// but what they refer to.
func TestTheRolesFitTheTemplate(t *testing.T) {
	read := func(name string) string {
		path, err := checkout.Path(filepath.FromSlash(name))
		if err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	template, roles := read("template.yaml"), read(rolesTemplate)
	_, roles, found := strings.Cut(roles, "\n  StackRole:\n")
	if !found {
		t.Fatal("no StackRole in " + rolesTemplate)
	}
	var wanted, granted []string
	for _, m := range regexp.MustCompile(`(?m)^    Type: (AWS::\S+)$`).FindAllStringSubmatch(template, -1) {
		if services[m[1]] == nil {
			t.Errorf("no permissions are known for %s: add them to %s, and the service here", m[1], rolesTemplate)
		}
		wanted = append(wanted, services[m[1]]...)
	}
	for _, m := range regexp.MustCompile(`(?:- |\[|, |Action: )([a-z0-9]+):[A-Z*]`).FindAllStringSubmatch(roles, -1) {
		granted = append(granted, m[1])
	}
	wanted = append(wanted, "s3", "ec2") // binaries, and the networks of functions
	slices.Sort(wanted)
	slices.Sort(granted)
	granted = slices.DeleteFunc(slices.Compact(granted), func(s string) bool { return s == "sts" }) // its trust policy
	if wanted = slices.Compact(wanted); !slices.Equal(wanted, granted) {
		t.Errorf("the role grants %v, the template needs %v", granted, wanted)
	}
	// The key's tag, by which the role knows it.
	if tag := "tidings-stack"; !strings.Contains(template, "Tags: [{ Key: "+tag+", Value: !Ref AWS::StackName }]") || !strings.Contains(roles, "aws:ResourceTag/"+tag) {
		t.Errorf("the template's key and the role's condition have no tag %s in common", tag)
	}
}
