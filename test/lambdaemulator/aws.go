// Package lambdaemulator runs the functions' deployed binaries on this machine: one
// address that serves the AWS APIs which the functions call, Lambda's Runtime API,
// and the sample data that the files in events/ refer to. It promises to record
// every AWS call as IAM checks it, as an action on a resource, including calls that
// fail, and to refuse what a function's role does not allow.
package lambdaemulator

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httputil"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tidings-dev/tidings/pkg/local/dynamoemulator"
	"github.com/tidings-dev/tidings/pkg/local/samtemplate"
	"github.com/tidings-dev/tidings/pkg/local/sqsapi"
)

// Account is the AWS account of all resources.
const Account = sqsapi.Account

// Call is one AWS call as an IAM policy names it.
type Call struct{ Action, Resource string }

func (c Call) String() string { return c.Action + " on " + c.Resource }

// AWS is an http.Handler for AWS_ENDPOINT_URL. DynamoDB is a local DynamoDB, SQS is
// package sqsapi; for Secrets Manager, KMS, STS, SNS and EventBridge it has the operations that
// the functions use. It records and refuses all other calls. It is safe for
// concurrent use.
type AWS struct {
	// Secrets are the values in Secrets Manager, by name.
	Secrets map[string]string

	// Roles are the statements by access key id, which says who calls. A caller without
	// an entry may do everything.
	Roles map[string][]samtemplate.Statement
	// Partitions are the names of the partition keys by resource, such as table/Events or
	// table/Control/index/wake.
	Partitions map[string]string

	queues *sqsapi.Service
	dynamo *httputil.ReverseProxy
	mu     sync.Mutex
	calls  map[string]samtemplate.Request
	denied []Call
	sent   []Message
}

// Message is a message that a function has sent to a queue.
type Message struct {
	Body string
	// Trace is the trace header of the request, which SQS keeps with the message and
	// Lambda passes to the function that receives it.
	Trace string
}

// Sent returns the messages that were sent since it was last called.
func (a *AWS) Sent() []Message {
	a.mu.Lock()
	defer a.mu.Unlock()
	sent := a.sent
	a.sent = nil
	return sent
}

// recordSent records the messages of a call of SQS.
func (a *AWS) recordSent(c call, trace string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, e := range c.in.Entries {
		a.sent = append(a.sent, Message{e.Body, trace})
	}
}

// New returns an AWS whose tables are in the DynamoDB at a URL.
func New(dynamoURL string, queues ...string) (*AWS, error) {
	target, err := url.Parse(dynamoURL)
	if err != nil {
		return nil, fmt.Errorf("lambdaemulator: URL of the local DynamoDB: %w", err)
	}
	return &AWS{
		Secrets: map[string]string{}, Roles: map[string][]samtemplate.Statement{}, Partitions: map[string]string{},
		queues: sqsapi.New(queues...),
		dynamo: &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) }},
		calls:  map[string]samtemplate.Request{},
	}, nil
}

// AddQueue creates an SQS queue.
func (a *AWS) AddQueue(name string) { a.queues.Add(name) }

// Calls returns the distinct calls so far, sorted, with the values of their condition
// keys.
func (a *AWS) Calls() (list []samtemplate.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, text := range slices.Sorted(maps.Keys(a.calls)) {
		list = append(list, a.calls[text])
	}
	return list
}

// Forget clears the recorded calls.
func (a *AWS) Forget() {
	a.mu.Lock()
	defer a.mu.Unlock()
	clear(a.calls)
}

func (a *AWS) record(calls ...samtemplate.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, c := range calls {
		a.calls[fmt.Sprint(c, c.Context)] = c // fmt sorts maps
	}
}

// scope is the credential scope of a signature, which names the service.
var scope = regexp.MustCompile(`Credential=([^/]+)/[0-9]+/([a-z0-9-]+)/([a-z0-9-]+)/aws4_request`)

// ServeHTTP serves one call.
func (a *AWS) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	signed := scope.FindStringSubmatch(r.Header.Get("Authorization"))
	if signed == nil {
		http.Error(w, "the call is not signed", http.StatusForbidden)
		return
	}
	c := call{caller: signed[1], region: signed[2], service: signed[3], operation: operation(r, body), body: body}
	if strings.HasPrefix(strings.TrimSpace(string(body)), "{") {
		_ = json.Unmarshal(body, &c.in) // an unreadable body has no resource, which IAM never allows
	} else if form, err := url.ParseQuery(string(body)); err == nil {
		c.in = fields{Role: form.Get("RoleArn"), Topic: form.Get("TopicArn")}
	}
	requests := a.requests(c)
	a.record(requests...)
	if a.denies(c.caller, requests) {
		w.Header().Set("Content-Type", "application/x-amz-json-1.0")
		w.Header().Set("X-Amzn-Errortype", "AccessDeniedException")
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprintf(w, `{"__type":"com.amazon.coral.service#AccessDeniedException","Message":"%s may not call %s"}`, c.caller, c.operation)
		return
	}
	switch c.service {
	case "dynamodb":
		a.dynamo.ServeHTTP(w, r)
	case "sqs":
		a.recordSent(c, r.Header.Get("X-Amzn-Trace-Id"))
		a.queues.ServeHTTP(w, r)
	default:
		a.answer(w, c)
	}
}

