package ministack

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestAdaptChangesOnlyWhatTheEmulatorLacks(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "template.yaml")
	const built = `Globals:
    Function:
        DeploymentPreference:
            Type: AllAtOnce
        Runtime: provided.al2023
Resources:
    Alarm:
        Properties:
            AlarmName: a
            Metrics:
                - Id: m
        Type: AWS::CloudWatch::Alarm
    Fn:
        Properties:
            Events:
                Work:
                    Properties:
                        ScalingConfig:
                            MaximumConcurrency:
                                Ref: Max
        Type: AWS::Serverless::Function
    Role:
        Properties:
            Policies:
                - PolicyDocument:
                    Statement:
                        - Action: sqs:SendMessage
                        - Action:
                            - sqs:ReceiveMessage
                  PolicyName: function
        Type: AWS::IAM::Role
    Table:
        Properties:
            DeletionProtectionEnabled:
                Ref: DeletionProtection
        Type: AWS::DynamoDB::Table
`
	if err := os.WriteFile(path, []byte(built), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Adapt(dir); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want := strings.NewReplacer(
		"        DeploymentPreference:\n            Type: AllAtOnce\n", "",
		"            Metrics:\n                - Id: m\n", "            MetricName: Errors\n            Namespace: AWS/Lambda\n            Period: 60\n            Statistic: Sum\n",
		"DeletionProtectionEnabled:\n                Ref: DeletionProtection", "DeletionProtectionEnabled: false",
		"MaximumConcurrency:\n                                Ref: Max", "MaximumConcurrency: 50",
		"Action: sqs:SendMessage\n", "Action:\n                            - sqs:SendMessage\n                            - sqs:SendMessageBatch\n",
	).Replace(built)
	if string(text) != want {
		t.Errorf("adapted to\n%s\nwant\n%s", text, want)
	}
}
