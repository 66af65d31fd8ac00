package functions_test

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/smithy-go"

	"github.com/tidings-dev/tidings/pkg/console"
	"github.com/tidings-dev/tidings/pkg/local"
	"github.com/tidings-dev/tidings/pkg/local/dynamoemulator"
	"github.com/tidings-dev/tidings/pkg/local/samtemplate"
	"github.com/tidings-dev/tidings/pkg/store/dynamo"
	"github.com/tidings-dev/tidings/pkg/store/dynamoitem"
	"github.com/tidings-dev/tidings/test/dynamotest"
	"github.com/tidings-dev/tidings/test/lambdaemulator"
)

// intruder has the credentials of one function's role.
type intruder struct {
	db      *dynamodb.Client
	sqs     *sqs.Client
	secrets *secretsmanager.Client
	tables  dynamo.Tables
}

func (i intruder) get(ctx context.Context, table string, key dynamoitem.Item) error {
	_, err := i.db.GetItem(ctx, &dynamodb.GetItemInput{TableName: &table, Key: key})
	return err
}

func (i intruder) put(ctx context.Context, table string, item dynamoitem.Item) error {
	_, err := i.db.PutItem(ctx, &dynamodb.PutItemInput{TableName: &table, Item: item})
	return err
}

func (i intruder) update(ctx context.Context, table string, key dynamoitem.Item, attribute, value string) error {
	_, err := i.db.UpdateItem(ctx, &dynamodb.UpdateItemInput{TableName: &table, Key: key,
		UpdateExpression: aws.String("SET #a = :v"), ExpressionAttributeNames: map[string]string{"#a": attribute}, ExpressionAttributeValues: dynamoitem.Item{":v": dynamoitem.S(value)}})
	return err
}

func (i intruder) query(ctx context.Context, table, partition, value string) error {
	_, err := i.db.Query(ctx, &dynamodb.QueryInput{TableName: &table, KeyConditionExpression: aws.String("#p = :v"),
		ExpressionAttributeNames: map[string]string{"#p": partition}, ExpressionAttributeValues: dynamoitem.Item{":v": dynamoitem.S(value)}})
	return err
}

func (i intruder) batch(ctx context.Context, table string, projection string, names map[string]string, keys ...dynamoitem.Item) error {
	ask := types.KeysAndAttributes{Keys: keys, ExpressionAttributeNames: names}
	if projection != "" {
		ask.ProjectionExpression = &projection
	}
	_, err := i.db.BatchGetItem(ctx, &dynamodb.BatchGetItemInput{RequestItems: map[string]types.KeysAndAttributes{table: ask}})
	return err
}

// attack is a call that somebody who has taken a role over would make.
type attack struct {
	name string
	call func(ctx context.Context, i intruder) error
	// may are the functions that need this call.
	may []string
}

