// Package sqsadapter delivers events to standard and FIFO SQS queues. It promises that
// one Deliver is at most one SendMessage, that the message body is the event and its
// headers are message attributes, and that on a FIFO queue the deduplication id is the
// event's id and the message group is its subject.
package sqsadapter

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/destination"
	"github.com/tidings-dev/tidings/pkg/destination/awsclient"
)

const (
	service    = "SQS"
	form       = "sqs://account/queue?region=us-east-1, or sqs://queue?region=us-east-1 for a queue of the deployment's own account"
	maxMessage = 1 << 20 // bytes, with attributes; a limit of SQS
	maxGroup   = 128     // bytes of a message group id; a limit of SQS
)

// Options are shared by all adapters of a router.
type Options = awsclient.Options

// Kind returns the SQS protocol for a router. Adapters share the connections, and one
// client per region and role.
func Kind(o Options) destination.Kind {
	clients := awsclient.New(o, func(c aws.Config) *sqs.Client { return sqs.NewFromConfig(c) })
	return destination.Kind{
		Schemes: []string{"sqs"},
		Form:    form,
		Check: func(t destination.Target, u *url.URL) error {
			_, err := parse(t, u)
			return err
		},
		Open: func(t destination.Target, u *url.URL) (destination.Adapter, error) {
			d, err := parse(t, u)
			if err != nil {
				return nil, err
			}
			return &sender{destination: d, client: clients.For(t, d.region), endpoint: o.Endpoint}, nil
		},
		Close: clients.Close,
	}
}

// queueURL is a parsed destination URL.
type queueURL struct {
	account string // empty means the deployment's account
	queue   string
	region  string
	fifo    bool
}

var queueForm = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)

func parse(t destination.Target, u *url.URL) (queueURL, error) {
	var d queueURL
	var err error
	if d.region, err = awsclient.Region(t, u, service, "the queue's policy"); err != nil {
		return d, err
	}
	path := strings.TrimPrefix(u.Path, "/")
	if path == "" {
		d.queue = u.Host
	} else {
		d.account, d.queue = u.Host, path
		if err := awsclient.CheckAccount(d.account); err != nil {
			return d, err
		}
	}
	name, fifo := strings.CutSuffix(d.queue, ".fifo")
	d.fifo = fifo
	switch {
	case u.Opaque != "" || d.queue == "":
		return d, errors.New("the queue name is missing")
	case !queueForm.MatchString(name) || len(d.queue) > 80:
		return d, errors.New("the queue name is malformed: it has 1 to 80 letters, digits, - and _, and ends with .fifo for a FIFO queue")
	case t.Ordered:
		return d, errors.New("ordered applies to Pub/Sub; for ordering on SQS use a FIFO queue")
	}
	return d, nil
}

// sender sends to one queue.
type sender struct {
	destination queueURL
	client      *sqs.Client
	endpoint    string

	mu  sync.Mutex
	url string // the queue's URL; empty until it is known
}

// Close does nothing: all senders share the connections.
func (s *sender) Close() error { return nil }

// Deliver sends the message once.
func (s *sender) Deliver(ctx context.Context, m destination.Message) delivery.Outcome {
	began := time.Now()
	attributes := m.Attributes("")
	for name, value := range attributes {
		if !carries(value) {
			return delivery.Outcome{Class: delivery.Invalid, Permanent: true,
				Error: "nothing was sent: the message attribute " + name + " would be empty or have a character that SQS does not allow"}
		}
	}
	size := len(m.Body)
	in := &sqs.SendMessageInput{MessageBody: aws.String(string(m.Body)), MessageAttributes: make(map[string]types.MessageAttributeValue, len(attributes))}
	for name, value := range attributes {
		in.MessageAttributes[name] = types.MessageAttributeValue{DataType: aws.String("String"), StringValue: aws.String(value)}
		size += len(name) + len("String") + len(value)
	}
	if s.destination.fifo {
		in.MessageDeduplicationId, in.MessageGroupId = &m.EventID, aws.String(group(m))
	}
	receipt, err := s.send(ctx, in)
	o := delivery.Outcome{Class: delivery.Success}
	if err != nil {
		o = awsclient.Classify(ctx, err, service, func(code string) delivery.Outcome { return refused(code, size) })
	}
	if x := destination.Observed(ctx); x != nil {
		observe(x, s.destination, attributes, in, receipt, err)
		x.EndedAfter = time.Since(began)
	}
	o.Timings.Total = time.Since(began)
	return o
}

// carries reports whether a text can be the value of a message attribute: it is not empty
// and has only characters that SQS allows (SendMessage, API reference).
func carries(text string) bool {
	return text != "" && utf8.ValidString(text) && !strings.ContainsFunc(text, func(r rune) bool {
		return r < ' ' && r != '\t' && r != '\n' && r != '\r' || r == 0xFFFE || r == 0xFFFF
	})
}

