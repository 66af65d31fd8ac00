package dynamoitem

import (
	"fmt"
	"strconv"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/tidings-dev/tidings/pkg/event"
)

// EncodeEvent returns the item of an accepted event. It expires at the end of the event's
// retention.
func EncodeEvent(a event.Accepted) (Item, error) {
	if _, err := event.IDTime(a.ID); err != nil {
		return nil, err
	}
	item := Item{
		EventID: S(a.ID), Tenant: S(a.Tenant), body: S(string(a.Body)),
		ExpiresAt: Seconds(event.RetainedUntil(a.ID, a.RetentionDays)),
	}
	if a.RetentionDays > 0 {
		item[RetentionDays] = N(int64(a.RetentionDays))
	}
	if a.Undefined {
		item[undefined] = N(1)
	}
	put(item, trace, a.Trace)
	put(item, subject, a.Subject)
	put(item, oldType, a.OldType)
	put(item, versions, string(a.Versions))
	put(item, erasedBy, a.ErasedBy)
	putTime(item, ErasedAt, a.ErasedAt)
	return item, nil
}

// ErasedEventAttributes are the attributes that an erasure of an event changes. The rest
// stays.
var ErasedEventAttributes = []string{body, subject, versions, ErasedAt, erasedBy}

// DecodeEvent reads what EncodeEvent wrote.
func DecodeEvent(item Item) (event.Accepted, error) {
	r := reader{item: item}
	r.must(EventID, Tenant, body)
	a := event.Accepted{ID: r.s(EventID), Tenant: r.s(Tenant), Body: []byte(r.s(body)), Trace: r.s(trace), Subject: r.s(subject), OldType: r.s(oldType),
		ErasedAt: r.millis(ErasedAt), ErasedBy: r.s(erasedBy), RetentionDays: int(r.n(RetentionDays)), Undefined: r.n(undefined) != 0, ExpiresAt: r.seconds(ExpiresAt)}
	if text := r.s(versions); text != "" {
		a.Versions = []byte(text)
	}
	return a, r.err
}

// EventImage returns the item of an accepted event as an image of a stream record, and
// its size. It is a faster Image and Size of EncodeEvent's item.
func EventImage(a event.Accepted) (image map[string]events.DynamoDBAttributeValue, size int, err error) {
	if _, err := event.IDTime(a.ID); err != nil {
		return nil, 0, err
	}
	image = make(map[string]events.DynamoDBAttributeValue, 8)
	text := func(name, value string) {
		image[name] = events.NewStringAttribute(value)
		size += len(name) + len(value)
	}
	text(EventID, a.ID)
	text(Tenant, a.Tenant)
	text(body, string(a.Body))
	for name, value := range map[string]string{trace: a.Trace, subject: a.Subject, oldType: a.OldType, versions: string(a.Versions)} {
		if value != "" {
			text(name, value)
		}
	}
	number := func(name string, value int64) {
		digits := strconv.FormatInt(value, 10)
		image[name] = events.NewNumberAttribute(digits)
		size += len(name) + (len(digits)+1)/2 + 1
	}
	number(ExpiresAt, event.RetainedUntil(a.ID, a.RetentionDays).Unix())
	if a.RetentionDays > 0 {
		number(RetentionDays, int64(a.RetentionDays))
	}
	if a.Undefined {
		number(undefined, 1)
	}
	return image, size, nil
}

// EventFromImage reads an event from the image of a stream record.
func EventFromImage(image map[string]events.DynamoDBAttributeValue) (event.Accepted, error) {
	var a event.Accepted
	for _, f := range []struct {
		name  string
		into  func(string)
		maybe bool
	}{
		{EventID, func(s string) { a.ID = s }, false},
		{Tenant, func(s string) { a.Tenant = s }, false},
		{body, func(s string) { a.Body = []byte(s) }, false},
		{trace, func(s string) { a.Trace = s }, true},
		{subject, func(s string) { a.Subject = s }, true},
		{oldType, func(s string) { a.OldType = s }, true},
		{versions, func(s string) { a.Versions = []byte(s) }, true},
	} {
		v, ok := image[f.name]
		switch {
		case !ok && f.maybe:
		case !ok:
			return a, fmt.Errorf("stream image: attribute %q is missing", f.name)
		case v.DataType() != events.DataTypeString:
			return a, fmt.Errorf("stream image: attribute %q is not a string", f.name)
		default:
			f.into(v.String())
		}
	}
	if v, ok := image[RetentionDays]; ok {
		if v.DataType() != events.DataTypeNumber {
			return a, fmt.Errorf("stream image: attribute %q is not a number", RetentionDays)
		}
		days, err := strconv.Atoi(v.Number())
		if err != nil {
			return a, fmt.Errorf("stream image: attribute %q: %w", RetentionDays, err)
		}
		a.RetentionDays = days
	}
	if v, ok := image[undefined]; ok {
		a.Undefined = v.DataType() == events.DataTypeNumber && v.Number() == "1"
	}
	return a, nil
}

// Image returns an item as the image of a stream record.
func Image(item Item) map[string]events.DynamoDBAttributeValue {
	image := make(map[string]events.DynamoDBAttributeValue, len(item))
	for name, value := range item {
		switch v := value.(type) {
		case *types.AttributeValueMemberS:
			image[name] = events.NewStringAttribute(v.Value)
		case *types.AttributeValueMemberN:
			image[name] = events.NewNumberAttribute(v.Value)
		case *types.AttributeValueMemberBOOL:
			image[name] = events.NewBooleanAttribute(v.Value)
		default:
			panic(fmt.Sprintf("dynamoitem: attribute %q has unsupported type %T", name, value))
		}
	}
	return image
}
