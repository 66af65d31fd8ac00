package local_test

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/pkg/local"
	"github.com/tidings-dev/tidings/pkg/local/dynamoemulator"
	"github.com/tidings-dev/tidings/pkg/local/receiver"
	"github.com/tidings-dev/tidings/pkg/ops/health"
	"github.com/tidings-dev/tidings/pkg/platform"
	"github.com/tidings-dev/tidings/test/lambdaemulator"
)

// sharedLog is a log that can be read while it is written.
type sharedLog struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *sharedLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *sharedLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// DynamoDB refuses to store events, as without a permission. The health check, the report
// and an alert say that capture is stuck; then the change is captured. The clock of health
// and alerts is 30 times faster. TestStuckCaptureIsUnhealthyWithinTenMinutes of
// pkg/ops/health has the limit, in virtual time.
func TestStuckCaptureIsKnownUntilItGoesOn(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 30 seconds")
	}
	t.Parallel()
	db, err := dynamoemulator.Start(t.Context(), dynamoemulator.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Stop)
	aws, err := lambdaemulator.New(db.URL)
	if err != nil {
		t.Fatal(err)
	}
	between := httptest.NewServer(aws)
	t.Cleanup(between.Close)
	var log sharedLog
	w := newWorld(t, local.Options{DynamoDB: between.URL, TimeScale: 30, Log: slog.New(slog.NewJSONHandler(&log, nil))}, receiver.Behaviour{})
	w.endpoint(w.url)
	report := func() (r health.Report) {
		t.Helper()
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.URLs["health"]+"/report", nil)
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Authorization", "Bearer "+w.Access.HealthToken)
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		if err := json.NewDecoder(response.Body).Decode(&r); err != nil {
			t.Fatal(err)
		}
		return r
	}
	within := func(what string, is func() bool) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		for !is() {
			select {
			case <-time.After(100 * time.Millisecond):
			case <-ctx.Done():
				t.Fatalf("%s: not within %s\n%s", what, patience, log.String())
			}
		}
	}
	within("the first sweep", func() bool { return report().Healthy })

	aws.Deny(lambdaemulator.Call{Action: "dynamodb:PutItem", Resource: "arn:aws:dynamodb:" + dynamoemulator.Region + ":" + lambdaemulator.Account + ":table/" + local.Tables(local.StackName).Events})
	if err := w.Store.PutRecord(t.Context(), platform.Comment{ID: "m_1", DiscussionID: "d_1", UserID: "u_1", Text: "hello"}); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	within("the alert", func() bool {
		return strings.Contains(log.String(), `"msg":"alert.fired","rule":"capture","subject":"stuck"`)
	})
	t.Logf("the alert came after %s", (30 * time.Since(began)).Round(time.Second))
	within("an unhealthy report", func() bool {
		r := report()
		return !r.Healthy && r.Capture.Stuck != nil && strings.Contains(strings.Join(r.Reasons, "\n"), "capture has failed")
	})

	aws.Deny()
	if got := w.next(); got.Type != "user.posted_comment" || !got.Verified {
		t.Errorf("arrived %+v", got)
	}
	within("a healthy report", func() bool { r := report(); return r.Healthy && r.Capture.Stuck == nil })
	within("the resolution", func() bool { return strings.Contains(log.String(), `"msg":"alert.resolved","rule":"capture"`) })
}
