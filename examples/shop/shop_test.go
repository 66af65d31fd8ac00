package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/pkg/admin/capturerules"
	"github.com/tidings-dev/tidings/pkg/admin/capturerules/compile"
	"github.com/tidings-dev/tidings/pkg/admin/eventtypes"
	typecompile "github.com/tidings-dev/tidings/pkg/admin/eventtypes/compile"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/event/catalog"
	"github.com/tidings-dev/tidings/pkg/local"
	"github.com/tidings-dev/tidings/pkg/local/receiver"
	"github.com/tidings-dev/tidings/pkg/signature"
	"github.com/tidings-dev/tidings/pkg/store/dynamo"
)

// files returns the texts of the files in a folder.
func files(t *testing.T, pattern string) map[string]string {
	t.Helper()
	found, err := filepath.Glob(pattern)
	if err != nil || len(found) == 0 {
		t.Fatalf("%s: %v, %v", pattern, found, err)
	}
	texts := map[string]string{}
	for _, name := range found {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		texts[name] = string(text)
	}
	return texts
}

// start runs the stack with the shop's table, types and rules, and returns what arrives.
func start(t *testing.T) (system *local.System, stateDir string, arrived <-chan receiver.Webhook) {
	t.Helper()
	table, err := local.ParseOwnTable("Orders=order_id")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	system, err = local.Open(t.Context(), local.Options{
		Template: filepath.Join("..", "..", "template.yaml"), StateDir: dir, OwnTables: []local.OwnTable{table}, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := system.WriteRunnerInfo(""); err != nil {
		t.Fatal(err)
	}
	info, err := local.ReadRunnerInfo(dir)
	if err != nil {
		t.Fatal(err)
	}
	store := dynamo.New(info.DynamoDB(), local.Tables(info.Stack))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- system.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		system.Close()
	})
	types := &eventtypes.Manager{Store: store, Endpoints: store, Check: typecompile.Check, Now: time.Now}
	var wanted eventtypes.Request
	for name, text := range files(t, "types/*.json") {
		parsed, err := catalog.Parse([]byte(text))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		wanted.Types = append(wanted.Types, parsed)
	}
	plan, err := types.Plan(t.Context(), wanted)
	if err == nil {
		err = types.Apply(t.Context(), plan, false, "test", "types")
	}
	if err != nil {
		t.Fatal(err)
	}
	rules := &capturerules.Manager{Store: store, Check: compile.Check, Now: time.Now}
	var request capturerules.Request
	for name, text := range files(t, "rules/*.yaml") {
		request.Files = append(request.Files, capturerules.File{Path: name, Text: text})
	}
	change, err := rules.Plan(t.Context(), request)
	if err == nil {
		err = rules.Apply(t.Context(), change, "test", "rules")
	}
	if err != nil {
		t.Fatal(err)
	}

	secret := signature.NewSecret()
	webhooks := make(chan receiver.Webhook, 1000)
	r := receiver.New(1, receiver.Behaviour{})
	r.Secrets = func() []string { return []string{secret.Reveal()} }
	r.OnWebhook = func(w receiver.Webhook) { webhooks <- w }
	server := httptest.NewServer(r)
	t.Cleanup(server.Close)
	err = system.Store.AddEndpoint(t.Context(), endpoint.Endpoint{
		Tenant: event.DefaultTenant, ID: endpoint.NewID(time.Now()), URL: server.URL + "/", EventTypes: []string{"order.*"},
		Secrets: []endpoint.SigningSecret{{Secret: secret}}, Status: endpoint.Enabled, Version: 1, CreatedAt: time.Now(),
	})
	if err != nil {
		t.Fatal(err)
	}
	return system, dir, webhooks
}

// The shop writes orders, and receivers get exactly the events that they mean.
func TestOrdersArriveAsWebhooks(t *testing.T) {
	t.Parallel()
	system, dir, arrived := start(t)
	db, err := connect(t.Context(), dir, false)
	if err != nil {
		t.Fatal(err)
	}
	shop := Shop{DB: db, Table: "Orders"}
	plan := planOrders(7, 12, "o_")
	want := map[string]int{} // by order and type
	for _, c := range plan {
		if err := shop.Write(t.Context(), c.Order, time.Now()); err != nil {
			t.Fatal(err)
		}
		if c.Event != "" {
			want[c.Event+" of "+c.Order.ID]++
		}
	}
	total := 0
	for _, one := range count(plan) {
		total += one.events
	}
	if len(count(plan)) != 3 || total != len(want) || total == len(plan) {
		t.Fatalf("the plan has the events %v and %d changes", count(plan), len(plan))
	}
	got := map[string]int{}
	for range total {
		select {
		case w := <-arrived:
			var body struct {
				Data struct {
					OrderID string `json:"order_id"`
				} `json:"data"`
			}
			if err := json.Unmarshal(w.Body, &body); err != nil || !w.Verified {
				t.Errorf("%s: verified %t, %v", w.Body, w.Verified, err)
			}
			got[w.Type+" of "+body.Data.OrderID]++
		case <-time.After(time.Minute):
			t.Fatalf("of %d webhooks, %d arrived: %v", total, len(got), got)
		}
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("arrived %v\nwant %v", got, want)
	}
	failed, err := system.Store.ListFailedChanges(t.Context(), time.Time{}, 10, "")
	if err != nil || len(failed.Changes) != 0 {
		t.Errorf("failed changes %+v, %v", failed.Changes, err)
	}
}

func TestAPlanIsTheSameForTheSameSeed(t *testing.T) {
	if a, b := planOrders(3, 50, "o_"), planOrders(3, 50, "o_"); fmt.Sprint(a) != fmt.Sprint(b) || fmt.Sprint(a) == fmt.Sprint(planOrders(4, 50, "o_")) {
		t.Error("plans differ for one seed, or are the same for two")
	}
}

func TestWrongFlagsAreRefused(t *testing.T) {
	for _, orders := range []int{0, -1, maxOrders + 1} {
		if err := run(t.Context(), t.TempDir(), false, "Orders", orders, 0, 1); err == nil {
			t.Errorf("%d orders are placed", orders)
		}
	}
	if err := run(t.Context(), t.TempDir(), false, "Orders", 1, 0, 1); err == nil {
		t.Error("orders are placed without a runner")
	}
}
