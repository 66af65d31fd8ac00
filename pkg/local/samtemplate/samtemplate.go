// Package samtemplate reads template.yaml, so that the local runner and the tests use
// the tables, queues, triggers and schedules that are deployed. It evaluates the
// CloudFormation intrinsic functions that the template uses, and returns an error with
// the line number for anything that it does not support.
package samtemplate

import (
	"encoding/json"
	"regexp"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
)

// Alias is the Lambda alias to invoke a deployed function by. It points at the live
// version, or at two versions during a deployment; the unqualified name is the newest
// version even if it is not rolled out.
const Alias = "live"

// Context has the values of the stack that the template is resolved for.
type Context struct {
	StackName  string
	Region     string
	Account    string
	Parameters map[string]string // override the template's defaults
	// QueueURL returns the URL of a queue by name; nil uses the form of SQS URLs.
	QueueURL func(name string) string
}

// Stack is the part of the resolved template that the local runner needs.
type Stack struct {
	Name      string
	Tables    []Table
	Queues    []Queue
	Functions []Function
}

// Table is a DynamoDB table.
type Table struct {
	LogicalID    string
	Name         string
	StreamARN    string // as in StreamTrigger; "" without a stream
	TTLAttribute string
	KeyARN       string // KMS key; "" for the key that AWS owns
	Input        dynamodb.CreateTableInput
}

// Queue is an SQS queue.
type Queue struct {
	LogicalID   string
	Name        string
	ARN         string
	URL         string
	Visibility  time.Duration
	MaxReceives int    // 0 without a redrive policy
	DeadARN     string // ARN of the dead-letter queue
}

// Function is a Lambda function with its triggers.
type Function struct {
	LogicalID   string
	Folder      string // functions/<Folder>
	Name        string
	Timeout     time.Duration
	Environment map[string]string
	Streams     []StreamTrigger
	Queues      []QueueTrigger
	Schedules   []Schedule
	URL         bool // has a function URL
	// SystemLogLevel is the minimum level of Lambda's system log, Tracing the X-Ray mode.
	SystemLogLevel, Tracing string
	// Configuration is what a published version keeps besides the code, as JSON, and
	// VersionDescription its description.
	Configuration, VersionDescription string
	// RecursiveLoop says whether Lambda stops chains of messages from the function to
	// itself: Terminate or Allow. "" is Lambda's default, Terminate.
	RecursiveLoop string
	// Role is the ARN of the function's role, and Statements are the role's. Functions can
	// share a role.
	Role       string
	Statements []Statement
}

// StreamTrigger is an event source mapping of a table's stream.
type StreamTrigger struct {
	Name          string
	StreamARN     string
	BatchSize     int
	MaxRetries    int // -1 is unlimited
	MaxAge        time.Duration
	Bisect        bool
	ReportsItems  bool
	FailureARN    string
	Filters       []json.RawMessage
	FromBeginning bool
}

// QueueTrigger is an event source mapping of a queue.
type QueueTrigger struct {
	Name           string
	QueueARN       string
	BatchSize      int
	MaxConcurrency int // 0 is unlimited
	ReportsItems   bool
}

// Schedule is an EventBridge schedule.
type Schedule struct {
	Name  string
	Every time.Duration
	Input json.RawMessage
}

// Folder returns the folder under functions/ for a function's logical id, such as
// close-discussions for CloseDiscussionsFunction.
func Folder(logicalID string) string {
	words := camel.FindAllString(strings.TrimSuffix(logicalID, "Function"), -1)
	return strings.ToLower(strings.Join(words, "-"))
}

// ForSample returns the function for a sample event in events/, whose name begins with
// the function's folder: dispatch-sqs is for dispatch. It returns nil if there is none.
func (s *Stack) ForSample(name string) *Function {
	var found *Function
	for i := range s.Functions {
		f := &s.Functions[i]
		if (name == f.Folder || strings.HasPrefix(name, f.Folder+"-")) && (found == nil || len(f.Folder) > len(found.Folder)) {
			found = f
		}
	}
	return found
}

var camel = regexp.MustCompile(`[A-Z][a-z0-9]*`)
