// Package eventbridgeapi serves event buses through EventBridge's API, for the local runner
// and the tests: PutEvents and DescribeEventBus, in the AWS JSON protocol that today's SDKs
// speak. It keeps events in memory, in the order in which they came. It promises to refuse
// what EventBridge refuses with the same error codes, and to answer success for a bus that
// does not exist, as EventBridge does. Credentials are not checked.
package eventbridgeapi

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"
)

const (
	// Account owns every bus.
	Account = "000000000000"
	// MaxEntryBytes is EventBridge's limit on source, detail-type and detail.
	MaxEntryBytes = 1 << 20
	// capacity is the number of events that a bus keeps for its consumer; later ones are
	// dropped, as where no rule matches.
	capacity = 10_000
)

// Event is an event as a rule's target gets it.
type Event struct {
	ID         string          `json:"id"`
	Account    string          `json:"account"`
	Source     string          `json:"source"`
	DetailType string          `json:"detail-type"`
	Time       time.Time       `json:"time"`
	Detail     json.RawMessage `json:"detail"`
}

// Service is an http.Handler. It is safe for concurrent use.
type Service struct {
	buses map[string]chan Event

	mu   sync.Mutex
	last int
}

// New returns a service with buses without events.
func New(buses ...string) *Service {
	s := &Service{buses: map[string]chan Event{}}
	for _, name := range buses {
		s.buses[name] = make(chan Event, capacity)
	}
	return s
}

// Receive waits for the next event of a bus and removes it.
func (s *Service) Receive(ctx context.Context, bus string) (Event, error) {
	select {
	case e := <-s.buses[bus]:
		return e, nil
	case <-ctx.Done():
		return Event{}, ctx.Err()
	}
}

// request has the parameters of both operations.
type request struct {
	Name    string
	Entries []struct {
		EventBusName, Source, DetailType, Detail string
	}
}

// result is the answer to one entry.
type result struct {
	EventId      string `json:",omitempty"`
	ErrorCode    string `json:",omitempty"`
	ErrorMessage string `json:",omitempty"`
}

// ServeHTTP serves one API call.
func (s *Service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	refuse := func(code, message string) {
		w.WriteHeader(http.StatusBadRequest)
		_ = json.NewEncoder(w).Encode(map[string]string{"__type": code, "message": message}) // a client that is gone needs no answer
	}
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	var in request
	// The body is read to its end, or the connection could not be reused.
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 8*MaxEntryBytes))
	if err != nil || json.Unmarshal(body, &in) != nil {
		refuse("SerializationException", "the body is not the JSON of a request")
		return
	}
	switch _, operation, _ := strings.Cut(r.Header.Get("X-Amz-Target"), "."); operation {
	case "DescribeEventBus":
		if s.buses[nameOf(in.Name)] == nil {
			refuse("ResourceNotFoundException", "Event bus "+in.Name+" does not exist.")
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]string{"Name": nameOf(in.Name)})
	case "PutEvents":
		size, failed, results := 0, 0, []result{}
		for _, e := range in.Entries {
			size += len(e.Source) + len(e.DetailType) + len(e.Detail)
		}
		if size >= MaxEntryBytes {
			refuse("ValidationException", "Total size of the entries in the request is over the limit.")
			return
		}
		for _, e := range in.Entries {
			var object map[string]any
			switch {
			case e.Source == "" || e.DetailType == "" || e.Detail == "":
				results = append(results, result{ErrorCode: "InvalidArgument", ErrorMessage: "Parameter is not valid. Reason: Source, DetailType and Detail are required."})
				failed++
				continue
			case json.Unmarshal([]byte(e.Detail), &object) != nil || object == nil:
				results = append(results, result{ErrorCode: "MalformedDetail", ErrorMessage: "Detail is malformed."})
				failed++
				continue
			}
			got := Event{ID: s.id(), Account: Account, Source: e.Source, DetailType: e.DetailType, Time: time.Now().UTC(), Detail: json.RawMessage(e.Detail)}
			select {
			case s.buses[nameOf(e.EventBusName)] <- got:
			default: // nobody consumes it, or there is no such bus
			}
			results = append(results, result{EventId: got.ID})
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"FailedEntryCount": failed, "Entries": results})
	default:
		refuse("UnknownOperationException", "this local EventBridge has no operation "+operation)
	}
}

// nameOf returns the name in a bus's name or ARN.
func nameOf(bus string) string { return bus[strings.LastIndex(bus, "/")+1:] }

func (s *Service) id() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last++
	return fmt.Sprintf("00000000-0000-4000-8000-%012d", s.last)
}
