// Package sqsapi is an SQS service within the process, for the local runner's
// destinations and the tests: the part of the API that sending and receiving
// need, in the AWS JSON protocol that today's SDKs speak. It promises to refuse
// what SQS refuses (unknown queues, sizes, attributes, groups, characters) with
// the same error codes. Credentials are not checked.
package sqsapi

import (
	"context"
	"crypto/md5"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
)

const (
	// Account owns every queue.
	Account = "000000000000"
	// MaxMessageBytes is SQS's limit on a message, its attributes included.
	MaxMessageBytes = 1 << 20
	maxAttributes   = 10
	// dedupTime is how long a FIFO queue remembers a deduplication id.
	dedupTime = 5 * time.Minute
	// visibility hides a received message, unless the request says otherwise.
	visibility = 30 * time.Second
	maxWait    = 20 * time.Second
)

// Service is an http.Handler. It is safe for concurrent use.
type Service struct {
	mu     sync.Mutex
	queues map[string]*queue
}

// New returns a service with the queues; more can be made by CreateQueue.
func New(queues ...string) *Service {
	s := &Service{queues: map[string]*queue{}}
	for _, name := range queues {
		s.create(name, 0)
	}
	return s
}

// Add makes a queue where it does not exist.
func (s *Service) Add(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.create(name, 0)
}

// queue is one queue's messages, in the order in which they were sent.
type queue struct {
	maxBytes int
	fifo     bool
	messages []*message
	seen     map[string]seen // by deduplication id
	arrived  chan struct{}   // closed when a message is sent
	sent     int
}

type seen struct {
	id string
	at time.Time
}

type message struct {
	id, body   string
	attributes map[string]Attribute
	system     map[string]string
	group      string
	visible    time.Time
	receives   int
	receipt    string
}

// Attribute is a message attribute, as the protocol has it.
type Attribute struct {
	DataType    string
	StringValue string `json:",omitempty"`
	BinaryValue []byte `json:",omitempty"`
}

func (s *Service) create(name string, maxBytes int) {
	if s.queues[name] != nil {
		return
	}
	if maxBytes == 0 {
		maxBytes = MaxMessageBytes
	}
	s.queues[name] = &queue{maxBytes: maxBytes, fifo: strings.HasSuffix(name, ".fifo"), seen: map[string]seen{}, arrived: make(chan struct{})}
}

// request is the union of what the operations take.
type request struct {
	QueueName              string
	QueueUrl               string
	Attributes             map[string]string
	MessageBody            string
	MessageAttributes      map[string]Attribute
	MessageGroupId         string
	MessageDeduplicationId string
	DelaySeconds           int
	MaxNumberOfMessages    int
	WaitTimeSeconds        int
	VisibilityTimeout      *int
	ReceiptHandle          string
	// of a batch: its messages, each with what SendMessage takes
	Entries []entry
}

type entry struct {
	Id string
	request
}

// fault is an error answer.
type fault struct {
	status        int
	kind, message string
	code          string // the query protocol's name of it, where that differs
}

func (f *fault) Error() string { return f.kind + ": " + f.message }

func invalid(kind, format string, args ...any) *fault {
	return &fault{status: http.StatusBadRequest, kind: kind, message: fmt.Sprintf(format, args...)}
}

