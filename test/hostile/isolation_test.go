//go:build rig

package hostile_test

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/delivery/breaker"
	"github.com/tidings-dev/tidings/pkg/emit"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/local"
	"github.com/tidings-dev/tidings/pkg/local/receiver"
	"github.com/tidings-dev/tidings/pkg/signature"
	"github.com/tidings-dev/tidings/pkg/systemtest"
	"github.com/tidings-dev/tidings/test/destinationtest"
	"github.com/tidings-dev/tidings/test/localrunner"
)

const (
	perSecond = 30 // events
	perRound  = 90 // events
	// A busy machine needs more rounds until one of each kind is undisturbed.
	rounds, mostRounds = 3, 20
	// noise is the difference between two measurements of one p95 on a busy machine.
	noise = 5 * time.Millisecond
)

// switcher answers every request with 101, and keeps the connection open.
func switcher(t *testing.T) (url string) {
	t.Helper()
	return "http://" + destinationtest.Listen(t, func(conn net.Conn) {
		request, err := http.ReadRequest(bufio.NewReader(conn))
		if err != nil {
			return
		}
		_, _ = io.Copy(io.Discard, request.Body)
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
		_, _ = io.Copy(io.Discard, conn)
	}) + "/"
}

// A receiver that answers 101 used to hang all workers. Beside it, the p95 of a healthy
// one is within 20 % of what it is alone. Rounds alternate, and the best of each kind
// counts, so that another program's burst does not decide.
func TestA101ReceiverDoesNotDelayOthers(t *testing.T) {
	if *only != "" {
		t.Skip("behaviours are selected")
	}
	t.Chdir("../..") // the template's folder
	ctx := t.Context()
	system, err := local.Open(ctx, local.Options{Template: "template.yaml", Memory: true, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer system.Close()
	running, stop := context.WithCancel(ctx)
	var runner sync.WaitGroup
	runner.Go(func() { _ = system.Run(running) })
	defer runner.Wait()
	defer stop()

	secret := signature.NewSecret()
	healthy, err := localrunner.Receive(1, receiver.Behaviour{}, secret)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := localrunner.AddEndpoint(ctx, system.Store, healthy.URL, secret, nil); err != nil {
		t.Fatal(err)
	}
	bad, err := localrunner.AddEndpoint(ctx, system.Store, switcher(t), secret, func(e *endpoint.Endpoint) {
		e.EventTypes = []string{"user.flagged_comment"}
		e.Breaker = breaker.Policy{Failures: 100} // so that its deliveries are attempted
	})
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	p95 := func(request func(i int) emit.Request) time.Duration {
		t.Helper()
		began := map[string]time.Time{}
		var mu sync.Mutex
		systemtest.AtRate(ctx, perSecond, perRound, func(i int) {
			at := time.Now()
			results, err := localrunner.Post(ctx, system.URLs["emit"], request(i))
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				t.Error(err)
				return
			}
			began[results[0].ID] = at
		})
		n += perRound
		if err := healthy.Wait(ctx, n, time.Minute); err != nil {
			t.Fatal(err)
		}
		var took []time.Duration
		for id, at := range began {
			if arrived, ok := healthy.Arrived(id); ok {
				took = append(took, arrived.Sub(at))
			}
		}
		slices.Sort(took)
		return took[len(took)*95/100]
	}
	flagged := func(int) emit.Request {
		return emit.Request{Event: "user.flagged_comment", Data: json.RawMessage(`{"comment_id":"c","flagged_user_id":"u","reason":"spam"}`)}
	}
	p95(localrunner.Comment) // a warm-up
	var alone, beside []time.Duration
	delayed := func() bool { return slices.Min(beside) > slices.Min(alone)*6/5+noise }
	for n := 0; n < rounds || delayed() && n < mostRounds; n++ {
		alone = append(alone, p95(localrunner.Comment))
		beside = append(beside, p95(flagged))
	}
	t.Logf("p95 alone %s, beside a receiver that answers 101 %s", alone, beside)
	if delayed() {
		t.Errorf("p95 is %s beside the receiver that answers 101, %s alone: more than 20 %% more", slices.Min(beside), slices.Min(alone))
	}
	list, err := localrunner.Deliveries(ctx, system.Store, bad.ID)
	if err != nil {
		t.Fatal(err)
	}
	if len(list) == 0 {
		t.Error("nothing was attempted at the receiver that answers 101")
	}
	for _, d := range list {
		for _, a := range d.History {
			if a.Class != delivery.Answered || a.Status != http.StatusSwitchingProtocols {
				t.Fatalf("attempt %+v, want class answered with status 101", a)
			}
		}
	}
}
