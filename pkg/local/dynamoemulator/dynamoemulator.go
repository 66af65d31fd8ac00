// Package dynamoemulator runs a small DynamoDB on this machine: dynoxide, a static
// binary that `make tools` fetches. Tests and the local runner talk to it through
// the AWS SDK as they would to AWS. It promises that the process it starts ends
// with it, and that a started one answers.
package dynamoemulator

import (
	"context"
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
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/aws-sdk-go-v2/service/dynamodbstreams"

	"github.com/tidings-dev/tidings/pkg/local/process"
	"github.com/tidings-dev/tidings/pkg/local/samtemplate"
)

// Region is the region that local clients name.
const Region = "us-east-1"

// BinaryVariable is the environment variable that names another dynoxide than
// the one of `make tools`.
const BinaryVariable = "TIDINGS_DYNOXIDE"

const (
	// readyTime is how long a started process may take to answer.
	readyTime = 20 * time.Second
	// portTime is how long a predecessor that was just killed may take to give
	// its port back.
	portTime = time.Second
	// startTries is how often a start on a free port is tried: between its choice
	// and its use somebody else may take it.
	startTries = 3
)

// Server is a running local DynamoDB.
type Server struct {
	URL     string
	process *process.Process
}

// Options say how to start one.
type Options struct {
	Binary string    // dynoxide's path; "" looks where BinaryVariable and `make tools` have it
	Port   int       // 0 takes a free one
	DBPath string    // the file that keeps the data; "" keeps it in memory
	Log    io.Writer // what the process prints; nil drops it
}

// Start starts a DynamoDB and waits until it answers.
func Start(ctx context.Context, o Options) (*Server, error) {
	binary, err := find(o.Binary)
	if err != nil {
		return nil, err
	}
	if o.Port != 0 {
		// Another DynamoDB on the port would answer in our process's place.
		if err := awaitPort(ctx, o.Port); err != nil {
			return nil, err
		}
		return start(ctx, binary, o)
	}
	for try := 1; ; try++ {
		if o.Port, err = process.FreePort(); err != nil {
			return nil, err
		}
		s, err := start(ctx, binary, o)
		if !errors.Is(err, process.ErrEnded) || try == startTries {
			return s, err
		}
	}
}

func start(ctx context.Context, binary string, o Options) (*Server, error) {
	args := []string{"--host", "127.0.0.1", "--port", fmt.Sprint(o.Port)}
	if o.DBPath != "" {
		args = append(args, "--db-path", o.DBPath)
	}
	command := exec.Command(binary, args...)
	command.Stdout, command.Stderr = o.Log, o.Log
	process, err := process.Start(command)
	if err != nil {
		return nil, fmt.Errorf("start the local DynamoDB: %w", err)
	}
	s := &Server{URL: fmt.Sprintf("http://127.0.0.1:%d", o.Port), process: process}
	err = process.Ready(ctx, readyTime, func(ctx context.Context) error {
		_, err := s.Client().ListTables(ctx, &dynamodb.ListTablesInput{Limit: aws.Int32(1)})
		return err
	})
	if err != nil {
		process.Stop()
		return nil, fmt.Errorf("the local DynamoDB at %s: %w: is it the right binary, is the port free, is the data's file readable and not in use?", s.URL, err)
	}
	return s, nil
}

// Stop ends the process and waits for its end.
func (s *Server) Stop() { s.process.Stop() }

// Ended is closed when the process has ended, by Stop or by itself.
func (s *Server) Ended() <-chan struct{} { return s.process.Ended() }

// Client returns a client of it.
func (s *Server) Client() *dynamodb.Client { return Client(s.URL) }

// Config is the AWS configuration for a local service: any credentials do.
func Config() aws.Config {
	return aws.Config{Region: Region, Credentials: credentials.NewStaticCredentialsProvider("local", "local", "")}
}

// Client returns a client of the DynamoDB at a URL.
func Client(url string) *dynamodb.Client {
	return dynamodb.NewFromConfig(Config(), func(o *dynamodb.Options) { o.BaseEndpoint = &url })
}

// Streams returns a client of the streams at a URL.
func Streams(url string) *dynamodbstreams.Client {
	return dynamodbstreams.NewFromConfig(Config(), func(o *dynamodbstreams.Options) { o.BaseEndpoint = &url })
}

// CreateTables creates the template's tables where they do not exist.
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

// find returns the binary's path: the one asked for, or the environment's; else
// the one in the tools folder of the checkout that the working directory is in,
// or on PATH.
func find(asked string) (string, error) {
	for _, named := range []struct{ by, path string }{{"Options.Binary", asked}, {BinaryVariable, os.Getenv(BinaryVariable)}} {
		if named.path == "" {
			continue
		}
		if _, err := os.Stat(named.path); err != nil {
			return "", fmt.Errorf("the local DynamoDB that %s names is not there: %w", named.by, err)
		}
		return named.path, nil
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
	return "", fmt.Errorf("no local DynamoDB on this machine: `make tools` fetches it, or %s names one", BinaryVariable)
}

// awaitPort waits a moment for a port to be free.
func awaitPort(ctx context.Context, port int) error {
	ctx, cancel := context.WithTimeout(ctx, portTime)
	defer cancel()
	for {
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err == nil {
			return l.Close()
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("start the local DynamoDB: its port is taken: %w", err)
		case <-time.After(10 * time.Millisecond):
		}
	}
}
