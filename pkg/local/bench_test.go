package local_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/pkg/admin"
	"github.com/tidings-dev/tidings/pkg/destination/builtin"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/event/catalog"
	"github.com/tidings-dev/tidings/pkg/local"
)

// BenchmarkRunner plays the whole runner on the memory store: lists of a hundred
// events by emit's function URL, the stream, the queue, a receiver in the same
// process. An operation is an event delivered to one endpoint.
func BenchmarkRunner(b *testing.B) {
	var received atomic.Int64
	target, all := int64(b.N), make(chan struct{})
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.WriteHeader(http.StatusNoContent)
		if received.Add(1) == target {
			close(all)
		}
	}))
	b.Cleanup(receiver.Close)
	lines := &local.LogWriter{Out: io.Discard}
	s, err := local.Open(b.Context(), local.Options{Template: "../../template.yaml", Memory: true, Log: lines.Logger(), Metrics: lines})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(s.Close)
	protocols, err := builtin.Open(builtin.Loopback, builtin.Clouds{})
	if err != nil {
		b.Fatal(err)
	}
	r := &admin.Endpoints{Store: s.Store, Catalog: catalog.Default(), Check: protocols.Check, Now: time.Now}
	if _, err := r.Add(b.Context(), endpoint.Endpoint{Tenant: event.DefaultTenant, URL: receiver.URL + "/"}); err != nil {
		b.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() {
		if err := s.Run(b.Context()); err != nil {
			b.Error(err)
		}
	})
	b.Cleanup(running.Wait) // b's context has ended by then
	one := fmt.Sprintf(`{"event":"user.posted_comment","actor_user_id":"u_1042","data":{"discussion_id":"d_7","comment_id":"m_1","comment_text":%q}}`, strings.Repeat("Who brings the projector? ", 10))
	b.ReportAllocs()
	b.ResetTimer()
	for sent := 0; sent < b.N; {
		n := min(100, b.N-sent)
		body := "[" + strings.Repeat(one+",", n-1) + one + "]"
		response, err := http.Post(s.URLs["emit"], "application/json", bytes.NewReader([]byte(body)))
		if err != nil {
			b.Fatal(err)
		}
		_ = response.Body.Close()
		if response.StatusCode != http.StatusAccepted {
			b.Fatal(response.Status)
		}
		sent += n
	}
	<-all
}
