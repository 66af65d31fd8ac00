package local

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/tidings-dev/tidings/pkg/local/dynamoemulator"
	"github.com/tidings-dev/tidings/pkg/local/samtemplate"
)

// OwnTable is a table of the application whose changes become events by capture rules.
type OwnTable struct {
	Name string
	Keys []types.AttributeDefinition // the partition key, and the sort key if there is one
}

// maxOwnTables is the number of the template's parameters for streams of other tables.
const maxOwnTables = 5

var ownTableName = regexp.MustCompile(`^[A-Za-z0-9_.-]{3,255}$`)

// ParseOwnTable parses NAME=KEY or NAME=KEY,SORTKEY. A key is a string, or of another type
// as in number:N.
func ParseOwnTable(text string) (OwnTable, error) {
	name, keys, _ := strings.Cut(text, "=")
	t := OwnTable{Name: name}
	for key := range strings.SplitSeq(keys, ",") {
		key, kind, given := strings.Cut(key, ":")
		if !given {
			kind = string(types.ScalarAttributeTypeS)
		}
		t.Keys = append(t.Keys, types.AttributeDefinition{AttributeName: aws.String(key), AttributeType: types.ScalarAttributeType(kind)})
	}
	wrong := func(k types.AttributeDefinition) bool {
		return *k.AttributeName == "" || !slices.Contains(k.AttributeType.Values(), k.AttributeType)
	}
	if !ownTableName.MatchString(name) || len(t.Keys) > 2 || slices.ContainsFunc(t.Keys, wrong) {
		return t, fmt.Errorf("%q is not TABLE=KEY or TABLE=KEY,SORTKEY, such as Orders=order_id or Visits=user_id,number:N; a name has 3 to 255 letters, digits, dots, hyphens and underscores", text)
	}
	return t, nil
}

// ownTables returns the own tables as those of a template, and sets the parameters that
// name their streams.
func ownTables(o Options, parameters map[string]string) (list []samtemplate.Table, err error) {
	switch {
	case len(o.OwnTables) > maxOwnTables:
		return nil, fmt.Errorf("%d tables to capture from; the template has parameters for %d", len(o.OwnTables), maxOwnTables)
	case len(o.OwnTables) > 0 && o.Memory:
		return nil, errors.New("the memory store has no other tables: capture from them needs a DynamoDB")
	}
	for i, own := range o.OwnTables {
		t := samtemplate.Table{
			LogicalID: own.Name, Name: own.Name,
			StreamARN: fmt.Sprintf("arn:aws:dynamodb:%s:%s:table/%s/stream/local", dynamoemulator.Region, account, own.Name),
			Input: dynamodb.CreateTableInput{
				TableName: aws.String(own.Name), BillingMode: types.BillingModePayPerRequest, AttributeDefinitions: own.Keys,
				StreamSpecification: &types.StreamSpecification{StreamEnabled: aws.Bool(true), StreamViewType: types.StreamViewTypeNewAndOldImages},
			},
		}
		for n, key := range own.Keys {
			kind := types.KeyTypeHash
			if n == 1 {
				kind = types.KeyTypeRange
			}
			t.Input.KeySchema = append(t.Input.KeySchema, types.KeySchemaElement{AttributeName: key.AttributeName, KeyType: kind})
		}
		parameters[fmt.Sprintf("CaptureStream%d", i+1)] = t.StreamARN
		list = append(list, t)
	}
	return list, nil
}
