package builtin

import (
	"encoding/json"
	"testing"

	"cloud.google.com/go/auth/credentials"
)

// Google's library must accept what the parameter GoogleProvider becomes.
func TestAGoogleProviderBecomesAConfigurationThatGooglesLibraryReads(t *testing.T) {
	const provider = "projects/123456789012/locations/global/workloadIdentityPools/tidings/providers/aws"
	text := []byte(federation(provider))
	var written struct {
		Audience string `json:"audience"`
	}
	if err := json.Unmarshal(text, &written); err != nil || written.Audience != "//iam.googleapis.com/"+provider {
		t.Fatalf("%s: %v", text, err)
	}
	if _, err := credentials.NewCredentialsFromJSON(credentials.ExternalAccount, text, &credentials.DetectOptions{Scopes: []string{"https://www.googleapis.com/auth/pubsub"}}); err != nil {
		t.Error(err)
	}
	if federation("") != "" {
		t.Error("without a provider there are no credentials")
	}
}
