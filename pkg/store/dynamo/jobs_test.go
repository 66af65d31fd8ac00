package dynamo_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"

	"github.com/tidings-dev/tidings/pkg/local"
	"github.com/tidings-dev/tidings/pkg/ops/jobs"
	"github.com/tidings-dev/tidings/pkg/store/dynamo"
	"github.com/tidings-dev/tidings/pkg/store/dynamoitem"
	"github.com/tidings-dev/tidings/test/dynamotest"
)

// A job that another version has written, or somebody by hand, is reported with its key and
// version, so that it can be replaced; a list shows it as failed.
func TestAJobThatCannotBeDecodedIsListedAndCanBeReplaced(t *testing.T) {
	client, stack := dynamotest.New(t)
	tables := local.Tables(stack.Name)
	s := dynamo.New(client, tables)
	now := time.Date(2026, 11, 30, 8, 0, 0, 0, time.UTC)
	j, err := jobs.New(jobs.Job{ID: jobs.NewID(now), Tenant: "t", Kind: jobs.Recover, Parameters: jobs.Parameters{To: now}}, now)
	if err != nil {
		t.Fatal(err)
	}
	if j, err = s.PutJob(t.Context(), j); err != nil {
		t.Fatal(err)
	}
	item, err := dynamoitem.EncodeJob(j)
	if err != nil {
		t.Fatal(err)
	}
	item["job"] = dynamoitem.S(`{"counts":"many"}`)
	if _, err := client.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: &tables.Deliveries, Item: item}); err != nil {
		t.Fatal(err)
	}
	key := jobs.Key{Tenant: "t", ID: j.ID}
	got, err := s.GetJob(t.Context(), key)
	if !errors.Is(err, jobs.ErrUnreadable) || got.ID != j.ID || got.Tenant != "t" || got.Version != j.Version {
		t.Fatalf("%+v, %v; want its key, its version and ErrUnreadable", got, err)
	}
	page, err := s.ListJobs(t.Context(), jobs.Query{Tenant: "t"})
	if err != nil || len(page.Jobs) != 1 || page.Jobs[0].State != jobs.Failed || !strings.Contains(page.Jobs[0].Reason, "decoded") || !page.Jobs[0].UpdatedAt.Equal(now) {
		t.Errorf("the list has %+v, %v; want it as failed", page.Jobs, err)
	}
	if _, err := s.PutJob(t.Context(), got.Unreadable(jobs.ErrUnreadable, now)); err != nil {
		t.Fatal(err)
	}
	if got, err = s.GetJob(t.Context(), key); err != nil || got.State != jobs.Failed {
		t.Errorf("replaced: %+v, %v", got, err)
	}
	due, err := s.DueJobs(t.Context(), now.Add(jobs.Retention), 10)
	if err != nil || len(due) != 0 {
		t.Errorf("due: %v, %v", due, err)
	}
}
