package capture_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/google/go-cmp/cmp"

	emithandler "github.com/tidings-dev/tidings/functions/emit/handler"
	"github.com/tidings-dev/tidings/pkg/emit"
	"github.com/tidings-dev/tidings/pkg/emit/capture"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/event/validate"
	"github.com/tidings-dev/tidings/pkg/local"
	"github.com/tidings-dev/tidings/pkg/local/dynamoemulator"
	"github.com/tidings-dev/tidings/pkg/local/samtemplate"
	"github.com/tidings-dev/tidings/pkg/platform"
	"github.com/tidings-dev/tidings/pkg/store/dynamoitem"
	"github.com/tidings-dev/tidings/test/dynamotest"
	"github.com/tidings-dev/tidings/test/streamtest"
)

// made is the time in the records; recorded is the time of the stream's record.
var (
	made     = time.Date(2026, 1, 29, 12, 34, 56, 789e6, time.UTC)
	changed  = made.Add(time.Hour)
	recorded = made.Add(2 * time.Hour).Truncate(time.Second)
	own      = platform.Common{CreatedAt: made, UpdatedAt: made}
	later    = platform.Common{CreatedAt: made, UpdatedAt: changed}
)

// change is one change of the platform's table and the events it should give.
type change struct {
	name          string
	before, after dynamoitem.Item // nil where nothing stood or stands there
	byTTL         bool
	poison        string // what the error says, "" for none
	want          []said
}

// said is an expected event.
type said struct {
	Type, Actor, Tenant, Data string
	At                        time.Time // zero: when the stream recorded it
}

func item(r platform.Record, with ...any) dynamoitem.Item {
	i := dynamoitem.EncodeRecord(r)
	for n := 0; n+1 < len(with); n += 2 {
		if name := with[n].(string); with[n+1] == nil {
			delete(i, name)
		} else {
			i[name] = with[n+1].(types.AttributeValue)
		}
	}
	return i
}

