// Package sqsapi serves local queues (package queue) through the SQS API, for the
// local runner and the tests: the operations that sending and receiving need, in
// the AWS JSON protocol that today's SDKs speak. It promises to refuse what SQS
// refuses (unknown queues, sizes, attributes, groups, characters) with the same
// error codes. Credentials are not checked.
package sqsapi

import (
	"context"
	"crypto/md5"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/tidings-dev/tidings/pkg/local/queue"
)

const (
	// Account owns every queue.
	Account = "000000000000"
	// MaxMessageBytes is SQS's limit on a message, its attributes included.
	MaxMessageBytes = 1 << 20
	maxAttributes   = 10
	// dedupTime is how long a FIFO queue remembers a deduplication id.
	dedupTime = 5 * time.Minute
	// visibility is the visibility timeout of queues that the service creates.
	visibility = 30 * time.Second
	maxWait    = 20 * time.Second
	// maxBatch is the limit on messages in one request.
	maxBatch = 10
)

// Service is an http.Handler. It is safe for concurrent use.
type Service struct {
	// Refuse returns the error code with which to refuse a message, "" to accept it.
	// It is for tests, and nil accepts all messages. Set it before the first call.
	Refuse func(body string, delaySeconds int) string

	mu     sync.Mutex
	queues map[string]*served
}

// served is a queue with what only the API knows.
type served struct {
	*queue.Queue
	service  *Service
	maxBytes int
	fifo     bool

	mu   sync.Mutex
	sent map[string]sent // by deduplication id
}

type sent struct {
	id string
	at time.Time
}

// New returns a service with empty queues; CreateQueue and Add add more.
func New(queues ...string) *Service {
	s := &Service{queues: map[string]*served{}}
	for _, name := range queues {
		s.Add(name)
	}
	return s
}

// Add creates a queue, unless it exists.
func (s *Service) Add(name string) { s.create(name, MaxMessageBytes) }

// Serve serves a queue of the local runner under its own name.
func (s *Service) Serve(q *queue.Queue) { s.serve(q, MaxMessageBytes) }

func (s *Service) create(name string, maxBytes int) {
	q, err := queue.Open(queue.Config{Name: name, Visibility: visibility, FIFO: isFIFO(name)})
	if err != nil {
		panic(err) // only a journal can fail
	}
	s.serve(q, maxBytes)
}

func (s *Service) serve(q *queue.Queue, maxBytes int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.queues[q.Name()] == nil {
		s.queues[q.Name()] = &served{Queue: q, service: s, maxBytes: maxBytes, fifo: isFIFO(q.Name()), sent: map[string]sent{}}
	}
}

func isFIFO(name string) bool { return strings.HasSuffix(name, ".fifo") }

// request has the parameters of all operations.
type request struct {
	QueueName              string
	QueueUrl               string
	Attributes             map[string]string
	MessageBody            string
	MessageAttributes      map[string]queue.Attribute
	MessageGroupId         string
	MessageDeduplicationId string
	DelaySeconds           int
	MaxNumberOfMessages    int
	WaitTimeSeconds        int
	VisibilityTimeout      *int
	ReceiptHandle          string
	AttributeNames         []string
	Entries                []entry // of a batch
}

type entry struct {
	Id string
	request
}

// fault is an error response.
type fault struct {
	kind, message string
	code          string // the code in the query protocol, where it differs from kind
}

func (f *fault) Error() string { return f.kind + ": " + f.message }

// senderFault reports whether sending the message again is useless.
func (f *fault) senderFault() bool {
	return f.kind != "ThrottlingException" && f.kind != "InternalError"
}

func invalid(kind, format string, args ...any) *fault {
	return &fault{kind: kind, message: fmt.Sprintf(format, args...)}
}

// ServeHTTP serves one API call.
func (s *Service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var in request
	var out any
	var err error
	// The body is read to its end, or the connection could not be reused.
	if body, readErr := io.ReadAll(http.MaxBytesReader(w, r.Body, 2*MaxMessageBytes)); readErr != nil || json.Unmarshal(body, &in) != nil {
		err = invalid("SerializationException", "the body is not the JSON of a request")
	} else {
		_, operation, _ := strings.Cut(r.Header.Get("X-Amz-Target"), ".")
		out, err = s.call(r, operation, in)
	}
	w.Header().Set("Content-Type", "application/x-amz-json-1.0")
	if err != nil {
		f, known := err.(*fault)
		if !known {
			f = invalid("InternalError", "%s", err)
		}
		code := f.code
		if code == "" {
			code = f.kind
		}
		w.Header().Set("x-amzn-query-error", code+";Sender")
		w.WriteHeader(http.StatusBadRequest)
		out = map[string]string{"__type": "com.amazonaws.sqs#" + f.kind, "message": f.message}
	}
	if out == nil {
		out = struct{}{}
	}
	_ = json.NewEncoder(w).Encode(out) // a client that is gone needs no answer
}

