package local_test

import (
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/tidings-dev/tidings/pkg/aws/sqsqueue"
	"github.com/tidings-dev/tidings/pkg/delivery/work"
	"github.com/tidings-dev/tidings/pkg/local"
	"github.com/tidings-dev/tidings/pkg/local/receiver"
	"github.com/tidings-dev/tidings/pkg/local/sqsapi"
)

func TestTheDeployedQueueClientWorksWithTheRunnersQueues(t *testing.T) {
	w := newWorld(t, local.Options{Memory: true}, receiver.Behaviour{})
	client := sqs.NewFromConfig(w.Access.Config(), func(o *sqs.Options) { o.BaseEndpoint = &w.SQSURL })
	url := w.SQSURL + "/" + sqsapi.Account + "/" + w.Queues["WorkDeadLetterQueue"].Name()
	if errs := sqsqueue.New(client, url).Send(t.Context(), []work.Item{{Tenant: "t", EndpointID: "e", EventID: "v"}}); errs != nil {
		t.Fatal(errs)
	}
	if d, err := w.Queues["WorkDeadLetterQueue"].Depth(t.Context()); err != nil || d.Visible != 1 {
		t.Errorf("depth %+v, %v", d, err)
	}
	letters, err := sqsqueue.NewDeadLetters(client, url).Take(t.Context())
	if err != nil || len(letters) != 1 {
		t.Errorf("took %+v, %v", letters, err)
	}
}