// Deny refuses these calls from now on, as without a permission, and no others.
func (a *AWS) Deny(calls ...Call) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.denied = calls
}

func (a *AWS) denies(caller string, requests []samtemplate.Request) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	role, enforced := a.Roles[caller]
	return slices.ContainsFunc(requests, func(r samtemplate.Request) bool {
		return slices.Contains(a.denied, Call{r.Action, r.Resource}) ||
			enforced && r.Action != "sts:GetCallerIdentity" && !samtemplate.Allows(role, r)
	})
}

// requests returns what IAM evaluates for a call.
func (a *AWS) requests(c call) (list []samtemplate.Request) {
	for _, one := range c.actions() {
		r := samtemplate.Request{Action: one.Action, Resource: one.Resource}
		if c.service == "dynamodb" {
			table := one.Resource[strings.Index(one.Resource, "table/"):]
			r.Context = dynamoContext(c.operation, c.body, table, a.Partitions[table])
		}
		list = append(list, r)
	}
	return list
}

// operation is the API's operation, in each of AWS's protocols.
func operation(r *http.Request, body []byte) string {
	if _, name, ok := strings.Cut(r.Header.Get("X-Amz-Target"), "."); ok { // JSON
		return name
	}
	if form, err := url.ParseQuery(string(body)); err == nil && form.Has("Action") { // query
		return form.Get("Action")
	}
	if strings.HasSuffix(r.URL.Path, "/invocations") { // REST, of Lambda
		return "Invoke " + strings.TrimSuffix(r.URL.Path[strings.Index(r.URL.Path, "/functions/")+len("/functions/"):], "/invocations")
	}
	return r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:] // RPC v2
}

// call is one request.
type call struct {
	caller, region, service, operation string
	body                               []byte
	in                                 fields
}

// fields are the parameters of a request that name its resource.
type fields struct {
	Table    string `json:"TableName"`
	Index    string `json:"IndexName"`
	QueueURL string `json:"QueueUrl"`
	Queue    string `json:"QueueName"`
	Secret   string `json:"SecretId"`
	Key      string `json:"KeyId"`
	Cipher   []byte `json:"CiphertextBlob"`
	Plain    []byte `json:"Plaintext"`
	Topic    string `json:"TopicArn"`
	Name     string `json:"Name"`
	Role     string
	Entries  []struct {
		Bus  string `json:"EventBusName"`
		Body string `json:"MessageBody"`
	}
	// of transactions and batches
	Transact []map[string]struct {
		Table string `json:"TableName"`
	} `json:"TransactItems"`
	Requests map[string]json.RawMessage `json:"RequestItems"`
}

// actions returns the actions and resources that IAM checks for a call (Service
// Authorization Reference).
func (c call) actions() []Call {
	arn := func(resource string) string {
		return "arn:aws:" + c.service + ":" + c.region + ":" + Account + ":" + resource
	}
	one := func(action, resource string) []Call { return []Call{{c.service + ":" + action, resource}} }
	switch c.service {
	case "dynamodb":
		var list []Call
		for _, item := range c.in.Transact {
			for kind, of := range item {
				action := map[string]string{"Put": "PutItem", "Update": "UpdateItem", "Delete": "DeleteItem", "ConditionCheck": "ConditionCheckItem", "Get": "GetItem"}[kind]
				list = append(list, one(action, arn("table/"+of.Table))...)
			}
		}
		for table := range c.in.Requests {
			list = append(list, one(c.operation, arn("table/"+table))...)
		}
		if list != nil {
			return list
		}
		resource := "table/" + c.in.Table
		if c.in.Index != "" {
			resource += "/index/" + c.in.Index
		}
		return one(c.operation, arn(resource))
	case "sqs":
		name := c.in.Queue
		if name == "" {
			name = c.in.QueueURL[strings.LastIndex(c.in.QueueURL, "/")+1:]
		}
		return one(strings.TrimSuffix(c.operation, "Batch"), arn(name))
	case "secretsmanager":
		// The ARN ends in six random characters.
		return one(c.operation, arn("secret:"+c.in.Secret+"-AbCdEf"))
	case "kms":
		key := c.in.Key
		if key == "" {
			key, _, _ = strings.Cut(string(c.in.Cipher), "|")
		}
		return one(c.operation, key)
	case "events":
		name := c.in.Name
		if len(c.in.Entries) > 0 {
			name = c.in.Entries[0].Bus
		}
		return one(c.operation, arn("event-bus/"+name))
	case "sns":
		return one(c.operation, c.in.Topic)
	case "sts":
		return one(c.operation, c.in.Role)
	case "lambda":
		name, _ := url.PathUnescape(strings.TrimPrefix(c.operation, "Invoke "))
		if !strings.HasPrefix(name, "arn:") {
			name = arn("function:" + name)
		}
		return one("InvokeFunction", name)
	}
	return one(c.operation, "*")
}