func (s *sender) send(ctx context.Context, in *sqs.SendMessageInput) (*sqs.SendMessageOutput, error) {
	queue, err := s.queueURL(ctx)
	if err != nil {
		return nil, err
	}
	in.QueueUrl = &queue
	receipt, err := s.client.SendMessage(ctx, in)
	if err == nil && receipt.MessageId == nil {
		err = awsclient.ErrNoReceipt
	}
	return receipt, err
}

// observe fills the exchange.
func observe(x *destination.Exchange, d queueURL, attributes map[string]string, in *sqs.SendMessageInput, receipt *sqs.SendMessageOutput, err error) {
	x.Method, x.To, x.Ended = "SendMessage", d.queue, destination.PhaseExchange
	if in.QueueUrl != nil {
		x.To = *in.QueueUrl
	}
	x.RequestHeaders = destination.Fields(attributes)
	if d.fifo {
		x.RequestHeaders = append(x.RequestHeaders, destination.Field{Name: "MessageGroupId", Value: aws.ToString(in.MessageGroupId)},
			destination.Field{Name: "MessageDeduplicationId", Value: aws.ToString(in.MessageDeduplicationId)})
	}
	x.Cause = err
	if err == nil {
		x.ResponseHeaders = append(x.ResponseHeaders, destination.Field{Name: "MessageId", Value: aws.ToString(receipt.MessageId)})
		if receipt.SequenceNumber != nil {
			x.ResponseHeaders = append(x.ResponseHeaders, destination.Field{Name: "SequenceNumber", Value: *receipt.SequenceNumber})
		}
		return
	}
	x.Code = awsclient.Code(err)
}

// queueURL returns the queue's URL. Without an account, it asks SQS once.
func (s *sender) queueURL(ctx context.Context) (string, error) {
	s.mu.Lock()
	known := s.url
	s.mu.Unlock()
	if known != "" {
		return known, nil
	}
	d := s.destination
	if d.account != "" {
		base := s.endpoint
		if base == "" {
			base = "https://sqs." + d.region + ".amazonaws.com"
		}
		known = base + "/" + d.account + "/" + d.queue
	} else {
		out, err := s.client.GetQueueUrl(ctx, &sqs.GetQueueUrlInput{QueueName: &d.queue})
		if err != nil {
			return "", err
		}
		known = aws.ToString(out.QueueUrl)
	}
	s.mu.Lock()
	s.url = known
	s.mu.Unlock()
	return known, nil
}

// group returns the message group id: the subject, or its SHA-256 if it is too long or
// contains characters that SQS does not allow.
func group(m destination.Message) string {
	g := m.Subject
	if g == "" {
		g = m.EventID
	}
	if len(g) <= maxGroup && !strings.ContainsFunc(g, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return g
	}
	sum := sha256.Sum256([]byte(g))
	return hex.EncodeToString(sum[:])
}

// refused returns the outcome for an error code of SQS, STS or KMS (API references).
func refused(code string, size int) delivery.Outcome {
	o := delivery.Outcome{Class: delivery.Answered, Error: "SQS answered " + code}
	switch code {
	case "QueueDoesNotExist", "AWS.SimpleQueueService.NonExistentQueue", "QueueDeletedRecently", "AWS.SimpleQueueService.QueueDeletedRecently":
		return delivery.Outcome{Class: delivery.Missing, Permanent: true,
			Error: "the queue does not exist: check account, name and region"}
	case "KmsAccessDenied", "KMS.AccessDeniedException", "KmsDisabled", "KMS.DisabledException", "KmsInvalidState", "KMS.KMSInvalidStateException",
		"KmsNotFound", "KMS.NotFoundException", "KmsOptInRequired", "KMS.OptInRequired", "KmsInvalidKeyUsage", "KMS.InvalidKeyUsageException":
		o.Class, o.Permanent = delivery.Denied, true
		o.Error += ": the queue's KMS key must be enabled, and must allow the dispatch function's role to generate data keys"
	case "KmsThrottled", "KMS.ThrottlingException":
		o.Class = delivery.Throttled
	case "InvalidMessageContents":
		o.Class, o.Permanent = delivery.Invalid, true
		o.Error += ": the event contains characters that SQS does not allow (U+FFFE, U+FFFF)"
	case "InvalidParameterValue", "InvalidParameterValueException", "MessageTooLong",
		"InvalidAttributeValue": // ElasticMQ
		// Only the size can be invalid: everything else was validated.
		o.Class, o.Permanent = delivery.TooLarge, true
		o.Error += fmt.Sprintf(": the message has %d bytes with its attributes; raise the queue's MaximumMessageSize (at most %d)", size, maxMessage)
	case "UnsupportedOperation", "InvalidAddress", "MissingParameter", "InvalidQueryParameter":
		o.Class, o.Permanent = delivery.Invalid, true
		o.Error += ": the queue rejects the message"
	}
	switch {
	case awsclient.Denied(code):
		o.Class, o.Permanent = delivery.Denied, true
		o.Error += ": allow the dispatch function's role to send, in the queue's policy or with role_arn (a role that trusts it, with the tenant as external id)"
	case awsclient.Throttled(code):
		o.Class = delivery.Throttled
	}
	return o
}
