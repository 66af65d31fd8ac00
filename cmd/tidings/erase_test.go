package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"

	"github.com/tidings-dev/tidings/pkg/aws/awsconfig"
	"github.com/tidings-dev/tidings/pkg/console"
	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/dispatch"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/local"
	"github.com/tidings-dev/tidings/pkg/ops/audit"
	"github.com/tidings-dev/tidings/pkg/ops/jobs"
	"github.com/tidings-dev/tidings/pkg/platform"
)

// dump returns every item of every table, as text, with what is compressed in it.
func (x *tool) dump() string {
	x.t.Helper()
	a := &app{stateDir: x.dir, limits: awsconfig.InCommands}
	target, err := a.connect(x.t.Context())
	if err != nil {
		x.t.Fatal(err)
	}
	var text strings.Builder
	for _, table := range []string{target.tables.Events, target.tables.Deliveries, target.tables.Endpoints, target.tables.Control, target.tables.Platform, target.tables.Discussions, target.tables.TestReceiver} {
		pages := dynamodb.NewScanPaginator(target.db, &dynamodb.ScanInput{TableName: &table})
		for pages.HasMorePages() {
			page, err := pages.NextPage(x.t.Context())
			if err != nil {
				x.t.Fatal(err)
			}
			for _, item := range page.Items {
				for name, value := range item {
					one, err := json.Marshal(value)
					if err != nil {
						x.t.Fatal(err)
					}
					fmt.Fprintf(&text, "%s %s %s\n", table, name, one)
					for _, word := range strings.FieldsFunc(string(one), func(r rune) bool { return r == '"' }) {
						if packed, err := base64.StdEncoding.DecodeString(word); err == nil {
							if r, err := gzip.NewReader(bytes.NewReader(packed)); err == nil {
								_, _ = io.Copy(&text, r)
							}
						}
					}
				}
			}
		}
	}
	return text.String()
}

