package dynamoitem

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
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
		S unquoted
	}
	type number struct {
		N string
	}
	var batch struct {
		Records []struct {
			Name   string `json:"eventName"`
			Change struct {
				At             float64 `json:"ApproximateCreationDateTime"` // epoch seconds
				Keys           jsontext.Value
				SequenceNumber string
				NewImage       struct {
					ID     *text `json:"event_id"`
					Tenant *text `json:"tenant"`
					Body   *text `json:"body"`
					Trace  *text `json:"trace"`
					// Subject and OldType: only if the event's type has them.
					Subject *text `json:"subject"`
					OldType *text `json:"old_type"`
					// Versions: only if the type has several.
					Versions *text `json:"versions"`
					// Days: only if the retention is not the default.
					Days *number `json:"retention_days"`
					// Undefined: only if the type has no definition.
					Undefined *number `json:"undefined"`
				}
			} `json:"dynamodb"`
		}
	}
	err := json.Unmarshal(payload, &batch, options)
	if err != nil {
		return nil, fmt.Errorf("stream batch: %w", err)
	}
	changes := make([]event.Change, len(batch.Records))
	for i, r := range batch.Records {
		c := &changes[i]
		c.SequenceNumber, c.Key = r.Change.SequenceNumber, string(r.Change.Keys)
		if r.Change.At > 0 {
			c.At = time.Unix(int64(r.Change.At), 0).UTC()
		}
		if c.Inserted = r.Name == string(platform.Insert); !c.Inserted {
			continue
		}
		read := func(name string, t *text) []byte {
			switch {
			case c.Err != nil:
			case t == nil && name != trace && name != subject && name != oldType && name != versions:
				c.Err = fmt.Errorf("stream image: attribute %q is missing", name)
			case t != nil && t.S == nil:
				c.Err = fmt.Errorf("stream image: attribute %q is not a string", name)
			case t != nil:
				return t.S
			}
			return nil
		}
		image := r.Change.NewImage
		c.Event = event.Accepted{
			ID: string(read(EventID, image.ID)), Tenant: string(read(Tenant, image.Tenant)), Body: read(body, image.Body), Trace: string(read(trace, image.Trace)),
			Subject: string(read(subject, image.Subject)), OldType: string(read(oldType, image.OldType)), Versions: read(versions, image.Versions),
			Undefined: image.Undefined != nil && image.Undefined.N == "1",
		}
		if image.Days != nil && c.Err == nil {
			if c.Event.RetentionDays, err = strconv.Atoi(image.Days.N); err != nil {
				c.Err = fmt.Errorf("stream image: attribute %q is not a number of days", RetentionDays)
			}
		}
	}
	return changes, nil
}

// unquoted is a JSON string's text; nil if there is none. The library would make a string
// of it, by way of a buffer, and the body of an event is bytes.
type unquoted []byte

// UnmarshalJSONFrom implements json.UnmarshalerFrom.
func (u *unquoted) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	value, err := dec.ReadValue()
	if err != nil {
		return err
	}
	switch value.Kind() {
	case '"':
		// The error says that invalid UTF-8 became U+FFFD.
		*u, _ = jsontext.AppendUnquote(make([]byte, 0, len(value)), value)
	case 'n':
		*u = nil
	default:
		return errors.New("expected a string")
	}
	return nil
}

// ReadChanges reads a batch of the stream of the platform's table.
func ReadChanges(payload []byte) ([]platform.Change, error) {
	var batch struct {
		Records []located
	}
	if err := json.Unmarshal(payload, &batch, options); err != nil {
		return nil, fmt.Errorf("stream batch: %w", err)
	}
	decode := func(i map[string]*attribute) platform.Image {
		if i == nil {
			return nil
		}
		item := make(Item, len(i))
		for name, a := range i {
			item[name] = a.value()
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
			Record: bytes.TrimLeft(payload[r.from:r.to], ", \t\r\n"),
		}
	}
	return changes, nil
}

// ReadChange reads the Record of a change.
func ReadChange(record []byte) (platform.Change, error) {
	changes, err := ReadChanges(slices.Concat([]byte(`{"Records":[`), record, []byte(`]}`)))
	if err == nil && len(changes) != 1 {
		err = fmt.Errorf("stream record: has %d records", len(changes))
	}
	if err != nil {
		return platform.Change{}, err
	}
	return changes[0], nil
}

