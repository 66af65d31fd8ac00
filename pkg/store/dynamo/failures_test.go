package dynamo_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/tidings-dev/tidings/pkg/platform"
	"github.com/tidings-dev/tidings/pkg/store/dynamo"
)

type doer func(*http.Request) (*http.Response, error)

func (f doer) Do(r *http.Request) (*http.Response, error) { return f(r) }

// A method that takes an error of DynamoDB for success loses data. The test calls every
// method of the store, whatever will be added, on a DynamoDB that refuses everything.
func TestEveryMethodReportsDynamoDBsError(t *testing.T) {
	refusing := dynamodb.New(dynamodb.Options{
		Region: "us-east-1", Credentials: credentials.NewStaticCredentialsProvider("k", "s", ""), Retryer: aws.NopRetryer{},
		HTTPClient: doer(func(*http.Request) (*http.Response, error) {
			return &http.Response{
				StatusCode: http.StatusBadRequest, Header: http.Header{"Content-Type": {"application/x-amz-json-1.0"}},
				Body: io.NopCloser(strings.NewReader(`{"__type":"com.amazonaws.dynamodb.v20120810#ResourceNotFoundException","message":"no such table"}`)),
			}, nil
		}),
	})
	store := reflect.ValueOf(dynamo.New(refusing, dynamo.Tables{Events: "e", Deliveries: "d", Endpoints: "n", Control: "c", Platform: "p"}))
	contextType, errorType := reflect.TypeFor[context.Context](), reflect.TypeFor[error]()
	called := 0
	for i := range store.NumMethod() {
		name, method := store.Type().Method(i).Name, store.Method(i)
		kind := method.Type()
		if kind.NumIn() == 0 || kind.In(0) != contextType || kind.NumOut() == 0 || kind.Out(kind.NumOut()-1) != errorType {
			continue // does no I/O
		}
		called++
		t.Run(name, func(t *testing.T) {
			reported := false
			// A text may be a cursor, which is refused unless it is empty.
			for _, text := range []string{"01JZZZZZZZZZZZZZZZZZZZZZZZ", ""} {
				arguments := []reflect.Value{reflect.ValueOf(t.Context())}
				for n := 1; n < kind.NumIn(); n++ {
					arguments = append(arguments, filled(kind.In(n), text))
				}
				if name == "IndexDiscussion" {
					arguments[2] = reflect.Zero(kind.In(2)) // equal versions are not written
				}
				results := method.Call(arguments)
				err, _ := reflect.TypeAssert[error](results[len(results)-1])
				if err == nil {
					t.Fatal("no error")
				}
				reported = reported || errors.As(err, new(*types.ResourceNotFoundException))
			}
			if !reported {
				t.Error("no error wraps DynamoDB's")
			}
		})
	}
	if called < 50 {
		t.Errorf("only %d methods were called", called)
	}
}

// filled returns a value of the type that is not empty, so that a method has something to
// do. Strings are text.
func filled(kind reflect.Type, text string) reflect.Value {
	switch kind {
	case reflect.TypeFor[time.Time]():
		return reflect.ValueOf(time.Date(2026, 1, 29, 12, 0, 0, 0, time.UTC))
	case reflect.TypeFor[platform.Record]():
		return reflect.ValueOf(platform.User{ID: text})
	case reflect.TypeFor[platform.Status]():
		return reflect.ValueOf(platform.Open)
	case reflect.TypeFor[platform.View]():
		return reflect.ValueOf(platform.ViewOpen)
	}
	v := reflect.New(kind).Elem()
	switch kind.Kind() {
	case reflect.String:
		v.SetString(text)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		v.SetInt(1)
	case reflect.Slice:
		v.Set(reflect.Append(v, filled(kind.Elem(), text)))
	case reflect.Pointer:
		v.Set(reflect.New(kind.Elem()))
	case reflect.Func: // it does nothing
		v.Set(reflect.MakeFunc(kind, func([]reflect.Value) (out []reflect.Value) {
			for i := range kind.NumOut() {
				out = append(out, reflect.Zero(kind.Out(i)))
			}
			return out
		}))
	case reflect.Struct:
		for i := range kind.NumField() {
			if kind.Field(i).IsExported() {
				v.Field(i).Set(filled(kind.Field(i).Type, text))
			}
		}
	}
	return v
}
