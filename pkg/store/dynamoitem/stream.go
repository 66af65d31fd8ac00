package dynamoitem

import (
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/platform"
)

// options parse a payload like aws-lambda-go, except that names are case-sensitive.
// aws-lambda-go uses reflection for each attribute, which took longer than the rest of a
// fan-out.
var options = json.JoinOptions(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))

// ReadEvents reads a batch of the Events table's stream.
func ReadEvents(payload []byte) ([]event.Change, error) {
	type text struct {
		S *string
	}
	var batch struct {
		Records []struct {
			Name   string `json:"eventName"`
			Change struct {
				Keys           jsontext.Value
				SequenceNumber string
				NewImage       struct {
					ID     *text `json:"event_id"`
					Tenant *text `json:"tenant"`
					Body   *text `json:"body"`
					Trace  *text `json:"trace"`
				}
			} `json:"dynamodb"`
		}
	}
	if err := json.Unmarshal(payload, &batch, options); err != nil {
		return nil, fmt.Errorf("stream batch: %w", err)
	}
	changes := make([]event.Change, len(batch.Records))
	for i, r := range batch.Records {
		c := &changes[i]
		c.SequenceNumber, c.Key = r.Change.SequenceNumber, string(r.Change.Keys)
		if c.Inserted = r.Name == string(platform.Insert); !c.Inserted {
			continue
		}
		read := func(name string, t *text) string {
			switch {
			case c.Err != nil:
			case t == nil && name != trace:
				c.Err = fmt.Errorf("stream image: attribute %q is missing", name)
			case t != nil && t.S == nil:
				c.Err = fmt.Errorf("stream image: attribute %q is not a string", name)
			case t != nil:
				return *t.S
			}
			return ""
		}
		image := r.Change.NewImage
		c.Event = event.Accepted{ID: read(EventID, image.ID), Tenant: read(Tenant, image.Tenant), Body: []byte(read(body, image.Body)), Trace: read(trace, image.Trace)}
	}
	return changes, nil
}

// ReadChanges reads a batch of the stream of the platform's table.
func ReadChanges(payload []byte) ([]platform.Change, error) {
	type image map[string]*attribute
	var batch struct {
		Records []struct {
			ID     string             `json:"eventID"`
			Name   platform.Operation `json:"eventName"`
			Stream string             `json:"eventSourceARN"`
			By     struct {
				Type        string `json:"type"`
				PrincipalID string `json:"principalId"`
			} `json:"userIdentity"`
			Change struct {
				At                 float64 `json:"ApproximateCreationDateTime"` // epoch seconds
				Keys               jsontext.Value
				SequenceNumber     string
				OldImage, NewImage image
			} `json:"dynamodb"`
		}
	}
	if err := json.Unmarshal(payload, &batch, options); err != nil {
		return nil, fmt.Errorf("stream batch: %w", err)
	}
	decode := func(i image) platform.Image {
		if i == nil {
			return nil
		}
		item := make(Item, len(i))
		for name, a := range i {
			item[name] = a.value(name)
		}
		return platformImage(item)
	}
	changes := make([]platform.Change, len(batch.Records))
	for i, r := range batch.Records {
		seconds := int64(r.Change.At)
		_ = r.Change.Keys.Canonicalize() // changes of one item are recognized by it; missing keys stay missing
		changes[i] = platform.Change{
			ID: r.ID, Stream: r.Stream, SequenceNumber: r.Change.SequenceNumber, Key: string(r.Change.Keys), Operation: r.Name,
			// See "DynamoDB Streams and Time to Live" in the Amazon DynamoDB Developer Guide.
			ByTTL: r.By.Type == "Service" && r.By.PrincipalID == "dynamodb.amazonaws.com",
			At:    time.Unix(seconds, int64((r.Change.At-float64(seconds))*1e9)),
			Old:   decode(r.Change.OldImage), New: decode(r.Change.NewImage),
		}
	}
	return changes, nil
}

// attribute is an attribute's value, of the types that records use.
type attribute struct {
	S    *string
	N    *string
	NULL bool
}

// value keeps the name of an attribute of another type: decoding refuses it if it
// is needed.
func (a *attribute) value(name string) types.AttributeValue {
	switch {
	case a == nil:
	case a.S != nil:
		return S(*a.S)
	case a.N != nil:
		return &types.AttributeValueMemberN{Value: *a.N}
	case a.NULL:
		return &types.AttributeValueMemberNULL{Value: true}
	}
	return &types.UnknownUnionMember{Tag: name}
}

// platformImage is a version of an item of the platform's table.
type platformImage Item

func (i platformImage) Kind() platform.Kind              { return KindOf(Item(i)) }
func (i platformImage) Decode() (platform.Record, error) { return DecodeRecord(Item(i)) }
func (i platformImage) Attribute(name string) any        { return i[name] }
