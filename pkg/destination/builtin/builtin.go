// Package builtin puts the protocols together that webhooks can take: HTTP,
// SQS, Pub/Sub, Kafka. It stands apart from package assemble so that a function
// which delivers nothing links none of them.
package builtin

import (
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/tidings-dev/tidings/pkg/assemble"
	"github.com/tidings-dev/tidings/pkg/aws/secrets"
	"github.com/tidings-dev/tidings/pkg/destination"
	"github.com/tidings-dev/tidings/pkg/destination/guard"
	"github.com/tidings-dev/tidings/pkg/destination/httpadapter"
	"github.com/tidings-dev/tidings/pkg/destination/kafkaadapter"
	"github.com/tidings-dev/tidings/pkg/destination/pubsubadapter"
	"github.com/tidings-dev/tidings/pkg/destination/sqsadapter"
)

// Clouds are what destinations beyond HTTP are reached through. The zero value
// is enough to check an endpoint's URL.
type Clouds struct {
	// Config is the function's own access to AWS.
	Config aws.Config
	// SQS is the URL of another SQS than AWS's; "" is AWS.
	SQS string
	// PubSubEmulator is the host:port of an emulator; "" is Google.
	PubSubEmulator string
	// Secrets keep the credentials that endpoints name.
	Secrets kafkaadapter.Secrets
}

// Deployed opens a deployment's destinations. PUBSUB_EMULATOR_HOST is honoured as
// Google's own clients do.
func Deployed(config aws.Config, environment map[string]string) assemble.Destinations {
	return func(s assemble.DestinationSettings) (*destination.Registry, error) {
		return Open(s, Clouds{
			Config:         config,
			PubSubEmulator: environment["PUBSUB_EMULATOR_HOST"],
			Secrets:        secrets.Manager{Client: secretsmanager.NewFromConfig(config)},
		})
	}
}

// sessionTime is how long an assumed role's credentials last, the least that STS
// gives.
const sessionTime = 15 * time.Minute

// assumeRole returns the credentials of a role, which are asked for when they
// are needed.
func (c Clouds) assumeRole(roleARN, externalID, region string) aws.CredentialsProvider {
	client := sts.NewFromConfig(c.Config, func(o *sts.Options) { o.Region = region })
	return stscreds.NewAssumeRoleProvider(client, roleARN, func(o *stscreds.AssumeRoleOptions) {
		o.ExternalID = &externalID
		o.RoleSessionName = "tidings"
		o.Duration = sessionTime
	})
}

// Open returns the registry of every protocol.
func Open(s assemble.DestinationSettings, c Clouds) (*destination.Registry, error) {
	networks, err := guard.ParseNetworks(s.AllowNetworks)
	if err != nil {
		return nil, fmt.Errorf("ALLOW_NETWORKS: %w", err)
	}
	g := guard.New(guard.Options{AllowNetworks: networks, AllowHTTP: s.AllowHTTP})
	return destination.NewRegistry(destination.MaxOpen,
		httpadapter.Kind(httpadapter.Options{Guard: g}),
		sqsadapter.Kind(sqsadapter.Options{Config: func() aws.Config { return c.Config }, AssumeRole: c.assumeRole, Endpoint: c.SQS}),
		pubsubadapter.Kind(pubsubadapter.Options{Emulator: c.PubSubEmulator, Credentials: s.GoogleCredentials}),
		kafkaadapter.Kind(kafkaadapter.Options{
			Guard: g, Secrets: c.Secrets, AssumeRole: c.assumeRole,
			Credentials: func() aws.CredentialsProvider { return c.Config.Credentials },
		}),
	), nil
}
