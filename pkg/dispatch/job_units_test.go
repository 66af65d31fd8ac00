package dispatch_test

import (
	"log/slog"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/pkg/dispatch"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/event/catalog"
	"github.com/tidings-dev/tidings/pkg/ops/cost"
	"github.com/tidings-dev/tidings/pkg/ops/jobs"
	"github.com/tidings-dev/tidings/pkg/signature"
)

// What package cost says about the jobs that read all events is what DynamoDB counts.
func TestWhatTheJobsThatReadAllEventsCost(t *testing.T) {
	if testing.Short() {
		t.Skip("erases and compares hundreds of events on a real DynamoDB API")
	}
	store, units := meteredStore(t)
	c, q := &clock{now: time.Now().Truncate(time.Millisecond)}, &sentItems{}
	d := dispatch.New(dispatch.Config{
		Events: store, Endpoints: store, Disabler: store, Deliveries: store, Due: store, Replays: store, Statistics: store, Journal: store, Jobs: store,
		JobList: store, Scan: store, StoredEvents: store, Erasures: store, Kept: store, Types: catalog.Default(),
		Waiting: store, Breakers: store, Limits: store, Queue: q, Sender: &receiver{}, Log: slog.New(slog.DiscardHandler), Now: c.Now, CacheTime: dispatch.CacheTime,
	})
	e := endpoint.Endpoint{
		Tenant: event.DefaultTenant, ID: endpoint.NewID(c.Now()), URL: "https://receiver.example/hook", EventTypes: []string{"*"}, Status: endpoint.Enabled,
		Secrets: []endpoint.SigningSecret{{Secret: signature.NewSecret()}}, CreatedAt: c.Now(), UpdatedAt: c.Now(),
	}
	if err := store.AddEndpoint(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	c.pass(time.Minute)
	from := c.Now()
	const n, about = 400, 100
	var batch []event.Change
	for i := range n {
		actor := "u_other"
		if i%(n/about) == 0 {
			actor = person
		}
		id := event.NewID(c.Now())
		body, err := event.Event{ID: id, Type: "user.posted_comment", Timestamp: c.Now(), ActorUserID: actor, Data: []byte(comment)}.Encode()
		if err != nil {
			t.Fatal(err)
		}
		a := event.Accepted{ID: id, Tenant: event.DefaultTenant, Body: body}
		if err := store.PutEvent(t.Context(), a); err != nil {
			t.Fatal(err)
		}
		batch = append(batch, event.Change{Inserted: true, SequenceNumber: id, Event: a})
		c.pass(50 * time.Millisecond)
	}
	for i := 0; i < n; i += 100 {
		if failed := d.FanOut(t.Context(), batch[i:i+100]); failed != nil {
			t.Fatal(failed)
		}
	}
	workOff(t, d, q, c) // every event is delivered
	c.pass(10 * time.Minute)
	run := func(command dispatch.Command) jobs.Job {
		t.Helper()
		*units = cost.Count{}
		j, err := d.StartJob(t.Context(), command)
		if err != nil {
			t.Fatal(err)
		}
		for range 300 {
			workOff(t, d, q, c)
			if j, err = store.GetJob(t.Context(), jobs.Key{Tenant: j.Tenant, ID: j.ID}); err != nil || j.State != jobs.Running {
				break
			}
			units.ReadUnits-- // of this test
		}
		if err != nil || j.State != jobs.Done || j.Counts[jobs.Examined] != n {
			t.Fatalf("%s is %s (%s): %v, %v", j.Kind, j.State, j.Reason, j.Counts, err)
		}
		t.Logf("%s, dry run %t: %.0f write units and %.0f read units for %d events, %v", j.Kind, j.DryRun, units.WriteUnits, units.ReadUnits, n, j.Counts)
		return j
	}
	// Each bound has a tenth to spare, and the job's own: one write for a step.
	for _, k := range []struct {
		command dispatch.Command
		each    cost.Count
		n       float64
	}{
		{dispatch.Command{Kind: jobs.Stream, From: from}, cost.StreamCompared, n},
		{dispatch.Command{Kind: jobs.Erase, Subject: "u_nobody"}, cost.EraseExamined, n},
		{dispatch.Command{Kind: jobs.Erase, Subject: person}, cost.EraseExamined.Times(n / about).Plus(cost.Erased), about},
	} {
		j := run(k.command)
		if k.command.Subject == person && j.Counts[jobs.Erased] != about {
			t.Fatalf("erased %v, want %d", j.Counts, about)
		}
		if want := k.each.Times(k.n); units.WriteUnits > 1.1*want.WriteUnits+50 || units.ReadUnits > 1.1*want.ReadUnits || units.ReadUnits < 0.6*want.ReadUnits {
			t.Errorf("%s: %.0f write units and %.0f read units; package cost says %.0f and %.0f", j.Kind, units.WriteUnits, units.ReadUnits, want.WriteUnits, want.ReadUnits)
		}
	}
}
