package dynamo

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/ops/jobs"
	"github.com/tidings-dev/tidings/pkg/store/dynamoitem"
)

// GetJob: see dispatch.Jobs.
func (s *Store) GetJob(ctx context.Context, k jobs.Key) (jobs.Job, error) {
	item, err := s.get(ctx, s.tables.Deliveries, dynamoitem.JobKey(k), true)
	if err != nil {
		return jobs.Job{}, fmt.Errorf("get job %s: %w", k.ID, err)
	}
	if item == nil {
		return jobs.Job{}, jobs.ErrNotFound
	}
	return dynamoitem.DecodeJob(item)
}

// PutJob: see dispatch.Jobs. A repeated write of its own succeeds.
func (s *Store) PutJob(ctx context.Context, j jobs.Job) (jobs.Job, error) {
	was := j.Version
	j.Version++
	item, err := dynamoitem.EncodeJob(j)
	if err != nil {
		return j, err
	}
	stored, failed, err := s.putVersion(ctx, s.tables.Deliveries, item, was)
	switch {
	case err != nil:
		return j, fmt.Errorf("put job %s: %w", j.ID, err)
	case failed && !reflect.DeepEqual(stored, item):
		return j, jobs.ErrConflict
	}
	return j, nil
}

// ListJobs: see console.Jobs.
func (s *Store) ListJobs(ctx context.Context, q jobs.Query) (page jobs.Page, err error) {
	rows := delivery.Query{EndpointID: dynamoitem.JobPartition(q.Tenant), Limit: q.Limit, Cursor: q.Cursor}
	page.Next, err = s.listPartition(ctx, rows, func(item dynamoitem.Item) error {
		j, err := dynamoitem.DecodeJob(item)
		page.Jobs = append(page.Jobs, j)
		if errors.Is(err, jobs.ErrUnreadable) {
			return nil // it is listed as failed
		}
		return err
	})
	if err != nil {
		return page, fmt.Errorf("list the jobs: %w", err)
	}
	return page, nil
}

// DueJobs: see dispatch.Jobs. The index is eventually consistent: the next sweep finds what
// it does not show yet.
func (s *Store) DueJobs(ctx context.Context, by time.Time, limit int) ([]jobs.Key, error) {
	out, err := s.db.Query(ctx, &dynamodb.QueryInput{
		TableName: &s.tables.Deliveries, IndexName: aws.String(dynamoitem.DueIndex),
		KeyConditionExpression:    aws.String("due_shard = :shard AND due_at <= :by"),
		ExpressionAttributeValues: dynamoitem.Item{":shard": dynamoitem.N(dynamoitem.JobShard), ":by": dynamoitem.Millis(by)},
		Limit:                     aws.Int32(int32(limit)), ReturnConsumedCapacity: s.returnCapacity(),
	})
	if err != nil {
		return nil, fmt.Errorf("query the jobs that are due: %w", err)
	}
	s.recordRead(out.ConsumedCapacity)
	var keys []jobs.Key
	for _, item := range out.Items {
		k, err := dynamoitem.DecodeJobKey(item)
		if err != nil {
			return nil, err
		}
		keys = append(keys, k)
	}
	return keys, nil
}
