package samtemplate_test

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/tidings-dev/tidings/pkg/local/samtemplate"
)

// other are values, other than the default, of all parameters that may reach a function,
// each as long as can be expected.
var other = map[string]string{
	"AllowHttp": "true", "AllowNetworks": "10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,fd00:ec2::/32",
	"DestinationQueues": "arn:aws:sqs:eu-west-1:123456789012:mine-*", "DestinationRoles": "arn:aws:iam::123456789012:role/mine-*",
	"GoogleProvider":    "projects/123456789012/locations/global/workloadIdentityPools/tidings-production/providers/aws-production",
	"PlatformStreamArn": "arn:aws:dynamodb:eu-west-1:123456789012:table/community-production/stream/2026-11-30T00:00:00.000",
	"CaptureStream1":    "arn:aws:dynamodb:eu-west-1:123456789012:table/orders-1/stream/2026-11-30T00:00:00.000",
	"CaptureStream2":    "arn:aws:dynamodb:eu-west-1:123456789012:table/orders-2/stream/2026-11-30T00:00:00.000",
	"CaptureStream3":    "arn:aws:dynamodb:eu-west-1:123456789012:table/orders-3/stream/2026-11-30T00:00:00.000",
	"CaptureStream4":    "arn:aws:dynamodb:eu-west-1:123456789012:table/orders-4/stream/2026-11-30T00:00:00.000",
	"CaptureStream5":    "arn:aws:dynamodb:eu-west-1:123456789012:table/orders-5/stream/2026-11-30T00:00:00.000",
	"AlertSecret":       "community-production/alerts", "DiscussionsSecret": "community-production/discussions",
	"CloseEveryMinutes": "10", "DiscussionsUrl": "https://platform.example.com/" + strings.Repeat("d", 34),
	"VpcSubnetIds": "subnet-0123456789abcdef0,subnet-0123456789abcdef1,subnet-0123456789abcdef2", "VpcSecurityGroupIds": "sg-0123456789abcdef0",
	"SourceAddresses": "198.51.100.100,203.0.113.200/32",
	"Metrics":         "all", "Dashboard": "true", "Producer1": "210987654321", "Producer2": "210987654322", "Producer3": "arn:aws:iam::210987654323:role/producer", "ConsoleAccess": "NONE", "PublicCatalog": "true", "HealthAccess": "NONE", "DestinationTenants": "*=sqs://webhooks-{tenant}-tt", "MaximumConcurrency": "400", "SlowConcurrency": "90", "UrlConcurrency": "10", "AlarmEmail": "a@example.com",
	"HealthTokenSha256": strings.Repeat("a", 64), "AlertFailurePercent": "60", "AlertSuccessPercent": "99", "AlertVolume": "2000", "AlertPending": "100000",
	"AlertSilentMinutes": "10", "AlertSlowSeconds": "3600", "AlertFailedPerDay": "10000", "AlertDeadLetters": "10000", "AlertRemindMinutes": "1440", "AlertResolveMinutes": "60",
	"LogLevel": "DEBUG", "SystemLogLevel": "DEBUG", "LogRetentionDays": "365", "RetentionDays": "365", "TraceSampling": "50", "Rollout": "AllAtOnce", "DeletionProtection": "true",
	"SecretsKeyArn": "arn:aws:kms:eu-west-1:123456789012:key/11111111-2222-3333-4444-555555555555", "Architecture": "x86_64", "TestReceiver": "true", "EmitQueue": "true",
}

// `live` stays at the version from before if a deployment publishes none. SAM compares the
// template before it has the parameters' values, so a version's description has to
// change with the function's configuration. It must not change otherwise: Lambda returns
// the last version if the configuration is the same, and CloudFormation then fails.
func TestAChangedParameterPublishesAVersionOfEachFunctionThatItReaches(t *testing.T) {
	if testing.Short() {
		t.Skip("resolves the template for every parameter")
	}
	parsed, err := samtemplate.Parse([]byte(text(t)))
	if err != nil {
		t.Fatal(err)
	}
	resolved := func(parameters map[string]string) map[string]samtemplate.Function {
		t.Helper()
		s, err := parsed.Resolve(samtemplate.Context{StackName: "mine", Region: "eu-west-1", Account: "123456789012", Parameters: parameters})
		if err != nil {
			t.Fatal(err)
		}
		functions := map[string]samtemplate.Function{}
		for _, f := range s.Functions {
			functions[f.LogicalID] = f
		}
		return functions
	}
	for name := range parameters(t) {
		if other[name] == "" {
			t.Errorf("no value of %s is tested", name)
		}
	}
	third := maps.Clone(other) // two values that both differ from the default
	maps.Copy(third, map[string]string{"TraceSampling": "60", "VpcSecurityGroupIds": "sg-1,sg-2", "VpcSubnetIds": "subnet-1", "AllowHttp": "false"})
	reached := 0
	for _, base := range []map[string]string{{}, other, {"VpcSubnetIds": "subnet-2"}, {"Metrics": "all"}} {
		before := resolved(base)
		for name := range other {
			for _, value := range []string{other[name], third[name]} {
				changed := maps.Clone(base)
				changed[name] = value
				after := resolved(changed)
				for id, f := range before {
					g, ok := after[id]
					if !ok {
						continue
					}
					published, needed := f.VersionDescription != g.VersionDescription, f.Configuration != g.Configuration
					if needed {
						reached++
					}
					if published != needed {
						t.Errorf("%s=%s: the configuration of %s changes: %t; its VersionDescription changes: %t", name, value, id, needed, published)
					}
				}
			}
		}
	}
	if reached < 100 {
		t.Errorf("only %d changes reach a function", reached)
	}
	for _, f := range slices.SortedFunc(maps.Values(resolved(other)), func(a, b samtemplate.Function) int { return strings.Compare(a.LogicalID, b.LogicalID) }) {
		if n := len(f.VersionDescription); n > 256 {
			t.Errorf("the description of a version of %s has %d characters, Lambda accepts 256: %s", f.LogicalID, n, f.VersionDescription)
		}
	}
}

// parameters returns the template's parameters.
func parameters(t *testing.T) map[string]any {
	t.Helper()
	var root yaml.Node
	if err := yaml.Unmarshal([]byte(text(t)), &root); err != nil {
		t.Fatal(err)
	}
	all, _ := written(&root).(map[string]any)["Parameters"].(map[string]any)
	if len(all) == 0 {
		t.Fatal("the template has no parameters")
	}
	return all
}

// `sam deploy --guided` asks for the value of a NoEcho parameter until it gets one, and has
// no default to offer, so that nobody who wants none gets past it.
func TestAGuidedDeploymentCanTakeEachDefault(t *testing.T) {
	for name, p := range parameters(t) {
		p, _ := p.(map[string]any)
		if _, ok := p["Default"]; !ok || p["NoEcho"] != nil {
			t.Errorf("%s: a parameter has a default and is not NoEcho; take the name of an existing secret instead of a secret", name)
		}
	}
}