// changeRecord is a record of the stream of the platform's table.
type changeRecord struct {
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
		OldImage, NewImage map[string]*attribute
	} `json:"dynamodb"`
}

// located is a record with its place in the payload.
type located struct {
	changeRecord
	from, to int64
}

func (l *located) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	l.from = dec.InputOffset()
	err := json.UnmarshalDecode(dec, &l.changeRecord)
	l.to = dec.InputOffset()
	return err
}

// attribute is an attribute's value. The types that the platform's records do not use are
// parsed when a capture rule reads them; see plain.
type attribute struct {
	S               *string
	N               *string
	BOOL            *bool
	NULL            bool
	M, L, SS, NS, B jsontext.Value
	BS              jsontext.Value
}

// value returns the attribute's value: of another type as it is written, for which
// Decode fails if a record needs it.
func (a *attribute) value() types.AttributeValue {
	if a == nil {
		return &types.UnknownUnionMember{}
	}
	switch {
	case a.S != nil:
		return S(*a.S)
	case a.N != nil:
		return &types.AttributeValueMemberN{Value: *a.N}
	case a.BOOL != nil:
		return &types.AttributeValueMemberBOOL{Value: *a.BOOL}
	case a.NULL:
		return &types.AttributeValueMemberNULL{Value: true}
	}
	for _, other := range []struct {
		tag   string
		value jsontext.Value
	}{{"M", a.M}, {"L", a.L}, {"SS", a.SS}, {"NS", a.NS}, {"B", a.B}, {"BS", a.BS}} {
		if other.value != nil {
			return &types.UnknownUnionMember{Tag: other.tag, Value: other.value}
		}
	}
	return &types.UnknownUnionMember{}
}

// EncodeKey returns a primary key in the form of platform.Change's Key.
func EncodeKey(key Item) string {
	type scalar struct {
		S *string `json:",omitzero"`
		N *string `json:",omitzero"`
		B []byte  `json:",omitempty"`
	}
	parts := map[string]scalar{}
	for name, value := range key {
		switch v := value.(type) {
		case *types.AttributeValueMemberS:
			parts[name] = scalar{S: &v.Value}
		case *types.AttributeValueMemberN:
			parts[name] = scalar{N: &v.Value}
		case *types.AttributeValueMemberB:
			parts[name] = scalar{B: v.Value}
		default:
			panic(fmt.Sprintf("dynamoitem: key attribute %q has type %T", name, value))
		}
	}
	text, err := json.Marshal(parts, options)
	if err != nil {
		panic(err) // not possible for strings
	}
	value := jsontext.Value(text)
	_ = value.Canonicalize() // cannot fail on what Marshal wrote
	return string(value)
}

// DecodeKey reads a primary key in the form of platform.Change's Key.
func DecodeKey(text string) (Item, error) {
	var parts map[string]struct {
		S, N *string
		B    []byte
	}
	if err := json.Unmarshal([]byte(text), &parts, options); err != nil {
		return nil, fmt.Errorf("key of a record: %w", err)
	}
	key := Item{}
	for name, p := range parts {
		switch {
		case p.S != nil:
			key[name] = S(*p.S)
		case p.N != nil:
			key[name] = &types.AttributeValueMemberN{Value: *p.N}
		default:
			key[name] = &types.AttributeValueMemberB{Value: p.B}
		}
	}
	if len(key) == 0 {
		return nil, errors.New("key of a record: is empty")
	}
	return key, nil
}

// PlatformImage returns an item of the platform's table as a version of it.
func PlatformImage(item Item) platform.Image { return platformImage(item) }

// platformImage is a version of an item of a captured table.
type platformImage Item

func (i platformImage) Kind() platform.Kind              { return KindOf(Item(i)) }
func (i platformImage) Decode() (platform.Record, error) { return DecodeRecord(Item(i)) }
func (i platformImage) Text(name string) string          { return TextOf(Item(i), name) }
func (i platformImage) Attribute(name string) any        { return i[name] }
func (i platformImage) Value(name string) any            { return plain(i[name]) }
func (i platformImage) Names() []string                  { return slices.Collect(maps.Keys(i)) }
