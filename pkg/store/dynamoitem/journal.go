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

// EncodeJournal returns an item of the journal. It expires when its newest event does.
func EncodeJournal(i journal.Item) (Item, error) {
	text, err := i.Encode()
	if err != nil {
		return nil, err
	}
	newest, err := event.IDTime(i.Entries[len(i.Entries)-1].ID)
	if err != nil {
		return nil, err
	}
	return Item{
		EndpointID: S(JournalPartition(i.Tenant, i.Shard())), EventID: S(i.Key()), Tenant: S(i.Tenant), journalEntries: S(text),
		ExpiresAt: Seconds(newest.Add(EventRetention)),
	}, nil
}

// DecodeJournal reads what EncodeJournal wrote.
func DecodeJournal(item Item) (journal.Item, error) {
	r := reader{item: item}
	r.must(EventID, Tenant, journalEntries)
	tenant, text := r.s(Tenant), r.s(journalEntries)
	if r.err != nil {
		return journal.Item{}, r.err
	}
	i, err := journal.Decode(tenant, text)
	if err != nil {
		return i, fmt.Errorf("item %s: %w", r.s(EventID), err)
	}
	return i, nil
}
