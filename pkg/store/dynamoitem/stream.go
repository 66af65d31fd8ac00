package dynamoitem

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/aws/aws-lambda-go/events"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/tidings-dev/tidings/pkg/event"
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
	var text []byte
	ok := false
	if kind != 0 {
		text, ok = unquote(literal)
	}
	switch {
	case !ok:
		err = v.UnmarshalJSON(value)
	case kind == 'S':
		v = events.NewStringAttribute(string(text))
	default:
		v = events.NewNumberAttribute(string(text))
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

// unquote returns what a string literal stands for, maybe a part of it; ok is false
// where it is more than one literal, or no UTF-8, of which encoding/json makes U+FFFD.
func unquote(literal []byte) (text []byte, ok bool) {
	inner := literal[1 : len(literal)-1]
	if bytes.IndexByte(inner, '\\') < 0 {
		return inner, bytes.IndexByte(inner, '"') < 0 && utf8.Valid(inner)
	}
	text, err := jsontext.AppendUnquote(make([]byte, 0, len(inner)), literal)
	return text, err == nil
}

// EventChange is what a record of the Events table's stream says.
type EventChange struct {
	// Put says that an event was put. Events are immutable: what else happens to
	// one is its expiry.
	Put            bool
	SequenceNumber string
	Event          event.Accepted // if it was put; its body may be a part of the payload
	Err            error          // why it can't be read
	Keys           []byte         // the item's, as JSON; maybe a part of the payload
}

// EventsOf returns what a batch of the Events table's stream says.
func EventsOf(batch events.DynamoDBEvent) []EventChange {
	list := make([]EventChange, len(batch.Records))
	for i, record := range batch.Records {
		c := &list[i]
		c.SequenceNumber = record.Change.SequenceNumber
		if c.Put = record.EventName == string(events.DynamoDBOperationTypeInsert); !c.Put {
			continue
		}
		c.Event, c.Err = EventFromImage(record.Change.NewImage)
		c.Keys, _ = json.Marshal(record.Change.Keys) // it was JSON before
	}
	return list
}

// ReadEvents is EventsOf what ReadStream reads, without looking at what nobody
// wants of it. What it does not understand, it leaves to those two.
func ReadEvents(payload []byte) ([]EventChange, error) {
	var list []EventChange
	err := onepass.Read(payload, func(r *onepass.Reader) error {
		return r.Object(func(name []byte) error {
			if string(name) != "Records" {
				return r.Skip()
			}
			return r.Array(func() error {
				list = append(list, EventChange{})
				return readEvent(r, &list[len(list)-1])
			})
		})
	})
	if err == nil {
		return list, nil
	}
	batch, err := ReadStream(payload)
	if err != nil {
		return nil, err
	}
	return EventsOf(batch), nil
}

func readEvent(r *onepass.Reader, to *EventChange) error {
	var image eventImage
	var what string
	err := r.Object(func(name []byte) error {
		switch string(name) {
		case "eventName":
			return r.String(&what)
		case "dynamodb":
			return r.Object(func(name []byte) (err error) {
				switch string(name) {
				case "NewImage":
					return image.read(r)
				case "Keys":
					to.Keys, err = r.Raw()
					return err
				case "SequenceNumber":
					return r.String(&to.SequenceNumber)
				}
				return r.Skip()
			})
		}
		return r.Skip()
	})
	if to.Put = what == string(events.DynamoDBOperationTypeInsert); to.Put {
		to.Event, to.Err = image.event()
	}
	return err
}

// eventImage is an event's image, of which the strings have been read.
type eventImage [4]struct {
	there, isString bool
	text            []byte
}

// eventFields are those attributes, in the order of an eventImage.
var eventFields = [4]string{EventID, Tenant, body, trace}

func (i *eventImage) read(r *onepass.Reader) error {
	return r.Object(func(name []byte) error {
		for at, field := range eventFields {
			if string(name) != field {
				continue
			}
			value, err := r.Raw()
			if err != nil {
				return err
			}
			of := &i[at]
			of.there = true
			kind, literal := soleMember(value)
			if of.isString = kind == 'S'; !of.isString {
				v, err := readAttribute(value)
				if of.isString = err == nil && v.DataType() == events.DataTypeString; of.isString {
					of.text = []byte(v.String()) // a string whose S is written in another way
				}
				return err
			}
			text, ok := unquote(literal)
			if !ok {
				return errors.New("an attribute has more than one value")
			}
			of.text = text
			return nil
		}
		return r.Skip()
	})
}

func (i *eventImage) event() (a event.Accepted, err error) {
	for at, of := range i {
		switch {
		case !of.there && eventFields[at] != trace:
			return a, fmt.Errorf("stream image: attribute %q is missing", eventFields[at])
		case of.there && !of.isString:
			return a, fmt.Errorf("stream image: attribute %q is not a string", eventFields[at])
		}
	}
	return event.Accepted{ID: string(i[0].text), Tenant: string(i[1].text), Body: i[2].text, Trace: string(i[3].text)}, nil
}