func changes() []change {
	user := platform.User{Common: own, ID: "u_1", Email: "ada@example.org", Name: "Ada Lovelace"}
	member := platform.Membership{Common: own, UserID: "u_1", CommunityID: "c_7", CommunityName: "Gophers Berlin", CommunityCity: "Berlin"}
	added := member
	added.AddedBy = "u_9"
	nowhere := member
	nowhere.CommunityCity = ""
	free := platform.Registration{Common: own, ID: "r_1", EventID: "e_3", UserID: "u_1", Status: platform.Success}
	paid := platform.Registration{Common: own, ID: "r_2", EventID: "e_3", UserID: "u_1", PaymentID: "p_5", Status: platform.Pending}
	to := func(r platform.Registration, s platform.RegistrationStatus) platform.Registration {
		r.Status, r.Common = s, later
		return r
	}
	comment := platform.Comment{Common: own, ID: "m_8", DiscussionID: "d_2", UserID: "u_1", Text: "a < b && \"c\"\u2028🎟 Grüße"}
	flag := platform.Flag{Common: own, CommentID: "m_8", UserID: "u_2", FlaggedUserID: "u_1", Reason: "spam"}
	referral := platform.Referral{Common: own, ReferrerID: "u_1", ReferredUserID: "u_2", Code: "ADA-2026"}
	end := made.Add(24 * time.Hour)
	open := platform.Discussion{Common: own, ID: "d_2", CommunityID: "c_7", Title: "Projector", Status: platform.Open, ExpiresAt: end}
	expired := open
	expired.Common, expired.Status, expired.ClosedAt, expired.Reason = later, platform.Closed, end.Add(time.Minute), platform.Expired
	byHand := expired
	byHand.ClosedBy, byHand.Reason = "u_9", platform.ByHand
	extended := open
	extended.Common, extended.ExpiresAt, extended.ExtendedBy = later, end.Add(7*24*time.Hour), "u_9"
	shortened := open
	shortened.Common, shortened.ExpiresAt = later, end.Add(-time.Hour)
	renamed := open
	renamed.Common, renamed.Title = later, "The projector"
	reopened := extended

	reg := func(r platform.Registration, at time.Time) []said {
		payment := ""
		if r.PaymentID != "" {
			payment = `"payment_id":"` + r.PaymentID + `",`
		}
		return []said{{"user.registered_event", "u_1", "default", `{"event_id":"e_3","registration_id":"` + r.ID + `",` + payment + `"status":"` + string(r.Status) + `"}`, at}}
	}
	cancelled := func(id string) []said {
		return []said{{"user.cancelled_registration", "u_1", "default", `{"event_id":"e_3","registration_id":"` + id + `"}`, time.Time{}}}
	}
	joined := func(city string) []said {
		return []said{{"user.joined_community", "u_1", "default", `{"community_id":"c_7","community_name":"Gophers Berlin"` + city + `}`, made}}
	}
	const berlin = `,"community_city":"Berlin"`
	signUp := []said{{"user.joined_platform", "u_1", "default", `{"user_id":"u_1","email":"ada@example.org","name":"Ada Lovelace"}`, made}}
	tenanted := user
	tenanted.Tenant, tenanted.RequestID = "acme", "req-1"

	return []change{
		// The nine.
		{name: "somebody signs up", after: item(user), want: signUp},
		{name: "somebody joins a community", after: item(member), want: joined(berlin)},
		{name: "an organiser adds somebody", after: item(added), want: joined(berlin)},
		{name: "a community without a city", after: item(nowhere), want: joined("")},
		{name: "a city that is NULL", after: item(nowhere, "community_city", &types.AttributeValueMemberNULL{Value: true}), want: joined("")},
		{name: "a free registration", after: item(free), want: reg(free, made)},
		{name: "a paid registration", after: item(paid), want: reg(paid, made)},
		{name: "a payment that went through", before: item(paid), after: item(to(paid, platform.Success)), want: reg(to(paid, platform.Success), changed)},
		{name: "a payment that failed", before: item(paid), after: item(to(paid, platform.Failed)), want: reg(to(paid, platform.Failed), changed)},
		{name: "a payment that went through after it had failed", before: item(to(paid, platform.Failed)), after: item(to(paid, platform.Success)),
			want: reg(to(paid, platform.Success), time.Time{})},
		{name: "a registration that was paid before it was stored", after: item(to(paid, platform.Success)), want: reg(to(paid, platform.Success), made)},
		{name: "a free registration is cancelled", before: item(free), want: cancelled("r_1")},
		{name: "a pending registration is cancelled", before: item(paid), want: cancelled("r_2")},
		{name: "a comment", after: item(comment),
			want: []said{{"user.posted_comment", "u_1", "default", "{\"discussion_id\":\"d_2\",\"comment_id\":\"m_8\",\"comment_text\":\"a < b && \\\"c\\\"\\u2028🎟 Grüße\"}", made}}},
		{name: "a flag", after: item(flag), want: []said{{"user.flagged_comment", "u_2", "default", `{"comment_id":"m_8","flagged_user_id":"u_1","reason":"spam"}`, made}}},
		{name: "a referral", after: item(referral),
			want: []said{{"user.referred_user", "u_1", "default", `{"referred_user_id":"u_2","referrer_id":"u_1","referral_code":"ADA-2026"}`, made}}},
		{name: "a discussion expires", before: item(open), after: item(expired),
			want: []said{{"discussion.auto_closed", "", "default", `{"discussion_id":"d_2","closed_at":"2026-01-30T12:35:56.789Z"}`, expired.ClosedAt}}},
		{name: "a discussion is extended", before: item(open), after: item(extended),
			want: []said{{"discussion.extended", "u_9", "default", `{"discussion_id":"d_2","new_expires_at":"2026-02-06T12:34:56.789Z"}`, changed}}},
		{name: "a discussion is extended again", before: item(extended), after: item(extended, dynamoitem.ExpiresAt, dynamoitem.Millis(end.Add(8*24*time.Hour))),
			want: []said{{"discussion.extended", "u_9", "default", `{"discussion_id":"d_2","new_expires_at":"2026-02-07T12:34:56.789Z"}`, time.Time{}}}},
		{name: "a record of a tenant, with its request", after: item(tenanted),
			want: []said{{"user.joined_platform", "u_1", "acme", signUp[0].Data, made}}},
		{name: "a record with more than we know", after: item(user, "likes", dynamoitem.N(3), "photo", &types.AttributeValueMemberB{Value: []byte("x")}, "tags", &types.AttributeValueMemberSS{Value: []string{"a"}}), want: signUp},
		{name: "a record that does not say when", after: item(user, dynamoitem.CreatedAt, nil), want: []said{{signUp[0].Type, "u_1", "default", signUp[0].Data, time.Time{}}}},

		// What means none.
		{name: "a discussion is opened", after: item(open)},
		{name: "a discussion is imported closed", after: item(expired)},
		{name: "a discussion is closed by hand", before: item(open), after: item(byHand)},
		{name: "a discussion is shortened", before: item(open), after: item(shortened)},
		{name: "a discussion is renamed", before: item(open), after: item(renamed)},
		{name: "a discussion is written again", before: item(open), after: item(open)},
		{name: "a closed discussion is written again", before: item(expired), after: item(expired)},
		{name: "a closed discussion is opened again, with more time", before: item(expired), after: item(reopened)},
		{name: "a closed discussion's end is moved", before: item(expired), after: item(expired, dynamoitem.ExpiresAt, dynamoitem.Millis(end.Add(time.Hour)))},
		{name: "a closed discussion's reason is corrected", before: item(byHand), after: item(expired)},
		{name: "an endless discussion gets an end", before: item(open, dynamoitem.ExpiresAt, nil, dynamoitem.ExpiringShard, nil), after: item(open)},
		{name: "a discussion loses its end", before: item(open), after: item(open, dynamoitem.ExpiresAt, nil, dynamoitem.ExpiringShard, nil)},
		{name: "a discussion is removed", before: item(open)},
		{name: "a user changes their name", before: item(user), after: item(user, "name", dynamoitem.S("A. Lovelace"))},
		{name: "a user is written again", before: item(user), after: item(user)},
		{name: "a user is removed", before: item(user)},
		{name: "a membership is touched", before: item(member), after: item(member, "role", dynamoitem.S("host"))},
		{name: "a membership ends", before: item(member)},
		{name: "an added membership ends", before: item(added)},
		{name: "a registration is written again", before: item(paid), after: item(paid)},
		{name: "a settled registration is written again", before: item(free), after: item(free)},
		{name: "a settled registration's own expires_at moves", before: item(free, dynamoitem.ExpiresAt, dynamoitem.N(1)), after: item(free, dynamoitem.ExpiresAt, dynamoitem.N(2))},
		{name: "a pending registration gets a note", before: item(paid), after: item(paid, "note", dynamoitem.S("vegan"))},
		{name: "a failed payment is tried again", before: item(to(paid, platform.Failed)), after: item(to(paid, platform.Pending))},
		{name: "a payment is given back", before: item(to(paid, platform.Success)), after: item(to(paid, "refunded"))},
		{name: "a waiting list", after: item(to(free, "waitlisted"))},
		{name: "a registration expires", before: item(paid), byTTL: true},
		{name: "a comment expires", before: item(comment), byTTL: true},
		{name: "a comment is corrected", before: item(comment), after: item(comment, "comment_text", dynamoitem.S("b > a"))},
		{name: "a comment is removed", before: item(comment)},
		{name: "a flag is taken back", before: item(flag)},
		{name: "a referral is removed", before: item(referral)},
		{name: "a kind that nobody knows", after: item(user, dynamoitem.Kind, dynamoitem.S("poll"))},
		{name: "a record without a kind", after: item(user, dynamoitem.Kind, nil)},
		{name: "a kind that is a number", after: item(user, dynamoitem.Kind, dynamoitem.N(1))},
		{name: "a record gets its kind later", before: item(paid, dynamoitem.Kind, nil), after: item(to(paid, platform.Success))},

		// Poison.
		{name: "a user without an address", after: item(user, "email", nil), poison: `"email" is missing`},
		{name: "a comment whose text is a number", after: item(comment, "comment_text", dynamoitem.N(5)), poison: `"comment_text" is not a string`},
		{name: "a registration whose status is a number", after: item(free, dynamoitem.Status, dynamoitem.N(1)), poison: `"status" is not a string`},
		{name: "an extension to a word", before: item(open), after: item(open, dynamoitem.ExpiresAt, nil, dynamoitem.ExpiringShard, nil, dynamoitem.Status, dynamoitem.N(1)), poison: `"status" is not a string`},
		{name: "a cancelled registration that was none", before: item(free, "registration_id", nil), poison: `"registration_id" is missing`},
	}
}

