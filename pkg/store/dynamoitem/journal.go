package dynamoitem

import (
	"fmt"
	"strconv"

	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/event/journal"
)

// journalEntries is the attribute of an item's events.
const journalEntries = "entries"

// JournalPartition is the partition of a shard of a tenant's journal. It is in Deliveries,
// whose sort key orders the items by time and whose TTL deletes them, under an id that no
// endpoint can have.
func JournalPartition(tenant string, shard int) string {
	return "journal#" + strconv.Itoa(shard) + "#" + tenant
}

// EncodeJournal returns an item of the journal. It expires at the end of the retention of its
// newest event: all of them have the same.
func EncodeJournal(i journal.Item) (Item, error) {
	text, err := i.Encode()
	if err != nil {
		return nil, err
	}
	newest := i.Entries[len(i.Entries)-1].ID
	if _, err := event.IDTime(newest); err != nil {
		return nil, err
	}
	item := Item{
		EndpointID: S(JournalPartition(i.Tenant, i.Shard())), EventID: S(i.Key()), Tenant: S(i.Tenant), journalEntries: S(text),
		ExpiresAt: Seconds(event.RetainedUntil(newest, i.RetentionDays)),
	}
	if i.RetentionDays > 0 {
		item[RetentionDays] = N(int64(i.RetentionDays))
	}
	return item, nil
}

// DecodeJournal reads what EncodeJournal wrote.
func DecodeJournal(item Item) (journal.Item, error) {
	r := reader{item: item}
	r.must(EventID, Tenant, journalEntries)
	tenant, text, days := r.s(Tenant), r.s(journalEntries), int(r.n(RetentionDays))
	if r.err != nil {
		return journal.Item{}, r.err
	}
	i, err := journal.Decode(tenant, text)
	if err != nil {
		return i, fmt.Errorf("item %s: %w", r.s(EventID), err)
	}
	i.RetentionDays = days
	return i, nil
}
