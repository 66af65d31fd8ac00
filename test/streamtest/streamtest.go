// Package streamtest decodes stream records for tests that build them with
// aws-lambda-go's types. It takes the way of a payload, so that a test gets what a
// deployed function gets. It panics on records that cannot be written as JSON.
package streamtest

import (
	"encoding/json"

	"github.com/aws/aws-lambda-go/events"

	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/platform"
	"github.com/tidings-dev/tidings/pkg/store/dynamoitem"
)

// Events decodes records of the Events table.
func Events(records ...events.DynamoDBEventRecord) []event.Change {
	return read(dynamoitem.ReadEvents, records)
}

// Changes decodes records of the platform's table.
func Changes(records ...events.DynamoDBEventRecord) []platform.Change {
	return read(dynamoitem.ReadChanges, records)
}

func read[T any](decode func([]byte) ([]T, error), records []events.DynamoDBEventRecord) []T {
	payload, err := json.Marshal(events.DynamoDBEvent{Records: records})
	if err != nil {
		panic(err)
	}
	changes, err := decode(payload)
	if err != nil {
		panic(err)
	}
	return changes
}