// attacks are the calls that lead to secrets, to the console, to other tenants' receivers
// or out of the audit log.
func attacks() []attack {
	key := func(text string) dynamoitem.Item { return dynamoitem.Item{dynamoitem.Key: dynamoitem.S(text)} }
	row := func(partition, id string) dynamoitem.Item {
		return dynamoitem.Item{dynamoitem.EndpointID: dynamoitem.S(partition), dynamoitem.EventID: dynamoitem.S(id)}
	}
	with := func(item dynamoitem.Item, name, value string) dynamoitem.Item {
		item = maps.Clone(item)
		item[name] = dynamoitem.S(value)
		return item
	}
	sample := dynamoitem.EndpointKey("default", lambdaemulator.SampleEndpoint)
	delivery := row(lambdaemulator.SampleEndpoint, lambdaemulator.DeadEvent)
	entry := row("audit#default", lambdaemulator.SampleEvent)
	return []attack{
		{"read the sessions' key", func(ctx context.Context, i intruder) error { return i.get(ctx, i.tables.Control, key(console.KeyName)) }, []string{"console"}},
		{"read the sessions' key in a batch", func(ctx context.Context, i intruder) error {
			return i.batch(ctx, i.tables.Control, "", nil, key("stats#1#0"), key(console.KeyName))
		}, nil},
		{"replace the sessions' key", func(ctx context.Context, i intruder) error {
			return i.put(ctx, i.tables.Control, with(key(console.KeyName), "bound", "a2V5"))
		}, []string{"console"}},
		{"update the sessions' key", func(ctx context.Context, i intruder) error {
			return i.update(ctx, i.tables.Control, key(console.KeyName), "bound", "a2V5")
		}, []string{"console"}},
		{"write an admin's login link", func(ctx context.Context, i intruder) error {
			return i.put(ctx, i.tables.Control, with(key("console#link#mine"), "bound", `{"name":"me","role":"operator","tenant":"default"}`))
		}, []string{"console"}},
		{"scan Control", func(ctx context.Context, i intruder) error {
			_, err := i.db.Scan(ctx, &dynamodb.ScanInput{TableName: &i.tables.Control})
			return err
		}, nil},
		{"read Control by PartiQL", func(ctx context.Context, i intruder) error {
			_, err := i.db.ExecuteStatement(ctx, &dynamodb.ExecuteStatementInput{Statement: aws.String(`SELECT "bound" FROM "` + i.tables.Control + `" WHERE "key" = 'console#key'`)})
			return err
		}, nil},
		{"write a link in a transaction", func(ctx context.Context, i intruder) error {
			_, err := i.db.TransactWriteItems(ctx, &dynamodb.TransactWriteItemsInput{TransactItems: []types.TransactWriteItem{
				{Put: &types.Put{TableName: &i.tables.Control, Item: with(key("console#link#mine"), "bound", "{}")}}}})
			return err
		}, []string{"console"}},
		{"delete an idempotency key", func(ctx context.Context, i intruder) error {
			_, err := i.db.DeleteItem(ctx, &dynamodb.DeleteItemInput{TableName: &i.tables.Control, Key: key("idem#default#k")})
			return err
		}, nil},

		{"read an endpoint with its secrets", func(ctx context.Context, i intruder) error { return i.get(ctx, i.tables.Endpoints, sample) }, []string{"console", "dispatch", "test-webhook"}},
		{"read whole endpoints in a batch", func(ctx context.Context, i intruder) error { return i.batch(ctx, i.tables.Endpoints, "", nil, sample) }, nil},
		{"read the secrets in a batch", func(ctx context.Context, i intruder) error {
			return i.batch(ctx, i.tables.Endpoints, "secrets", nil, sample)
		}, nil},
		{"read the secrets in a batch, by another name", func(ctx context.Context, i intruder) error {
			return i.batch(ctx, i.tables.Endpoints, "#status", map[string]string{"#status": "secrets"}, sample)
		}, nil},
		{"read the URL in a batch", func(ctx context.Context, i intruder) error {
			return i.batch(ctx, i.tables.Endpoints, "tenant, #u", map[string]string{"#u": "url"}, sample)
		}, nil},
		{"list a tenant's endpoints", func(ctx context.Context, i intruder) error {
			return i.query(ctx, i.tables.Endpoints, "tenant", "default")
		}, []string{"console", "dispatch", "test-webhook"}},
		{"scan the endpoints", func(ctx context.Context, i intruder) error {
			_, err := i.db.Scan(ctx, &dynamodb.ScanInput{TableName: &i.tables.Endpoints})
			return err
		}, []string{"console"}},
		{"redirect an endpoint", func(ctx context.Context, i intruder) error {
			return i.update(ctx, i.tables.Endpoints, sample, "url", "https://attacker.example/")
		}, nil},
		{"replace an endpoint's secrets", func(ctx context.Context, i intruder) error {
			return i.update(ctx, i.tables.Endpoints, sample, "secrets", "[]")
		}, nil},
		{"add an endpoint", func(ctx context.Context, i intruder) error {
			return i.put(ctx, i.tables.Endpoints, with(dynamoitem.EndpointKey("default", "ep_mine"), "url", "https://attacker.example/"))
		}, []string{"console"}},

		{"read the audit log", func(ctx context.Context, i intruder) error {
			return i.query(ctx, i.tables.Deliveries, "endpoint_id", "audit#default")
		}, []string{"console"}},
		{"write the audit log", func(ctx context.Context, i intruder) error {
			return i.put(ctx, i.tables.Deliveries, with(entry, "outcome", "done"))
		}, []string{"console"}},
		{"change an entry of the audit log", func(ctx context.Context, i intruder) error {
			return i.update(ctx, i.tables.Deliveries, entry, "who", "somebody else")
		}, nil},
		{"delete an entry of the audit log", func(ctx context.Context, i intruder) error {
			_, err := i.db.DeleteItem(ctx, &dynamodb.DeleteItemInput{TableName: &i.tables.Deliveries, Key: entry})
			return err
		}, nil},
		{"read failed changes of all tenants", func(ctx context.Context, i intruder) error {
			return i.query(ctx, i.tables.Deliveries, "endpoint_id", "capture-failed")
		}, []string{"console", "dispatch", "test-webhook"}}, // an erasure reads them
		{"count failed changes", func(ctx context.Context, i intruder) error {
			_, err := i.db.Query(ctx, &dynamodb.QueryInput{TableName: &i.tables.Deliveries, KeyConditionExpression: aws.String("endpoint_id = :v"), Select: types.SelectCount,
				ExpressionAttributeValues: dynamoitem.Item{":v": dynamoitem.S("capture-failed")}})
			return err
		}, []string{"console", "health", "dispatch", "test-webhook"}},
		{"change a delivery", func(ctx context.Context, i intruder) error {
			return i.update(ctx, i.tables.Deliveries, delivery, "state", "delivered")
		}, []string{"dispatch", "test-webhook"}},
		{"put an event", func(ctx context.Context, i intruder) error {
			return i.put(ctx, i.tables.Events, dynamoitem.Item{dynamoitem.EventID: dynamoitem.S("01KG4VZS4NCPSXFR1K7QEWBC99")})
		}, []string{"emit"}},
		{"read an event", func(ctx context.Context, i intruder) error {
			return i.get(ctx, i.tables.Events, dynamoitem.Item{dynamoitem.EventID: dynamoitem.S(lambdaemulator.SampleEvent)})
		}, []string{"console", "dispatch", "test-webhook"}},

		{"receive from a queue of the account", func(ctx context.Context, i intruder) error {
			_, err := i.sqs.ReceiveMessage(ctx, &sqs.ReceiveMessageInput{QueueUrl: aws.String("http://localhost/" + lambdaemulator.Account + "/somebodys")})
			return err
		}, nil},
		{"send to a queue of the account", func(ctx context.Context, i intruder) error {
			_, err := i.sqs.SendMessage(ctx, &sqs.SendMessageInput{QueueUrl: aws.String("http://localhost/" + lambdaemulator.Account + "/somebodys"), MessageBody: aws.String("x")})
			return err
		}, nil},
		{"read another stack's secret", func(ctx context.Context, i intruder) error {
			_, err := i.secrets.GetSecretValue(ctx, &secretsmanager.GetSecretValueInput{SecretId: aws.String("other-alerts")})
			return err
		}, nil},
	}
}

