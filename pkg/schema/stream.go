package schema

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/tidings-dev/tidings/pkg/onepass"
)

// ReadStream reads what Lambda invokes a function with for a DynamoDB stream: what
// encoding/json makes of it, which tries the types of each attribute by reflection
// and took longer than all the rest of a fan out. What it does not understand, it
// leaves to encoding/json.
func ReadStream(payload []byte) (events.DynamoDBEvent, error) {
	var batch events.DynamoDBEvent
	err := onepass.Read(payload, func(r *onepass.Reader) error {
		return r.Object(func(name []byte) error {
			if string(name) != "Records" {
				return r.Skip()
			}
			return r.Array(func() error {
				batch.Records = append(batch.Records, events.DynamoDBEventRecord{})
				return readRecord(r, &batch.Records[len(batch.Records)-1])
			})
		})
	})
	if err == nil {
		return batch, nil
	}
	batch = events.DynamoDBEvent{}
	if err := json.Unmarshal(payload, &batch); err != nil {
		return batch, fmt.Errorf("stream batch: %w", err)
	}
	return batch, nil
}

func readRecord(r *onepass.Reader, to *events.DynamoDBEventRecord) error {
	return r.Object(func(name []byte) error {
		switch string(name) {
		case "eventName":
			return r.String(&to.EventName)
		case "eventID":
			return r.String(&to.EventID)
		case "eventVersion":
			return r.String(&to.EventVersion)
		case "eventSource":
			return r.String(&to.EventSource)
		case "eventSourceARN":
			return r.String(&to.EventSourceArn)
		case "awsRegion":
			return r.String(&to.AWSRegion)
		case "userIdentity":
			value, err := r.Raw()
			if err != nil {
				return err
			}
			return json.Unmarshal(value, &to.UserIdentity)
		case "dynamodb":
			return readChange(r, &to.Change)
		}
		return r.Skip()
	})
}

func readChange(r *onepass.Reader, to *events.DynamoDBStreamRecord) error {
	return r.Object(func(name []byte) error {
		switch string(name) {
		case "Keys":
			return readImage(r, &to.Keys)
		case "NewImage":
			return readImage(r, &to.NewImage)
		case "OldImage":
			return readImage(r, &to.OldImage)
		case "SequenceNumber":
			return r.String(&to.SequenceNumber)
		case "SizeBytes":
			var size int
			err := r.Int(&size)
			to.SizeBytes = int64(size)
			return err
		case "StreamViewType":
			return r.String(&to.StreamViewType)
		case "ApproximateCreationDateTime":
			return readTime(r, &to.ApproximateCreationDateTime)
		}
		return r.Skip()
	})
}

// readTime reads seconds, as a SecondsEpochTime reads them.
func readTime(r *onepass.Reader, to *events.SecondsEpochTime) error {
	value, err := r.Raw()
	if err != nil {
		return err
	}
	if string(value) == "null" {
		value = []byte("0") // as encoding/json has it
	}
	seconds, err := strconv.ParseFloat(string(value), 64)
	if err != nil {
		return err
	}
	whole := int64(seconds)
	to.Time = time.Unix(whole, int64((seconds-float64(whole))*1e9))
	return nil
}

func readImage(r *onepass.Reader, to *map[string]events.DynamoDBAttributeValue) error {
	return r.Object(func(name []byte) error {
		if *to == nil {
			*to = make(map[string]events.DynamoDBAttributeValue, 8)
		}
		attribute := string(name)
		value, err := r.Raw()
		if err != nil {
			return err
		}
		(*to)[attribute], err = readAttribute(value)
		return err
	})
}

// readAttribute reads an attribute's value, which is JSON. Strings and numbers, of
// which items are made here, have a short way.
func readAttribute(value []byte) (v events.DynamoDBAttributeValue, err error) {
	kind, literal := soleMember(value)
	text, ok := "", false
	if kind != 0 {
		text, ok = unquote(literal)
	}
	switch {
	case !ok:
		err = v.UnmarshalJSON(value)
	case kind == 'S':
		v = events.NewStringAttribute(text)
	default:
		v = events.NewNumberAttribute(text)
	}
	return v, err
}

// soleMember returns what may be the string of an object, which is JSON, whose one
// member is called S or N; kind is 0 if it can't be.
func soleMember(object []byte) (kind byte, literal []byte) {
	const space = " \t\r\n"
	inner := bytes.TrimLeft(object[1:], space)
	if object[0] != '{' || len(inner) < len(`"S":""}`) || inner[0] != '"' || inner[1] != 'S' && inner[1] != 'N' || inner[2] != '"' {
		return 0, nil
	}
	kind = inner[1]
	inner = bytes.TrimLeft(inner[3:], space)[1:] // the colon
	literal = bytes.Trim(inner[:len(inner)-1], space)
	if len(literal) < 2 || literal[0] != '"' || literal[len(literal)-1] != '"' {
		return 0, nil
	}
	return kind, literal
}

// unquote returns what a string literal stands for; ok is false where it is more
// than one literal.
func unquote(literal []byte) (text string, ok bool) {
	inner := literal[1 : len(literal)-1]
	if bytes.IndexByte(inner, '\\') < 0 {
		return string(inner), bytes.IndexByte(inner, '"') < 0
	}
	unquoted, err := jsontext.AppendUnquote(make([]byte, 0, len(literal)), literal)
	return string(unquoted), err == nil
}
