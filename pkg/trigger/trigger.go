// Package trigger tells what called a Lambda function from the payload alone,
// because one function here serves several triggers. It promises to look at no
// more than names that AWS documents, and never to guess: what matches none is
// a direct invocation.
package trigger

import (
	"bytes"
	"encoding/json"
	"fmt"
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

// Of returns what called with the payload. It fails on a payload that is not
// JSON, and on records of a source that no function here serves.
func Of(payload []byte) (Kind, error) {
	if !json.Valid(payload) {
		return Direct, fmt.Errorf("payload is not JSON")
	}
	if source, ok := firstSource(payload); ok {
		return ofSource(source)
	}
	var peek struct {
		Records []struct {
			EventSource string `json:"eventSource"`
		} `json:"Records"`
		RequestContext struct {
			HTTP json.RawMessage `json:"http"`
		} `json:"requestContext"`
	}
	// A direct payload may be a list, or use these names for something else:
	// that is no error, only no trigger.
	if err := json.Unmarshal(payload, &peek); err != nil {
		return Direct, nil
	}
	switch {
	case len(peek.RequestContext.HTTP) > 0:
		return FunctionURL, nil
	case len(peek.Records) == 0:
		return Direct, nil
	}
	return ofSource(peek.Records[0].EventSource)
}

// firstSource is the source of the first record of a payload that begins with its
// records, as those of event source mappings do: the others need not be read.
func firstSource(payload []byte) (source string, ok bool) {
	in := json.NewDecoder(bytes.NewReader(payload))
	for _, want := range []json.Token{json.Delim('{'), "Records", json.Delim('['), json.Delim('{')} {
		if got, err := in.Token(); err != nil || got != want {
			return "", false
		}
	}
	for in.More() {
		name, err := in.Token()
		if err != nil {
			return "", false
		}
		if name == "eventSource" {
			err := in.Decode(&source)
			return source, err == nil
		}
		var value skipped
		if err := in.Decode(&value); err != nil {
			return "", false
		}
	}
	return "", false
}

// skipped is a value that nobody looks at.
type skipped struct{}

func (skipped) UnmarshalJSON([]byte) error { return nil }

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