// call performs an operation.
func (s *Service) call(r *http.Request, operation string, in request) (any, error) {
	switch operation {
	case "CreateQueue":
		return s.createQueue(in, r.Host)
	case "ListQueues":
		return s.list(r.Host), nil
	}
	q, err := s.find(in.QueueUrl + in.QueueName)
	if err != nil {
		return nil, err
	}
	switch operation {
	case "GetQueueUrl":
		return map[string]string{"QueueUrl": address(r.Host, in.QueueName)}, nil
	case "GetQueueAttributes":
		return q.attributes(in), nil
	case "SendMessage":
		return q.send(in)
	case "SendMessageBatch":
		return q.sendBatch(in)
	case "ReceiveMessage":
		return q.receive(r.Context(), in)
	case "DeleteMessage":
		// SQS answers a receipt that is no longer valid with success.
		if err := q.Delete(in.ReceiptHandle); !errors.Is(err, queue.ErrReceipt) {
			return nil, err
		}
		return nil, nil
	case "ChangeMessageVisibility":
		if in.VisibilityTimeout == nil {
			return nil, invalid("MissingParameter", "The request must contain the parameter VisibilityTimeout.")
		}
		if q.Hide(in.ReceiptHandle, time.Duration(*in.VisibilityTimeout)*time.Second) != nil {
			return nil, invalid("ReceiptHandleIsInvalid", "The input receipt handle is invalid.")
		}
		return nil, nil
	}
	return nil, invalid("UnsupportedOperation", "operation %q is not supported by the local SQS", operation)
}

func address(host, name string) string { return "http://" + host + "/" + Account + "/" + name }

func (s *Service) createQueue(in request, host string) (any, error) {
	maxBytes := MaxMessageBytes
	if text := in.Attributes["MaximumMessageSize"]; text != "" {
		var err error
		if maxBytes, err = strconv.Atoi(text); err != nil || maxBytes < 1024 || maxBytes > MaxMessageBytes {
			return nil, invalid("InvalidAttributeValue", "MaximumMessageSize")
		}
	}
	s.create(in.QueueName, maxBytes)
	return map[string]string{"QueueUrl": address(host, in.QueueName)}, nil
}

func (s *Service) list(host string) any {
	s.mu.Lock()
	defer s.mu.Unlock()
	var urls []string
	for _, name := range slices.Sorted(maps.Keys(s.queues)) {
		urls = append(urls, address(host, name))
	}
	return map[string][]string{"QueueUrls": urls}
}

// find returns the queue of a URL or a name.
func (s *Service) find(path string) (*served, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	q := s.queues[path[strings.LastIndex(path, "/")+1:]]
	if q == nil {
		return nil, &fault{"QueueDoesNotExist", "The specified queue does not exist.", "AWS.SimpleQueueService.NonExistentQueue"}
	}
	return q, nil
}

// attributes returns the requested counts of a queue's messages.
func (q *served) attributes(in request) any {
	held, out := q.Stats(), map[string]string{}
	for name, n := range map[string]int{
		"ApproximateNumberOfMessages":           held.Visible,
		"ApproximateNumberOfMessagesDelayed":    held.Delayed,
		"ApproximateNumberOfMessagesNotVisible": held.InFlight,
	} {
		if slices.Contains(in.AttributeNames, name) || slices.Contains(in.AttributeNames, "All") {
			out[name] = strconv.Itoa(n)
		}
	}
	return map[string]any{"Attributes": out}
}

// digest is what SQS calls MD5OfMessageBody.
func digest(body string) string {
	sum := md5.Sum([]byte(body))
	return hex.EncodeToString(sum[:])
}

func (q *served) send(in request) (map[string]string, error) {
	if err := q.check(in); err != nil {
		return nil, err
	}
	if q.service.Refuse != nil {
		if code := q.service.Refuse(in.MessageBody, in.DelaySeconds); code != "" {
			return nil, invalid(code, "refused by the test")
		}
	}
	answer := map[string]string{"MD5OfMessageBody": digest(in.MessageBody)}
	q.mu.Lock()
	defer q.mu.Unlock()
	if before, known := q.sent[in.MessageDeduplicationId]; known && time.Since(before.at) < dedupTime {
		answer["MessageId"] = before.id
		return answer, nil
	}
	id, err := q.PutMessage(queue.Outgoing{
		Body: in.MessageBody, Group: in.MessageGroupId, DeduplicationID: in.MessageDeduplicationId, Attributes: in.MessageAttributes,
		Delay: time.Duration(in.DelaySeconds) * time.Second,
	})
	if err != nil {
		return nil, err
	}
	if q.fifo {
		q.sent[in.MessageDeduplicationId] = sent{id, time.Now()}
	}
	answer["MessageId"] = id
	return answer, nil
}

