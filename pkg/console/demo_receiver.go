package console

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
)

// ConfigureReceiver changes the behaviour of the demo receiver.
func (o *Operations) ConfigureReceiver(ctx context.Context, who Session, b Behaviour) error {
	if o.Receiver == nil {
		return errorf(NotFound, "this console has no demo receiver")
	}
	if b.FailStatus == 0 {
		b.FailStatus = 500
	}
	if b.FailPercent < 0 || b.FailPercent > 100 || b.SlowSeconds < 0 || b.SlowSeconds > 60 || b.FailStatus < 400 || b.FailStatus > 599 {
		return errorf(Invalid, "set 0 to 100 %% failures, a status of 400 to 599 and a delay of 0 to 60 seconds")
	}
	detail := fmt.Sprintf("fails %d %% with %d, delay %d s", b.FailPercent, b.FailStatus, b.SlowSeconds)
	subject := "receiver"
	_, err := change(ctx, o, who, "receiver.configure", &subject, detail, func() (struct{}, error) {
		o.Receiver.SetBehaviour(b)
		return struct{}{}, nil
	})
	return err
}

func (c *Console) configureReceiver(r *http.Request, who Session) (page, error) {
	number := func(field string) int {
		n, err := strconv.Atoi(r.PostFormValue(field))
		if err != nil {
			return -1
		}
		return n
	}
	b := Behaviour{FailPercent: number("fail_percent"), FailStatus: number("fail_status"), SlowSeconds: number("slow_seconds")}
	return page{Redirect: "/?did=behaves"}, c.Operations.ConfigureReceiver(r.Context(), who, b)
}
