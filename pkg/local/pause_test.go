package local_test

import (
	"context"
	"net/http"
	"runtime"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/delivery/work"
	"github.com/tidings-dev/tidings/pkg/local"
	"github.com/tidings-dev/tidings/pkg/local/receiver"
)

func TestAPausedQueueKeepsItsMessages(t *testing.T) {
	t.Parallel()
	w := newWorld(t, local.Options{Memory: true}, receiver.Behaviour{})
	e := w.endpoint(w.url)
	first := w.emit(request(t, "user.posted_comment"))[0].ID
	w.settled(delivery.Key{EndpointID: e.ID, EventID: first}) // the mapping is waiting for the next message
	w.next()
	w.Pause("work")
	id := w.emit(request(t, "user.posted_comment"))[0].ID
	queue := w.Queues["WorkQueue"]
	for end := time.Now().Add(patience); ; runtime.Gosched() {
		d, err := queue.Depth(t.Context())
		if err != nil || time.Now().After(end) {
			t.Fatalf("the message is not on the queue: %+v, %v", d, err)
		}
		if d == (work.Depth{Visible: 1}) {
			break
		}
	}
	w.Resume("work")
	if got := w.next(); got.ID != id {
		t.Errorf("got %s, want %s", got.ID, id)
	}
}

func TestHealthFunctionURLAndItsToken(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 5 s")
	}
	t.Parallel()
	w := newWorld(t, local.Options{Memory: true}, receiver.Behaviour{})
	url := w.URLs["health"]
	ask := func(path, authorization string) int {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", authorization)
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		return answer.StatusCode
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for ask("/", "") != http.StatusOK { // until the first sweep; health caches its response for five seconds
		if ctx.Err() != nil {
			t.Fatal("the runner does not become healthy in time")
		}
		time.Sleep(100 * time.Millisecond)
	}
	if with, without := ask("/report", "Bearer "+w.Access.HealthToken), ask("/report", ""); with != 200 || without != 401 {
		t.Errorf("GET /report = %d with the token, %d without; want 200 and 401", with, without)
	}
}
