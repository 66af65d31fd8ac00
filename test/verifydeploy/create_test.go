package verifydeploy_test

import (
	"encoding/json"
	"strings"
	"testing"
)

// What moto made is compared word for word: each thing that may differ is made to.
func TestATableThatIsNotAsTheCodeExpectsIsFound(t *testing.T) {
	const made = `{"Tables":[{"TableName":"mine-T","AttributeDefinitions":[{"AttributeName":"a","AttributeType":"S"},{"AttributeName":"b","AttributeType":"N"}],
		"KeySchema":[{"AttributeName":"a","KeyType":"HASH"}],
		"GlobalSecondaryIndexes":[{"IndexName":"i","KeySchema":[{"AttributeName":"b","KeyType":"HASH"}],"Projection":{"ProjectionType":"INCLUDE","NonKeyAttributes":["c"]}}],
		"StreamSpecification":{"StreamViewType":"NEW_IMAGE"}}],
		"Queues":[{"QueueArn":"arn:q","VisibilityTimeout":"360","RedrivePolicy":"{\"deadLetterTargetArn\":\"arn:d\",\"maxReceiveCount\":10}"}]}`
	read := func(text string) (c created) {
		t.Helper()
		if err := json.Unmarshal([]byte(text), &c); err != nil {
			t.Fatal(err)
		}
		return c
	}
	want := read(made)
	if err := differences("table", want.tables(), want.tables()); err != nil {
		t.Errorf("the same: %v", err)
	}
	for name, c := range map[string]struct{ from, to string }{
		"another type":        {`"AttributeType":"N"`, `"AttributeType":"S"`},
		"another key":         {`{"AttributeName":"a","KeyType":"HASH"}`, `{"AttributeName":"b","KeyType":"HASH"}`},
		"another index":       {`"IndexName":"i"`, `"IndexName":"j"`},
		"another projection":  {`["c"]`, `["d"]`},
		"another stream":      {`NEW_IMAGE`, `KEYS_ONLY`},
		"another table":       {`mine-T`, `mine-U`},
		"another visibility":  {`"360"`, `"30"`},
		"another dead letter": {`arn:d`, `arn:e`},
		"other tries":         {`10}`, `3}`},
	} {
		got := read(strings.Replace(made, c.from, c.to, 1))
		if differences("table", got.tables(), want.tables()) == nil && differences("queue", got.queues(), want.queues()) == nil {
			t.Errorf("%s is not found", name)
		}
	}
}
