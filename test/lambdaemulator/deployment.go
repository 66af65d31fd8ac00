package lambdaemulator

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/delivery/retry"
	"github.com/tidings-dev/tidings/pkg/delivery/work"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/local"
	"github.com/tidings-dev/tidings/pkg/local/dynamoemulator"
	"github.com/tidings-dev/tidings/pkg/local/samtemplate"
	"github.com/tidings-dev/tidings/pkg/signature"
	"github.com/tidings-dev/tidings/pkg/store/dynamo"
	"github.com/tidings-dev/tidings/pkg/store/dynamoitem"
)

// Data that the files in events/ refer to.
const (
	SampleEndpoint = "ep_01KG4VZS4NCPSXFR1K831Q4SB0"
	SampleEvent    = "01KG4VZS4NCPSXFR1K7QEWBC9B"
	// DeadEvent's delivery to the sample endpoint is a dead letter.
	DeadEvent = "01KG4VZS4NCPSXFR1K7QEWBC9C"
	// DueEvent's delivery to the sample endpoint is due.
	DueEvent = "01KG4VZS4NCPSXFR1K7QEWBC9D"

	// sampleSecret is the sample endpoint's signing secret; it is public.
	sampleSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
)

// Deployment is one stack of the template on this machine: its tables with the
// sample data, its queues, the AWS APIs, and a receiver of webhooks.
type Deployment struct {
	Stack *samtemplate.Stack
	AWS   *AWS
	URL   string // of the AWS APIs
	DB    *dynamodb.Client
	// Receiver is the base URL of a receiver that answers with the status in the
	// path: Receiver + "/503".
	Receiver string
	// Received counts its requests.
	Received atomic.Int64

	servers []*http.Server
}

// Open creates a stack of the project in a folder, with tables in a local DynamoDB.
// The tables must not exist yet.
func Open(ctx context.Context, project, name, dynamoURL string) (d *Deployment, err error) {
	s := &Deployment{DB: dynamoemulator.Client(dynamoURL)}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s.URL = "http://" + listener.Addr().String()
	parsed, err := samtemplate.Load(filepath.Join(project, "template.yaml"))
	if err != nil {
		return nil, err
	}
	s.Stack, err = parsed.Resolve(samtemplate.Context{
		StackName: name, Region: dynamoemulator.Region, Account: Account,
		Parameters: map[string]string{
			"SecretsKeyArn": "create", "AllowHttp": "true", "AllowNetworks": "127.0.0.0/8", "TestReceiver": "true", "EmitQueue": "true",
			"AlertSecret": name + "-alerts", // so that health has a secret to read
		},
		QueueURL: func(queue string) string { return s.URL + "/" + Account + "/" + queue },
	})
	if err != nil {
		return nil, err
	}
	var queues []string
	for _, q := range s.Stack.Queues {
		queues = append(queues, q.Name)
	}
	if s.AWS, err = New(dynamoURL, queues...); err != nil {
		return nil, err
	}
	s.AWS.Secrets[name+"-alerts"] = `{}` // no alert channels
	for _, f := range s.Stack.Functions {
		s.AWS.Roles[f.Folder] = f.Statements
	}
	for _, t := range s.Stack.Tables {
		s.AWS.Partitions["table/"+t.Name] = *t.Input.KeySchema[0].AttributeName
		for _, index := range t.Input.GlobalSecondaryIndexes {
			s.AWS.Partitions["table/"+t.Name+"/index/"+*index.IndexName] = *index.KeySchema[0].AttributeName
		}
	}
	s.serve(listener, s.AWS)
	if listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		return nil, err
	}
	s.Receiver = "http://" + listener.Addr().String()
	s.serve(listener, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.Received.Add(1)
		status, err := strconv.Atoi(r.URL.Path[1:])
		if err != nil {
			status = http.StatusOK
		}
		w.WriteHeader(status)
	}))
	if err := dynamoemulator.CreateTables(ctx, s.DB, s.Stack.Tables); err != nil {
		return nil, err
	}
	return s, s.samples(ctx, project)
}

func (s *Deployment) serve(l net.Listener, h http.Handler) {
	server := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}
	s.servers = append(s.servers, server)
	go func() { _ = server.Serve(l) }() // until Close
}

// Close stops the servers. The tables remain.
func (s *Deployment) Close() {
	for _, server := range s.servers {
		_ = server.Close() // open connections are dropped
	}
}

// Store returns the stack's store; its calls are not recorded.
func (s *Deployment) Store() *dynamo.Store { return dynamo.New(s.DB, local.Tables(s.Stack.Name)) }

// Function returns the function of a folder, or nil.
func (s *Deployment) Function(folder string) *samtemplate.Function {
	for i := range s.Stack.Functions {
		if s.Stack.Functions[i].Folder == folder {
			return &s.Stack.Functions[i]
		}
	}
	return nil
}

