package kafkaadapter

import (
	"context"
	"encoding/json"

	"github.com/aws/aws-sdk-go-v2/aws"
	signer "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/segmentio/kafka-go/sasl"
	"github.com/segmentio/kafka-go/sasl/aws_msk_iam_v2"
	saslplain "github.com/segmentio/kafka-go/sasl/plain"
	"github.com/segmentio/kafka-go/sasl/scram"

	"github.com/tidings-dev/tidings/pkg/delivery"
)

// accessError means that the credentials for a login are missing or malformed. It
// does not wrap its cause, which could contain the secret.
type accessError struct {
	class     delivery.Class
	permanent bool
	sentence  string
}

func (e *accessError) Error() string { return e.sentence }

// mechanism returns the SASL mechanism, or nil without SASL.
func (p *producer) mechanism(ctx context.Context) (sasl.Mechanism, error) {
	switch p.destination.sasl {
	case "":
		return nil, nil
	case mskIAM:
		return p.iam(), nil
	}
	text, err := p.options.Secrets.Secret(ctx, p.target.Credentials)
	if err != nil {
		// Not permanent: an outage, a missing secret and a missing policy can all
		// be fixed without a change to the endpoint.
		return nil, &accessError{delivery.Denied, false,
			"the secret " + p.target.Credentials + " cannot be read: check that it exists, and that the dispatch function is allowed to read it"}
	}
	var login struct{ Username, Password string }
	if err := json.Unmarshal([]byte(text), &login); err != nil || login.Username == "" || login.Password == "" {
		return nil, &accessError{delivery.Invalid, true,
			"the secret " + p.target.Credentials + ` is not of the form {"username":"…","password":"…"}`}
	}
	var mechanism sasl.Mechanism
	switch p.destination.sasl {
	case plain:
		return saslplain.Mechanism{Username: login.Username, Password: login.Password}, nil
	case scram256:
		mechanism, err = scram.Mechanism(scram.SHA256, login.Username, login.Password)
	case scram512:
		mechanism, err = scram.Mechanism(scram.SHA512, login.Username, login.Password)
	}
	if err != nil {
		return nil, &accessError{delivery.Invalid, true,
			"the user name or password in the secret " + p.target.Credentials + " contains characters that SCRAM does not allow"}
	}
	return mechanism, nil
}

// iam returns the mechanism of Amazon MSK, which uses AWS credentials.
func (p *producer) iam() sasl.Mechanism {
	var credentials aws.CredentialsProvider
	if p.target.RoleARN != "" {
		// For the external id, see identity in sqsadapter.
		credentials = aws.NewCredentialsCache(p.options.AssumeRole(p.target.RoleARN, p.target.Tenant, p.destination.region))
	} else {
		credentials = p.options.Credentials()
	}
	return &aws_msk_iam_v2.Mechanism{Signer: signer.NewSigner(), Credentials: credentials, Region: p.destination.region}
}
