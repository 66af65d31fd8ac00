package main

import (
	"crypto/tls"
	"math"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/pkg/local/samtemplate"
	"github.com/tidings-dev/tidings/pkg/ops/cost"
)

func TestARiseIsSaid(t *testing.T) {
	expected := map[string]Units{"a": {Writes: 3, SQS: 0.3}, "b": {Writes: 7}, "gone": {}}
	measured := map[string]Units{"a": {Writes: 4, SQS: 0.3}, "b": {Writes: 6.5}, "new": {}}
	got := strings.Join(differences(measured, expected), "\n")
	want := "a: write_units ROSE from 3 to 4\nb: write_units fell from 7 to 6.5\ngone: is expected and was not measured\nnew: was measured and is not expected"
	if got != want {
		t.Errorf("it says\n%s\nwant\n%s", got, want)
	}
	if same := differences(expected, expected); same != nil {
		t.Errorf("the same differs: %v", same)
	}
	// The file is compared, and written anew where that is asked for.
	t.Chdir(t.TempDir())
	if err := os.MkdirAll(filepath.Dir(unitsFile), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := checkUnits(measured, true); err != nil {
		t.Fatal(err)
	}
	if err := checkUnits(measured, false); err != nil {
		t.Errorf("what was just written: %v", err)
	}
	measured["a"] = Units{Writes: 5}
	if err := checkUnits(measured, false); err == nil || !strings.Contains(err.Error(), "a: write_units ROSE from 4 to 5") || !strings.Contains(err.Error(), "-update") {
		t.Errorf("a rise: %v", err)
	}
}

func TestUnitsAddUp(t *testing.T) {
	u := Units{Writes: 3, LogBytes: 100, Sending: 1}
	if got, want := u.plus(u).each(4), (Units{Writes: 1.5, LogBytes: 50, Sending: 0.5}); got != want {
		t.Errorf("half of it is %+v, want %+v", got, want)
	}
	if u.Writes != 3 {
		t.Error("adding changes what is added to")
	}
}

// By hand: two attempts in two invocations, of which one waits for a receiver.
func TestAnEventsCount(t *testing.T) {
	d := durations{emit: of(0.01), fanOut: of(0.02), deliver: of(0.03)}
	got := d.event(Units{
		Writes: 9, Statistics: 3, Reads: 1.5, SQS: 6, Emits: 1, FanOuts: 1, Delivers: 2, Sending: 1, Attempts: 2, Sent: 2000, LogBytes: 1000,
	}, cost.Observability{LogBytes: 100, Traced: 0.1})
	want := cost.Count{
		WriteUnits: 12, ReadUnits: 1.5, SQSRequests: 6, Runs: 4, Seconds: 0.01 + 0.02 + 2*0.03 + cost.ReceiverSeconds,
		LogBytes: 1000 + 4*100, Traces: 4 * 0.1, SentBytes: 2000 + 2*cost.PacketBytes + cost.HandshakeBytes,
	}
	if math.Abs(got.Seconds-want.Seconds) > 1e-12 {
		t.Errorf("it takes %v s, want %v", got.Seconds, want.Seconds)
	}
	if got.Seconds = want.Seconds; got != want {
		t.Errorf("counted\n%+v\nwant\n%+v", got, want)
	}
}

// pkg/ops/cost reckons with what the template has written and traced by default.
func TestWhatAnInvocationLeavesBehind(t *testing.T) {
	t.Chdir("../..")
	stack, err := resolved()
	if err != nil {
		t.Fatal(err)
	}
	if got := watchedOf(stack); got != cost.Measured.Observability {
		t.Errorf("by the template it is %+v, reckoned with %+v", got, cost.Measured.Observability)
	}
	loud := &samtemplate.Stack{Functions: []samtemplate.Function{{SystemLogLevel: "WARN", Tracing: "PassThrough"}, {SystemLogLevel: "INFO", Tracing: "Active"}}}
	if got := watchedOf(loud); got.LogBytes != cost.PlatformBytes || got.Traced != cost.TracedShare {
		t.Errorf("of one that is loud it is %+v", got)
	}
}

func TestTheDearestComesFirst(t *testing.T) {
	if got := dearest([]cost.Line{{Name: "a", Dollars: 0.1}, {Name: "b", Dollars: 2}, {Name: "c", Dollars: 0.5}}); got != "b 2, c 0.50, a 0.10" {
		t.Errorf("it is made of %s", got)
	}
}

// What pkg/ops/cost reckons an idle month with is what the template's schedules were
// counted to take; and each schedule has been counted.
func TestAnIdleMonth(t *testing.T) {
	t.Chdir("../..")
	units, err := expectedUnits()
	if err != nil {
		t.Fatal(err)
	}
	stack, err := resolved()
	if err != nil {
		t.Fatal(err)
	}
	got, err := idleMonth(stack, units)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		what              string
		reckoned, counted float64
	}{
		{"write units", cost.Idle.WriteUnits, got.WriteUnits}, {"read units", cost.Idle.ReadUnits, got.ReadUnits}, {"SQS requests", cost.Idle.SQSRequests, got.SQSRequests},
		{"runs", cost.Idle.Runs, got.Runs}, {"seconds", cost.Idle.Seconds, got.Seconds}, {"log bytes", cost.Idle.LogBytes, got.LogBytes}, {"traces", cost.Idle.Traces, got.Traces},
	} {
		if math.Abs(c.reckoned/c.counted-1) > 0.02 {
			t.Errorf("%s: reckoned with %v, counted %v", c.what, c.reckoned, c.counted)
		}
	}
	for name := range units {
		if strings.HasPrefix(name, "idle: ") {
			delete(units, name)
		}
	}
	if _, err := idleMonth(stack, units); err == nil {
		t.Error("a schedule that was never counted costs nothing")
	}
}

func TestWhatStandsInTheTemplate(t *testing.T) {
	got, err := standingOf("../../template.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if want := cost.TemplateFixed; got.Alarms != want.Alarms || got.Dashboards != want.Dashboards || got.Keys != want.Keys || got.Metrics >= want.Metrics {
		t.Errorf("the template makes %+v, reckoned with %+v", got, want)
	}
	page := filepath.Join(t.TempDir(), "template.yaml")
	if err := os.WriteFile(page, []byte("Resources:\n  Out:\n    Type: AWS::EC2::NatGateway\n    Properties: {}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := standingOf(page); err == nil || !strings.Contains(err.Error(), "Out") {
		t.Errorf("a NAT gateway is %v", err)
	}
}

// What opening a connection is reckoned with is what Go's client sends for it, and
// the headers of its packets.
func TestAHandshake(t *testing.T) {
	server := httptest.NewTLSServer(nil)
	defer server.Close()
	raw, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	var sent atomic.Int64
	c := tls.Client(countedWrites{raw, &sent}, &tls.Config{InsecureSkipVerify: true, ServerName: host, NextProtos: []string{"h2", "http/1.1"}})
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if err := c.Handshake(); err != nil {
		t.Fatal(err)
	}
	const packets = 6 * 40 // SYN, ACK, hello in two, finished, close
	if measured := float64(sent.Load()) + packets; measured > cost.HandshakeBytes || measured < 0.75*cost.HandshakeBytes {
		t.Errorf("a handshake sends %v bytes, reckoned with %v", measured, cost.HandshakeBytes)
	}
}

type countedWrites struct {
	net.Conn
	sent *atomic.Int64
}

func (c countedWrites) Write(b []byte) (int, error) {
	c.sent.Add(int64(len(b)))
	return c.Conn.Write(b)
}
