package local

import (
	"cmp"
	"crypto/rand"
	"crypto/subtle"
	"net/http"
	"net/http/httputil"
	"net/url"
	"regexp"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/lambda"

	"github.com/tidings-dev/tidings/pkg/local/dynamoemulator"
)

// The runner listens on the loopback interface, which every page in a browser on this
// machine can reach. Two rules keep pages out of it:
//
//   - Every port checks Host and the origin (package loopback): a page of another origin is
//     answered with 403, also through a host name that it rebinds to 127.0.0.1.
//   - The AWS APIs (Invoke, DynamoDB, SQS) need the access key of this run (withKey), and
//     the health report needs its token. Both are random, printed, and in the state
//     directory, which only the user can read.

// Access are the secrets of one run.
type Access struct {
	// Key is the access key id that callers of the AWS APIs sign with. Their secret access
	// key can be any text: the signature is not verified.
	Key string `json:"access_key"`
	// HealthToken is the bearer token of the health report.
	HealthToken string `json:"health_token"`
}

func newAccess() Access { return Access{Key: "TIDINGS" + rand.Text(), HealthToken: rand.Text()} }

// Config is the AWS configuration of clients that call the runner's AWS APIs. A runner of an
// earlier version has no key.
func (a Access) Config() aws.Config {
	return dynamoemulator.ConfigFor(cmp.Or(a.Key, "none"))
}

// DynamoDB returns a client of the runner's DynamoDB.
func (i RunnerInfo) DynamoDB() *dynamodb.Client {
	return dynamodb.NewFromConfig(i.Config(), func(o *dynamodb.Options) { o.BaseEndpoint = &i.DynamoURL })
}

// Lambda returns a client of the runner's Invoke API.
func (i RunnerInfo) Lambda() *lambda.Client {
	return lambda.NewFromConfig(i.Config(), func(o *lambda.Options) { o.BaseEndpoint = &i.InvokeURL })
}

// signedBy is the access key id in the header of AWS's signature.
var signedBy = regexp.MustCompile(`^AWS4-HMAC-SHA256 Credential=([^/,\s]+)/`)

// withKey refuses calls of an AWS API that are not signed with the run's access key.
func withKey(key string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		m := signedBy.FindStringSubmatch(r.Header.Get("Authorization"))
		if m == nil || subtle.ConstantTimeCompare([]byte(m[1]), []byte(key)) != 1 {
			apiError(w, http.StatusForbidden, "UnrecognizedClientException",
				"sign with the access key of this run: AWS_ACCESS_KEY_ID is access_key in "+RunnerInfoFile+" in the state directory, AWS_SECRET_ACCESS_KEY any text")
			return
		}
		next.ServeHTTP(w, r)
	})
}

// forward serves the DynamoDB at a URL. It answers without permissions for other origins,
// which the emulator gives to every page.
func forward(to string) (http.Handler, error) {
	target, err := url.Parse(to)
	if err != nil {
		return nil, err
	}
	return &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) },
		ModifyResponse: func(r *http.Response) error {
			for name := range r.Header {
				if strings.HasPrefix(name, "Access-Control-") {
					delete(r.Header, name)
				}
			}
			return nil
		},
	}, nil
}
