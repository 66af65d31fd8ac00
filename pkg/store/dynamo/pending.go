package dynamo

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"golang.org/x/sync/errgroup"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/store/dynamoitem"
)

// parallelReads limits the concurrent queries of ListPending.
const parallelReads = 16

// ListPending: see console.Deliveries. It reads the backlogs of the endpoints and all shards
// of the due index, which have keys only, and then the deliveries: half a read unit for
// each, eight for the due index, and half a unit for each endpoint. All are eventually
// consistent.
func (s *Store) ListPending(ctx context.Context, q delivery.PendingQuery) (page delivery.PendingPage, err error) {
	first, last, err := q.Bounds()
	if err != nil {
		return page, err
	}
	var mu sync.Mutex
	var found []delivery.Key
	add := func(keys ...delivery.Key) {
		mu.Lock()
		defer mu.Unlock()
		found = append(found, keys...)
	}
	group, reading := errgroup.WithContext(ctx)
	group.SetLimit(parallelReads)
	for shard := range delivery.DueShards {
		group.Go(func() error {
			due, next, err := s.Due(reading, shard, q.DueBy, "", q.MaxDue)
			if next != "" {
				mu.Lock()
				defer mu.Unlock()
				page.Partial = true
				return err
			}
			for _, d := range due {
				add(d.Key)
			}
			return err
		})
	}
	for _, id := range q.Endpoints {
		if first > last {
			break // a range that is over: DynamoDB refuses it
		}
		group.Go(func() error {
			keys, err := s.newestInBacklog(reading, id, first, last, q.Limit+2)
			add(keys...)
			return err
		})
	}
	if err := group.Wait(); err != nil || page.Partial {
		return page, err
	}
	keys, more, err := q.Page(found)
	if err != nil {
		return page, err
	}
	var ask []map[string]types.AttributeValue
	for _, k := range keys {
		ask = append(ask, dynamoitem.DeliveryKey(k))
	}
	items, err := s.getAll(ctx, s.tables.Deliveries, types.KeysAndAttributes{Keys: ask})
	if err != nil {
		return page, fmt.Errorf("read pending deliveries: %w", err)
	}
	for _, item := range items {
		d, err := dynamoitem.DecodeDelivery(item)
		if err != nil {
			return page, err
		}
		if d.State == delivery.Pending {
			page.Deliveries = append(page.Deliveries, d)
		}
	}
	slices.SortFunc(page.Deliveries, func(a, b delivery.Delivery) int {
		return cmp.Or(strings.Compare(b.EventID, a.EventID), strings.Compare(a.EndpointID, b.EndpointID))
	})
	if more {
		page.Last = keys[len(keys)-1]
	}
	return page, nil
}

// newestInBacklog returns the keys of the newest entries of an endpoint's backlog.
func (s *Store) newestInBacklog(ctx context.Context, endpointID, first, last string, limit int) (keys []delivery.Key, err error) {
	out, err := s.db.Query(ctx, &dynamodb.QueryInput{
		TableName: &s.tables.Deliveries, IndexName: aws.String(dynamoitem.WaitingIndex),
		KeyConditionExpression: aws.String("waiting = :endpoint AND event_id BETWEEN :first AND :last"),
		ExpressionAttributeValues: dynamoitem.Item{
			":endpoint": dynamoitem.S(endpointID), ":first": dynamoitem.S(first), ":last": dynamoitem.S(last),
		},
		ScanIndexForward: aws.Bool(false), Limit: aws.Int32(int32(limit)), ReturnConsumedCapacity: s.returnCapacity(),
	})
	if err != nil {
		return nil, fmt.Errorf("query the backlog of %s: %w", endpointID, err)
	}
	s.recordRead(out.ConsumedCapacity)
	for _, item := range out.Items {
		key, err := dynamoitem.DecodeDeliveryKey(item)
		if err != nil {
			return nil, err
		}
		keys = append(keys, key)
	}
	return keys, nil
}
