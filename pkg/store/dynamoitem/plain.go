package dynamoitem

import (
	"encoding/base64"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/go-json-experiment/json"

	"github.com/tidings-dev/tidings/pkg/platform"
)

// plain returns an attribute's value in the form of platform.Image's Value.
func plain(value types.AttributeValue) any {
	switch v := value.(type) {
	case *types.AttributeValueMemberS:
		return v.Value
	case *types.AttributeValueMemberN:
		return platform.Number(v.Value)
	case *types.AttributeValueMemberBOOL:
		return v.Value
	case *types.AttributeValueMemberB:
		return v.Value
	case *types.AttributeValueMemberM:
		return plainMap(v.Value)
	case *types.AttributeValueMemberL:
		return plainList(v.Value, plain)
	case *types.AttributeValueMemberSS:
		return plainList(v.Value, func(text string) any { return text })
	case *types.AttributeValueMemberNS:
		return plainList(v.Value, func(text string) any { return platform.Number(text) })
	case *types.AttributeValueMemberBS:
		return plainList(v.Value, func(b []byte) any { return b })
	case *types.UnknownUnionMember:
		return plainText(v)
	}
	return nil // missing or NULL
}

func plainMap(m Item) map[string]any {
	all := make(map[string]any, len(m))
	for name, value := range m {
		all[name] = plain(value)
	}
	return all
}

func plainList[T any](list []T, one func(T) any) []any {
	all := make([]any, len(list))
	for n, value := range list {
		all[n] = one(value)
	}
	return all
}

// plainText returns the value of an attribute that attribute.value left as it is written;
// nil if it is malformed.
func plainText(v *types.UnknownUnionMember) any {
	switch v.Tag {
	case "M":
		var m map[string]*attribute
		if json.Unmarshal(v.Value, &m, options) != nil || m == nil {
			return nil
		}
		all := make(map[string]any, len(m))
		for name, value := range m {
			all[name] = plain(value.value())
		}
		return all
	case "L":
		return parsed(v.Value, func(a *attribute) any { return plain(a.value()) })
	case "SS":
		return parsed(v.Value, func(text string) any { return text })
	case "NS":
		return parsed(v.Value, func(text string) any { return platform.Number(text) })
	case "BS":
		return parsed(v.Value, func(text string) any { return unbase64(text) })
	case "B":
		var text string
		if json.Unmarshal(v.Value, &text, options) == nil {
			return unbase64(text)
		}
	}
	return nil
}

func parsed[T any](text []byte, one func(T) any) any {
	var list []T
	if json.Unmarshal(text, &list, options) != nil || list == nil {
		return nil
	}
	return plainList(list, one)
}

func unbase64(text string) any {
	b, err := base64.StdEncoding.DecodeString(strings.TrimSpace(text))
	if err != nil {
		return nil
	}
	return b
}
