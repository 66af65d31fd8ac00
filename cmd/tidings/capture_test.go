package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"

	"github.com/tidings-dev/tidings/pkg/console"
	"github.com/tidings-dev/tidings/pkg/emit"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/local"
	"github.com/tidings-dev/tidings/pkg/ops/stats"
	"github.com/tidings-dev/tidings/pkg/platform"
	"github.com/tidings-dev/tidings/pkg/store/dynamo"
	"github.com/tidings-dev/tidings/pkg/store/dynamoitem"
)

// storeOf returns the store of the tool's runner.
func storeOf(t *testing.T, x *tool) *dynamo.Store {
	t.Helper()
	info, err := local.ReadRunnerInfo(x.dir)
	if err != nil {
		t.Fatal(err)
	}
	return dynamo.New(info.DynamoDB(), local.Tables(info.Stack))
}

func TestFailedChangesAreListedShownAndCapturedAgain(t *testing.T) {
	t.Parallel()
	x := newTool(t)
	store := storeOf(t, x)
	if out, _ := x.do(0, "", "capture", "list"); out != "no failed changes\n" {
		t.Errorf("list: %s", out)
	}
	if out, _ := x.do(0, "", "capture", "redrive", "--all"); !strings.Contains(out, "0 captured, 0 failed again") {
		t.Errorf("redrive without failed changes: %s", out)
	}
	// One that no rule accepts, from the platform's table.
	bad := platform.Comment{Common: platform.Common{Tenant: "no/tenant"}, ID: "m_1", DiscussionID: "d_1", UserID: "u_1", Text: "hello"}
	if err := store.PutRecord(t.Context(), bad); err != nil {
		t.Fatal(err)
	}
	var list []console.FailedChange
	eventually(t, "the change is kept", func() bool {
		x.json(&list, "capture", "list", "--since", "1h")
		return len(list) == 1
	})
	if f := list[0]; f.Kind != "comment" || f.Operation != "INSERT" || !strings.Contains(f.Reason, "tenant") || !f.Kept || f.Record != nil {
		t.Errorf("listed %+v", f)
	}
	// One that today's rules accept, as after a mend.
	mended := platform.FailedChange{
		ID: event.NewID(time.Now()), Kind: "comment", Operation: platform.Insert, Reason: "a rule that was mended", At: time.Now(), FirstSeen: time.Now(), LastTried: time.Now(), Attempts: 1,
		Record: fmt.Appendf(nil, `{"eventID":"7","eventName":"INSERT","eventSourceARN":"arn:stream","dynamodb":{"ApproximateCreationDateTime":%d,"SequenceNumber":"7","Keys":{"pk":{"S":"k"}},
			"NewImage":{"kind":{"S":"comment"},"comment_id":{"S":"m_2"},"discussion_id":{"S":"d_1"},"user_id":{"S":"u_1"},"comment_text":{"S":"a <b> & c"}}}}`, time.Now().Unix()),
	}
	mended.RecordBytes = len(mended.Record)
	if _, err := store.KeepFailedChange(t.Context(), mended); err != nil {
		t.Fatal(err)
	}
	if out, _ := x.do(0, "", "capture", "kinds"); !strings.Contains(out, "no changes of unknown kinds") {
		t.Errorf("kinds: %s", out)
	}
	if err := store.AddStatistics(t.Context(), stats.Batch{ID: "kinds", At: time.Now(), UnknownKinds: map[string]int64{"User": 2, "session": 300}}); err != nil {
		t.Fatal(err)
	}
	if out, _ := x.do(0, "", "capture", "kinds"); out != "CHANGES  KIND\n300      session\n2        User\n" {
		t.Errorf("kinds: %s", out)
	}
	out, _ := x.do(0, "", "capture", "list")
	for _, line := range strings.Split(out, "\n") {
		if len(line) > 80 && !strings.HasPrefix(line, "  ") {
			t.Errorf("a line of %d columns: %s", len(line), line)
		}
	}
	if !strings.Contains(out, mended.ID) || !strings.Contains(out, list[0].ID) || !strings.Contains(out, "a rule that was mended") {
		t.Errorf("list:\n%s", out)
	}
	if out, _ := x.do(0, "", "capture", "show", mended.ID); !strings.Contains(out, `"S": "a <b> & c"`) || !strings.Contains(out, "a rule that was mended") {
		t.Errorf("show:\n%s", out)
	}
	if _, errOut := x.do(exitFailed, "", "capture", "show", event.NewID(time.Now())); !strings.Contains(errOut, "no failed change") {
		t.Errorf("show an unknown one: %s", errOut)
	}

	if out, _ := x.do(0, "", "capture", "redrive", "--all", "--dry-run"); !strings.Contains(out, "2 would be captured again") || !strings.Contains(out, mended.ID) {
		t.Errorf("dry run:\n%s", out)
	}
	if _, errOut := x.do(exitFailed, "", "capture", "redrive", "--all"); !strings.Contains(errOut, "--yes") {
		t.Errorf("many without --yes: %s", errOut)
	}
	out, _ = x.do(exitFailed, "", "capture", "redrive", "--all", "--since", "1h", "--yes")
	if !strings.Contains(out, "1 captured, 1 failed again") || !strings.Contains(out, list[0].ID+"  tenant: ") {
		t.Errorf("redrive:\n%s", out)
	}
	x.json(&list, "capture", "list")
	if len(list) != 1 || list[0].Attempts != 2 {
		t.Errorf("left: %+v", list)
	}
	var answer struct {
		Captured, Failed int
		Results          []emit.Recaptured
	}
	out, _ = x.do(exitFailed, "", "capture", "redrive", mended.ID, "--json")
	if err := json.Unmarshal([]byte(out), &answer); err != nil || answer.Captured != 0 || answer.Failed != 1 || !strings.Contains(answer.Results[0].Error, "no failed change") {
		t.Errorf("again: %+v", answer)
	}
	if _, errOut := x.do(exitFailed, "", "capture", "remove", list[0].ID, mended.ID); !strings.Contains(errOut, mended.ID+": there is no failed change") {
		t.Errorf("remove an unknown one: %s", errOut)
	}
	if out, _ := x.do(0, "", "capture", "remove", list[0].ID); out != "1 removed\n" {
		t.Errorf("remove: %s", out)
	}
	if out, _ := x.do(0, "", "capture", "list"); out != "no failed changes\n" {
		t.Errorf("after a removal: %s", out)
	}
	x.do(exitUsage, "", "capture", "remove")
	x.do(exitUsage, "", "capture", "redrive")
	x.do(exitUsage, "", "capture", "redrive", mended.ID, "--all")
	x.do(exitUsage, "", "capture", "redrive", mended.ID, "--since", "1h")
	x.do(exitUsage, "", "capture", "list", "--limit", "0")
}

