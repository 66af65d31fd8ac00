//go:build rig

package crash_test

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"github.com/tidings-dev/tidings/pkg/local/process"
	"github.com/tidings-dev/tidings/pkg/local/receiver"
	"github.com/tidings-dev/tidings/pkg/signature"
)

// receiveCommand is the argument with which this binary runs as the receiver.
const receiveCommand = "receive"

// secretVariable is the environment variable with the signing secret.
const secretVariable = "CRASH_SECRET"

// behaviours are the receiver's behaviours by the first part of the path. Every
// response takes a while, so that attempts are in flight at each kill.
var behaviours = map[string]receiver.Behaviour{
	"steady": {Slow: 250 * time.Millisecond},
	"flaky":  {Slow: 50 * time.Millisecond, FailRate: 0.3},
	"broken": {Slow: 100 * time.Millisecond, FailRate: 1},
	"gone":   {Slow: time.Second, FailRate: 1, FailStatus: http.StatusGone},
}

// answer is a line of the receiver's record. It is written just before the response,
// so the last one may not have been sent.
type answer struct {
	Path   string    `json:"path"`
	ID     string    `json:"id"`
	Status int       `json:"status"`
	Began  time.Time `json:"began"`
	Ended  time.Time `json:"ended"`
}

// receive runs the receiver. Its record is a file, which survives a kill.
func receive(args []string) error {
	flags := flag.NewFlagSet(receiveCommand, flag.ExitOnError)
	listen := flags.String("listen", "", "host:port")
	path := flags.String("record", "", "file of the record")
	seed := flags.Uint64("seed", 1, "chooses the failures")
	if err := flags.Parse(args); err != nil {
		return err
	}
	record, err := os.OpenFile(*path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer record.Close()
	var mu sync.Mutex
	mux := http.NewServeMux()
	for name, b := range behaviours {
		r := receiver.New(*seed, b)
		r.Secrets = func() []string { return []string{os.Getenv(secretVariable)} }
		r.OnWebhook = func(w receiver.Webhook) {
			line, err := json.Marshal(answer{Path: w.Path, ID: w.ID, Status: w.Status, Began: w.Began, Ended: w.Began.Add(w.Took)})
			if err != nil {
				panic(err) // cannot happen: strings, a number and times
			}
			mu.Lock()
			defer mu.Unlock()
			if _, err := record.Write(append(line, '\n')); err != nil {
				panic(err) // the test needs the record
			}
		}
		mux.Handle("/"+name+"/", r)
	}
	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		return err
	}
	return http.Serve(listener, mux)
}

// startReceiver starts this binary as the receiver.
func startReceiver(address, record string, seed uint64, secret signature.Secret) (*process.Process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	c := exec.Command(self, receiveCommand, "-listen", address, "-record", record, "-seed", fmt.Sprint(seed))
	c.Env = append(os.Environ(), secretVariable+"="+secret.Reveal())
	c.Stderr = os.Stderr
	return process.Start(c)
}

// answers reads the receiver's record.
func answers(record string) ([]answer, error) {
	text, err := os.ReadFile(record)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var list []answer
	for line := range strings.Lines(string(text)) {
		if !strings.HasSuffix(line, "\n") {
			break // the receiver was killed during the write, before its response
		}
		var a answer
		if err := json.Unmarshal([]byte(line), &a); err != nil {
			return nil, fmt.Errorf("the receiver's record: %w", err)
		}
		list = append(list, a)
	}
	return list, nil
}