// record returns the change's stream record.
func (c change) record(n int) events.DynamoDBEventRecord {
	r := events.DynamoDBEventRecord{
		EventID: fmt.Sprint("record ", n), EventSource: "aws:dynamodb", EventSourceArn: "arn:aws:dynamodb:us-east-1:0:table/t/stream/s",
		Change: events.DynamoDBStreamRecord{ApproximateCreationDateTime: events.SecondsEpochTime{Time: recorded}, SequenceNumber: fmt.Sprintf("%021d", n)},
	}
	image := func(i dynamoitem.Item) map[string]events.DynamoDBAttributeValue {
		if i == nil {
			return nil
		}
		m := map[string]events.DynamoDBAttributeValue{}
		for name, v := range i {
			switch v := v.(type) {
			case *types.AttributeValueMemberS:
				m[name] = events.NewStringAttribute(v.Value)
			case *types.AttributeValueMemberN:
				m[name] = events.NewNumberAttribute(v.Value)
			case *types.AttributeValueMemberB:
				m[name] = events.NewBinaryAttribute(v.Value)
			case *types.AttributeValueMemberSS:
				m[name] = events.NewStringSetAttribute(v.Value)
			case *types.AttributeValueMemberNULL:
				m[name] = events.NewNullAttribute()
			}
		}
		return m
	}
	r.Change.OldImage, r.Change.NewImage = image(c.before), image(c.after)
	switch {
	case c.before == nil:
		r.EventName = "INSERT"
	case c.after == nil:
		r.EventName = "REMOVE"
	default:
		r.EventName = "MODIFY"
	}
	if c.byTTL {
		r.UserIdentity = &events.DynamoDBUserIdentity{Type: "Service", PrincipalID: "dynamodb.amazonaws.com"}
	}
	return r
}

