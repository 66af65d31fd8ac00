package storetest

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/pkg/ops/audit"
)

func sessionStore(t *testing.T, s Store) {
	ctx, later := t.Context(), time.Now().Add(time.Hour)
	same(t, must[string](t)(s.GetValue(ctx, "k")), "")
	same(t, must[string](t)(s.PutValueIfAbsent(ctx, "k", "first", later)), "first")
	same(t, must[string](t)(s.PutValueIfAbsent(ctx, "k", "second", later)), "first")
	same(t, must[string](t)(s.GetValue(ctx, "k")), "first")
	// A binding without expiry outlasts any time.
	same(t, must[string](t)(s.PutValueIfAbsent(ctx, "eternal", "first", time.Time{})), "first")
	same(t, must[string](t)(s.PutValueIfAbsent(ctx, "eternal", "second", later)), "first")
	// An expired key can be bound again, before TTL deletes it, too.
	must[string](t)(s.PutValueIfAbsent(ctx, "old", "first", time.Now().Add(-time.Minute)))
	same(t, must[string](t)(s.GetValue(ctx, "old")), "")
	same(t, must[string](t)(s.PutValueIfAbsent(ctx, "old", "second", later)), "second")
	if err := s.DeleteValue(ctx, "k"); err != nil {
		t.Fatal(err)
	}
	same(t, must[string](t)(s.GetValue(ctx, "k")), "")
	if err := s.DeleteValue(ctx, "k"); err != nil {
		t.Errorf("what is free is freed again: %v", err)
	}

	var wins atomic.Int32
	var all sync.WaitGroup
	for i := range 32 {
		all.Go(func() {
			mine := fmt.Sprint(i)
			holds, err := s.PutValueIfAbsent(ctx, "contested", mine, later)
			if err != nil {
				t.Error(err)
			}
			if holds == mine {
				wins.Add(1)
			}
		})
	}
	all.Wait()
	if wins.Load() != 1 {
		t.Errorf("%d of 32 bound one key, want 1", wins.Load())
	}

	for want := range 3 {
		same(t, must[int](t)(s.IncrementCounter(ctx, "tries", later)), want+1)
	}
	same(t, must[int](t)(s.IncrementCounter(ctx, "other tries", later)), 1)
}

func auditLog(t *testing.T, s Store) {
	ctx := t.Context()
	same(t, must[audit.Page](t)(s.ListAudit(ctx, "t1", 0, "")), audit.Page{})
	var all []audit.Entry
	for i := range 7 {
		e := audit.Entry{
			ID: audit.NewID(start.Add(time.Duration(i) * time.Second)), Tenant: "t1", Who: "ada", Role: "admin",
			Action: "endpoint.disable", Subject: fmt.Sprint("ep_", i), Outcome: audit.Begun,
		}
		if err := s.PutAudit(ctx, e); err != nil {
			t.Fatal(err)
		}
		e.Outcome, e.Detail = audit.Failed, `it was <script>"gone"`
		if err := s.PutAudit(ctx, e); err != nil {
			t.Fatal(err)
		}
		all = append([]audit.Entry{e}, all...)
	}
	if err := s.PutAudit(ctx, audit.Entry{ID: audit.NewID(start), Tenant: "t2", Outcome: audit.Done}); err != nil {
		t.Fatal(err)
	}
	for _, limit := range []int{0, 1, 3, 7} {
		var got []audit.Entry
		for cursor := ""; ; {
			page := must[audit.Page](t)(s.ListAudit(ctx, "t1", limit, cursor))
			got = append(got, page.Entries...)
			if cursor = page.Next; cursor == "" {
				break
			}
		}
		same(t, got, all)
	}
	if _, err := s.ListAudit(ctx, "t1", 1, "no cursor"); err == nil {
		t.Error("a malformed cursor is accepted")
	}
}
