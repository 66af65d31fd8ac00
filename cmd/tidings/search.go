package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/pflag"

	"github.com/tidings-dev/tidings/pkg/delivery"
)

// rangeFlags are the flags of a range of times at which events were accepted.
type rangeFlags struct {
	since    time.Duration
	from, to string
}

func (r *rangeFlags) add(f *pflag.FlagSet) {
	f.DurationVar(&r.since, "since", 0, "only events accepted within this time, such as 72h")
	f.StringVar(&r.from, "from", "", "only events accepted at or after this time, such as 2026-01-29T12:00:00Z")
	f.StringVar(&r.to, "to", "", "only events accepted at or before this time (default: now)")
}

// parse checks the flags and returns the range. A bound that is not given is zero.
func (r *rangeFlags) parse() (first, last time.Time, err error) {
	if r.since < 0 || r.since > 0 && r.from != "" {
		return first, last, usagef("--since must be positive, such as 72h, and excludes --from")
	}
	first = sinceTime(r.since)
	for _, bound := range []struct {
		flag, text string
		into       *time.Time
	}{{"--from", r.from, &first}, {"--to", r.to, &last}} {
		if bound.text == "" {
			continue
		}
		if *bound.into, err = time.Parse(time.RFC3339, bound.text); err != nil {
			return first, last, usagef("%s must be an RFC 3339 time such as 2026-01-29T12:00:00Z", bound.flag)
		}
	}
	if err := delivery.CheckRange(first, last); err != nil {
		return first, last, usagef("--from and --to: %w", err)
	}
	return first, last, nil
}

// resultPage is a page of a search.
type resultPage[T any] struct {
	items []T
	next  string    // cursor of the next page; empty on the last one
	until time.Time // the page covers events back to this time
}

// search reads pages until it has limit items or there are no more. While a page has none,
// it prints how far it has searched.
func search[T any](progress io.Writer, limit int, read func(limit int, cursor string) (resultPage[T], error)) (found []T, more bool, err error) {
	found = []T{}
	for cursor := ""; ; {
		page, err := read(limit-len(found), cursor)
		if err != nil {
			return nil, false, err
		}
		found = append(found, page.items...)
		if cursor = page.next; cursor == "" || len(found) >= limit {
			return found, cursor != "", nil
		}
		if len(page.items) == 0 {
			fmt.Fprintf(progress, "searched back to %s …\n", formatTime(page.until))
		}
	}
}
