// Package dynamoemulator runs a local DynamoDB: dynoxide, a static binary that `make
// tools` fetches. Tests and the local runner use it through the AWS SDK. A server that
// Start returns is ready, and ends with the process that started it.
package dynamoemulator

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/aws-sdk-go-v2/service/dynamodbstreams"

	"github.com/tidings-dev/tidings/pkg/aws/awsconfig"
	"github.com/tidings-dev/tidings/pkg/local/process"
	"github.com/tidings-dev/tidings/pkg/local/samtemplate"
)

// Region is the AWS region of local clients.
const Region = "us-east-1"

// BinaryVariable is the environment variable with the path of a dynoxide binary to use
// instead of the one from `make tools`.
const BinaryVariable = "TIDINGS_DYNOXIDE"

const (
	// startTimeout is the time for a started process to become ready.
	startTimeout = 20 * time.Second
	// portTimeout is the time for a killed predecessor to release its port.
	portTimeout = time.Second
	// startAttempts limits starts on a free port: another process may take the port
	// between FreePort and the start.
	startAttempts = 3
)

// Server is a running local DynamoDB.
type Server struct {
	URL     string
	process *process.Process
}

// Options configure Start.
type Options struct {
	Binary string // path of dynoxide; "" uses BinaryVariable, `make tools` or PATH
	Port   int    // 0 selects a free one
	// Hidden binds a random loopback address out of 127.0.0.0/8 where the system has them
	// (Linux), and 127.0.0.1 elsewhere. The emulator answers pages of every origin; this way
	// they don't find it by trying ports.
	Hidden bool
	DBPath string    // database file; "" keeps the data in memory
	Log    io.Writer // output of the process; nil discards it
}

// Start starts a DynamoDB and waits until it is ready.
func Start(ctx context.Context, o Options) (*Server, error) {
	binary, err := findBinary(o.Binary)
	if err != nil {
		return nil, err
	}
	if o.Port != 0 {
		// Otherwise another server on the port would answer the readiness probe.
		if err := awaitPort(ctx, o.Port); err != nil {
			return nil, err
		}
		return start(ctx, binary, o)
	}
	for attempt := 1; ; attempt++ {
		if o.Port, err = process.FreePort(); err != nil {
			return nil, err
		}
		s, err := start(ctx, binary, o)
		if !errors.Is(err, process.ErrExited) || attempt == startAttempts {
			return s, err
		}
	}
}

func start(ctx context.Context, binary string, o Options) (*Server, error) {
	host := "127.0.0.1"
	if o.Hidden {
		host = hiddenHost()
	}
	args := []string{"--host", host, "--port", fmt.Sprint(o.Port)}
	if o.DBPath != "" {
		args = append(args, "--db-path", o.DBPath)
	}
	command := exec.Command(binary, args...)
	command.Stdout, command.Stderr = o.Log, o.Log
	process, err := process.Start(command)
	if err != nil {
		return nil, fmt.Errorf("start the local DynamoDB: %w", err)
	}
	s := &Server{URL: "http://" + net.JoinHostPort(host, strconv.Itoa(o.Port)), process: process}
	err = process.Ready(ctx, startTimeout, func(ctx context.Context) error {
		_, err := s.Client().ListTables(ctx, &dynamodb.ListTablesInput{Limit: aws.Int32(1)})
		return err
	})
	if err != nil {
		process.Stop()
		return nil, fmt.Errorf("start the local DynamoDB at %s: %w: check that the binary is dynoxide, that the port is free and that no other process uses the database file", s.URL, err)
	}
	return s, nil
}

// hiddenHost returns a random address of this machine.
func hiddenHost() string {
	var b [3]byte
	_, _ = rand.Read(b[:]) // never fails since Go 1.24
	host := fmt.Sprintf("127.%d.%d.%d", 1+b[0]%254, b[1], 1+b[2]%254)
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		return "127.0.0.1"
	}
	_ = l.Close()
	return host
}

// Stop kills the process and waits for its exit.
func (s *Server) Stop() { s.process.Stop() }