// ServeHTTP serves one API call.
func (s *Service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var in request
	var out any
	var err error
	// To its end, or the connection could not be used again.
	if body, readErr := io.ReadAll(http.MaxBytesReader(w, r.Body, 2*MaxMessageBytes)); readErr != nil || json.Unmarshal(body, &in) != nil {
		err = invalid("SerializationException", "the body is not the JSON of a request")
	} else {
		_, operation, _ := strings.Cut(r.Header.Get("X-Amz-Target"), ".")
		switch operation {
		case "CreateQueue":
			out, err = s.createQueue(in, r.Host)
		case "GetQueueUrl":
			out, err = s.queueURL(in, r.Host)
		case "SendMessage":
			out, err = s.send(in)
		case "SendMessageBatch":
			out, err = s.sendBatch(in)
		case "GetQueueAttributes":
			out, err = s.attributes(in)
		case "ReceiveMessage":
			out, err = s.receive(r.Context(), in)
		case "DeleteMessage":
			err = s.delete(in)
		default:
			err = invalid("UnsupportedOperation", "operation %q is not served here", operation)
		}
	}
	w.Header().Set("Content-Type", "application/x-amz-json-1.0")
	if f, failed := err.(*fault); failed {
		code := f.code
		if code == "" {
			code = f.kind
		}
		w.Header().Set("x-amzn-query-error", code+";Sender")
		w.WriteHeader(f.status)
		out = map[string]string{"__type": "com.amazonaws.sqs#" + f.kind, "message": f.message}
	}
	if out == nil {
		out = struct{}{}
	}
	_ = json.NewEncoder(w).Encode(out) // a client that is gone needs no answer
}

func address(host, name string) any {
	return map[string]string{"QueueUrl": "http://" + host + "/" + Account + "/" + name}
}

func (s *Service) createQueue(in request, host string) (any, error) {
	maxBytes := 0
	if text := in.Attributes["MaximumMessageSize"]; text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1024 || n > MaxMessageBytes {
			return nil, invalid("InvalidAttributeValue", "MaximumMessageSize")
		}
		maxBytes = n
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.create(in.QueueName, maxBytes)
	return address(host, in.QueueName), nil
}

// find returns the queue of a URL or a name. The caller holds mu.
func (s *Service) find(path string) (*queue, error) {
	q := s.queues[path[strings.LastIndex(path, "/")+1:]]
	if q == nil {
		return nil, &fault{http.StatusBadRequest, "QueueDoesNotExist", "The specified queue does not exist.", "AWS.SimpleQueueService.NonExistentQueue"}
	}
	return q, nil
}

func (s *Service) queueURL(in request, host string) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := s.find(in.QueueName); err != nil {
		return nil, err
	}
	return address(host, in.QueueName), nil
}

// attributes counts a queue's messages. It answers with every count there is,
// whatever was asked for.
func (s *Service) attributes(in request) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	q, err := s.find(in.QueueUrl)
	if err != nil {
		return nil, err
	}
	var visible, delayed, inFlight int
	for now, i := time.Now(), 0; i < len(q.messages); i++ {
		switch m := q.messages[i]; {
		case !m.visible.After(now):
			visible++
		case m.receives > 0:
			inFlight++
		default:
			delayed++
		}
	}
	return map[string]any{"Attributes": map[string]string{
		"ApproximateNumberOfMessages":           strconv.Itoa(visible),
		"ApproximateNumberOfMessagesDelayed":    strconv.Itoa(delayed),
		"ApproximateNumberOfMessagesNotVisible": strconv.Itoa(inFlight),
	}}, nil
}

func (s *Service) send(in request) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	q, err := s.find(in.QueueUrl)
	if err != nil {
		return nil, err
	}
	if err := q.check(in); err != nil {
		return nil, err
	}
	sum := md5.Sum([]byte(in.MessageBody)) // what SQS calls MD5OfMessageBody
	answer := map[string]string{"MD5OfMessageBody": hex.EncodeToString(sum[:])}
	now := time.Now()
	if q.fifo {
		if before, again := q.seen[in.MessageDeduplicationId]; again && now.Sub(before.at) < dedupTime {
			answer["MessageId"] = before.id
			return answer, nil
		}
	}
	q.sent++
	m := &message{
		id: fmt.Sprintf("m-%d", q.sent), body: in.MessageBody, attributes: in.MessageAttributes, group: in.MessageGroupId,
		visible: now.Add(time.Duration(in.DelaySeconds) * time.Second),
		system:  map[string]string{"SentTimestamp": strconv.FormatInt(now.UnixMilli(), 10), "SenderId": Account},
	}
	if in.MessageGroupId != "" {
		m.system["MessageGroupId"] = in.MessageGroupId
	}
	if q.fifo {
		m.system["MessageDeduplicationId"] = in.MessageDeduplicationId
		m.system["SequenceNumber"] = fmt.Sprintf("%020d", q.sent)
		q.seen[in.MessageDeduplicationId] = seen{m.id, now}
	}
	q.messages = append(q.messages, m)
	close(q.arrived)
	q.arrived = make(chan struct{})
	answer["MessageId"] = m.id
	return answer, nil
}

