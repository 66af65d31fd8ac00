package dynamoitem

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
)

// Item is an item, or a part of one.
type Item = map[string]types.AttributeValue

// S is a string attribute.
func S(v string) types.AttributeValue { return &types.AttributeValueMemberS{Value: v} }

// N is a number attribute.
func N(v int64) types.AttributeValue {
	return &types.AttributeValueMemberN{Value: strconv.FormatInt(v, 10)}
}

// Millis is a time attribute, in epoch milliseconds.
func Millis(t time.Time) types.AttributeValue { return N(t.UnixMilli()) }

// Micros is a time attribute in epoch microseconds.
func Micros(t time.Time) types.AttributeValue { return N(t.UnixMicro()) }

// Seconds is a TTL attribute.
func Seconds(t time.Time) types.AttributeValue { return N(t.Unix()) }

// reader reads attributes and keeps the first error, so that decoders need one check
// at the end.
type reader struct {
	item Item
	err  error
}

func (r *reader) fail(name, want string) {
	if r.err == nil {
		r.err = fmt.Errorf("item: attribute %q is not %s", name, want)
	}
}

func (r *reader) s(name string) string {
	switch v := r.item[name].(type) {
	case nil:
	case *types.AttributeValueMemberS:
		return v.Value
	default:
		r.fail(name, "a string")
	}
	return ""
}

func (r *reader) n(name string) int64 {
	switch v := r.item[name].(type) {
	case nil:
	case *types.AttributeValueMemberN:
		n, err := strconv.ParseInt(v.Value, 10, 64)
		if err == nil {
			return n
		}
		r.fail(name, "a whole number")
	default:
		r.fail(name, "a number")
	}
	return 0
}

func (r *reader) millis(name string) time.Time {
	if r.item[name] == nil {
		return time.Time{}
	}
	return time.UnixMilli(r.n(name)).UTC()
}

func (r *reader) seconds(name string) time.Time {
	if r.item[name] == nil {
		return time.Time{}
	}
	return time.Unix(r.n(name), 0).UTC()
}

func (r *reader) must(names ...string) {
	for _, name := range names {
		if r.item[name] == nil && r.err == nil {
			r.err = fmt.Errorf("item: attribute %q is missing", name)
		}
	}
}

// TextOf returns a string attribute, "" if it is missing or of another type.
func TextOf(item Item, name string) string {
	if v, ok := item[name].(*types.AttributeValueMemberS); ok {
		return v.Value
	}
	return ""
}

// put sets a string attribute unless the value is empty.
func put(item Item, name, value string) {
	if value != "" {
		item[name] = S(value)
	}
}

func putTime(item Item, name string, t time.Time) {
	if !t.IsZero() {
		item[name] = Millis(t)
	}
}

// Size returns an item's size in bytes as billed: names and strings in UTF-8, a number
// as half its digits plus one byte. See "DynamoDB item sizes and formats" in the Amazon
// DynamoDB Developer Guide.
func Size(item Item) int {
	total := 0
	for name, value := range item {
		total += len(name)
		switch v := value.(type) {
		case *types.AttributeValueMemberS:
			total += len(v.Value)
		case *types.AttributeValueMemberN:
			total += (len(v.Value)+1)/2 + 1
		case *types.AttributeValueMemberBOOL:
			total++
		default:
			panic(fmt.Sprintf("dynamoitem: attribute %q has unsupported type %T", name, value))
		}
	}
	return total
}

// AddTo returns the ADD clause that adds the item's numbers, "#aT :aT, …", and adds
// its names and values to the maps.
func AddTo(item Item, names map[string]string, values Item) string {
	var parts []string
	for name, value := range item {
		if _, ok := value.(*types.AttributeValueMemberN); !ok {
			panic("dynamoitem: attribute " + strconv.Quote(name) + " is not a number")
		}
		names["#"+name], values[":"+name] = name, value
		parts = append(parts, "#"+name+" :"+name)
	}
	return strings.Join(parts, ", ")
}
