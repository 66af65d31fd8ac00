package dynamoitem

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/tidings-dev/tidings/pkg/ops/stats"
)

// A statistics item covers one bucket of ten minutes. Each count of each minute is an
// attribute, to which ADD adds. Its name has two letters, because names are most of the
// item: the minute ("a" to "j"), then a capital letter for the count, or "a" to "z" and
// "_" for the bucket of the latency histogram. Zeros are omitted.
const (
	// BatchID is the id of the last batch.
	BatchID = "batch_id"
	// LastEvent and LastBatch are fields of stats.Record.
	LastEvent = "last_event"
	LastBatch = "last_batch"
	// DisabledEndpoints is a set of stats.Endpoint.
	DisabledEndpoints = "disabled"
	// unknownKind begins the name of the count of a kind that Tidings does not know.
	unknownKind = "kind:"
	// undefinedType begins the name of the count of a type that has no definition.
	undefinedType = "type:"
)

// SweepKey is the Control key of the last sweep.
const SweepKey = "heartbeat#sweep"

// StatisticsKey is the Control key of a shard of a bucket.
func StatisticsKey(bucket time.Time, shard int) string {
	return fmt.Sprintf("stats#%d#%d", bucket.Unix(), shard)
}

// counted returns the counts by their letter.
func counted(c *stats.Counts) map[byte]*int64 {
	return map[byte]*int64{
		'A': &c.Accepted, 'Q': &c.Queued, 'T': &c.Attempts, 'D': &c.Delivered,
		'F': &c.Failed, 'R': &c.Retried, 'X': &c.Dead, 'S': &c.Skipped,
		'C': &c.Captured, 'E': &c.CaptureFailed,
	}
}

const places = "abcdefghijklmnopqrstuvwxyz_"

// EncodeCounts returns the attributes to add to the item of a bucket.
func EncodeCounts(at time.Time, c stats.Counts) Item {
	minute := string(rune('a' + int(at.Sub(stats.Bucket(at))/time.Minute)))
	item := Item{}
	for letter, n := range counted(&c) {
		if *n != 0 {
			item[minute+string(letter)] = N(*n)
		}
	}
	for place, n := range c.Latency {
		if n != 0 {
			item[minute+places[place:place+1]] = N(n)
		}
	}
	return item
}

// EncodeNames returns the attributes that add a batch's counts by name to the item of a
// bucket.
func EncodeNames(b stats.Batch) Item {
	item := Item{}
	for kind, n := range b.UnknownKinds {
		item[unknownKind+kind] = N(n)
	}
	for name, n := range b.UndefinedTypes {
		item[undefinedType+name] = N(n)
	}
	return item
}

// EndpointSet returns a set attribute of endpoints, without duplicates.
func EndpointSet(list []stats.Endpoint) types.AttributeValue {
	set := &types.AttributeValueMemberSS{}
	for _, e := range list {
		if !slices.Contains(set.Value, e.String()) {
			set.Value = append(set.Value, e.String())
		}
	}
	return set
}

