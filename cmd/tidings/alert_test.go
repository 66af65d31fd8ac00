package main

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/tidings-dev/tidings/pkg/local"
	"github.com/tidings-dev/tidings/pkg/ops/alert"
	"github.com/tidings-dev/tidings/test/alerttest"
)

// These are the steps of docs/monitoring.md, against a stand-in that checks messages as
// Slack does, and one for an uptime service.
func TestAlertTestReachesEachChannel(t *testing.T) {
	t.Parallel()
	slack := &alerttest.Slack{Path: "/services/T0/B0/secret"}
	slackServer := httptest.NewServer(slack)
	t.Cleanup(slackServer.Close)
	var beats atomic.Int64
	uptime := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet && r.URL.Path == "/ping/uuid" {
			beats.Add(1)
		}
	}))
	t.Cleanup(uptime.Close)
	x := newTool(t, func(o *local.Options) {
		o.Alerts = alert.Secret{SlackWebhookURL: slackServer.URL + slack.Path, HeartbeatURL: uptime.URL + "/ping/uuid"}
	})
	out, _ := x.do(0, "", "alert", "test")
	for _, channel := range []string{"email", "slack", "heartbeat"} {
		if !strings.Contains(out, channel) {
			t.Errorf("%s is not in the output:\n%s", channel, out)
		}
	}
	posts, refused := slack.Posts()
	if len(posts) != 1 || len(refused) != 0 || !strings.Contains(posts[0].Header, "Test message") || !strings.Contains(posts[0].Text, "This is a test") {
		t.Errorf("Slack got %+v and refused %v", posts, refused)
	}
	if beats.Load() == 0 {
		t.Error("the heartbeat URL was not called")
	}
}

func TestAlertTestSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	slack := httptest.NewServer(&alerttest.Slack{Path: "/services/T0/B0/secret"})
	t.Cleanup(slack.Close)
	x := newTool(t, func(o *local.Options) { o.Alerts.SlackWebhookURL = slack.URL + "/services/T0/B0/revoked" })
	out, errOut := x.do(exitFailed, "", "alert", "test")
	if !strings.Contains(out, "not sent: it responded with status 404: no_service") {
		t.Errorf("output:\n%s", out)
	}
	if strings.Contains(out+errOut, "revoked") {
		t.Error("the output contains the URL, which is a secret")
	}
}

func TestAlertTestSaysWhichChannelsAreOff(t *testing.T) {
	t.Parallel()
	x := newTool(t)
	if out, _ := x.do(0, "", "alert", "test"); !strings.Contains(out, "Slack and heartbeat are off") {
		t.Errorf("output:\n%s", out)
	}
}
