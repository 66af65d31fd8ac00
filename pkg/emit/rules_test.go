package emit_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/aws/aws-lambda-go/events"

	"github.com/tidings-dev/tidings/pkg/emit/capture/rules"
	"github.com/tidings-dev/tidings/pkg/platform"
	"github.com/tidings-dev/tidings/pkg/store/dynamoitem"
)

// source is a source of rules that changes.
type source struct {
	set *rules.Set
	err error
}

func (s *source) Current(context.Context) (*rules.Set, error) { return s.set, s.err }

func ruleSet(t *testing.T, text string) *rules.Set {
	t.Helper()
	set, err := rules.Parse("test.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// A change that a wrong rule cannot evaluate is kept with the event and the expression, and
// is captured after the rule was mended, as the event that it would have been.
func TestAChangeIsCapturedAfterItsRuleWasMended(t *testing.T) {
	em, store := newEmitter()
	batch := changes(t, comment(1))
	wrong := ruleSet(t, "rules:\n- event: user.posted_comment\n  when: change == \"insert\"\n  data: {comment_id: id(new.commentid)}\n")
	from := &source{set: wrong}
	em.Rules = from
	if again := capture(t, em, batch); len(again) != 0 {
		t.Fatalf("the stream has to deliver %v again", again)
	}
	list := failedChanges(t, store)
	if len(list) != 1 || list[0].EventType != "user.posted_comment" || !strings.Contains(list[0].Reason, `(test.yaml:2): data.comment_id: id(new.commentid): attribute "commentid" is missing`) {
		t.Fatalf("kept %+v", list)
	}
	from.set = rules.Shipped()
	results, err := em.Recapture(t.Context(), []string{list[0].ID}, dynamoitem.ReadChange)
	if err != nil || len(results) != 1 || !results[0].Captured || results[0].Events != 1 {
		t.Fatalf("%+v, %v", results, err)
	}
	capture(t, em, batch)
	if all := stored(t, store); len(all) != 1 || len(failedChanges(t, store)) != 0 {
		t.Errorf("%d events are stored, %d changes are kept", len(all), len(failedChanges(t, store)))
	}
}

// Without its rules, capture captures nothing, and loses nothing.
func TestChangesWaitForRulesThatCannotBeRead(t *testing.T) {
	em, store := newEmitter()
	batch := changes(t, comment(1), comment(2))
	from := &source{err: errors.New("throttled")}
	em.Rules = from
	if again := capture(t, em, batch); len(again) != 1 || again[0] != batch.Records[0].Change.SequenceNumber {
		t.Errorf("the stream delivers again from %v", again)
	}
	if len(failedChanges(t, store)) != 0 || len(stored(t, store)) != 0 {
		t.Error("a change was stored or kept")
	}
	from.set, from.err = rules.Shipped(), nil
	if again := capture(t, em, batch); len(again) != 0 || len(stored(t, store)) != 2 {
		t.Errorf("%v, %d events", again, len(stored(t, store)))
	}
}

// Another table's items can have the platform's kinds, and others: its discussions are not
// indexed, and its kinds are not unknown.
func TestAnotherTableNeedNotHaveThePlatformsKinds(t *testing.T) {
	for table, want := range map[string]int{"shop-Orders": 0, "stack-Platform": 1, "": 1} {
		em, store := newEmitter()
		em.Discussions, em.PlatformTable = store, table
		batch := changes(t, comment(1), platform.Discussion{ID: "d_1", Status: platform.Open})
		for n := range batch.Records {
			batch.Records[n].EventSourceArn = "arn:aws:dynamodb:eu-central-1:1:table/stack-Platform/stream/1"
		}
		delete(batch.Records[0].Change.NewImage, "kind")
		delete(batch.Records[1].Change.NewImage, "kind")
		image := batch.Records[1].Change.NewImage
		image["kind"] = events.NewStringAttribute("discussion")
		image["discussion_id"], image["status"] = events.NewNullAttribute(), events.NewStringAttribute("open")
		capture(t, em, batch)
		if kinds := counts(t, store).UnknownKinds; kinds["(none)"] != int64(want) {
			t.Errorf("of %q, counted %v", table, kinds)
		}
		if list := failedChanges(t, store); len(list) != want {
			t.Errorf("of %q, kept %+v", table, list)
		}
	}
}

// A wrong rule for every table does not stop the events of the others. After it was mended,
// the change that was kept gives its event, and the others are not stored twice.
func TestAWrongRuleDoesNotStopTheEventsOfOthers(t *testing.T) {
	em, store := newEmitter()
	batch := changes(t, comment(1))
	wrong := "rules:\n- event: user.flagged_comment\n  when: new.total > 5\n  tenant: new.discussion_id\n  data: {comment_id: id(new.comment_id), flagged_user_id: id(new.user_id)}\n"
	from := &source{set: rules.Join(ruleSet(t, wrong), rules.Shipped())}
	em.Rules = from
	for range 2 {
		if again := capture(t, em, batch); len(again) != 0 {
			t.Fatalf("the stream has to deliver %v again", again)
		}
	}
	list := failedChanges(t, store)
	if all := stored(t, store); len(all) != 1 || len(list) != 1 || list[0].EventType != "user.flagged_comment" || list[0].Tenant != "d" {
		t.Fatalf("%d events are stored; kept are %+v", len(all), list)
	}
	from.set = rules.Join(ruleSet(t, strings.Replace(wrong, "new.total > 5", "new.kind == \"comment\"", 1)), rules.Shipped())
	results, err := em.Recapture(t.Context(), []string{list[0].ID}, dynamoitem.ReadChange)
	if all := stored(t, store); err != nil || !results[0].Captured || results[0].Events != 2 || len(all) != 2 {
		t.Errorf("%+v, %v; %d events are stored", results, err, len(all))
	}
}