// sendBatch sends the messages of a batch, and reports those that are refused.
func (q *served) sendBatch(in request) (any, error) {
	var out struct {
		Successful []map[string]string `json:",omitempty"`
		Failed     []map[string]any    `json:",omitempty"`
	}
	ids, size := map[string]bool{}, 0
	for _, e := range in.Entries {
		if ids[e.Id] {
			return nil, invalid("BatchEntryIdsNotDistinct", "Id %s repeated.", e.Id)
		}
		ids[e.Id] = true
		size += len(e.MessageBody)
	}
	switch {
	case len(in.Entries) == 0:
		return nil, invalid("EmptyBatchRequest", "There should be at least one SendMessageBatchRequestEntry in the request.")
	case len(in.Entries) > maxBatch:
		return nil, invalid("TooManyEntriesInBatchRequest", "Maximum number of entries per request are 10. You have sent %d.", len(in.Entries))
	case size > MaxMessageBytes:
		return nil, invalid("BatchRequestTooLong", "Batch requests cannot be longer than %d bytes.", MaxMessageBytes)
	}
	for _, e := range in.Entries {
		answer, err := q.send(e.request)
		if f, refused := err.(*fault); refused {
			out.Failed = append(out.Failed, map[string]any{"Id": e.Id, "SenderFault": f.senderFault(), "Code": f.kind, "Message": f.message})
			continue
		}
		if err != nil {
			return nil, err
		}
		answer["Id"] = e.Id
		out.Successful = append(out.Successful, answer)
	}
	return out, nil
}

// check refuses what SQS refuses.
func (q *served) check(in request) error {
	size := len(in.MessageBody)
	for name, a := range in.MessageAttributes {
		size += len(name) + len(a.DataType) + len(a.StringValue) + len(a.BinaryValue)
		if a.StringValue == "" && len(a.BinaryValue) == 0 {
			return invalid("InvalidParameterValue", "The message attribute %q must contain non-empty value.", name)
		}
		if !allowed(a.StringValue) {
			return invalid("InvalidMessageContents", "invalid characters in attribute %s", name)
		}
	}
	switch {
	case in.MessageBody == "":
		return invalid("MissingParameter", "The request must contain the parameter MessageBody.")
	case !allowed(in.MessageBody):
		return invalid("InvalidMessageContents", "invalid characters in the body")
	case len(in.MessageAttributes) > maxAttributes:
		return invalid("InvalidParameterValue", "Number of message attributes [%d] exceeds the allowed maximum [10].", len(in.MessageAttributes))
	case size > q.maxBytes:
		return invalid("InvalidParameterValue", "One or more parameters are invalid. Reason: Message must be shorter than %d bytes.", q.maxBytes)
	case q.fifo && in.MessageGroupId == "":
		return invalid("MissingParameter", "The request must contain the parameter MessageGroupId.")
	case q.fifo && in.MessageDeduplicationId == "":
		return invalid("InvalidParameterValue", "The queue should either have ContentBasedDeduplication enabled or MessageDeduplicationId provided explicitly")
	case !token(in.MessageGroupId), !token(in.MessageDeduplicationId):
		return invalid("InvalidParameterValue", "can only include alphanumeric and punctuation characters. 1 to 128 in length")
	}
	return nil
}

// allowed reports whether SQS accepts the text's characters (API reference, SendMessage).
func allowed(text string) bool {
	return utf8.ValidString(text) && !strings.ContainsFunc(text, func(r rune) bool {
		return r < 0x20 && r != '\t' && r != '\n' && r != '\r' || r == 0xFFFE || r == 0xFFFF
	})
}

// token reports whether the text is a valid group or deduplication id, or empty.
func token(text string) bool {
	return len(text) <= 128 && !strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' })
}

func (q *served) receive(ctx context.Context, in request) (any, error) {
	limit, hide := min(max(in.MaxNumberOfMessages, 1), maxBatch), q.Visibility()
	if in.VisibilityTimeout != nil {
		hide = time.Duration(*in.VisibilityTimeout) * time.Second
	}
	got, err := q.Poll(limit, hide)
	if wait := min(time.Duration(in.WaitTimeSeconds)*time.Second, maxWait); wait > 0 && err == nil && len(got) == 0 {
		ctx, cancel := context.WithTimeout(ctx, wait)
		defer cancel()
		if got, err = q.ReceiveHidden(ctx, limit, hide); ctx.Err() != nil {
			err = nil // an empty answer
		}
	}
	if err != nil || len(got) == 0 {
		return nil, err
	}
	messages := make([]map[string]any, len(got))
	for i, m := range got {
		system := map[string]string{
			"SenderId": Account, "SentTimestamp": strconv.FormatInt(m.Sent.UnixMilli(), 10),
			"ApproximateReceiveCount": strconv.Itoa(m.Receives), "ApproximateFirstReceiveTimestamp": strconv.FormatInt(m.First.UnixMilli(), 10),
		}
		if m.Group != "" {
			system["MessageGroupId"] = m.Group
		}
		if q.fifo {
			system["MessageDeduplicationId"], system["SequenceNumber"] = m.DeduplicationID, strings.Repeat("0", 20-len(m.ID))+m.ID
		}
		messages[i] = map[string]any{
			"MessageId": m.ID, "ReceiptHandle": m.Receipt, "Body": m.Body, "MD5OfBody": digest(m.Body),
			"MessageAttributes": m.Attributes, "Attributes": system,
		}
	}
	return map[string]any{"Messages": messages}, nil
}
