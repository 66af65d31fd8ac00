package dynamoitem

import (
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/google/go-cmp/cmp"

	"github.com/tidings-dev/tidings/pkg/platform"
)

// An attribute has the same value in a record of the stream as in an item that was read.
func TestValuesOfEveryTypeOfAttribute(t *testing.T) {
	for text, c := range map[string]struct {
		read types.AttributeValue
		want any
	}{
		`{"S":"a"}`:          {S("a"), "a"},
		`{"N":"1.50"}`:       {&types.AttributeValueMemberN{Value: "1.50"}, platform.Number("1.50")},
		`{"BOOL":false}`:     {&types.AttributeValueMemberBOOL{}, false},
		`{"NULL":true}`:      {&types.AttributeValueMemberNULL{Value: true}, nil},
		`{"B":"aGk="}`:       {&types.AttributeValueMemberB{Value: []byte("hi")}, []byte("hi")},
		`{"SS":["a","b"]}`:   {&types.AttributeValueMemberSS{Value: []string{"a", "b"}}, []any{"a", "b"}},
		`{"NS":["1","2.5"]}`: {&types.AttributeValueMemberNS{Value: []string{"1", "2.5"}}, []any{platform.Number("1"), platform.Number("2.5")}},
		`{"BS":["aGk="]}`:    {&types.AttributeValueMemberBS{Value: [][]byte{[]byte("hi")}}, []any{[]byte("hi")}},
		`{"L":[]}`:           {&types.AttributeValueMemberL{}, []any{}},
		`{"L":[{"S":"a"},{"L":[{"NULL":true}]}]}`: {
			&types.AttributeValueMemberL{Value: []types.AttributeValue{S("a"), &types.AttributeValueMemberL{Value: []types.AttributeValue{&types.AttributeValueMemberNULL{Value: true}}}}},
			[]any{"a", []any{nil}},
		},
		`{"M":{"a":{"M":{"b":{"N":"1"}}}}}`: {
			&types.AttributeValueMemberM{Value: Item{"a": &types.AttributeValueMemberM{Value: Item{"b": N(1)}}}},
			map[string]any{"a": map[string]any{"b": platform.Number("1")}},
		},
	} {
		change, err := ReadChange([]byte(`{"eventName":"INSERT","dynamodb":{"NewImage":{"x":` + text + `}}}`))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(c.want, change.New.Value("x")); diff != "" {
			t.Errorf("%s in the stream (-want +got):\n%s", text, diff)
		}
		if diff := cmp.Diff(c.want, PlatformImage(Item{"x": c.read}).Value("x")); diff != "" {
			t.Errorf("%s as it is read (-want +got):\n%s", text, diff)
		}
	}
}

// A value that is malformed is none, and does not keep the other records of its batch from
// being read.
func TestMalformedValuesAreNone(t *testing.T) {
	for _, text := range []string{`{}`, `null`, `{"X":1}`, `{"B":"?"}`, `{"B":1}`, `{"L":{}}`, `{"L":null}`, `{"M":[]}`, `{"M":{"a":1}}`, `{"SS":[1]}`, `{"SS":"a"}`, `{"NS":[1]}`, `{"BS":1}`} {
		change, err := ReadChange([]byte(`{"eventName":"INSERT","dynamodb":{"NewImage":{"x":` + text + `}}}`))
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got := change.New.Value("x"); got != nil {
			t.Errorf("%s is %v", text, got)
		}
	}
}
