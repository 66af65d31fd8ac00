package simulation

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/platform"
	"github.com/tidings-dev/tidings/pkg/store/dynamoitem"
)

// captures is the invariant of capture.
const captures = "every change becomes its event, once" // or is kept as a failed change

// change is a write to the platform's table, and what must become of it.
type change struct {
	at     time.Time
	record platform.Record
	// about is a text that only the event of this change contains. Two records of one join
	// have the same.
	about  string
	tenant string
	fails  bool // the catalog refuses its event
}

// newChanges plans comments, some of which cannot become an event, and members, most of
// whom are written in two places within a minute.
func newChanges(r *rand.Rand, tenants []string, start time.Time, busy time.Duration) (list []change) {
	for i := range 1 + r.IntN(20) {
		at := start.Add(time.Duration(r.Int64N(int64(busy))))
		tenant := tenants[r.IntN(len(tenants))]
		common := platform.Common{Tenant: tenant}
		if r.Float64() < 0.6 {
			id, fails := fmt.Sprintf("comment-%d", i), r.Float64() < 0.2
			if fails {
				id += strings.Repeat("-", 300)
			}
			list = append(list, change{at: at, record: platform.Comment{Common: common, ID: id, DiscussionID: "d_1", UserID: "u", Text: "hello"}, about: id, tenant: tenant, fails: fails})
			continue
		}
		m := platform.Membership{Common: common, UserID: fmt.Sprintf("member-%d", i), CommunityID: "c_1"}
		one := change{at: at, record: m, about: m.UserID, tenant: tenant}
		list = append(list, one)
		if r.Float64() < 0.8 {
			m.AddedBy = "o"
			one.at, one.record = at.Add(time.Duration(r.Int64N(int64(time.Minute)))), m
			list = append(list, one)
		}
	}
	return list
}

// change writes to the platform's table.
func (c *cloud) change(number int, planned change) {
	s := c.s
	if err := s.store.PutRecord(context.Background(), planned.record); err != nil {
		panic(err) // the memory store takes everything
	}
	c.producing--
	for {
		records, err := s.store.Records(noWait, dynamoitem.Platform, c.changes, 1000)
		if err != nil {
			break // nothing more
		}
		for _, r := range records {
			c.changes = r.Change.SequenceNumber
			id := fmt.Sprint("change ", number)
			s.note(delivery.Key{EventID: id}, "%s of the platform's table: %s", id, planned.about)
			sh := c.captured
			sh.records, sh.ids, sh.at = append(sh.records, r), append(sh.ids, id), append(sh.at, time.Now())
		}
	}
	c.captured.poll()
}

// judgeCapture checks that each change has become an event of its tenant, or is kept.
func (j *checker) judgeCapture() {
	if len(j.s.plan.changes) == 0 {
		return
	}
	page, err := j.s.store.ListFailedChanges(context.Background(), time.Time{}, 0, "")
	if err != nil {
		panic(err)
	}
	kept := map[string]int{}
	for _, f := range page.Changes {
		kept[f.SequenceNumber]++
	}
	for i, planned := range j.s.plan.changes {
		id := fmt.Sprint("change ", i)
		if j.trimmed[id] {
			continue
		}
		events, failed := 0, 0
		for _, f := range j.events {
			if f.event.Tenant == planned.tenant && about(f.decoded) == planned.about {
				events++
			}
		}
		for n, record := range j.s.cloud.captured.ids {
			if record == id {
				failed = kept[j.s.cloud.captured.records[n].Change.SequenceNumber]
			}
		}
		want, wantFailed := 1, 0
		if planned.fails {
			want, wantFailed = 0, 1
		}
		if events != want || failed != wantFailed {
			j.violated(captures, delivery.Key{EventID: id}, "%s (%.40s) has become %d events and %d failed changes, want %d and %d", id, planned.about, events, failed, want, wantFailed)
		}
	}
}

// about is what identifies the change of a captured event.
func about(e event.Event) string {
	var data struct {
		CommentID string `json:"comment_id"`
	}
	if err := json.Unmarshal(e.Data, &data); err == nil && data.CommentID != "" {
		return data.CommentID
	}
	return e.ActorUserID
}
