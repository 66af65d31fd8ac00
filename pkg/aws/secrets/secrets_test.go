package secrets_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	"github.com/tidings-dev/tidings/pkg/aws/secrets"
)

// answering returns a Secrets Manager that sends one response. `make test-brokers`
// tests against moto.
func answering(t *testing.T, status int, body string) secrets.Manager {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Amz-Target") != "secretsmanager.GetSecretValue" {
			t.Errorf("called %s", r.Header.Get("X-Amz-Target"))
		}
		w.Header().Set("Content-Type", "application/x-amz-json-1.1")
		w.WriteHeader(status)
		fmt.Fprint(w, body)
	}))
	t.Cleanup(server.Close)
	return secrets.Manager{Client: secretsmanager.New(secretsmanager.Options{
		Region: "us-east-1", BaseEndpoint: &server.URL, Credentials: credentials.NewStaticCredentialsProvider("a", "b", ""), Retryer: aws.NopRetryer{},
	})}
}

func TestSecretReturnsTheText(t *testing.T) {
	got, err := answering(t, 200, `{"Name":"tidings/t/kafka","SecretString":"{\"username\":\"u\",\"password\":\"p\"}"}`).Secret(t.Context(), "tidings/t/kafka")
	if err != nil || got != `{"username":"u","password":"p"}` {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestErrorsNameTheSecretAndNotItsText(t *testing.T) {
	for name, m := range map[string]secrets.Manager{
		"binary":  answering(t, 200, `{"Name":"tidings/t/kafka","SecretBinary":"aHVudGVyMg=="}`),
		"missing": answering(t, 400, `{"__type":"ResourceNotFoundException","Message":"Secrets Manager can't find the specified secret."}`),
		"denied":  answering(t, 400, `{"__type":"AccessDeniedException","Message":"no"}`),
	} {
		got, err := m.Secret(t.Context(), "tidings/t/kafka")
		if err == nil || got != "" || !strings.Contains(err.Error(), "tidings/t/kafka") || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}