// After an erasure, nothing that is stored, printed or logged has the person's data, and
// nothing of it is sent.
func TestErase(t *testing.T) {
	t.Parallel()
	var log syncBuffer
	x := newTool(t, func(o *local.Options) {
		o.Log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	const marker = "MARKER"
	var mu sync.Mutex
	received := map[string]int{} // by event
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		received[r.Header.Get("webhook-id")+r.URL.Path]++
		mu.Unlock()
		if r.URL.Path == "/fails" {
			w.WriteHeader(http.StatusServiceUnavailable)
			_, _ = io.Copy(w, r.Body) // it repeats what it got
		}
	}))
	t.Cleanup(receiver.Close)
	var takes, fails console.WithSecret
	x.json(&takes, "endpoint", "add", receiver.URL+"/takes")
	x.json(&fails, "endpoint", "add", receiver.URL+"/fails")
	var emitted struct{ ID string }
	x.json(&emitted, "emit", "user.posted_comment", "--actor", "u_1042", "--key", "k", "--data", `{"discussion_id":"d1","comment_id":"MARKER-c","comment_text":"MARKER","user_name":"MARKER"}`)
	comment := emitted.ID
	x.json(&emitted, "emit", "user.flagged_comment", "--actor", "MARKER-other", "--data", `{"comment_id":"MARKER-c","flagged_user_id":"u_1042","comment_excerpt":"MARKER"}`)
	flag := emitted.ID
	x.json(&emitted, "emit", "user.joined_community", "--data", `{"community_id":"c_7","community_name":"Gophers"}`)
	other := emitted.ID
	a := &app{stateDir: x.dir, limits: awsconfig.InCommands}
	target, err := a.connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	kept := platform.FailedChange{
		ID: event.NewID(time.Now()), Tenant: event.DefaultTenant, Key: `{"pk":{"S":"USER#MARKER"}}`, Reason: "x", FirstSeen: time.Now(), LastTried: time.Now(), Attempts: 1,
		Record: []byte(`{"dynamodb":{"NewImage":{"user_id":{"S":"u_1042"},"name":{"S":"MARKER"}}}}`),
	}
	if _, err := target.store.KeepFailedChange(t.Context(), kept); err != nil {
		t.Fatal(err)
	}
	holds := func(e console.WithSecret, id string, ok func(delivery.Delivery) bool) bool {
		d, err := target.store.GetDelivery(t.Context(), delivery.Key{EndpointID: e.ID, EventID: id})
		return err == nil && ok(d)
	}
	eventually(t, "the attempts", func() bool {
		for _, id := range []string{comment, flag, other} {
			if !holds(takes, id, func(d delivery.Delivery) bool { return d.State == delivery.Delivered }) ||
				!holds(fails, id, func(d delivery.Delivery) bool {
					return d.Attempts > 0 && d.State == delivery.Pending && d.Snippet != ""
				}) {
				return false
			}
		}
		return true
	})
	eventually(t, "the journal", func() bool {
		var list []console.ListedEvent
		x.json(&list, "event", "list")
		return len(list) == 3
	})
	if before := x.dump(); strings.Count(before, marker) < 8 {
		t.Errorf("the markers are not in the tables, so the test proves little: %d", strings.Count(before, marker))
	}

	x.do(2, "", "erase")
	out, _ := x.do(0, "", "erase", "--subject", "u_1042", "--dry-run")
	if !strings.Contains(out, "2 events would be erased\n2 pending deliveries would be stopped\n1 failed changes would be removed\n") {
		t.Errorf("the dry run: %s", out)
	}
	if _, errOut := x.do(1, "", "erase", "--subject", "u_1042"); !strings.Contains(errOut, "add --yes") {
		t.Errorf("without --yes: %s", errOut)
	}
	if !strings.Contains(x.dump(), marker) {
		t.Error("the dry run erased something")
	}
	out, _ = x.do(0, "", "erase", "--subject", "u_1042", "--yes")
	if !strings.Contains(out, "2 events erased\n") || !strings.Contains(out, "1 failed changes removed\n") {
		t.Errorf("erased: %s", out)
	}

	mu.Lock()
	attempts := fmt.Sprint(received[comment+"/takes"], received[flag+"/takes"])
	mu.Unlock()
	if after := x.dump(); strings.Contains(after, marker) {
		at := strings.Index(after, marker)
		t.Errorf("a table has the person's data: %s", after[max(0, at-300):at+20])
	}
	for _, command := range [][]string{
		{"event", "list"}, {"event", "find", "u_1042"}, {"event", "show", comment}, {"explain", flag}, {"delivery", "list"}, {"delivery", "show", fails.ID, comment},
		{"capture", "list"}, {"job", "list"},
	} {
		out, errOut := x.do(0, "", command...)
		if strings.Contains(out+errOut, marker) {
			t.Errorf("%v prints the person's data: %s%s", command, out, errOut)
		}
	}
	if out, _ := x.do(0, "", "event", "show", comment); !strings.Contains(out, "erased") || strings.Contains(out, "u_1042") {
		t.Errorf("event show: %s", out)
	}
	for _, id := range []string{comment, flag} {
		if _, errOut := x.do(1, "", "delivery", "replay", takes.ID, id); !strings.Contains(errOut, "the event was erased at ") {
			t.Errorf("a replay: %s", errOut)
		}
		if !holds(takes, id, func(d delivery.Delivery) bool { return d.State == delivery.Delivered && d.Attempts == 1 }) {
			t.Error("the record of a delivery is gone")
		}
		if !holds(fails, id, func(d delivery.Delivery) bool { return d.State == delivery.Skipped && d.Reason == "erased" }) {
			t.Error("a pending delivery goes on")
		}
	}
	if !holds(fails, other, func(d delivery.Delivery) bool { return !d.State.Settled() }) {
		t.Error("a delivery of another event was stopped")
	}
	if out, _ := x.do(0, "", "recover", "--endpoint", takes.ID, "--since", "1h", "--states", "missing,skipped,dead,delivered", "--dry-run"); !strings.Contains(out, "2 erased") || !strings.Contains(out, "\n1 would be put") {
		t.Errorf("a recovery: %s", out)
	}
	// The producer's repetition of its call is the event that was erased, and no new one.
	var again struct {
		ID        string
		Duplicate bool
	}
	x.json(&again, "emit", "user.posted_comment", "--actor", "u_1042", "--key", "k", "--data", `{"discussion_id":"d1","comment_id":"MARKER-c","comment_text":"MARKER","user_name":"MARKER"}`)
	if again.ID != comment || !again.Duplicate || strings.Contains(x.dump(), marker) {
		t.Errorf("emitted again: %+v", again)
	}
	mu.Lock()
	if now := fmt.Sprint(received[comment+"/takes"], received[flag+"/takes"]); now != attempts || now != "1 1" {
		t.Errorf("attempts at the endpoint that takes them: %s, then %s", attempts, now)
	}
	mu.Unlock()
	if strings.Contains(log.String(), marker) {
		t.Error("the log has the person's data")
	}
	page, err := target.store.ListAudit(t.Context(), event.DefaultTenant, 10, "")
	if err != nil || len(page.Entries) != 1 || page.Entries[0].Action != "person.erase" || page.Entries[0].Subject != "u_1042" || page.Entries[0].Outcome != audit.Done || !strings.HasPrefix(page.Entries[0].Detail, "job job_") {
		t.Errorf("the audit log: %+v, %v", page, err)
	}
	if out, _ := x.do(0, "", "job", "list"); !strings.Contains(out, "2 erased") || !strings.Contains(out, "2 counted") || !strings.Contains(out, "u_1042") {
		t.Errorf("the list of jobs: %s", out)
	}

	// Ctrl-C as soon as there is the job ends the command; the job goes on, as the audit log says.
	interrupted, interrupt := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	a.tenant, a.err = event.DefaultTenant, io.Discard
	go func() {
		_, err := a.eraseAndRecord(interrupted, target, dispatch.Command{Kind: jobs.Erase, Tenant: a.tenant, Subject: "u_7"})
		ended <- err
	}()
	eventually(t, "the job", func() bool {
		list, err := target.store.ListJobs(t.Context(), jobs.Query{Tenant: event.DefaultTenant})
		return err == nil && len(list.Jobs) > 0 && list.Jobs[0].Parameters.Subject == "u_7"
	})
	interrupt()
	err = <-ended
	page, listErr := target.store.ListAudit(t.Context(), event.DefaultTenant, 10, "")
	if listErr != nil || len(page.Entries) != 2 || page.Entries[0].Subject != "u_7" || page.Entries[0].Outcome != audit.Done || !strings.HasPrefix(page.Entries[0].Detail, "job job_") {
		t.Errorf("after %v, the audit log: %+v, %v", err, page, listErr)
	}
}