// Environment returns the environment variables of a function, from Lambda and from
// the template. The function calls AWS as its role: the access key id is its folder.
func (s *Deployment) Environment(f *samtemplate.Function) map[string]string {
	variables := Variables(s.URL)
	variables["AWS_ACCESS_KEY_ID"] = f.Folder
	maps.Copy(variables, f.Environment)
	return variables
}

// Add stores an endpoint that subscribes to all events.
func (s *Deployment) Add(ctx context.Context, e endpoint.Endpoint) error {
	secret, err := signature.ParseSecret(sampleSecret)
	if err != nil {
		return err
	}
	e.Tenant, e.Status, e.Version = event.DefaultTenant, endpoint.Enabled, 1
	e.EventTypes, e.Secrets = []string{"*"}, []endpoint.SigningSecret{{Secret: secret}}
	e.CreatedAt, e.UpdatedAt = sampleTime, sampleTime
	return s.Store().AddEndpoint(ctx, e)
}

// ForEver is a retry policy under which the sample events, which are as old as their
// files, have not expired.
var ForEver = retry.Policy{MaxAge: foreverDays * 24 * time.Hour}

// foreverDays is also the retention of the sample events.
const foreverDays = 100 * 365

var sampleTime = time.Date(2026, 1, 29, 12, 34, 56, 0, time.UTC)

// deadLetter sends an item to the work queue's dead-letter queue.
func (s *Deployment) deadLetter(ctx context.Context) error {
	for _, q := range s.Stack.Queues {
		if q.LogicalID != "WorkDeadLetterQueue" {
			continue
		}
		item := work.Item{Tenant: event.DefaultTenant, EndpointID: SampleEndpoint, EventID: SampleEvent}
		client := sqs.NewFromConfig(dynamoemulator.Config(), func(o *sqs.Options) { o.BaseEndpoint = &s.URL })
		_, err := client.SendMessage(ctx, &sqs.SendMessageInput{QueueUrl: &q.URL, MessageBody: aws.String(item.Encode()), MessageGroupId: aws.String(item.Group())})
		s.AWS.Forget()
		if err != nil {
			return fmt.Errorf("lambdaemulator: send the sample dead letter: %w", err)
		}
	}
	return nil
}

// samples stores the data that the files in events/ refer to.
func (s *Deployment) samples(ctx context.Context, project string) error {
	text, err := os.ReadFile(filepath.Join(project, "events", "dispatch-stream.json"))
	if err != nil {
		return err
	}
	var batch events.DynamoDBEvent
	if err := json.Unmarshal(text, &batch); err != nil || len(batch.Records) == 0 {
		return fmt.Errorf("lambdaemulator: events/dispatch-stream.json has no record (%w)", err)
	}
	accepted, err := dynamoitem.EventFromImage(batch.Records[0].Change.NewImage)
	if err != nil {
		return err
	}
	for _, id := range []string{SampleEvent, DeadEvent, DueEvent} {
		accepted.ID, accepted.RetentionDays = id, foreverDays
		if err := s.Store().PutEvent(ctx, accepted); err != nil {
			return err
		}
	}
	if err := s.Add(ctx, endpoint.Endpoint{ID: SampleEndpoint, URL: s.Receiver + "/200", Description: "the sample endpoint", Retry: ForEver}); err != nil {
		return err
	}
	if err := s.deadLetter(ctx); err != nil {
		return err
	}
	base := delivery.Delivery{
		Tenant: event.DefaultTenant, EventType: "user.joined_community", Attempts: 1, Since: sampleTime,
		CreatedAt: sampleTime, UpdatedAt: sampleTime, ExpiresAt: time.Now().Add(event.Retention(0)),
	}
	dead, due := base, base
	dead.Key, dead.State, dead.Reason = delivery.Key{EndpointID: SampleEndpoint, EventID: DeadEvent}, delivery.Dead, "the receiver answered 500, and it was the last attempt"
	due.Key, due.State, due.Reason = delivery.Key{EndpointID: SampleEndpoint, EventID: DueEvent}, delivery.Pending, "the receiver answered 503"
	due.DueAt, due.NextAttemptAt = time.Now().Add(-time.Minute), time.Now().Add(-time.Minute)
	for _, d := range []delivery.Delivery{dead, due} {
		_, err := s.DB.PutItem(ctx, &dynamodb.PutItemInput{
			TableName: aws.String(local.Tables(s.Stack.Name).Deliveries), Item: dynamoitem.EncodeDelivery(d),
		})
		if err != nil {
			return fmt.Errorf("lambdaemulator: store the sample deliveries: %w", err)
		}
	}
	return nil
}
