// Package secrets reads destinations' credentials from AWS Secrets Manager.
// Endpoints hold the names of secrets, never the secrets. It promises that no
// error holds the text of one.
package secrets

import (
	"context"
	"errors"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
)

// Client is the part of *secretsmanager.Client that is used.
type Client interface {
	GetSecretValue(context.Context, *secretsmanager.GetSecretValueInput, ...func(*secretsmanager.Options)) (*secretsmanager.GetSecretValueOutput, error)
}

// Manager is Secrets Manager. It keeps nothing: adapters keep what they have read.
type Manager struct{ Client Client }

// Secret returns the text of the current version of a secret.
func (m Manager) Secret(ctx context.Context, name string) (string, error) {
	out, err := m.Client.GetSecretValue(ctx, &secretsmanager.GetSecretValueInput{SecretId: &name})
	if err != nil {
		return "", fmt.Errorf("secret %s: %w", name, err)
	}
	if out.SecretString == nil {
		return "", fmt.Errorf("secret %s: %w", name, errors.New("it is binary; a text is wanted"))
	}
	return aws.ToString(out.SecretString), nil
}