// An attacker who takes a function over has its role, and no more: each attack is made with each
// role. Those that a function does not need are refused, and would not be without the
// statements' conditions or by a role that has them.
func TestSecurityARoleThatIsTakenOverReachesOnlyItsOwn(t *testing.T) {
	t.Parallel()
	client, _ := dynamotest.New(t)
	stage, err := lambdaemulator.Open(t.Context(), "..", "takeover", *client.Options().BaseEndpoint)
	if err != nil {
		t.Fatal(err)
	}
	defer stage.Close()
	stage.AWS.AddQueue("somebodys")
	stage.AWS.Secrets["other-alerts"] = "x"
	as := func(who string) intruder {
		config := aws.Config{Region: dynamoemulator.Region, Credentials: credentials.NewStaticCredentialsProvider(who, "local", ""),
			RetryMaxAttempts: 1, BaseEndpoint: &stage.URL}
		return intruder{dynamodb.NewFromConfig(config), sqs.NewFromConfig(config), secretsmanager.NewFromConfig(config), local.Tables(stage.Stack.Name)}
	}
	refused := func(err error) bool {
		var api smithy.APIError
		return errors.As(err, &api) && strings.Contains(api.ErrorCode(), "AccessDenied")
	}
	tried := 0
	for _, a := range attacks() {
		for _, f := range stage.Stack.Functions {
			tried++
			err := a.call(t.Context(), as(f.Folder))
			if may := slices.Contains(a.may, f.Folder); may && err != nil {
				t.Errorf("%s may not %s, which it needs: %v", f.Folder, a.name, err)
			} else if !may && !refused(err) {
				t.Errorf("%s may %s (%v)", f.Folder, a.name, err)
			}
		}
		// The attack works: somebody without a role in the template is not refused.
		if err := a.call(t.Context(), as("administrator")); err != nil {
			t.Errorf("%s fails for everybody: %v", a.name, err)
		}
	}
	t.Logf("%d attacks with %d roles", tried/len(stage.Stack.Functions), len(stage.Stack.Functions))

	// The conditions are needed: without those of a role, attacks succeed with it.
	for folder, count := range map[string]int{"health": 4, "dispatch": 8, "emit": 3, "console": 1} {
		var without []samtemplate.Statement
		for _, s := range stage.Function(folder).Statements {
			s.Conditions = nil
			without = append(without, s)
		}
		stage.AWS.Roles[folder] = without
		succeeded := []string{}
		for _, a := range attacks() {
			if !slices.Contains(a.may, folder) && !refused(a.call(t.Context(), as(folder))) {
				succeeded = append(succeeded, a.name)
			}
		}
		if len(succeeded) < count {
			t.Errorf("without the conditions of %s, only %d attacks succeed, want at least %d: %q", folder, len(succeeded), count, succeeded)
		}
		t.Logf("without its conditions, %s may: %s", folder, strings.Join(succeeded, ", "))
	}
}