// Three records are inserted; one of their events is lost, and one record cannot become
// an event.
func TestVerifyListsWhatIsMissing(t *testing.T) {
	t.Parallel()
	x := newTool(t)
	store := storeOf(t, x)
	common := platform.Common{CreatedAt: time.Now().Add(-10 * time.Minute)}
	bad := common
	bad.Tenant = "no/tenant"
	for _, r := range []platform.Record{
		platform.Comment{Common: common, ID: "m_1", DiscussionID: "d_1", UserID: "u_1", Text: "hello"},
		platform.Registration{Common: common, ID: "r_1", EventID: "e_1", UserID: "u_1", Status: platform.Success},
		platform.Comment{Common: bad, ID: "m_2", DiscussionID: "d_1", UserID: "u_1", Text: "hello"},
		platform.Comment{ID: "m_3", DiscussionID: "d_1", UserID: "u_1", Text: "without a time"},
		platform.Comment{Common: platform.Common{CreatedAt: time.Now()}, ID: "m_4", DiscussionID: "d_1", UserID: "u_1", Text: "too fresh"},
		platform.Comment{Common: platform.Common{CreatedAt: time.Now().Add(-48 * time.Hour)}, ID: "m_5", DiscussionID: "d_1", UserID: "u_1", Text: "too old"},
	} {
		if err := store.PutRecord(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	var v verification
	verify := func(code int) string {
		t.Helper()
		out, errOut := x.do(code, "", "capture", "verify", "--json")
		v = verification{}
		if err := json.Unmarshal([]byte(out), &v); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return errOut
	}
	eventually(t, "the events are stored", func() bool {
		verify(exitFailed)
		return len(v.Missing) == 1 && v.Events == 5
	})
	if errOut := verify(exitFailed); !strings.Contains(errOut, "read units, $0.00") {
		t.Errorf("verify does not print its price: %s", errOut)
	}
	m := v.Missing[0]
	if v.Records != 6 || v.Checked != 3 || v.WithoutTime != 1 || m.Kind != "comment" || m.EventType != "user.posted_comment" || m.Tenant != "no/tenant" || m.FailedChange == "" {
		t.Errorf("verified %+v", v)
	}

	// The registration's event is lost.
	info, err := local.ReadRunnerInfo(x.dir)
	if err != nil {
		t.Fatal(err)
	}
	db, table := info.DynamoDB(), local.Tables(info.Stack).Events
	all, err := db.Scan(t.Context(), &dynamodb.ScanInput{TableName: &table})
	if err != nil {
		t.Fatal(err)
	}
	for _, item := range all.Items {
		e, err := dynamoitem.DecodeEvent(item)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(e.Body), "r_1") {
			if _, err := db.DeleteItem(t.Context(), &dynamodb.DeleteItemInput{TableName: &table, Key: dynamoitem.Item{dynamoitem.EventID: item[dynamoitem.EventID]}}); err != nil {
				t.Fatal(err)
			}
		}
	}
	out, _ := x.do(exitFailed, "", "capture", "verify", "--since", "1h")
	for _, says := range []string{"1 of 3 records", "registration user.registered_event", "r_1", "kept as failed change " + m.FailedChange, "1 records have no created_at"} {
		if !strings.Contains(out, says) {
			t.Errorf("verify prints no %q:\n%s", says, out)
		}
	}
	if _, errOut := x.do(exitFailed, "", "capture", "verify", "--table", "Nothing"); !strings.Contains(errOut, "no table Nothing") {
		t.Errorf("an unknown table: %s", errOut)
	}
	x.do(exitUsage, "", "capture", "verify", "--since", "1m")
	x.do(exitUsage, "", "capture", "verify", "--since", "800h")
}
