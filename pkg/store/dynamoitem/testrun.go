package dynamoitem

import (
	"strings"

	"github.com/tidings-dev/tidings/pkg/signature"
	"github.com/tidings-dev/tidings/pkg/systemtest/testrun"
)

// Keys of TestReceiver: a run's partition has the run itself and its arrivals, ordered
// by event and request.
const (
	TestRun = "run"
	TestKey = "item"

	runItem = "#run" // sorts before every event's id
	secret  = "secret"
)

// TestRunKey is the key of a run's own item.
func TestRunKey(id string) Item { return Item{TestRun: S(id), TestKey: S(runItem)} }

// EncodeTestRun returns the item of a run.
func EncodeTestRun(r testrun.Run) Item {
	item := TestRunKey(r.ID)
	item[secret], item[ExpiresAt] = S(r.Secret.Reveal()), Seconds(r.ExpiresAt)
	return item
}

// DecodeTestRun reads what EncodeTestRun wrote.
func DecodeTestRun(item Item) (testrun.Run, error) {
	r := reader{item: item}
	r.must(TestRun, secret, ExpiresAt)
	run := testrun.Run{ID: r.s(TestRun), ExpiresAt: r.seconds(ExpiresAt)}
	if r.err != nil {
		return run, r.err
	}
	var err error
	run.Secret, err = signature.DecodeSecret(r.s(secret))
	return run, err
}

// EncodeArrival returns the item of an arrival.
func EncodeArrival(run testrun.Run, a testrun.Arrival) Item {
	return Item{TestRun: S(run.ID), TestKey: S(a.Key()), "at": Millis(a.At), ExpiresAt: Seconds(run.ExpiresAt)}
}

// DecodeArrival reads what EncodeArrival wrote.
func DecodeArrival(item Item) (testrun.Arrival, error) {
	r := reader{item: item}
	r.must(TestKey, "at")
	id, request, _ := strings.Cut(r.s(TestKey), "#")
	return testrun.Arrival{EventID: id, Request: request, At: r.millis("at")}, r.err
}
