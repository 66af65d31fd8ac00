// Package secrets reads destinations' credentials from AWS Secrets Manager. Endpoints
// store the names of secrets, not the secrets. It promises that no error contains a
// secret's text.
package secrets

import (
	"context"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
)

// Client is the part of *secretsmanager.Client that this package uses.
type Client interface {
	GetSecretValue(context.Context, *secretsmanager.GetSecretValueInput, ...func(*secretsmanager.Options)) (*secretsmanager.GetSecretValueOutput, error)
}

// Manager reads secrets without a cache: adapters keep what they have read.
type Manager struct{ Client Client }

// Secret returns the text of the current version of a secret.
func (m Manager) Secret(ctx context.Context, name string) (string, error) {
	out, err := m.Client.GetSecretValue(ctx, &secretsmanager.GetSecretValueInput{SecretId: &name})
	if err != nil {
		return "", fmt.Errorf("secret %s: %w", name, err)
	}
	if out.SecretString == nil {
		return "", fmt.Errorf("secret %s is binary, want text (SecretString)", name)
	}
	return aws.ToString(out.SecretString), nil
}
