package memory

import (
	"context"
	"slices"
	"time"

	"github.com/aws/aws-lambda-go/events"

	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/store/dynamoitem"
)

// PutEvent: see emit.Events.
func (s *Store) PutEvent(_ context.Context, a event.Accepted) error {
	if _, err := event.IDTime(a.ID); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.events[a.ID]; ok {
		return event.ErrExists
	}
	a.Body = slices.Clone(a.Body)
	s.events[a.ID] = a
	s.feeds[dynamoitem.Events].add(eventPut{s.now(), a})
	return nil
}

// eventPut is the insertion of an event.
type eventPut struct {
	at    time.Time
	event event.Accepted
}

func (p eventPut) record() events.DynamoDBEventRecord {
	image, size, err := dynamoitem.EventImage(p.event)
	if err != nil {
		panic(err) // PutEvent has checked the id
	}
	return events.DynamoDBEventRecord{
		EventName: string(events.DynamoDBOperationTypeInsert),
		Change: events.DynamoDBStreamRecord{
			ApproximateCreationDateTime: events.SecondsEpochTime{Time: p.at},
			Keys:                        map[string]events.DynamoDBAttributeValue{dynamoitem.EventID: image[dynamoitem.EventID]},
			NewImage:                    image,
			SizeBytes:                   int64(size),
			StreamViewType:              string(events.DynamoDBStreamViewTypeNewImage),
		},
	}
}

// GetEvent: see dispatch.Events.
func (s *Store) GetEvent(_ context.Context, id string) (event.Accepted, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a, ok := s.events[id]
	if !ok {
		return a, event.ErrNotFound
	}
	return a, nil
}
