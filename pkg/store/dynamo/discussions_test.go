package dynamo_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/local"
	"github.com/tidings-dev/tidings/pkg/platform"
	"github.com/tidings-dev/tidings/pkg/store/dynamo"
	"github.com/tidings-dev/tidings/pkg/store/dynamoitem"
	"github.com/tidings-dev/tidings/test/dynamotest"
)

// expiredIDs returns the ids of the index of open discussions that expired by a time.
func expiredIDs(t *testing.T, s *dynamo.Store, at time.Time) map[string]bool {
	t.Helper()
	ids := map[string]bool{}
	for shard := range platform.Shards {
		page, next, err := s.ExpiredDiscussions(t.Context(), shard, at, "", 1000)
		if err != nil || next != "" {
			t.Fatal(err, next)
		}
		for _, e := range page {
			ids[e.ID] = true
		}
	}
	return ids
}

// The table is read in pages, by as many processes as it takes, and only once.
func TestIndexTableIndexesOldDiscussionsOnce(t *testing.T) {
	client, stack := dynamotest.New(t)
	tables := local.Tables(stack.Name)
	now := time.Now()
	put := func(item dynamoitem.Item) {
		t.Helper()
		if _, err := client.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: &tables.Platform, Item: item}); err != nil {
			t.Fatal(err)
		}
	}
	const n = 12 // of 200 KB, so three pages of the scan, which are 1 MB
	padding := dynamoitem.S(strings.Repeat("x", 200<<10))
	for i := range n {
		item := dynamoitem.EncodeRecord(platform.Discussion{ID: fmt.Sprint("d_", i), Status: platform.Open, ExpiresAt: now})
		item["padding"] = padding
		item[dynamoitem.ExpiringShard] = dynamoitem.N(2) // as an earlier version wrote it
		put(item)
	}
	put(dynamoitem.EncodeRecord(platform.Comment{ID: "m", DiscussionID: "d_0", UserID: "u", Text: "x"}))
	put(dynamoitem.Item{dynamoitem.PK: dynamoitem.S("DISCUSSION#bad"), dynamoitem.SK: dynamoitem.S("META"), dynamoitem.Kind: dynamoitem.S("discussion")})
	// The stream's entry is newer than the scan.
	extended := platform.Discussion{Common: platform.Common{Tenant: event.DefaultTenant}, ID: "d_1", Status: platform.Open, ExpiresAt: now.Add(time.Hour)}
	key := dynamoitem.EncodeKey(dynamoitem.PlatformKey(extended.Key()))
	if err := dynamo.New(client, tables).IndexDiscussion(t.Context(), key, nil, &extended); err != nil {
		t.Fatal(err)
	}
	total, malformed, runs := 0, []string(nil), 0
	for done := false; !done; runs++ {
		part, err := dynamo.New(client, tables).IndexTable(t.Context()) // a new process each time
		if err != nil {
			t.Fatal(err)
		}
		total, malformed, done = total+part.Discussions, append(malformed, part.Malformed...), part.Done
	}
	if total != n || len(malformed) != 1 || !strings.Contains(malformed[0], "DISCUSSION#bad") || runs < 2 {
		t.Errorf("indexed %d in %d runs, malformed %v", total, runs, malformed)
	}
	s := dynamo.New(client, tables)
	if ids := expiredIDs(t, s, now); len(ids) != n-1 || ids["d_1"] {
		t.Errorf("expired: %v, want all but d_1", ids)
	}
	put(dynamoitem.EncodeRecord(platform.Discussion{ID: "d_late", Status: platform.Open, ExpiresAt: now}))
	if part, err := s.IndexTable(t.Context()); err != nil || !part.Done || part.Discussions != 0 {
		t.Errorf("once more: %+v, %v; later discussions are the stream's", part, err)
	}
}

