// Package lambdaevent tells what called a Lambda function from the payload alone,
// because one function here serves several triggers. It promises to look at no
// more than names that AWS documents, and never to guess: what matches none is
// a direct invocation.
package lambdaevent

import (
	"encoding/json"
	"fmt"

	"github.com/tidings-dev/tidings/pkg/onepass"
)

// Kind is what called.
type Kind int

const (
	Direct      Kind = iota // Invoke API, or a schedule with an input of its own
	Stream                  // event source mapping of a DynamoDB stream
	Queue                   // event source mapping of an SQS queue
	FunctionURL             // HTTP request, payload version 2.0
)

func (k Kind) String() string {
	return [...]string{"direct invocation", "DynamoDB stream", "SQS queue", "function URL"}[k]
}

// Of returns what called with the payload. It reads no further than to the name
// that tells; a payload that has none is read to its end. It fails on one that
// turns out not to be JSON on the way, and on records of a source that no function
// here serves.
func Of(payload []byte) (Kind, error) {
	var source string
	var records, request bool
	err := onepass.Read(payload, func(r *onepass.Reader) error {
		return r.Object(func(name []byte) error {
			switch string(name) {
			case "Records":
				return r.Array(func() error {
					if err := r.Object(func(name []byte) error {
						if string(name) != "eventSource" {
							return r.Skip()
						}
						if err := r.String(&source); err != nil {
							return err
						}
						records = true
						return onepass.ErrDone
					}); err != nil {
						return err
					}
					records = true
					return onepass.ErrDone // the first record speaks for all
				})
			case "requestContext":
				return r.Object(func(name []byte) error {
					if string(name) != "http" {
						return r.Skip()
					}
					request = true
					return onepass.ErrDone
				})
			}
			return r.Skip()
		})
	})
	switch {
	case err != nil && !json.Valid(payload):
		return Direct, fmt.Errorf("payload is not JSON")
	case err != nil:
		// A direct payload may be a list, or use these names for something else:
		// that is no error, only no trigger.
		return Direct, nil
	case request:
		return FunctionURL, nil
	case records:
		return ofSource(source)
	}
	return Direct, nil
}

func ofSource(source string) (Kind, error) {
	switch source {
	case "aws:dynamodb":
		return Stream, nil
	case "aws:sqs":
		return Queue, nil
	default:
		return Direct, fmt.Errorf("records come from %.64q; this function reads aws:dynamodb and aws:sqs", source)
	}
}
