package functionurl

import (
	"fmt"

	"github.com/aws/aws-lambda-go/events"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// ReadRequest reads the payload of a function URL request. It differs from encoding/json
// only in that names are case-sensitive.
func ReadRequest(payload []byte) (events.LambdaFunctionURLRequest, error) {
	var in events.LambdaFunctionURLRequest
	if err := json.Unmarshal(payload, &in, jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true)); err != nil {
		return in, fmt.Errorf("function URL request: %w", err)
	}
	return in, nil
}
