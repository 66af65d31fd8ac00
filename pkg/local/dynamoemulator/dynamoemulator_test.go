package dynamoemulator_test

import (
	"bytes"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/tidings-dev/tidings/pkg/local/dynamoemulator"
	"github.com/tidings-dev/tidings/pkg/local/samtemplate"
)

func start(t *testing.T, o dynamoemulator.Options) *dynamoemulator.Server {
	t.Helper()
	s, err := dynamoemulator.Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	return s
}

// port returns the port of a server's URL.
func port(t *testing.T, address string) int {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(u.Port())
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// table returns a minimal table.
func table(name string) []samtemplate.Table {
	return []samtemplate.Table{{Name: name, TTLAttribute: "expires_at", Input: dynamodb.CreateTableInput{
		TableName: &name, BillingMode: types.BillingModePayPerRequest,
		AttributeDefinitions: []types.AttributeDefinition{{AttributeName: aws.String("k"), AttributeType: types.ScalarAttributeTypeS}},
		KeySchema:            []types.KeySchemaElement{{AttributeName: aws.String("k"), KeyType: types.KeyTypeHash}},
	}}}
}

func TestARestartedServerReusesThePortAndTheData(t *testing.T) {
	file := filepath.Join(t.TempDir(), "data.db")
	first := start(t, dynamoemulator.Options{DBPath: file})
	for range 2 { // existing tables stay unchanged
		if err := dynamoemulator.CreateTables(t.Context(), first.Client(), table("kept")); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := first.Client().PutItem(t.Context(), &dynamodb.PutItemInput{
		TableName: aws.String("kept"), Item: map[string]types.AttributeValue{"k": &types.AttributeValueMemberS{Value: "v"}},
	}); err != nil {
		t.Fatal(err)
	}
	first.Stop()
	<-first.Ended()

	second := start(t, dynamoemulator.Options{DBPath: file, Port: port(t, first.URL)})
	if second.URL != first.URL {
		t.Errorf("restarted at %s, want %s", second.URL, first.URL)
	}
	out, err := second.Client().GetItem(t.Context(), &dynamodb.GetItemInput{
		TableName: aws.String("kept"), Key: map[string]types.AttributeValue{"k": &types.AttributeValueMemberS{Value: "v"}},
	})
	if err != nil || len(out.Item) != 1 {
		t.Errorf("after the restart: %v, %v", out, err)
	}
	ttl, err := second.Client().DescribeTimeToLive(t.Context(), &dynamodb.DescribeTimeToLiveInput{TableName: aws.String("kept")})
	if err != nil || aws.ToString(ttl.TimeToLiveDescription.AttributeName) != "expires_at" {
		t.Errorf("TTL = %+v, %v", ttl, err)
	}
}

// Otherwise the server that has the port would answer for the new one.
func TestAPortInUseIsRefused(t *testing.T) {
	first := start(t, dynamoemulator.Options{})
	second, err := dynamoemulator.Start(t.Context(), dynamoemulator.Options{Port: port(t, first.URL)})
	if err == nil {
		second.Stop()
		t.Fatal("two servers on one port")
	}
	if !strings.Contains(err.Error(), "taken") {
		t.Errorf("error = %v, want one that says the port is taken", err)
	}
}

func TestAMissingBinaryGivesAnErrorWithAdvice(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "dynoxide")
	for name, c := range map[string]struct {
		o           dynamoemulator.Options
		environment string
		want        string
	}{
		"by option":               {dynamoemulator.Options{Binary: missing}, "", "Options.Binary"},
		"by environment variable": {dynamoemulator.Options{}, missing, dynamoemulator.BinaryVariable},
		"not found":               {dynamoemulator.Options{}, "", "make tools"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Chdir(t.TempDir()) // outside the checkout
			t.Setenv("PATH", "")
			t.Setenv(dynamoemulator.BinaryVariable, c.environment)
			s, err := dynamoemulator.Start(t.Context(), c.o)
			if err == nil {
				s.Stop()
				t.Fatal("started without a binary")
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("error = %v, want it to name %s", err, c.want)
			}
		})
	}
}

func TestAProcessThatExitsIsAnError(t *testing.T) {
	broken := filepath.Join(t.TempDir(), "broken")
	if err := os.WriteFile(broken, []byte("#!/bin/sh\necho no disk\nexit 1\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	s, err := dynamoemulator.Start(t.Context(), dynamoemulator.Options{Binary: broken, Log: &log})
	if err == nil {
		s.Stop()
		t.Fatal("Start succeeded for a process that exited")
	}
	if !strings.Contains(err.Error(), broken) || !strings.Contains(log.String(), "no disk") {
		t.Errorf("error = %v, log = %q; want the binary in the error and its output in the log", err, log.String())
	}
}
