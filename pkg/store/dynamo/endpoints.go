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
	return s.announce(ctx, e)
}

// announce raises the version of the tenant's list after a change, so that the next event is
// matched with it. Its caller confirms the change only then.
func (s *Store) announce(ctx context.Context, e endpoint.Endpoint) error {
	out, err := s.db.UpdateItem(ctx, &dynamodb.UpdateItemInput{
		TableName: &s.tables.Endpoints, Key: dynamoitem.EndpointKey(e.Tenant, dynamoitem.EndpointsVersion),
		UpdateExpression: aws.String("ADD #version :one"), ExpressionAttributeNames: names("#version"),
		ExpressionAttributeValues: dynamoitem.Item{":one": dynamoitem.N(1)}, ReturnConsumedCapacity: s.returnCapacity(),
	})
	if err != nil {
		return fmt.Errorf("endpoint %s is stored, but events of the next seconds may still be matched with the endpoints as they were: %w", e.ID, err)
	}
	s.recordWrite(out.ConsumedCapacity)
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
	return e, s.announce(ctx, e)
}

// RemoveEndpoint deletes an endpoint. It returns endpoint.ErrNotFound if there is
// none, and for a repeated write of its own.
func (s *Store) RemoveEndpoint(ctx context.Context, tenant, id string) error {
	if id == dynamoitem.EndpointsVersion {
		return endpoint.ErrNotFound
	}
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
	if id == dynamoitem.EndpointsVersion {
		return endpoint.Endpoint{}, endpoint.ErrNotFound
	}
	item, err := s.get(ctx, s.tables.Endpoints, dynamoitem.EndpointKey(tenant, id), true)
	if err != nil {
		return endpoint.Endpoint{}, fmt.Errorf("get endpoint %s: %w", id, err)
	}
	if item == nil {
		return endpoint.Endpoint{}, endpoint.ErrNotFound
	}
	return dynamoitem.DecodeEndpoint(item)
}

// ListEndpoints returns the endpoints of a tenant, in the order of creation. The read is
// eventually consistent.
func (s *Store) ListEndpoints(ctx context.Context, tenant string) ([]endpoint.Endpoint, error) {
	list, err := s.ReadEndpoints(ctx, tenant, false)
	return list.Endpoints, err
}

// EndpointsVersion: see dispatch.Endpoints.
func (s *Store) EndpointsVersion(ctx context.Context, tenant string) (int64, error) {
	item, err := s.get(ctx, s.tables.Endpoints, dynamoitem.EndpointKey(tenant, dynamoitem.EndpointsVersion), false)
	if err != nil {
		return 0, fmt.Errorf("version of the endpoints of tenant %s: %w", tenant, err)
	}
	return dynamoitem.DecodeEndpointsVersion(item)
}

// ReadEndpoints: see dispatch.Endpoints. The version is read first, so it is not newer than
// the endpoints.
func (s *Store) ReadEndpoints(ctx context.Context, tenant string, consistent bool) (endpoint.List, error) {
	list := endpoint.List{Endpoints: []endpoint.Endpoint{}}
	pages := dynamodb.NewQueryPaginator(s.db, &dynamodb.QueryInput{
		TableName:                 &s.tables.Endpoints,
		KeyConditionExpression:    aws.String("tenant = :tenant"),
		ExpressionAttributeValues: dynamoitem.Item{":tenant": dynamoitem.S(tenant)},
		ConsistentRead:            &consistent,
		ReturnConsumedCapacity:    s.returnCapacity(),
	})
	for pages.HasMorePages() {
		out, err := pages.NextPage(ctx)
		if err != nil {
			return endpoint.List{}, fmt.Errorf("list endpoints of tenant %s: %w", tenant, err)
		}
		s.recordRead(out.ConsumedCapacity)
		for _, item := range out.Items {
			if !dynamoitem.IsEndpointsVersion(item) {
				continue
			}
			if list.Version, err = dynamoitem.DecodeEndpointsVersion(item); err != nil {
				return endpoint.List{}, fmt.Errorf("list endpoints of tenant %s: %w", tenant, err)
			}
		}
		list.Endpoints = append(list.Endpoints, decodeEndpoints(out.Items)...)
	}
	list.Endpoints = slices.Clip(list.Endpoints)
	return list, nil
}

// EachEndpoint: see eventtypes.Endpoints.
func (s *Store) EachEndpoint(ctx context.Context, do func([]endpoint.Endpoint) error) error {
	in := &dynamodb.ScanInput{TableName: &s.tables.Endpoints, ReturnConsumedCapacity: s.returnCapacity()}
	for {
		out, err := s.scan(ctx, in)
		if err != nil {
			return err
		}
		if err := do(decodeEndpoints(out.Items)); err != nil {
			return err
		}
		if in.ExclusiveStartKey = out.LastEvaluatedKey; in.ExclusiveStartKey == nil {
			return nil
		}
	}
}

// decodeEndpoints reads the items of a list, without that of its version. One broken item
// must not stop a tenant's events: it is listed as disabled, with the error as the reason.
func decodeEndpoints(items []dynamoitem.Item) (list []endpoint.Endpoint) {
	for _, item := range items {
		if dynamoitem.IsEndpointsVersion(item) {
			continue
		}
		e, err := dynamoitem.DecodeEndpoint(item)
		if err != nil {
			e.Status, e.StatusReason = endpoint.Disabled, err.Error()
		}
		list = append(list, e)
	}
	return list
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