// DecodeStatistics reads an item of a bucket. It returns the start of the bucket, too.
func DecodeStatistics(item Item) (time.Time, stats.Record, error) {
	in := reader{item: item}
	in.must(Key)
	var at int64
	var shard int
	if _, err := fmt.Sscanf(in.s(Key), "stats#%d#%d", &at, &shard); err != nil && in.err == nil {
		in.err = fmt.Errorf("item: %.64q is not the key of a statistics item", in.s(Key))
	}
	r := stats.Record{LastEvent: in.millis(LastEvent), LastBatch: in.millis(LastBatch)}
	if set, ok := item[DisabledEndpoints].(*types.AttributeValueMemberSS); ok {
		for _, text := range set.Value {
			if e, ok := stats.ParseEndpoint(text); ok {
				r.Disabled = append(r.Disabled, e)
			}
		}
	}
	minutes := map[byte]*stats.Counts{}
	for name := range item {
		if kind, ok := strings.CutPrefix(name, unknownKind); ok {
			if r.UnknownKinds == nil {
				r.UnknownKinds = map[string]int64{}
			}
			r.UnknownKinds[kind] = in.n(name)
			continue
		}
		if of, ok := strings.CutPrefix(name, undefinedType); ok {
			if r.UndefinedTypes == nil {
				r.UndefinedTypes = map[string]stats.Seen{}
			}
			r.UndefinedTypes[of] = stats.Seen{Count: in.n(name), Last: time.Unix(at, 0).UTC()}
			continue
		}
		if len(name) != 2 || name[0] < 'a' || name[0] > 'j' {
			continue
		}
		c := minutes[name[0]]
		if c == nil {
			c = new(stats.Counts)
			minutes[name[0]] = c
		}
		if n, ok := counted(c)[name[1]]; ok {
			*n = in.n(name)
		} else if place := strings.IndexByte(places, name[1]); place >= 0 {
			c.Latency[place] = in.n(name)
		}
	}
	for letter, c := range minutes {
		begin := time.Unix(at, 0).UTC().Add(time.Duration(letter-'a') * time.Minute)
		r.Minutes = append(r.Minutes, stats.Minute{At: begin, Counts: *c})
	}
	return time.Unix(at, 0).UTC(), stats.Merge(r), in.err
}

// DayKey is the Control key of the statistics of a day.
func DayKey(date time.Time) string { return dayPrefix + date.UTC().Format(time.DateOnly) }

const dayPrefix = "stats-day#"

// EncodeDay returns the item of a day. Its counts have the letters of a bucket's, without
// a minute.
func EncodeDay(d stats.Day) Item {
	item := Item{Key: S(DayKey(d.Date)), DayAt: Millis(d.At), "open_circuits": N(int64(d.OpenCircuits)), ExpiresAt: Seconds(d.Date.Add(stats.DayRetention))}
	if d.Complete {
		item["complete"] = N(1)
	}
	for letter, n := range counted(&d.Counts) {
		if *n != 0 {
			item[string(rune(letter))] = N(*n)
		}
	}
	for place, n := range d.Latency {
		if n != 0 {
			item[places[place:place+1]] = N(n)
		}
	}
	return item
}

// DayAt is the attribute that holds when a day was summed up.
const DayAt = "summed_at"

// DecodeDay reads what EncodeDay wrote.
func DecodeDay(item Item) (stats.Day, error) {
	in := reader{item: item}
	in.must(Key, DayAt)
	date, err := time.Parse(time.DateOnly, strings.TrimPrefix(in.s(Key), dayPrefix))
	if err != nil && in.err == nil {
		in.err = fmt.Errorf("item: %.64q is not the key of a day's statistics", in.s(Key))
	}
	d := stats.Day{Date: date, At: in.millis(DayAt), OpenCircuits: int(in.n("open_circuits")), Complete: in.n("complete") != 0}
	for letter, n := range counted(&d.Counts) {
		*n = in.n(string(rune(letter)))
	}
	for place := range d.Latency {
		d.Latency[place] = in.n(places[place : place+1])
	}
	return d, in.err
}

// EncodeSweep returns the item of the last sweep. It does not expire, so that monitoring
// can report that there was no sweep for a long time.
func EncodeSweep(s stats.Sweep) Item {
	item := Item{Key: S(SweepKey), "at": Millis(s.At)}
	for name, n := range map[string]int{"due": s.Due, "queued": s.Queued, "overdue": s.Overdue, "retrying": s.Retrying} {
		item[name] = N(int64(n))
	}
	putTime(item, "oldest_due", s.OldestDue)
	for name, is := range map[string]bool{"done": s.Done, "more": s.More} {
		if is {
			item[name] = N(1)
		}
	}
	return item
}

// DecodeSweep reads what EncodeSweep wrote.
func DecodeSweep(item Item) (stats.Sweep, error) {
	in := reader{item: item}
	in.must(Key, "at")
	return stats.Sweep{
		At: in.millis("at"), Done: in.n("done") != 0, Due: int(in.n("due")), Queued: int(in.n("queued")),
		Overdue: int(in.n("overdue")), OldestDue: in.millis("oldest_due"), Retrying: int(in.n("retrying")), More: in.n("more") != 0,
	}, in.err
}
