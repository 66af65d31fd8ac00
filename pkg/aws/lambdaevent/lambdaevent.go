// Package lambdaevent reads the payloads of Lambda's triggers and builds the response
// to a batch. Functions have several triggers; Of tells from the payload which one it
// was. It relies only on names that AWS documents; any other payload is a direct
// invocation.
package lambdaevent

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/tidings-dev/tidings/pkg/delivery/work"
)

// Kind is the kind of trigger.
type Kind int

const (
	Direct      Kind = iota // Invoke API, or a schedule with its own input
	Stream                  // event source mapping of a DynamoDB stream
	Queue                   // event source mapping of an SQS queue
	FunctionURL             // HTTP request, payload version 2.0
)

func (k Kind) String() string {
	return [...]string{"direct invocation", "DynamoDB stream", "SQS queue", "function URL"}[k]
}

// options read a payload as encoding/json does, which aws-lambda-go uses, except
// that names are case-sensitive.
var options = json.JoinOptions(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))

// Of returns the trigger that sent the payload. It reads no further than the name that
// decides. It fails for an object that is not JSON, and for records from another source
// than DynamoDB or SQS.
func Of(payload []byte) (Kind, error) {
	dec := jsontext.NewDecoder(bytes.NewBuffer(payload), options)
	source, request, err := find(dec)
	switch {
	case err != nil && !jsontext.Value(payload).IsValid(options):
		return Direct, fmt.Errorf("payload is not JSON")
	case err != nil || source == nil && !request:
		return Direct, nil // possibly with one of these names, used differently
	case request:
		return FunctionURL, nil
	case *source == "aws:dynamodb":
		return Stream, nil
	case *source == "aws:sqs":
		return Queue, nil
	}
	return Direct, fmt.Errorf("records come from %.64q; this function reads aws:dynamodb and aws:sqs", *source)
}

var errNoObject = errors.New("payload is not an object")

// find returns the event source of the first record, and whether the payload is an
// HTTP request.
func find(dec *jsontext.Decoder) (source *string, request bool, err error) {
	if dec.PeekKind() != '{' {
		return nil, false, errNoObject
	}
	_, _ = dec.ReadToken()
	for dec.PeekKind() == '"' {
		name, err := dec.ReadToken()
		if err != nil {
			return nil, false, err
		}
		switch text := name.String(); {
		case text == "Records" && dec.PeekKind() == '[':
			_, _ = dec.ReadToken()
			if dec.PeekKind() == ']' {
				_, err = dec.ReadToken()
				break
			}
			var first struct {
				Source string `json:"eventSource"`
			}
			err = json.UnmarshalDecode(dec, &first)
			return &first.Source, false, err
		case text == "requestContext":
			var context struct {
				HTTP jsontext.Value `json:"http"`
			}
			if err = json.UnmarshalDecode(dec, &context); err == nil && context.HTTP != nil {
				return nil, true, nil
			}
		default:
			err = dec.SkipValue()
		}
		if err != nil {
			return nil, false, err
		}
	}
	if _, err := dec.ReadToken(); err != nil {
		return nil, false, err
	}
	if _, err := dec.ReadToken(); !errors.Is(err, io.EOF) {
		return nil, false, fmt.Errorf("payload has a second value: %w", err)
	}
	return nil, false, nil
}

// ReadQueue reads a batch of an SQS queue.
func ReadQueue(payload []byte) ([]work.Message, error) {
	var batch struct {
		Records []struct {
			ID         string `json:"messageId"`
			Body       string `json:"body"`
			Attributes struct {
				Receives string `json:"ApproximateReceiveCount"`
				Sent     string `json:"SentTimestamp"` // epoch milliseconds
			} `json:"attributes"`
		}
	}
	if err := json.Unmarshal(payload, &batch, options); err != nil {
		return nil, fmt.Errorf("queue batch: %w", err)
	}
	messages := make([]work.Message, len(batch.Records))
	for i, r := range batch.Records {
		m := work.Message{ID: r.ID, Body: r.Body}
		m.Receives, _ = strconv.Atoi(r.Attributes.Receives)
		if ms, err := strconv.ParseInt(r.Attributes.Sent, 10, 64); err == nil {
			m.SentAt = time.UnixMilli(ms)
		}
		messages[i] = m
	}
	return messages, nil
}

// BatchResponse is the response to a batch of a queue or a stream.
type BatchResponse struct {
	Failures []Failure `json:"batchItemFailures"`
}

// Failure identifies what Lambda has to deliver again: a message by its ID, or a
// stream's record and all later ones by its sequence number.
type Failure struct {
	ID string `json:"itemIdentifier"`
}

// Failed returns the response with these failures. Without failures the list is empty,
// not null, which means that the batch succeeded.
func Failed(ids []string) BatchResponse {
	failures := make([]Failure, len(ids))
	for i, id := range ids {
		failures[i].ID = id
	}
	return BatchResponse{Failures: failures}
}