// Ended is closed when the process has exited, by Stop or on its own.
func (s *Server) Ended() <-chan struct{} { return s.process.Ended() }

// Client returns a client of the server.
func (s *Server) Client() *dynamodb.Client { return Client(s.URL) }

// Config is the AWS configuration for local services, which accept any credentials.
func Config() aws.Config { return ConfigFor("local") }

// ConfigFor is the AWS configuration with an access key id, for a service that checks it.
func ConfigFor(accessKeyID string) aws.Config {
	return aws.Config{
		Region: Region, Credentials: credentials.NewStaticCredentialsProvider(accessKeyID, "local", ""),
		HTTPClient: awsconfig.HTTPClient(awshttp.NewBuildableClient().GetTransport()),
	}
}

// Client returns a client of the DynamoDB at a URL.
func Client(url string) *dynamodb.Client {
	return dynamodb.NewFromConfig(Config(), func(o *dynamodb.Options) { o.BaseEndpoint = &url })
}

// Streams returns a client of the DynamoDB Streams API at a URL.
func Streams(url string) *dynamodbstreams.Client {
	return dynamodbstreams.NewFromConfig(Config(), func(o *dynamodbstreams.Options) { o.BaseEndpoint = &url })
}

// CreateTables creates the tables that do not exist yet, with their TTL.
func CreateTables(ctx context.Context, db *dynamodb.Client, tables []samtemplate.Table) error {
	for _, t := range tables {
		_, err := db.CreateTable(ctx, &t.Input)
		var exists *types.ResourceInUseException
		if errors.As(err, &exists) {
			continue
		}
		if err != nil {
			return fmt.Errorf("create table %s: %w", t.Name, err)
		}
		if err := dynamodb.NewTableExistsWaiter(db).Wait(ctx, &dynamodb.DescribeTableInput{TableName: &t.Name}, time.Minute); err != nil {
			return fmt.Errorf("create table %s: %w", t.Name, err)
		}
		if t.TTLAttribute == "" {
			continue
		}
		if _, err := db.UpdateTimeToLive(ctx, &dynamodb.UpdateTimeToLiveInput{TableName: &t.Name, TimeToLiveSpecification: &types.TimeToLiveSpecification{
			AttributeName: &t.TTLAttribute, Enabled: aws.Bool(true),
		}}); err != nil {
			return fmt.Errorf("set the TTL of table %s: %w", t.Name, err)
		}
	}
	return nil
}

// findBinary returns the given path, or that of BinaryVariable; otherwise the binary in
// tools/ of the enclosing checkout, or on PATH.
func findBinary(option string) (string, error) {
	for _, source := range []struct{ name, path string }{{"Options.Binary", option}, {BinaryVariable, os.Getenv(BinaryVariable)}} {
		if source.path == "" {
			continue
		}
		if _, err := os.Stat(source.path); err != nil {
			return "", fmt.Errorf("local DynamoDB binary from %s: %w", source.name, err)
		}
		return source.path, nil
	}
	arch := map[string]string{"amd64": "x64"}[runtime.GOARCH]
	if arch == "" {
		arch = runtime.GOARCH
	}
	inside := filepath.Join("tools", "dynoxide", "node_modules", "@dynoxide", runtime.GOOS+"-"+arch, "dynoxide")
	dir, err := os.Getwd()
	for err == nil {
		path := filepath.Join(dir, inside)
		if _, missing := os.Stat(path); missing == nil {
			return path, nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			break
		}
		dir = up
	}
	if path, err := exec.LookPath("dynoxide"); err == nil {
		return path, nil
	}
	return "", fmt.Errorf("local DynamoDB not found: run `make tools`, or set %s to the path of dynoxide", BinaryVariable)
}

// awaitPort waits up to portTimeout for a port to become free.
func awaitPort(ctx context.Context, port int) error {
	ctx, cancel := context.WithTimeout(ctx, portTimeout)
	defer cancel()
	for {
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err == nil {
			return l.Close()
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("start the local DynamoDB: port is taken: %w", err)
		case <-time.After(10 * time.Millisecond):
		}
	}
}
