package emit_test

import (
	"context"
	"errors"
	"reflect"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/events"

	"github.com/tidings-dev/tidings/pkg/platform"
	"github.com/tidings-dev/tidings/pkg/store/dynamoitem"
)

// recordingIndex records what is indexed, and can fail.
type recordingIndex struct {
	got   []string // key, "id at end" before, and after
	fails error
}

func describe(d *platform.Discussion) string {
	if d == nil {
		return "none"
	}
	return d.ID + " " + string(d.Status) + " " + d.ExpiresAt.UTC().Format(time.RFC3339)
}

func (r *recordingIndex) IndexDiscussion(_ context.Context, recordKey string, before, after *platform.Discussion) error {
	r.got = append(r.got, recordKey+": "+describe(before)+" -> "+describe(after))
	return r.fails
}

func (r *recordingIndex) AddDiscussion(_ context.Context, recordKey string, d platform.Discussion) error {
	r.got = append(r.got, recordKey+": "+describe(&d))
	return r.fails
}

// discussionChange returns a stream record of a table with a key of its own.
func discussionChange(name, sequence string, before, after dynamoitem.Item) events.DynamoDBEventRecord {
	image := func(item dynamoitem.Item) map[string]events.DynamoDBAttributeValue {
		if item == nil {
			return nil
		}
		return dynamoitem.Image(item)
	}
	return events.DynamoDBEventRecord{EventID: sequence, EventName: name, EventSourceArn: "arn:stream", Change: events.DynamoDBStreamRecord{
		ApproximateCreationDateTime: events.SecondsEpochTime{Time: time.Unix(1769690096, 0)}, SequenceNumber: sequence,
		Keys: dynamoitem.Image(dynamoitem.Item{"thread": dynamoitem.N(7)}), OldImage: image(before), NewImage: image(after),
	}}
}

func openItem(end string) dynamoitem.Item {
	return dynamoitem.Item{"kind": dynamoitem.S("discussion"), "discussion_id": dynamoitem.S("d_1"), "status": dynamoitem.S("open"), "expires_at": dynamoitem.S(end)}
}

func TestDiscussionsAreIndexedFromTheStream(t *testing.T) {
	const early, late = "2026-02-01T10:00:00Z", "2026-02-08T10:00:00Z"
	const key = `{"thread":{"N":"7"}}`
	user := dynamoitem.Item{"kind": dynamoitem.S("user"), "user_id": dynamoitem.S("u_1")}
	for name, c := range map[string]struct {
		operation     string
		before, after dynamoitem.Item
		want          string
	}{
		"written":                     {"INSERT", nil, openItem(early), key + ": none -> d_1 open " + early},
		"extended":                    {"MODIFY", openItem(early), openItem(late), key + ": d_1 open " + early + " -> d_1 open " + late},
		"deleted":                     {"REMOVE", openItem(early), nil, key + ": d_1 open " + early + " -> none"},
		"made a discussion":           {"MODIFY", user, openItem(early), key + ": none -> d_1 open " + early},
		"made something else":         {"MODIFY", openItem(early), user, key + ": d_1 open " + early + " -> none"},
		"readable after it was not":   {"MODIFY", openItem("soon"), openItem(early), key + ": none -> d_1 open " + early},
		"not a discussion":            {"INSERT", nil, user, ""},
		"an end that is not a time":   {"INSERT", nil, openItem("soon"), ""},
		"became one without an end":   {"MODIFY", openItem(early), openItem("soon"), ""},
		"a record without attributes": {"INSERT", nil, dynamoitem.Item{"kind": dynamoitem.S("discussion")}, ""},
	} {
		em, _ := newEmitter()
		index := &recordingIndex{}
		em.Discussions = index
		if failed := capture(t, em, events.DynamoDBEvent{Records: []events.DynamoDBEventRecord{discussionChange(c.operation, "1", c.before, c.after)}}); len(failed) != 0 {
			t.Errorf("%s: the stream has to deliver %v again", name, failed)
		}
		var want []string
		if c.want != "" {
			want = []string{c.want}
		}
		if !reflect.DeepEqual(index.got, want) {
			t.Errorf("%s: indexed %q, want %q", name, index.got, want)
		}
	}
}

// A discussion that is not indexed is never closed, so its change is kept as failed.
func TestADiscussionThatCannotBeIndexedIsAFailedChange(t *testing.T) {
	em, store := newEmitter()
	em.Discussions = &recordingIndex{}
	capture(t, em, events.DynamoDBEvent{Records: []events.DynamoDBEventRecord{discussionChange("INSERT", "1", nil, openItem("soon"))}})
	page, err := store.ListFailedChanges(t.Context(), time.Time{}, 10, "")
	if err != nil || len(page.Changes) != 1 || page.Changes[0].Kind != "discussion" {
		t.Errorf("failed changes %+v, %v; want the discussion", page.Changes, err)
	}
}

// If the index cannot be written, the stream delivers the change again, as for events.
func TestAChangeThatCouldNotBeIndexedIsDeliveredAgain(t *testing.T) {
	em, _ := newEmitter()
	index := &recordingIndex{fails: errors.New("throttled")}
	em.Discussions = index
	batch := events.DynamoDBEvent{Records: []events.DynamoDBEventRecord{discussionChange("INSERT", "1", nil, openItem("2026-02-01T10:00:00Z"))}}
	if failed := capture(t, em, batch); !reflect.DeepEqual(failed, []string{"1"}) {
		t.Errorf("failed %v, want the first record", failed)
	}
	index.fails = nil
	if failed := capture(t, em, batch); len(failed) != 0 || len(index.got) != 2 {
		t.Errorf("failed %v, indexed %v", failed, index.got)
	}
}
