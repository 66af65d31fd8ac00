package ministack

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"go.yaml.in/yaml/v3"
)

// credentialSet are the credentials of a session.
type credentialSet struct {
	AccessKeyID     string `json:"AccessKeyId"`
	SecretAccessKey string `json:"SecretAccessKey"`
	SessionToken    string `json:"SessionToken"`
}

// AdaptRoles changes a copy of tools/github/role.yaml to one that the emulator accepts. It
// has no identity providers, but it evaluates who may assume a role.
func AdaptRoles(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var root yaml.Node // keeps the short forms of intrinsic functions
	if err := yaml.Unmarshal(text, &root); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	without(&root, "GitHub", "arn:aws:iam::"+Account+":oidc-provider/token.actions.githubusercontent.com")
	adapted, err := yaml.Marshal(&root)
	if err != nil {
		return err
	}
	return os.WriteFile(path, adapted, 0o644)
}

// without removes a resource, and replaces `!If [_, !Ref name, _]` by a value.
func without(n *yaml.Node, name, value string) {
	for i := 0; i < len(n.Content); i++ {
		c := n.Content[i]
		switch {
		case n.Kind == yaml.MappingNode && i%2 == 0 && c.Value == name:
			n.Content = append(n.Content[:i], n.Content[i+2:]...)
			i--
		case c.Tag == "!If" && len(c.Content) == 3 && c.Content[1].Tag == "!Ref" && c.Content[1].Value == name:
			n.Content[i] = &yaml.Node{Kind: yaml.ScalarNode, Value: value}
		default:
			without(c, name, value)
		}
	}
}

// AsGitHub returns the emulator as a job of GitHub Actions uses it, which has assumed the
// role of tools/github/role.yaml. subject is that of the job's token, such as
// repo:owner/name:environment:prod.
func (e *Emulator) AsGitHub(ctx context.Context, stack, subject string) (*Emulator, error) {
	out, err := e.output(ctx, nil, "python3", filepath.Join("tools", "ministack", "github.py"), "arn:aws:iam::"+Account+":role/"+stack+"-github", subject)
	if err != nil {
		return nil, err
	}
	job := *e
	if err := json.Unmarshal(out, &job.session); err != nil {
		return nil, fmt.Errorf("github.py: %w", err)
	}
	return &job, nil
}

// StackRole is the ARN of CloudFormation's role of tools/github/role.yaml.
func StackRole(stack string) string {
	return "arn:aws:iam::" + Account + ":role/" + stack + "-cloudformation"
}