// change returns the decoded record.
func (c change) change(n int) platform.Change { return streamtest.Changes(c.record(n))[0] }

func asSaid(list []capture.Captured, at time.Time) []said {
	var got []said
	for _, c := range list {
		one := said{c.Event.Type, c.Event.ActorUserID, c.Tenant, string(c.Event.Data), c.Event.Timestamp}
		if one.At.Equal(at) {
			one.At = time.Time{}
		}
		got = append(got, one)
	}
	return got
}

func TestChangesGiveTheEventsOfTheCatalog(t *testing.T) {
	all := changes()
	if len(all) < 30 {
		t.Fatalf("%d changes", len(all))
	}
	ids := map[string]string{}
	seen := map[string]bool{}
	for n, c := range all {
		t.Run(c.name, func(t *testing.T) {
			got, err := capture.Events(c.change(n))
			if c.poison != "" {
				if err == nil || !strings.Contains(err.Error(), c.poison) {
					t.Fatalf("%v, %v; want an error that says %s", got, err, c.poison)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, asSaid(got, recorded)); diff != "" {
				t.Errorf("means (-want +got):\n%s", diff)
			}
			again, _ := capture.Events(c.change(n))
			for i, one := range got {
				seen[one.Event.Type] = true
				if again[i].Event.ID != one.Event.ID {
					t.Error("read again, it has another id")
				}
				if at, err := event.IDTime(one.Event.ID); err != nil || !at.Equal(recorded) {
					t.Errorf("its id says %s, %v", at, err)
				}
				if other, ok := ids[one.Event.ID]; ok {
					t.Errorf("it has the id of %s", other)
				}
				ids[one.Event.ID] = c.name
				if err := validate.Default().Validate(one.Event.Type, one.Event.Data); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for _, eventType := range validate.Default().Types() {
		if !seen[eventType] {
			t.Errorf("no change means %s", eventType)
		}
	}
}

func TestEventsCarryTheChangesRequestID(t *testing.T) {
	c := change{after: item(platform.User{Common: platform.Common{RequestID: "req-1"}, ID: "u", Email: "a@example.org", Name: "A"})}
	got, err := capture.Events(c.change(1))
	if err != nil || got[0].Event.RequestID != "req-1" {
		t.Errorf("%+v, %v", got, err)
	}
}

// Two changes of an item within a second have different IDs, and so has the same
// sequence number in another stream.
func TestIDsDependOnTheStreamRecord(t *testing.T) {
	c := change{after: item(platform.User{ID: "u", Email: "a@example.org", Name: "A"})}
	id := func(r platform.Change) string {
		got, err := capture.Events(r)
		if err != nil {
			t.Fatal(err)
		}
		return got[0].Event.ID
	}
	base, other, stream := c.change(1), c.change(2), c.change(1)
	stream.Stream += "2"
	if id(base) == id(other) || id(base) == id(stream) {
		t.Error("two records give one id")
	}
	timeless := c.change(1)
	timeless.At = time.Time{}
	if _, err := capture.Events(timeless); err == nil {
		t.Error("a record without a time has an id")
	}
}

// sink keeps the events that are stored.
type sink struct {
	mu     sync.Mutex
	events map[string]event.Accepted
}

func (s *sink) PutEvent(_ context.Context, a event.Accepted) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.events[a.ID]; ok {
		return event.ErrExists
	}
	s.events[a.ID] = a
	return nil
}

// The same changes are written to a DynamoDB and read from its stream. Unlike the real
// one, the local DynamoDB adds writes that change nothing to the stream.
func TestChangesOfARealTable(t *testing.T) {
	client, stack := dynamotest.New(t)
	table := local.Tables(stack.Name).Platform
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	all := changes()
	key := func(n int) dynamoitem.Item {
		return dynamoitem.Item{dynamoitem.PK: dynamoitem.S(fmt.Sprint("change ", n)), dynamoitem.SK: dynamoitem.S("x")}
	}
	put := func(n int, i dynamoitem.Item) {
		t.Helper()
		moved := dynamoitem.Item{}
		for name, v := range i {
			moved[name] = v
		}
		for name, v := range key(n) {
			moved[name] = v
		}
		if _, err := client.PutItem(ctx, &dynamodb.PutItemInput{TableName: &table, Item: moved}); err != nil {
			t.Fatal(err)
		}
	}
	want := map[string][]said{} // by the item's pk
	writes := 0
	for n, c := range all {
		if c.byTTL {
			continue // no local DynamoDB deletes by TTL
		}
		pk := fmt.Sprint("change ", n)
		if c.before != nil {
			put(n, c.before)
			writes++
			// What stood there had to be written, which may mean something itself.
			first, err := capture.Events(change{after: c.before}.change(n))
			if err == nil {
				want[pk] = asSaid(first, recorded)
			}
		}
		if c.after != nil {
			put(n, c.after)
		} else if _, err := client.DeleteItem(ctx, &dynamodb.DeleteItemInput{TableName: &table, Key: key(n)}); err != nil {
			t.Fatal(err)
		}
		writes++
		want[pk] = append(want[pk], c.want...)
	}

	kept := &sink{events: map[string]event.Accepted{}}
	em := &emit.Emitter{Catalog: validate.Default(), Events: kept, Log: slog.New(slog.DiscardHandler), Now: time.Now}
	var records []events.DynamoDBEventRecord
	done := make(chan struct{})
	handle := func(ctx context.Context, payload json.RawMessage) (any, error) {
		var batch events.DynamoDBEvent
		if err := json.Unmarshal(payload, &batch); err != nil {
			return nil, err
		}
		records = append(records, batch.Records...)
		if len(records) == writes {
			defer close(done)
		}
		return emithandler.Route(em)(ctx, payload)
	}
	checkpoints, err := local.OpenCheckpoints("")
	if err != nil {
		t.Fatal(err)
	}
	fn := &local.Function{Function: samtemplate.Function{Folder: "emit", Timeout: time.Minute}, Handle: handle, Log: slog.New(slog.DiscardHandler)}
	stream := &local.DynamoStream{
		DB: client, Streams: dynamoemulator.Streams(*client.Options().BaseEndpoint), Table: table, Checkpoints: checkpoints,
		Mapping: func(shard local.Shard, after string) *local.StreamMapping {
			return &local.StreamMapping{Function: fn, Shard: shard, After: after, Trigger: samtemplate.StreamTrigger{BatchSize: 10, ReportsItems: true}}
		},
	}
	ended := make(chan error, 1)
	go func() { ended <- stream.Run(ctx) }()
	select {
	case <-done:
	case err := <-ended:
		t.Fatalf("the stream ended: %v", err)
	case <-time.After(time.Minute):
		t.Fatal("not all writes came through the stream in a minute")
	}
	cancel()
	if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}

	got := map[string][]said{}
	total := 0
	for _, r := range records {
		list, _ := capture.Events(streamtest.Changes(r)[0]) // poison is none
		pk := r.Change.Keys[dynamoitem.PK].String()
		got[pk] = append(got[pk], asSaid(list, r.Change.ApproximateCreationDateTime.UTC())...)
		for _, one := range list {
			total++
			a, ok := kept.events[one.Event.ID]
			stored, err := event.Decode(a.Body)
			if !ok || err != nil || stored.Type != one.Event.Type || string(stored.Data) != string(one.Event.Data) || a.Tenant != one.Tenant {
				t.Errorf("%s: stored is %+v, %v", pk, a, err)
			}
		}
	}
	for n, c := range all {
		pk := fmt.Sprint("change ", n)
		if diff := cmp.Diff(want[pk], got[pk]); diff != "" {
			t.Errorf("%s: means (-want +got):\n%s", c.name, diff)
		}
	}
	if len(kept.events) != total || total == 0 {
		t.Errorf("%d events are stored, %d were meant", len(kept.events), total)
	}
	// The whole stream again: nothing is captured twice.
	if answer := em.Capture(t.Context(), streamtest.Changes(records...)); len(answer) != 0 || len(kept.events) != total {
		t.Errorf("replayed: %+v, %d events", answer, len(kept.events))
	}
}
