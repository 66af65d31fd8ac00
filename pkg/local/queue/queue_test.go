package queue_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery/work"
	"github.com/tidings-dev/tidings/pkg/local/queue"
)

func open(t testing.TB, c queue.Config) *queue.Queue {
	t.Helper()
	if c.Visibility == 0 {
		c.Visibility = time.Minute
	}
	q, err := queue.Open(c)
	if err != nil {
		t.Fatal(err)
	}
	return q
}

func put(t testing.TB, q *queue.Queue, body, group string, delay time.Duration) {
	t.Helper()
	if _, err := q.Put(body, group, delay); err != nil {
		t.Fatal(err)
	}
}

func receive(t testing.TB, q *queue.Queue, n int) []queue.Message {
	t.Helper()
	got, err := q.Receive(t.Context(), n)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestAReceivedMessageIsHiddenForTheVisibilityTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := open(t, queue.Config{})
		put(t, q, "a", "g", 0)
		began := time.Now()
		first := receive(t, q, 10)[0]
		again := receive(t, q, 10)[0] // waits for the visibility timeout
		if took := time.Since(began); took != time.Minute || again.Receives != 2 || again.Body != "a" || !again.First.Equal(first.First) {
			t.Errorf("again after %s as %+v", took, again)
		}
		if err := q.Delete(first.Receipt); !errors.Is(err, queue.ErrReceipt) {
			t.Errorf("deleted by an old receipt: %v", err)
		}
		if err := q.Delete(again.Receipt); err != nil {
			t.Fatal(err)
		}
		if err := q.Delete(again.Receipt); !errors.Is(err, queue.ErrReceipt) {
			t.Errorf("deleted twice: %v", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if got, err := q.Receive(ctx, 1); err == nil {
			t.Errorf("a deleted message came back: %+v", got)
		}
	})
}

func TestADelayIsRoundedUpToWholeSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := open(t, queue.Config{})
		item := work.Item{Tenant: "t", EndpointID: "e", EventID: "v", Delay: 1500 * time.Millisecond}
		if errs := q.Send(t.Context(), []work.Item{item}); errs != nil {
			t.Fatal(errs)
		}
		began := time.Now()
		got := receive(t, q, 1)[0]
		if took := time.Since(began); took != 2*time.Second || got.Group != "e" {
			t.Errorf("after %s: %+v", took, got)
		}
	})
}

func TestAWaitingReceiverGetsANewMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := open(t, queue.Config{})
		put(t, q, "later", "g", time.Hour)
		got := make(chan string)
		go func() { got <- receive(t, q, 1)[0].Body }()
		synctest.Wait()
		put(t, q, "now", "g", 0)
		if body := <-got; body != "now" {
			t.Errorf("got %q", body)
		}
	})
}

func TestReceiveWithAnEndedContextReceivesNothing(t *testing.T) {
	q := open(t, queue.Config{})
	put(t, q, "m", "g", 0)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if got, err := q.Receive(ctx, 1); len(got) > 0 || !errors.Is(err, context.Canceled) {
		t.Errorf("took %v, %v", got, err)
	}
	if s := q.Stats(); s.Visible != 1 || s.InFlight != 0 {
		t.Errorf("left %+v", s)
	}
}

func TestAMessageMovesToTheDeadLetterQueueAfterMaxReceives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dead := open(t, queue.Config{Name: "dead"})
		q := open(t, queue.Config{MaxReceives: 3, Dead: dead})
		put(t, q, "poison", "g", 0)
		for n := 1; n <= 3; n++ {
			if m := receive(t, q, 1)[0]; m.Receives != n {
				t.Errorf("receive %d counts %d", n, m.Receives)
			}
		}
		put(t, q, "good", "g", 90*time.Second)
		if m := receive(t, q, 1)[0]; m.Body != "good" {
			t.Errorf("received %q", m.Body)
		}
		if m := receive(t, dead, 1)[0]; m.Body != "poison" || m.Group != "g" {
			t.Errorf("buried %+v", m)
		}
	})
}

func TestTheGroupWithTheFewestMessagesInFlightGoesFirst(t *testing.T) {
	q := open(t, queue.Config{})
	for i := range 1000 {
		put(t, q, fmt.Sprint(i), "noisy", 0)
	}
	receive(t, q, 50) // in flight already
	put(t, q, "hello", "quiet", 0)
	if first := receive(t, q, 10)[0]; first.Group != "quiet" {
		t.Errorf("first came %+v", first)
	}
	// Within a group, first in is first out.
	if next := receive(t, q, 1)[0]; next.Body != "59" {
		t.Errorf("then came %+v", next)
	}
}

func TestAFIFOGroupIsBlockedWhileAMessageIsInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := open(t, queue.Config{FIFO: true})
		for _, body := range []string{"a1", "a2", "a3", "b1"} {
			put(t, q, body, body[:1], 0)
		}
		bodies := func(n int) (text string, got []queue.Message) {
			got, err := q.Poll(n, time.Minute)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range got {
				text += m.Body + " "
			}
			return text, got
		}
		first, taken := bodies(2)
		if first != "a1 a2 " {
			t.Errorf("first %q", first)
		}
		if next, _ := bodies(10); next != "b1 " {
			t.Errorf("while a1 and a2 are in flight: %q", next)
		}
		if err := q.Delete(taken[1].Receipt); err != nil {
			t.Fatal(err)
		}
		if err := q.Hide(taken[0].Receipt, 0); err != nil {
			t.Fatal(err)
		}
		if next, _ := bodies(10); next != "a1 a3 " {
			t.Errorf("after a1 was made visible again: %q", next)
		}
	})
}

func TestHideChangesTheVisibilityTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := open(t, queue.Config{})
		put(t, q, "a", "g", 0)
		m, began := receive(t, q, 1)[0], time.Now()
		if err := q.Hide(m.Receipt, time.Hour); err != nil {
			t.Fatal(err)
		}
		receive(t, q, 1)
		if took := time.Since(began); took != time.Hour {
			t.Errorf("received again after %s", took)
		}
		if err := q.Hide(m.Receipt, 0); !errors.Is(err, queue.ErrReceipt) {
			t.Errorf("an old receipt: %v", err)
		}
	})
}

func TestStats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := open(t, queue.Config{})
		oldest := time.Now()
		put(t, q, "a", "g", time.Minute)
		time.Sleep(time.Second)
		put(t, q, "b", "g", 0)
		put(t, q, "c", "h", 0)
		receive(t, q, 1)
		if got, want := q.Stats(), (queue.Stats{Visible: 1, Delayed: 1, InFlight: 1, OldestSent: oldest}); got != want {
			t.Errorf("stats = %+v, want %+v", got, want)
		}
	})
}

// A child process sends and deletes messages, and prints what was acknowledged, until
// it is killed. Everything acknowledged must hold afterwards.
func TestAJournalSurvivesAKilledProcess(t *testing.T) {
	if path := os.Getenv("LOCALQUEUE_JOURNAL"); path != "" {
		churn(t, path)
		return
	}
	for round := range 5 {
		path := filepath.Join(t.TempDir(), "q")
		child := exec.Command(os.Args[0], "-test.run=^TestAJournalSurvivesAKilledProcess$")
		child.Env = append(os.Environ(), "LOCALQUEUE_JOURNAL="+path)
		out, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		// Read acknowledgements, kill the child, and read what it had still printed.
		var said strings.Builder
		buf := make([]byte, 512)
		for killed := false; ; {
			n, err := out.Read(buf)
			said.Write(buf[:n])
			if !killed && said.Len() > 2000*(round+1) {
				killed = true
				if err := child.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
			if err != nil {
				break
			}
		}
		_ = child.Wait() // it was killed
		alive := map[string]bool{}
		doubtful := map[string]bool{} // begun, not acknowledged
		for line := range strings.Lines(said.String()) {
			what, body, ok := strings.Cut(strings.TrimSpace(line), " ")
			if !strings.HasSuffix(line, "\n") || !ok {
				continue
			}
			switch what {
			case "sending", "deleting":
				doubtful[body] = true
			case "sent":
				alive[body], doubtful[body] = true, false
			case "deleted":
				delete(alive, body)
				doubtful[body] = false
			}
		}
		q := open(t, queue.Config{Journal: path})
		found := map[string]bool{}
		for s := q.Stats(); len(found) < s.Visible; {
			for _, m := range receive(t, q, 1000) {
				found[m.Body] = true
			}
		}
		for body := range alive {
			if !found[body] && !doubtful[body] {
				t.Errorf("round %d: %s was acknowledged and is lost", round, body)
			}
		}
		for body := range found {
			if !alive[body] && !doubtful[body] {
				t.Errorf("round %d: %s was deleted and is back", round, body)
			}
		}
		if len(alive) == 0 {
			t.Errorf("round %d: no message was left to check", round)
		}
		if err := q.Close(); err != nil {
			t.Error(err)
		}
	}
}

func churn(t *testing.T, path string) {
	q := open(t, queue.Config{Journal: path})
	for n := 0; ; n++ {
		body := strconv.Itoa(n)
		fmt.Println("sending", body)
		put(t, q, body, "g", 0)
		fmt.Println("sent", body)
		if n%3 == 2 {
			m := receive(t, q, 1)[0]
			fmt.Println("deleting", m.Body)
			if err := q.Delete(m.Receipt); err != nil {
				t.Fatal(err)
			}
			fmt.Println("deleted", m.Body)
		}
	}
}

func TestAReopenedJournalKeepsReceiveCountsAndDelays(t *testing.T) {
	path := filepath.Join(t.TempDir(), "q")
	q := open(t, queue.Config{Journal: path})
	put(t, q, "a", "g", 0)
	put(t, q, "later", "g", time.Hour)
	receive(t, q, 1)
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	// The end of the file is a line that was being written.
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(`{"id":99,"bo`); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	q = open(t, queue.Config{Journal: path})
	defer q.Close()
	if m := receive(t, q, 10); len(m) != 1 || m[0].Body != "a" || m[0].Receives != 2 {
		t.Errorf("received %+v", m)
	}
	if s := q.Stats(); s.Delayed != 1 {
		t.Errorf("stats = %+v", s)
	}
	put(t, q, "b", "g", 0)
	if m := receive(t, q, 10); len(m) != 1 || m[0].Body != "b" {
		t.Errorf("received %+v", m)
	}
}

func TestAnInvalidJournalIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "q")
	if err := os.WriteFile(path, []byte("not a journal\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := queue.Open(queue.Config{Journal: path}); err == nil {
		t.Error("opened")
	}
}

func BenchmarkSendReceiveDelete(b *testing.B) {
	q := open(b, queue.Config{})
	for i := 0; b.Loop(); i++ {
		put(b, q, "body", strconv.Itoa(i%100), 0)
		for _, m := range receive(b, q, 10) {
			if err := q.Delete(m.Receipt); err != nil {
				b.Fatal(err)
			}
		}
	}
}
