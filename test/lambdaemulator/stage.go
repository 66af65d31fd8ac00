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

// What the files in events/ speak of.
const (
	SampleEndpoint = "ep_01KG4VZS4NCPSXFR1K831Q4SB0"
	SampleEvent    = "01KG4VZS4NCPSXFR1K7QEWBC9B"
	// DeadEvent's delivery to the sample endpoint is a dead letter.
	DeadEvent = "01KG4VZS4NCPSXFR1K7QEWBC9C"
	// DueEvent's delivery to the sample endpoint is due.
	DueEvent = "01KG4VZS4NCPSXFR1K7QEWBC9D"

	// sampleSecret signs for the sample endpoint; it protects nothing.
	sampleSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
)

// Stage is one stack of the template, on this machine: its tables, with the
// samples in them, its queues, AWS around them, and a receiver of webhooks.
type Stage struct {
	Stack *samtemplate.Stack
	AWS   *AWS
	URL   string // at which AWS is served
	DB    *dynamodb.Client
	// Receiver is the base URL of a receiver that answers each request with the
	// status that its path names: Receiver + "/503".
	Receiver string
	// Received counts the webhooks that it got.
	Received atomic.Int64

	servers []*http.Server
}

// Open opens a stack of the project in a folder, in a local DynamoDB. Its tables
// must not exist yet.
func Open(ctx context.Context, project, name, dynamoURL string) (stage *Stage, err error) {
	s := &Stage{DB: dynamoemulator.Client(dynamoURL)}
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
			"AllowHttp": "true", "AllowNetworks": "127.0.0.0/8",
			"HeartbeatUrl": "https://heartbeat.example/", // so that health has a secret to read
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
	s.AWS.Secrets[name+"-alerts"] = `{}` // and nowhere to call
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

func (s *Stage) serve(l net.Listener, h http.Handler) {
	server := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}
	s.servers = append(s.servers, server)
	go func() { _ = server.Serve(l) }() // until Close
}

// Close ends what the stage serves. Its tables stay.
func (s *Stage) Close() {
	for _, server := range s.servers {
		_ = server.Close() // what is open then is nobody's any more
	}
}

// Store is the stack's store, past the record.
func (s *Stage) Store() *dynamo.Store { return dynamo.New(s.DB, local.Tables(s.Stack.Name)) }

// Function returns a function of the stack by its folder, or nil.
func (s *Stage) Function(folder string) *samtemplate.Function {
	for i := range s.Stack.Functions {
		if s.Stack.Functions[i].Folder == folder {
			return &s.Stack.Functions[i]
		}
	}
	return nil
}

// Environment is what a function's process gets: what Lambda sets and what the
// template does.
func (s *Stage) Environment(f *samtemplate.Function) map[string]string {
	variables := Variables(s.URL)
	maps.Copy(variables, f.Environment)
	return variables
}

// Add keeps an endpoint that subscribes to everything.
func (s *Stage) Add(ctx context.Context, e endpoint.Endpoint) error {
	secret, err := signature.ParseSecret(sampleSecret)
	if err != nil {
		return err
	}
	e.Tenant, e.Status, e.Version = event.DefaultTenant, endpoint.Enabled, 1
	e.EventTypes, e.Secrets = []string{"*"}, []endpoint.SigningSecret{{Secret: secret}}
	e.CreatedAt, e.UpdatedAt = sampleTime, sampleTime
	return s.Store().AddEndpoint(ctx, e)
}

// ForEver delivers the samples' events, which are as old as the files are.
var ForEver = retry.Policy{MaxAge: 100 * 365 * 24 * time.Hour}

var sampleTime = time.Date(2026, 1, 29, 12, 34, 56, 0, time.UTC)

// deadLetter puts an item into the work queue's dead-letter queue.
func (s *Stage) deadLetter(ctx context.Context) error {
	for _, q := range s.Stack.Queues {
		if q.LogicalID != "WorkDeadLetterQueue" {
			continue
		}
		item := work.Item{Tenant: event.DefaultTenant, EndpointID: SampleEndpoint, EventID: SampleEvent}
		client := sqs.NewFromConfig(dynamoemulator.Config(), func(o *sqs.Options) { o.BaseEndpoint = &s.URL })
		_, err := client.SendMessage(ctx, &sqs.SendMessageInput{QueueUrl: &q.URL, MessageBody: aws.String(item.Encode()), MessageGroupId: aws.String(item.Group())})
		s.AWS.Forget()
		if err != nil {
			return fmt.Errorf("rehearsal: put the sample dead letter: %w", err)
		}
	}
	return nil
}

// samples writes what the files in events/ speak of.
func (s *Stage) samples(ctx context.Context, project string) error {
	text, err := os.ReadFile(filepath.Join(project, "events", "dispatch-stream.json"))
	if err != nil {
		return err
	}
	var batch events.DynamoDBEvent
	if err := json.Unmarshal(text, &batch); err != nil || len(batch.Records) == 0 {
		return fmt.Errorf("rehearsal: events/dispatch-stream.json holds no record (%w)", err)
	}
	accepted, err := dynamoitem.EventFromImage(batch.Records[0].Change.NewImage)
	if err != nil {
		return err
	}
	for _, id := range []string{SampleEvent, DeadEvent, DueEvent} {
		accepted.ID = id
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
		CreatedAt: sampleTime, UpdatedAt: sampleTime, ExpiresAt: time.Now().Add(delivery.Retention),
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
			return fmt.Errorf("rehearsal: put the sample deliveries: %w", err)
		}
	}
	return nil
}