// A reader that finds an outdated entry corrects it.
func TestStaleEntriesOfTheIndexAreCorrected(t *testing.T) {
	client, stack := dynamotest.New(t)
	tables := local.Tables(stack.Name)
	s := dynamo.New(client, tables)
	now := time.Now().UTC().Truncate(time.Millisecond)
	open := func(id string) platform.Discussion {
		t.Helper()
		d := platform.Discussion{Common: platform.Common{Tenant: event.DefaultTenant}, ID: id, Status: platform.Open, ExpiresAt: now}
		if err := s.PutRecord(t.Context(), d); err != nil {
			t.Fatal(err)
		}
		return d
	}
	set := func(d platform.Discussion, name string, value types.AttributeValue) {
		t.Helper()
		_, err := client.UpdateItem(t.Context(), &dynamodb.UpdateItemInput{
			TableName: &tables.Platform, Key: dynamoitem.PlatformKey(d.Key()), UpdateExpression: aws.String("SET #name = :value"),
			ExpressionAttributeNames: map[string]string{"#name": name}, ExpressionAttributeValues: dynamoitem.Item{":value": value},
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	extended, closed, gone, moved := open("d_extended"), open("d_closed"), open("d_gone"), open("d_moved")
	set(extended, dynamoitem.ExpiresAt, dynamoitem.Millis(now.Add(time.Hour)))
	set(closed, dynamoitem.Status, dynamoitem.S("closed"))
	set(moved, dynamoitem.DiscussionID, dynamoitem.S("d_other"))
	if err := s.DeleteRecord(t.Context(), gone.Key()); err != nil {
		t.Fatal(err)
	}
	for id, want := range map[string]error{
		"d_extended": platform.ErrNotExpired, "d_closed": platform.ErrClosed, "d_gone": platform.ErrNotFound, "d_moved": platform.ErrNotFound,
	} {
		if !expiredIDs(t, s, now)[id] {
			t.Fatalf("%s is not indexed", id)
		}
		_, err := s.CloseDiscussion(t.Context(), platform.Closing{Tenant: event.DefaultTenant, ID: id, Reason: platform.Expired, At: now})
		if !errors.Is(err, want) {
			t.Errorf("close %s: %v, want %v", id, err, want)
		}
		if expiredIDs(t, s, now)[id] {
			t.Errorf("%s is still in the index of open discussions that have expired", id)
		}
	}
}

// A change of a table's record that another program makes at the same time is not lost.
func TestAConcurrentChangeOfTheRecordIsKept(t *testing.T) {
	client, stack := dynamotest.New(t)
	tables := local.Tables(stack.Name)
	now := time.Now().UTC().Truncate(time.Millisecond)
	d := platform.Discussion{Common: platform.Common{Tenant: event.DefaultTenant}, ID: "d", Title: "Parking", Status: platform.Open, ExpiresAt: now}
	between := &beforeUpdate{Client: client}
	s := dynamo.New(between, tables)
	if err := s.PutRecord(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	between.do = func() {
		_, err := dynamo.New(client, tables).ExtendDiscussion(t.Context(), platform.Extension{Tenant: d.Tenant, ID: d.ID, To: now.Add(time.Hour), By: "u_1", At: now})
		if err != nil {
			t.Error(err)
		}
	}
	_, err := s.CloseDiscussion(t.Context(), platform.Closing{Tenant: d.Tenant, ID: d.ID, Reason: platform.Expired, At: now})
	if !errors.Is(err, platform.ErrNotExpired) {
		t.Errorf("close: %v, want that it was extended", err)
	}
	got, err := s.GetDiscussion(t.Context(), d.Tenant, d.ID)
	if err != nil || got.Status != platform.Open || got.ExtendedBy != "u_1" {
		t.Errorf("%+v, %v", got, err)
	}
}

// beforeUpdate does something before the first update.
type beforeUpdate struct {
	dynamo.Client
	do func()
}

func (b *beforeUpdate) UpdateItem(ctx context.Context, in *dynamodb.UpdateItemInput, options ...func(*dynamodb.Options)) (*dynamodb.UpdateItemOutput, error) {
	if do := b.do; do != nil {
		b.do = nil
		do()
	}
	return b.Client.UpdateItem(ctx, in, options...)
}

// docs/cost.md has these figures.
func TestWriteUnitsOfADiscussion(t *testing.T) {
	client, stack := dynamotest.New(t)
	units := 0.0
	s := dynamo.New(client, local.Tables(stack.Name), dynamo.WithMeter(func(write bool, c types.ConsumedCapacity) {
		if write {
			units += aws.ToFloat64(c.CapacityUnits)
		}
	}))
	costs := func(what string, want float64) {
		t.Helper()
		if units != want {
			t.Errorf("%s costs %.1f write units, want %.1f", what, units, want)
		}
		units = 0
	}
	now := time.Now().UTC().Truncate(time.Millisecond)
	open := platform.Discussion{Common: platform.Common{Tenant: event.DefaultTenant}, ID: "d", Status: platform.Open, ExpiresAt: now.Add(time.Hour)}
	if err := s.PutRecord(t.Context(), open); err != nil {
		t.Fatal(err)
	}
	units-- // the platform's own write
	costs("indexing a new discussion", 2)
	key := dynamoitem.EncodeKey(dynamoitem.PlatformKey(open.Key()))
	fromStream := func(before, after platform.Discussion) {
		t.Helper()
		if err := s.IndexDiscussion(t.Context(), key, &before, &after); err != nil {
			t.Fatal(err)
		}
	}
	extended, err := s.ExtendDiscussion(t.Context(), platform.Extension{Tenant: open.Tenant, ID: open.ID, To: now.Add(2 * time.Hour), Login: "console:ada", At: now})
	if err != nil {
		t.Fatal(err)
	}
	fromStream(open, extended)
	costs("an extension", 5)
	closed, err := s.CloseDiscussion(t.Context(), platform.Closing{Tenant: open.Tenant, ID: open.ID, Reason: platform.Expired, At: now.Add(2 * time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	fromStream(extended, closed)
	costs("closing", 5)
}