// answer responds for the small services.
func (a *AWS) answer(w http.ResponseWriter, c call) {
	answer := func(v any) {
		w.Header().Set("Content-Type", "application/x-amz-json-1.1")
		_ = json.NewEncoder(w).Encode(v) // a client that is gone needs no answer
	}
	switch c.service + ":" + c.operation {
	case "secretsmanager:GetSecretValue":
		value, ok := a.Secrets[c.in.Secret]
		if !ok {
			w.WriteHeader(http.StatusBadRequest)
			answer(map[string]string{"__type": "ResourceNotFoundException", "message": "Secrets Manager can't find the specified secret."})
			return
		}
		answer(map[string]string{"Name": c.in.Secret, "SecretString": value})
	case "kms:Encrypt":
		answer(map[string]any{"KeyId": c.in.Key, "CiphertextBlob": []byte(c.in.Key + "|" + base64.StdEncoding.EncodeToString(c.in.Plain))})
	case "kms:GenerateDataKey":
		plain := bytes.Repeat([]byte{7}, 32)
		answer(map[string]any{"KeyId": c.in.Key, "Plaintext": plain, "CiphertextBlob": []byte(c.in.Key + "|" + base64.StdEncoding.EncodeToString(plain))})
	case "kms:Decrypt":
		key, text, _ := strings.Cut(string(c.in.Cipher), "|")
		plain, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			w.WriteHeader(http.StatusBadRequest)
			answer(map[string]string{"__type": "InvalidCiphertextException"})
			return
		}
		answer(map[string]any{"KeyId": key, "Plaintext": plain})
	case "sts:AssumeRole":
		w.Header().Set("Content-Type", "text/xml")
		fmt.Fprintf(w, `<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult><AssumedRoleUser><AssumedRoleId>AROA:tidings</AssumedRoleId><Arn>%s</Arn></AssumedRoleUser><Credentials><AccessKeyId>assumed</AccessKeyId><SecretAccessKey>assumed</SecretAccessKey><SessionToken>assumed</SessionToken><Expiration>%s</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>`,
			c.in.Role, time.Now().Add(time.Hour).UTC().Format(time.RFC3339))
	case "events:DescribeEventBus":
		answer(map[string]string{"Name": c.in.Name})
	case "events:PutEvents":
		answer(map[string]any{"FailedEntryCount": 0, "Entries": []map[string]string{{"EventId": "7c1a2f0e-0000-4000-8000-000000000001"}}})
	case "sns:Publish":
		w.Header().Set("Content-Type", "text/xml")
		fmt.Fprint(w, `<PublishResponse xmlns="http://sns.amazonaws.com/doc/2010-03-31/"><PublishResult><MessageId>7c1a2f0e-0000-4000-8000-000000000001</MessageId></PublishResult></PublishResponse>`)
	default:
		w.WriteHeader(http.StatusNotImplemented)
		answer(map[string]string{"__type": "NotImplemented", "message": "the Lambda emulator does not implement " + c.service + ":" + c.operation})
	}
}

// Variables returns the environment variables that Lambda itself sets, and the URL
// of an AWS as endpoint.
func Variables(awsURL string) map[string]string {
	return map[string]string{
		"AWS_REGION": dynamoemulator.Region, "AWS_DEFAULT_REGION": dynamoemulator.Region,
		"AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local", "AWS_EC2_METADATA_DISABLED": "true",
		"AWS_ENDPOINT_URL": awsURL, "AWS_LAMBDA_LOG_FORMAT": "JSON", "AWS_LAMBDA_LOG_LEVEL": "INFO",
	}
}
