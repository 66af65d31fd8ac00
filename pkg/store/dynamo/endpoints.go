package dynamo

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/ops/stats"
	"github.com/tidings-dev/tidings/pkg/store/dynamoitem"
)

// putEndpoint stores an endpoint conditionally. If the condition fails because the
// same write was applied before, that is success. Otherwise it returns failed and the
// stored item.
func (s *Store) putEndpoint(ctx context.Context, in *dynamodb.PutItemInput) (stored dynamoitem.Item, failed bool, err error) {
	stored, failed, err = s.put(ctx, s.tables.Endpoints, in)
	return stored, failed && !reflect.DeepEqual(stored, in.Item), err
}

// AddEndpoint stores a new endpoint; endpoint.ErrConflict if another has its id.
func (s *Store) AddEndpoint(ctx context.Context, e endpoint.Endpoint) error {
	_, failed, err := s.putEndpoint(ctx, &dynamodb.PutItemInput{
		Item: dynamoitem.EncodeEndpoint(e), ConditionExpression: aws.String("attribute_not_exists(endpoint_id)"),
	})
	switch {
	case err != nil:
		return fmt.Errorf("add endpoint: %w", err)
	case failed:
		return endpoint.ErrConflict
	}
	return nil
}

// UpdateEndpoint stores an endpoint that was read with e.Version and returns it
// with its new version; endpoint.ErrConflict if another change came between.
func (s *Store) UpdateEndpoint(ctx context.Context, e endpoint.Endpoint) (endpoint.Endpoint, error) {
	was := e.Version
	e.Version++
	stored, failed, err := s.putEndpoint(ctx, &dynamodb.PutItemInput{
		Item:                      dynamoitem.EncodeEndpoint(e),
		ConditionExpression:       aws.String("#version = :was"),
		ExpressionAttributeNames:  map[string]string{"#version": dynamoitem.Version},
		ExpressionAttributeValues: dynamoitem.Item{":was": dynamoitem.N(int64(was))},
	})
	switch {
	case err != nil:
		return e, fmt.Errorf("update endpoint %s: %w", e.ID, err)
	case failed && stored == nil:
		return e, endpoint.ErrNotFound
	case failed:
		return e, endpoint.ErrConflict
	}
	return e, nil
}

// RemoveEndpoint deletes an endpoint. It returns endpoint.ErrNotFound if there is
// none, and for a repeated write of its own.
func (s *Store) RemoveEndpoint(ctx context.Context, tenant, id string) error {
	out, err := s.db.DeleteItem(ctx, &dynamodb.DeleteItemInput{
		TableName: &s.tables.Endpoints, Key: dynamoitem.EndpointKey(tenant, id),
		ConditionExpression: aws.String("attribute_exists(endpoint_id)"), ReturnConsumedCapacity: s.returnCapacity(),
	})
	if _, failed := conditionFailed(err); failed {
		return endpoint.ErrNotFound
	}
	if err != nil {
		return fmt.Errorf("remove endpoint %s: %w", id, err)
	}
	s.recordWrite(out.ConsumedCapacity)
	return nil
}

// GetEndpoint: see dispatch.Endpoints. The read is consistent, because a worker acts
// on the result.
func (s *Store) GetEndpoint(ctx context.Context, tenant, id string) (endpoint.Endpoint, error) {
	item, err := s.get(ctx, s.tables.Endpoints, dynamoitem.EndpointKey(tenant, id), true)
	if err != nil {
		return endpoint.Endpoint{}, fmt.Errorf("get endpoint %s: %w", id, err)
	}
	if item == nil {
		return endpoint.Endpoint{}, endpoint.ErrNotFound
	}
	return dynamoitem.DecodeEndpoint(item)
}

// ListEndpoints: see dispatch.Endpoints. The order is that of the ids, which is the
// order of creation.
func (s *Store) ListEndpoints(ctx context.Context, tenant string) ([]endpoint.Endpoint, error) {
	list := []endpoint.Endpoint{}
	pages := dynamodb.NewQueryPaginator(s.db, &dynamodb.QueryInput{
		TableName:                 &s.tables.Endpoints,
		KeyConditionExpression:    aws.String("tenant = :tenant"),
		ExpressionAttributeValues: dynamoitem.Item{":tenant": dynamoitem.S(tenant)},
		ReturnConsumedCapacity:    s.returnCapacity(),
	})
	for pages.HasMorePages() {
		out, err := pages.NextPage(ctx)
		if err != nil {
			return nil, fmt.Errorf("list endpoints of tenant %s: %w", tenant, err)
		}
		s.recordRead(out.ConsumedCapacity)
		for _, item := range out.Items {
			e, err := dynamoitem.DecodeEndpoint(item)
			if err != nil {
				// One broken item must not stop a tenant's events. It is listed as
				// disabled, with the error as the reason.
				e.Status, e.StatusReason = endpoint.Disabled, err.Error()
			}
			list = append(list, e)
		}
	}
	return slices.Clip(list), nil
}

// DisableEndpoint: see dispatch.Disabler.
func (s *Store) DisableEndpoint(ctx context.Context, tenant, id, reason string, now time.Time) error {
	out, err := s.db.UpdateItem(ctx, &dynamodb.UpdateItemInput{
		TableName: &s.tables.Endpoints, Key: dynamoitem.EndpointKey(tenant, id),
		UpdateExpression:    aws.String("SET #status = :disabled, status_reason = :reason, updated_at = :now ADD #version :one"),
		ConditionExpression: aws.String("attribute_exists(endpoint_id) AND #status <> :disabled"),
		ExpressionAttributeNames: map[string]string{
			"#status": dynamoitem.Status, "#version": dynamoitem.Version,
		},
		ExpressionAttributeValues: dynamoitem.Item{
			":disabled": dynamoitem.S(string(endpoint.Disabled)), ":reason": dynamoitem.S(reason), ":now": dynamoitem.Millis(now), ":one": dynamoitem.N(1),
		},
		ReturnConsumedCapacity: s.returnCapacity(),
	})
	if _, failed := conditionFailed(err); failed {
		return nil
	}
	if err != nil {
		return fmt.Errorf("disable endpoint %s: %w", id, err)
	}
	s.recordWrite(out.ConsumedCapacity)
	return nil
}

// DisabledEndpoints returns the endpoints of the list that are disabled, with the
// reason. It makes one request per 100 endpoints.
func (s *Store) DisabledEndpoints(ctx context.Context, list []stats.Endpoint) (map[stats.Endpoint]string, error) {
	var keys []dynamoitem.Item
	for _, e := range list {
		keys = append(keys, dynamoitem.EndpointKey(e.Tenant, e.ID))
	}
	// A projection, so that no secrets are read.
	items, err := s.getAll(ctx, s.tables.Endpoints, types.KeysAndAttributes{
		Keys: keys, ProjectionExpression: aws.String("#tenant, #endpoint_id, #status, #status_reason"),
		ExpressionAttributeNames: names("#tenant, #endpoint_id, #status, #status_reason"),
	})
	if err != nil {
		return nil, fmt.Errorf("read disabled endpoints: %w", err)
	}
	disabled := map[stats.Endpoint]string{}
	for _, item := range items {
		e, status, reason, err := dynamoitem.DecodeStatus(item)
		if err != nil {
			return nil, err
		}
		if status == endpoint.Disabled {
			disabled[e] = reason
		}
	}
	return disabled, nil
}