// maxBatch is the most messages that SendMessageBatch takes.
const maxBatch = 10

// sendBatch sends each message of a batch; one that is refused fails alone.
func (s *Service) sendBatch(in request) (any, error) {
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
		e.QueueUrl = in.QueueUrl
		answer, err := s.send(e.request)
		var f *fault
		switch {
		case errors.As(err, &f) && f.kind == "QueueDoesNotExist":
			return nil, err
		case errors.As(err, &f):
			out.Failed = append(out.Failed, map[string]any{"Id": e.Id, "SenderFault": true, "Code": f.kind, "Message": f.message})
		case err != nil:
			return nil, err
		default:
			sent := answer.(map[string]string)
			sent["Id"] = e.Id
			out.Successful = append(out.Successful, sent)
		}
	}
	return out, nil
}

// check refuses what SQS refuses.
func (q *queue) check(in request) error {
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

// allowed reports whether SQS takes the text's characters (SendMessage, API reference).
func allowed(text string) bool {
	return utf8.ValidString(text) && !strings.ContainsFunc(text, func(r rune) bool {
		return r < 0x20 && r != '\t' && r != '\n' && r != '\r' || r == 0xFFFE || r == 0xFFFF
	})
}

// token reports whether the text may be a group or deduplication id, or is none.
func token(text string) bool {
	return len(text) <= 128 && !strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' })
}

func (s *Service) receive(ctx context.Context, in request) (any, error) {
	limit := min(max(in.MaxNumberOfMessages, 1), 10)
	hide := visibility
	if in.VisibilityTimeout != nil {
		hide = time.Duration(*in.VisibilityTimeout) * time.Second
	}
	wait := time.NewTimer(min(time.Duration(in.WaitTimeSeconds)*time.Second, maxWait))
	defer wait.Stop()
	for {
		s.mu.Lock()
		q, err := s.find(in.QueueUrl)
		if err != nil {
			s.mu.Unlock()
			return nil, err
		}
		got := q.take(limit, hide)
		arrived := q.arrived
		s.mu.Unlock()
		if len(got) > 0 {
			return map[string]any{"Messages": got}, nil
		}
		select {
		case <-arrived:
		case <-wait.C:
			return nil, nil
		case <-ctx.Done():
			return nil, nil
		}
	}
}

func (q *queue) take(limit int, hide time.Duration) []map[string]any {
	now := time.Now()
	var got []map[string]any
	held := map[string]bool{} // FIFO groups with a message in flight
	for _, m := range q.messages {
		if len(got) == limit {
			break
		}
		if m.visible.After(now) || q.fifo && held[m.group] {
			held[m.group] = true
			continue
		}
		m.receives++
		m.visible = now.Add(hide)
		m.receipt = fmt.Sprintf("%s.%d", m.id, m.receives)
		m.system["ApproximateReceiveCount"] = strconv.Itoa(m.receives)
		sum := md5.Sum([]byte(m.body))
		got = append(got, map[string]any{
			"MessageId": m.id, "ReceiptHandle": m.receipt, "Body": m.body, "MD5OfBody": hex.EncodeToString(sum[:]),
			"MessageAttributes": m.attributes, "Attributes": m.system,
		})
	}
	return got
}

func (s *Service) delete(in request) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	q, err := s.find(in.QueueUrl)
	if err != nil {
		return err
	}
	q.messages = slices.DeleteFunc(q.messages, func(m *message) bool { return m.receipt != "" && m.receipt == in.ReceiptHandle })
	return nil
}
