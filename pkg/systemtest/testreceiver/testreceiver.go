// Package testreceiver is the receiver of tests of a running deployment: it verifies
// webhooks and stores what it got, so that `tidings smoke` and `tidings load` can tell
// what arrived, when and how often. Runs are opened, read and closed by invoking it,
// which needs credentials; only webhooks come by its public URL. It promises to store
// nothing that is not signed with the secret of an open run, and to read nothing for
// a request that cannot be one.
package testreceiver

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/tidings-dev/tidings/pkg/aws/functionurl"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/signature"
	"github.com/tidings-dev/tidings/pkg/systemtest/testrun"
)

// Store stores runs and what arrived in them. It forgets both when they expire, which
// can be later.
type Store interface {
	PutTestRun(ctx context.Context, r testrun.Run) error
	// GetTestRun sees every run that was put before. It returns testrun.ErrNotFound
	// for a run that was deleted or never put.
	GetTestRun(ctx context.Context, id string) (testrun.Run, error)
	// DeleteTestRun does nothing if there is no such run.
	DeleteTestRun(ctx context.Context, id string) error
	// PutArrival stores an arrival once, however often it is called for it.
	PutArrival(ctx context.Context, run testrun.Run, a testrun.Arrival) error
	// ListArrivals returns at most limit arrivals of a run, from the cursor on ("" for
	// the first). It sees every arrival that was put before.
	ListArrivals(ctx context.Context, id, cursor string, limit int) (testrun.Page, error)
}

// Command is what the function is invoked with.
type Command struct {
	Action string `json:"action"` // open, arrivals or close
	Run    string `json:"run"`
	Secret string `json:"secret,omitempty"` // open: signs the run's webhooks
	// Seconds is how long an opened run lasts, at most MaxTime.
	Seconds int    `json:"seconds,omitempty"`
	Cursor  string `json:"cursor,omitempty"` // arrivals: where the page begins
}

// pageSize is the number of arrivals in an answer. It stays far below the 6 MB that
// Lambda allows.
const pageSize = 5000

// Receiver answers commands, and webhooks as an http.Handler.
type Receiver struct {
	Store Store
	Log   *slog.Logger
	Now   func() time.Time
}

// Handle answers a command.
func (r *Receiver) Handle(ctx context.Context, payload []byte) (any, error) {
	var c Command
	if err := json.Unmarshal(payload, &c, json.RejectUnknownMembers(true)); err != nil {
		return nil, errors.New("the command is not JSON with the fields action, run, secret, seconds and cursor")
	}
	if !testrun.ValidID(c.Run) {
		return nil, errors.New("run is not a ULID")
	}
	switch c.Action {
	case "open":
		secret, err := signature.ParseSecret(c.Secret)
		if err != nil {
			return nil, err
		}
		lasts := time.Duration(c.Seconds) * time.Second
		if lasts <= 0 || lasts > testrun.MaxTime {
			return nil, fmt.Errorf("seconds is %d; must be 1 to %.0f", c.Seconds, testrun.MaxTime.Seconds())
		}
		run := testrun.Run{ID: c.Run, Secret: secret, ExpiresAt: r.Now().Add(lasts).Truncate(time.Second)}
		return struct{}{}, r.Store.PutTestRun(ctx, run)
	case "arrivals":
		page, err := r.Store.ListArrivals(ctx, c.Run, c.Cursor, pageSize)
		if page.Arrivals == nil {
			page.Arrivals = []testrun.Arrival{}
		}
		return page, err
	case "close":
		return struct{}{}, r.Store.DeleteTestRun(ctx, c.Run)
	}
	return nil, fmt.Errorf("action %q is unknown; the actions are open, arrivals and close", c.Action)
}

// ServeHTTP receives a webhook at /RUN. It answers 204 if it is stored. 410, for a run
// that is not open, makes the sender disable an endpoint that a test left behind.
func (r *Receiver) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	run := strings.TrimPrefix(request.URL.Path, "/")
	id := request.Header.Get(signature.HeaderID)
	switch {
	case !testrun.ValidID(run):
		http.Error(w, "webhooks of a test run are posted to its own path", http.StatusNotFound)
		return
	case request.Method != http.MethodPost:
		w.Header().Set("Allow", http.MethodPost)
		http.Error(w, "only POST", http.StatusMethodNotAllowed)
		return
	case !testrun.ValidID(id) || request.Header.Get(signature.HeaderSignature) == "":
		r.refuse(w, request, "it is not signed")
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, request.Body, event.MaxBodyBytes*2))
	if err != nil {
		http.Error(w, "the body cannot be read, or is too long", http.StatusBadRequest)
		return
	}
	at := r.Now()
	open, err := r.Store.GetTestRun(request.Context(), run)
	switch {
	case errors.Is(err, testrun.ErrNotFound) || err == nil && !at.Before(open.ExpiresAt):
		http.Error(w, testrun.ErrNotFound.Error(), http.StatusGone)
		return
	case err != nil:
		r.fail(w, request, err)
		return
	}
	header := request.Header
	err = signature.Verify(open.Secret, id, header.Get(signature.HeaderTimestamp), header.Get(signature.HeaderSignature), body, at)
	if err != nil {
		r.refuse(w, request, err.Error())
		return
	}
	if err := r.Store.PutArrival(request.Context(), open, testrun.Arrival{EventID: id, Request: requestID(request.Context()), At: at.Truncate(time.Millisecond)}); err != nil {
		r.fail(w, request, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// requestID is Lambda's id of the request, so that a write that the SDK repeats does
// not count as a second request.
func requestID(ctx context.Context) string {
	if c, ok := functionurl.RequestContext(ctx); ok && c.RequestID != "" {
		return c.RequestID
	}
	return rand.Text()
}

func (r *Receiver) refuse(w http.ResponseWriter, request *http.Request, why string) {
	r.Log.WarnContext(request.Context(), "receiver.refused", "reason", why)
	http.Error(w, "the signature does not verify", http.StatusUnauthorized)
}

func (r *Receiver) fail(w http.ResponseWriter, request *http.Request, err error) {
	r.Log.ErrorContext(request.Context(), "receiver.failed", "error", err.Error())
	http.Error(w, "the webhook could not be stored", http.StatusInternalServerError)
}
