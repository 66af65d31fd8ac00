package lambdamain_test

import (
	"errors"
	"math"
	"net/http"
	"runtime/debug"
	"testing"

	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"

	"github.com/tidings-dev/tidings/pkg/aws/lambdamain"
)

func TestSpareCollectorSetsOnlyWhatTheEnvironmentDoesNot(t *testing.T) {
	percent, limit := debug.SetGCPercent(100), debug.SetMemoryLimit(-1)
	defer func() {
		debug.SetGCPercent(percent)
		debug.SetMemoryLimit(limit)
	}()
	for name, c := range map[string]struct {
		gogc, gomemlimit string
		percent          int
		limit            int64
	}{
		"nothing is set":    {"", "", 400, 384 << 20},
		"GOGC is set":       {"50", "", 100, 384 << 20},
		"GOMEMLIMIT is set": {"", "1GiB", 400, math.MaxInt64},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("GOGC", c.gogc)
			t.Setenv("GOMEMLIMIT", c.gomemlimit)
			debug.SetGCPercent(100)
			debug.SetMemoryLimit(math.MaxInt64)
			lambdamain.SpareCollector(512)
			if got := debug.SetGCPercent(100); got != c.percent {
				t.Errorf("GOGC is %d, want %d", got, c.percent)
			}
			if got := debug.SetMemoryLimit(-1); got != c.limit {
				t.Errorf("GOMEMLIMIT is %d, want %d", got, c.limit)
			}
		})
	}
}

// The template declares AWS_ENDPOINT_URL_<service> empty, for `sam local invoke`.
func TestAnEmptyEndpointURLLeavesAWSsOwn(t *testing.T) {
	for name, c := range map[string]struct{ service, all, want string }{
		"none":                            {"", "", "https://dynamodb.eu-west-1.amazonaws.com"},
		"the service's":                   {"http://127.0.0.1:1", "", "http://127.0.0.1:1"},
		"an emulator's, for all services": {"", "http://127.0.0.1:2", "http://127.0.0.1:2"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("AWS_ENDPOINT_URL_DYNAMODB", c.service)
			t.Setenv("AWS_ENDPOINT_URL", c.all)
			access, err := config.LoadDefaultConfig(t.Context(), config.WithRegion("eu-west-1"), config.WithSharedConfigFiles(nil),
				config.WithCredentialsProvider(credentials.NewStaticCredentialsProvider("k", "s", "")), config.WithRetryMaxAttempts(1))
			if err != nil {
				t.Fatal(err)
			}
			var asked string
			client := dynamodb.NewFromConfig(access, func(o *dynamodb.Options) {
				o.HTTPClient = doer(func(r *http.Request) (*http.Response, error) {
					asked = r.URL.Scheme + "://" + r.URL.Host
					return nil, errors.New("no network")
				})
			})
			_, _ = client.ListTables(t.Context(), nil) // fails: only the address counts
			if asked != c.want {
				t.Errorf("the client calls %q, want %q", asked, c.want)
			}
		})
	}
}

type doer func(*http.Request) (*http.Response, error)

func (f doer) Do(r *http.Request) (*http.Response, error) { return f(r) }
