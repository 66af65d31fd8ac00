package alert

import (
	"context"
	"net/http"
)

// Tested is what a channel, or the heartbeat URL, did with a test.
type Tested struct {
	Channel string `json:"channel"` // slack, email or heartbeat
	Sent    bool   `json:"sent"`
	Error   string `json:"error,omitempty"` // why it was not sent; without secrets
}

// Test sends a test message to every channel and calls the heartbeat URL, so that an
// operator sees before an incident whether alerts arrive. It neither reads nor changes the
// state.
func (e *Evaluator) Test(ctx context.Context) []Tested {
	var list []Tested
	add := func(channel string, err error) {
		done := Tested{Channel: channel, Sent: err == nil}
		if err != nil {
			done.Error = err.Error()
		}
		list = append(list, done)
	}
	notice := Notice{ID: e.Writer(), Kind: Fired, Rule: Test, Lines: []string{"This is a test: alerts of " + e.Stack + " arrive here."}, At: e.Now()}
	for _, c := range e.Channels {
		add(c.Name(), c.Send(ctx, Message{Notice: notice, Stack: e.Stack, Console: e.Console}))
	}
	if e.Heartbeat != nil {
		add("heartbeat", request(ctx, e.Heartbeat.Client, http.MethodGet, e.Heartbeat.URL, nil))
	}
	return list
}
