// Package builtin opens the destinations that Tidings supports: HTTP, SQS, EventBridge,
// Pub/Sub and Kafka. It is the only package that imports all of them, so that functions that do not
// deliver events do not link their client libraries.
package builtin

import (
	"fmt"
	"os"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/tidings-dev/tidings/pkg/aws/secrets"
	"github.com/tidings-dev/tidings/pkg/destination"
	"github.com/tidings-dev/tidings/pkg/destination/eventbridgeadapter"
	"github.com/tidings-dev/tidings/pkg/destination/guard"
	"github.com/tidings-dev/tidings/pkg/destination/httpadapter"
	"github.com/tidings-dev/tidings/pkg/destination/kafkaadapter"
	"github.com/tidings-dev/tidings/pkg/destination/pubsubadapter"
	"github.com/tidings-dev/tidings/pkg/destination/sqsadapter"
)

// Settings configure the allowed destinations of a deployment.
type Settings struct {
	AllowHTTP     bool   `env:"ALLOW_HTTP"`
	AllowNetworks string `env:"ALLOW_NETWORKS"` // private networks, as comma-separated CIDRs
	// GoogleProvider is a workload identity provider that trusts the function's AWS role:
	// projects/NUMBER/locations/global/workloadIdentityPools/POOL/providers/PROVIDER.
	GoogleProvider string `env:"GOOGLE_PROVIDER"`
	// DestinationTenants says which tenants may use which destinations with the
	// deployment's own identity: tenant=pattern, separated by semicolons. Tenants other than
	// the default may use none unless they are named.
	DestinationTenants string `env:"DESTINATION_TENANTS"`
}

// Loopback allows receivers on this machine without TLS. It is for the local runner.
var Loopback = Settings{AllowHTTP: true, AllowNetworks: "127.0.0.0/8,::1/128"}

// Clouds are the cloud services that the adapters besides HTTP use. The zero
// value is sufficient to validate endpoint URLs.
type Clouds struct {
	// Config is the function's AWS configuration.
	Config aws.Config
	// SQS and EventBridge override the URLs of these services, for local use. Empty means AWS.
	SQS, EventBridge string
	// PubSubEmulator is the host:port of a Pub/Sub emulator. Empty means Google Cloud.
	PubSubEmulator string
	// Secrets resolves the names in endpoints' credentials.
	Secrets kafkaadapter.Secrets
}

// Deployed returns the services of a deployment. Like Google's clients, it uses the
// Pub/Sub emulator at PUBSUB_EMULATOR_HOST if that is set.
func Deployed(config aws.Config) Clouds {
	return Clouds{
		Config:         config,
		PubSubEmulator: os.Getenv("PUBSUB_EMULATOR_HOST"),
		Secrets:        secrets.Manager{Client: secretsmanager.NewFromConfig(config)},
	}
}

// attemptConfig is the configuration of clients that make attempts, whose only limit is
// the endpoint's timeout.
func (c Clouds) attemptConfig() aws.Config {
	config := c.Config.Copy()
	config.APIOptions = nil
	return config
}

// sessionTime is the lifetime of an assumed role's credentials: the minimum of STS.
const sessionTime = 15 * time.Minute

// assumeRole returns the credentials of a role. STS is called on first use.
func (c Clouds) assumeRole(roleARN, externalID, region string) aws.CredentialsProvider {
	client := sts.NewFromConfig(c.Config, func(o *sts.Options) { o.Region = region })
	return stscreds.NewAssumeRoleProvider(client, roleARN, func(o *stscreds.AssumeRoleOptions) {
		o.ExternalID = &externalID
		o.RoleSessionName = "tidings"
		o.Duration = sessionTime
	})
}

// Open returns a router to all destinations.
func Open(s Settings, c Clouds) (*destination.Router, error) {
	networks, err := guard.ParseNetworks(s.AllowNetworks)
	if err != nil {
		return nil, fmt.Errorf("ALLOW_NETWORKS: %w", err)
	}
	tenants, err := parseTenantRules(s.DestinationTenants)
	if err != nil {
		return nil, fmt.Errorf("DESTINATION_TENANTS: %w", err)
	}
	g := guard.New(guard.Options{AllowNetworks: networks, AllowHTTP: s.AllowHTTP})
	return destination.NewRouter(destination.MaxOpenAdapters,
		httpadapter.Kind(httpadapter.Options{Guard: g, Secrets: c.Secrets}),
		tenants.bound(sqsadapter.Kind(sqsadapter.Options{Config: c.attemptConfig, AssumeRole: c.assumeRole, Endpoint: c.SQS}), withoutRole),
		tenants.bound(eventbridgeadapter.Kind(eventbridgeadapter.Options{Config: c.attemptConfig, AssumeRole: c.assumeRole, Endpoint: c.EventBridge}), withoutRole),
		tenants.bound(pubsubadapter.Kind(pubsubadapter.Options{Emulator: c.PubSubEmulator, Credentials: federation(s.GoogleProvider)}), always),
		tenants.bound(kafkaadapter.Kind(kafkaadapter.Options{
			Guard: g, Secrets: c.Secrets, AssumeRole: c.assumeRole,
			Credentials: func() aws.CredentialsProvider { return c.Config.Credentials },
		}), mskWithoutRole),
	), nil
}

// federation returns the configuration with which Google's library exchanges the
// function's AWS credentials for a token of Google (what `gcloud iam
// workload-identity-pools create-cred-config --aws` writes). It is "" without a provider.
func federation(provider string) string {
	if provider == "" {
		return ""
	}
	return `{"type":"external_account","universe_domain":"googleapis.com","audience":"//iam.googleapis.com/` + provider + `",` +
		`"subject_token_type":"urn:ietf:params:aws:token-type:aws4_request","token_url":"https://sts.googleapis.com/v1/token",` +
		`"credential_source":{"environment_id":"aws1","regional_cred_verification_url":"https://sts.{region}.amazonaws.com?Action=GetCallerIdentity&Version=2011-06-15"}}`
}
