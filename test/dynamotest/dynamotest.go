// Package dynamotest gives tests a real DynamoDB API: one local process per test
// binary, and separate tables for each test, created from this project's template.
package dynamotest

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"

	"github.com/tidings-dev/tidings/pkg/local/dynamoemulator"
	"github.com/tidings-dev/tidings/pkg/local/samtemplate"
	"github.com/tidings-dev/tidings/test/checkout"
)

var (
	shared = sync.OnceValues(func() (*dynamoemulator.Server, error) {
		return dynamoemulator.Start(context.Background(), dynamoemulator.Options{})
	})
	counter atomic.Int64
)

// New returns a client of the test binary's DynamoDB, and a stack of this project's
// template with new tables for this test.
func New(t testing.TB) (*dynamodb.Client, *samtemplate.Stack) {
	t.Helper()
	server, err := shared()
	if err != nil {
		t.Fatal(err)
	}
	stack := Stack(t, StackName(t))
	if err := dynamoemulator.CreateTables(t.Context(), server.Client(), stack.Tables); err != nil {
		t.Fatal(err)
	}
	return server.Client(), stack
}

// StackName returns a name that no other test of the binary has, nor another run of this
// one (-count).
func StackName(t testing.TB) string {
	return tableSafe(fmt.Sprintf("t%d-%s", counter.Add(1), t.Name()))
}

// Stack resolves this project's template with a stack name for this test.
func Stack(t testing.TB, name string) *samtemplate.Stack {
	t.Helper()
	path, err := checkout.Path("template.yaml")
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := samtemplate.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	stack, err := parsed.Resolve(samtemplate.Context{StackName: tableSafe(name), Region: dynamoemulator.Region, Account: "000000000000", Parameters: map[string]string{"TestReceiver": "true"}})
	if err != nil {
		t.Fatal(err)
	}
	return stack
}

// tableSafe removes characters that a table's name may not have.
func tableSafe(name string) string {
	safe := []byte(name)
	for i, c := range safe {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9') {
			safe[i] = '-'
		}
	}
	return string(safe[:min(len(safe), 200)])
}
