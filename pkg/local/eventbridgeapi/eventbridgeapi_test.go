package eventbridgeapi_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge/types"
	"github.com/aws/smithy-go"

	"github.com/tidings-dev/tidings/pkg/local/eventbridgeapi"
)

// client returns AWS's own client of a service with one bus.
func client(t *testing.T) (*eventbridge.Client, *eventbridgeapi.Service, string) {
	t.Helper()
	service := eventbridgeapi.New("orders")
	server := httptest.NewServer(service)
	t.Cleanup(server.Close)
	return eventbridge.New(eventbridge.Options{
		Region: "us-east-1", BaseEndpoint: &server.URL, Credentials: credentials.NewStaticCredentialsProvider("a", "b", ""), RetryMaxAttempts: 1,
	}), service, server.URL
}

func entry(bus, source, kind, detail string) types.PutEventsRequestEntry {
	return types.PutEventsRequestEntry{EventBusName: &bus, Source: &source, DetailType: &kind, Detail: &detail}
}

// Each entry is accepted or refused by itself, as EventBridge does it: an event for a bus that
// does not exist is accepted and lost.
func TestEachEntryIsAnsweredByItself(t *testing.T) {
	c, service, _ := client(t)
	out, err := c.PutEvents(t.Context(), &eventbridge.PutEventsInput{Entries: []types.PutEventsRequestEntry{
		entry("orders", "tidings", "order.paid", `{"a":1}`),
		entry("arn:aws:events:us-east-1:000000000000:event-bus/orders", "tidings", "order.sent", `{}`),
		entry("absent", "tidings", "order.paid", `{}`),
		entry("orders", "tidings", "order.paid", `{"a":`),
		entry("orders", "tidings", "order.paid", `null`),
		entry("orders", "", "order.paid", `{}`),
	}})
	if err != nil {
		t.Fatal(err)
	}
	var codes []string
	for _, e := range out.Entries {
		codes = append(codes, aws.ToString(e.ErrorCode))
		if (e.EventId == nil) != (e.ErrorCode != nil) {
			t.Errorf("%+v", e)
		}
	}
	if want := ",,,MalformedDetail,MalformedDetail,InvalidArgument"; strings.Join(codes, ",") != want || out.FailedEntryCount != 3 {
		t.Errorf("codes %q, want %q; %d failed", codes, want, out.FailedEntryCount)
	}
	for _, want := range []string{"order.paid", "order.sent"} {
		got, err := service.Receive(t.Context(), "orders")
		if err != nil || got.DetailType != want || got.Source != "tidings" || got.Account != eventbridgeapi.Account || got.ID == "" {
			t.Errorf("%+v, %v; want %s", got, err, want)
		}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if got, err := service.Receive(ended, "orders"); !errors.Is(err, context.Canceled) {
		t.Errorf("%+v, %v: there is a third event", got, err)
	}
}

func TestRefusalsHaveEventBridgesCodes(t *testing.T) {
	c, _, url := client(t)
	for name, call := range map[string]struct {
		do   func() error
		want string
	}{
		"a bus that is there": {func() error {
			_, err := c.DescribeEventBus(t.Context(), &eventbridge.DescribeEventBusInput{Name: aws.String("orders")})
			return err
		}, ""},
		"a bus that is not": {func() error {
			_, err := c.DescribeEventBus(t.Context(), &eventbridge.DescribeEventBusInput{Name: aws.String("absent")})
			return err
		}, "ResourceNotFoundException"},
		"too large": {func() error {
			large := entry("orders", "tidings", "order.paid", `{"a":"`+strings.Repeat("x", eventbridgeapi.MaxEntryBytes)+`"}`)
			_, err := c.PutEvents(t.Context(), &eventbridge.PutEventsInput{Entries: []types.PutEventsRequestEntry{large}})
			return err
		}, "ValidationException"},
		"another operation": {func() error {
			_, err := c.ListRules(t.Context(), &eventbridge.ListRulesInput{})
			return err
		}, "UnknownOperationException"},
	} {
		err := call.do()
		var refused smithy.APIError
		if (err != nil) != (call.want != "") || call.want != "" && (!errors.As(err, &refused) || refused.ErrorCode() != call.want) {
			t.Errorf("%s: %v, want %q", name, err, call.want)
		}
	}
	answer, err := http.Post(url, "application/x-amz-json-1.1", strings.NewReader("{"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	if answer.StatusCode != http.StatusBadRequest {
		t.Errorf("half a request: %s", answer.Status)
	}
}
