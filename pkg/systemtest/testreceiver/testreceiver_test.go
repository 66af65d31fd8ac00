package testreceiver_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/signature"
	"github.com/tidings-dev/tidings/pkg/store/memory"
	"github.com/tidings-dev/tidings/pkg/systemtest/testreceiver"
	"github.com/tidings-dev/tidings/pkg/systemtest/testrun"
)

var now = time.Date(2026, 1, 29, 12, 34, 56, 789e6, time.UTC)

// fixture is a receiver with an open run.
type fixture struct {
	*testreceiver.Receiver
	now    time.Time
	run    string
	secret signature.Secret
	log    bytes.Buffer
}

func open(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{now: now, run: event.NewID(now), secret: signature.NewSecret()}
	f.Receiver = &testreceiver.Receiver{Store: memory.New(time.Now), Log: slog.New(slog.NewTextHandler(&f.log, nil)), Now: func() time.Time { return f.now }}
	f.command(t, testreceiver.Command{Action: "open", Run: f.run, Secret: f.secret.Reveal(), Seconds: 60})
	return f
}

func (f *fixture) command(t *testing.T, c testreceiver.Command) any {
	t.Helper()
	payload, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := f.Handle(t.Context(), payload)
	if err != nil {
		t.Fatal(err)
	}
	return answer
}

func (f *fixture) arrivals(t *testing.T) []testrun.Arrival {
	t.Helper()
	return f.command(t, testreceiver.Command{Action: "arrivals", Run: f.run}).(testrun.Page).Arrivals
}

// webhook returns a signed request.
func (f *fixture) webhook(id string) *http.Request {
	body := []byte(`{"event":"user.joined_community"}`)
	r := httptest.NewRequest(http.MethodPost, "/"+f.run, bytes.NewReader(body))
	r.Header.Set(signature.HeaderID, id)
	r.Header.Set(signature.HeaderTimestamp, fmt.Sprint(f.now.Unix()))
	r.Header.Set(signature.HeaderSignature, signature.Sign([]signature.Secret{f.secret}, id, f.now, body))
	return r
}

func (f *fixture) status(r *http.Request) int {
	w := httptest.NewRecorder()
	f.ServeHTTP(w, r)
	return w.Code
}

func TestAVerifiedWebhookIsStoredWithItsTime(t *testing.T) {
	f := open(t)
	id := event.NewID(now)
	for range 2 {
		if got := f.status(f.webhook(id)); got != http.StatusNoContent {
			t.Fatalf("status %d, want 204\n%s", got, f.log.String())
		}
	}
	got := f.arrivals(t)
	if len(got) != 2 || got[0].EventID != id || !got[0].At.Equal(now) || got[0].Request == got[1].Request {
		t.Errorf("arrivals %+v; want two requests for %s at %s", got, id, now)
	}
}

func TestOnlySignedWebhooksOfAnOpenRunAreStored(t *testing.T) {
	id := event.NewID(now)
	for name, c := range map[string]struct {
		change func(*fixture, *http.Request)
		want   int
	}{
		"another method":            {func(_ *fixture, r *http.Request) { r.Method = http.MethodGet }, http.StatusMethodNotAllowed},
		"no run":                    {func(_ *fixture, r *http.Request) { r.URL.Path = "/" }, http.StatusNotFound},
		"a run that is not open":    {func(_ *fixture, r *http.Request) { r.URL.Path = "/" + event.NewID(now) }, http.StatusGone},
		"a run that has expired":    {func(f *fixture, _ *http.Request) { f.now = f.now.Add(time.Minute) }, http.StatusGone},
		"no id":                     {func(_ *fixture, r *http.Request) { r.Header.Del(signature.HeaderID) }, http.StatusUnauthorized},
		"no signature":              {func(_ *fixture, r *http.Request) { r.Header.Del(signature.HeaderSignature) }, http.StatusUnauthorized},
		"another event's signature": {func(_ *fixture, r *http.Request) { r.Header.Set(signature.HeaderID, event.NewID(now)) }, http.StatusUnauthorized},
		"an old signature": {func(_ *fixture, r *http.Request) {
			r.Header.Set(signature.HeaderTimestamp, fmt.Sprint(now.Add(-6*time.Minute).Unix()))
		}, http.StatusUnauthorized},
		"a body that is too long": {func(_ *fixture, r *http.Request) {
			r.Body = http.NoBody
			*r = *httptest.NewRequest(r.Method, r.URL.Path, strings.NewReader(strings.Repeat("a", 2*event.MaxBodyBytes+1))).WithContext(r.Context())
			r.Header.Set(signature.HeaderID, id)
			r.Header.Set(signature.HeaderSignature, "v1,x")
		}, http.StatusBadRequest},
	} {
		t.Run(name, func(t *testing.T) {
			f := open(t)
			r := f.webhook(id)
			c.change(f, r)
			if got := f.status(r); got != c.want {
				t.Errorf("status %d, want %d", got, c.want)
			}
			if got := f.arrivals(t); len(got) != 0 {
				t.Errorf("stored %+v", got)
			}
			if strings.Contains(f.log.String(), f.secret.Reveal()) {
				t.Error("the secret is in the log")
			}
		})
	}
}

func TestAClosedRunAnswers410(t *testing.T) {
	f := open(t)
	f.command(t, testreceiver.Command{Action: "close", Run: f.run})
	if got := f.status(f.webhook(event.NewID(now))); got != http.StatusGone {
		t.Errorf("status %d, want 410: it disables an endpoint that was left behind", got)
	}
}

// failing is a store that is not available.
type failing struct{ testreceiver.Store }

func (failing) PutArrival(context.Context, testrun.Run, testrun.Arrival) error {
	return errors.New("throttled")
}

func TestAWebhookThatIsNotStoredIsNotAcknowledged(t *testing.T) {
	f := open(t)
	f.Store = failing{f.Store}
	if got := f.status(f.webhook(event.NewID(now))); got != http.StatusInternalServerError || !strings.Contains(f.log.String(), "receiver.failed") {
		t.Errorf("status %d, want 500 and a line in the log\n%s", got, f.log.String())
	}
}

func TestInvalidCommandsAreRefused(t *testing.T) {
	f := open(t)
	for payload, says := range map[string]string{
		`[]`:                                              "not JSON",
		`{"action":"open","ruN":"x"}`:                     "not JSON",
		`{"action":"open","run":"x"}`:                     "not a ULID",
		`{"action":"x","run":"RUN"}`:                      "the actions are open, arrivals and close",
		`{"action":"open","run":"RUN"}`:                   "whsec_",
		`{"action":"open","run":"RUN","secret":"SECRET"}`: "must be 1 to 86400",
		`{"action":"open","run":"RUN","secret":"SECRET","seconds":86401}`: "must be 1 to 86400",
	} {
		payload = strings.NewReplacer("RUN", f.run, "SECRET", f.secret.Reveal()).Replace(payload)
		if _, err := f.Handle(t.Context(), []byte(payload)); err == nil || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), f.secret.Reveal()) {
			t.Errorf("%s: %v; want an error that says %q", payload, err, says)
		}
	}
}
