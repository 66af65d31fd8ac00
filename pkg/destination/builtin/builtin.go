// Package builtin opens the destinations that Tidings supports: HTTP, SQS, Pub/Sub and
// Kafka. It is the only package that imports all of them, so that functions that do not
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
	// GoogleCredentials is a workload identity federation configuration, as JSON.
	GoogleCredentials string `env:"GOOGLE_CREDENTIALS"`
}

// Loopback allows receivers on this machine without TLS. It is for the local runner.
var Loopback = Settings{AllowHTTP: true, AllowNetworks: "127.0.0.0/8,::1/128"}

// Clouds are the cloud services that the SQS, Pub/Sub and Kafka adapters use. The zero
// value is sufficient to validate endpoint URLs.
type Clouds struct {
	// Config is the function's AWS configuration.
	Config aws.Config
	// SQS overrides the URL of SQS, for local use. Empty means AWS.
	SQS string
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
	g := guard.New(guard.Options{AllowNetworks: networks, AllowHTTP: s.AllowHTTP})
	return destination.NewRouter(destination.MaxOpenAdapters,
		httpadapter.Kind(httpadapter.Options{Guard: g}),
		sqsadapter.Kind(sqsadapter.Options{Config: func() aws.Config { return c.Config }, AssumeRole: c.assumeRole, Endpoint: c.SQS}),
		pubsubadapter.Kind(pubsubadapter.Options{Emulator: c.PubSubEmulator, Credentials: s.GoogleCredentials}),
		kafkaadapter.Kind(kafkaadapter.Options{
			Guard: g, Secrets: c.Secrets, AssumeRole: c.assumeRole,
			Credentials: func() aws.CredentialsProvider { return c.Config.Credentials },
		}),
	), nil
}
