package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/spf13/cobra"

	"github.com/tidings-dev/tidings/pkg/emit/capture/rules"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/event/catalog"
	"github.com/tidings-dev/tidings/pkg/ops/cost"
	"github.com/tidings-dev/tidings/pkg/store/dynamoitem"
)

const (
	// freshTime is the age from which a record is checked: a younger one may not be
	// captured yet.
	freshTime = 2 * time.Minute
	// clockSlack is how far the platform's clock may differ from DynamoDB's.
	clockSlack = time.Hour
	// askUnits is the estimate of read units from which verify wants --yes.
	askUnits = 1_000_000
)

// verification is the result of `tidings capture verify`.
type verification struct {
	Since   time.Time `json:"since"`
	Until   time.Time `json:"until"`
	Records int       `json:"records"` // of the platform's table
	Events  int       `json:"events"`  // of the period
	Checked int       `json:"checked"` // records of the period that prove an event
	// WithoutTime counts the records that prove an event and have no time, so that they
	// cannot be checked.
	WithoutTime int       `json:"without_time"`
	Missing     []missing `json:"missing"`
}

// missing is a record whose event is not there.
type missing struct {
	Key          string    `json:"key"` // DynamoDB JSON
	Kind         string    `json:"kind"`
	EventType    string    `json:"event_type,omitempty"`
	Tenant       string    `json:"tenant,omitempty"`
	At           time.Time `json:"at,omitzero"`
	Reason       string    `json:"reason,omitempty"`        // why the record cannot be read
	FailedChange string    `json:"failed_change,omitempty"` // its id, if the change is kept
}

func (a *app) captureVerify() *cobra.Command {
	var since time.Duration
	var table string
	var retention int
	var yes bool
	c := &cobra.Command{
		Use: "verify", Short: "Compare the platform's table with the events, and list what is missing", Args: args(0, "no arguments"),
		Long: `Compare the platform's table with the events, and list what is missing.

Each record that was created within the time has to have the event of its insertion: a
user, membership, registration (with its current status), comment, flag or referral.
Each discussion that was closed as expired within the time has to have its
discussion.auto_closed. Records younger than two minutes are not checked, nor are
cancellations, extensions and rejoins, which leave no proof in the table.

The command reads both tables as a whole, prints what that costs, and needs --yes from
1,000,000 read units on. Exits with 1 if an event is missing.`,
		Example: `  tidings capture verify --since 24h
  tidings --stack tidings capture verify --since 1h --table Community --json`,
		RunE: func(c *cobra.Command, _ []string) error {
			if retention < 1 || retention > event.MaxRetentionDays {
				return usagef("--retention-days must be 1 to %d, as the stack's RetentionDays", event.MaxRetentionDays)
			}
			if err := checkSince(since, retention); err != nil {
				return err
			}
			t, err := a.connect(c.Context())
			if err != nil {
				return err
			}
			known, err := t.types().Current(c.Context())
			if err != nil {
				return unreachable(err)
			}
			if err := checkSince(since, shortestRetention(known, retention)); err != nil {
				return err
			}
			if table == "" {
				table = t.tables.Platform
			}
			keys, units, err := t.estimate(c.Context(), table)
			if err != nil {
				return unreachable(err)
			}
			fmt.Fprintf(a.err, "reading %s and %s: about %.0f read units, $%.2f\n", table, t.tables.Events, units, units/1e6*cost.List.ReadUnits)
			if units >= askUnits && !yes {
				return fmt.Errorf("that is a lot of reading: add --yes to do it")
			}
			now := time.Now()
			v := verification{Since: now.Add(-since), Until: now.Add(-freshTime), Missing: []missing{}}
			if err := t.verify(c.Context(), table, keys, &v, a.err); err != nil {
				return unreachable(err)
			}
			if err := a.printVerification(v); err != nil {
				return err
			}
			if len(v.Missing) > 0 {
				return errReported
			}
			return nil
		},
	}
	f := c.Flags()
	f.DurationVar(&since, "since", 24*time.Hour, "check records created within this time")
	f.IntVar(&retention, "retention-days", event.DefaultRetentionDays, "the stack's RetentionDays: how far back there are events")
	f.StringVar(&table, "table", "", "the platform's table (default: the stack's own)")
	f.BoolVar(&yes, "yes", false, "do not ask, whatever it costs")
	return c
}

// estimate returns the names of the table's key, and about how many read units it takes
// to read it and the events. DynamoDB updates the sizes every six hours.
func (t *target) estimate(ctx context.Context, table string) (keys []string, units float64, err error) {
	for _, name := range []string{table, t.tables.Events} {
		out, err := t.db.DescribeTable(ctx, &dynamodb.DescribeTableInput{TableName: &name})
		var none *types.ResourceNotFoundException
		if errors.As(err, &none) {
			return nil, 0, fmt.Errorf("there is no table %s: name the platform's table with --table", name)
		}
		if err != nil {
			return nil, 0, err
		}
		units += float64(aws.ToInt64(out.Table.TableSizeBytes)) / 8192 // eventually consistent
		if name == table {
			for _, k := range out.Table.KeySchema {
				keys = append(keys, aws.ToString(k.AttributeName))
			}
		}
	}
	return keys, units, nil
}

// verify fills the verification. It reads the platform's table first: an event that is
// stored in between does no harm.
func (t *target) verify(ctx context.Context, table string, keys []string, v *verification, progress io.Writer) error {
	expected := map[string][]missing{} // by tenant and identity
	err := t.scan(ctx, &dynamodb.ScanInput{TableName: &table}, func(item dynamoitem.Item) error {
		if v.Records++; v.Records%100_000 == 0 {
			fmt.Fprintf(progress, "%d records …\n", v.Records)
		}
		v.expect(item, keys, expected)
		return nil
	})
	if err != nil {
		return err
	}
	first, _ := event.IDRange(v.Since.Add(-clockSlack), v.Until)
	err = t.scan(ctx, &dynamodb.ScanInput{
		TableName: &t.tables.Events, FilterExpression: aws.String("event_id >= :first"),
		ExpressionAttributeValues: dynamoitem.Item{":first": dynamoitem.S(first)},
	}, func(item dynamoitem.Item) error {
		if v.Events++; v.Events%100_000 == 0 {
			fmt.Fprintf(progress, "%d events …\n", v.Events)
		}
		accepted, err := dynamoitem.DecodeEvent(item)
		if err != nil {
			return err
		}
		e, err := event.Decode(accepted.Body)
		if err != nil {
			return fmt.Errorf("event %s: %w", accepted.ID, err)
		}
		delete(expected, accepted.Tenant+"\x00"+rules.Identity(e))
		return nil
	})
	if err != nil {
		return err
	}
	for _, list := range expected {
		v.Missing = append(v.Missing, list...)
	}
	slices.SortFunc(v.Missing, func(x, y missing) int {
		if c := x.At.Compare(y.At); c != 0 {
			return c
		}
		return strings.Compare(x.Key, y.Key)
	})
	return t.findFailedChanges(ctx, v)
}

// expect adds what an item proves.
func (v *verification) expect(item dynamoitem.Item, keys []string, expected map[string][]missing) {
	image := dynamoitem.PlatformImage(item)
	e, ok, err := rules.Expect(image)
	if !ok && err == nil {
		return
	}
	key := dynamoitem.Item{}
	for _, name := range keys {
		key[name] = item[name]
	}
	m := missing{Key: dynamoitem.EncodeKey(key), Kind: string(image.Kind()), EventType: e.Type, Tenant: e.Tenant, At: e.At}
	if err != nil {
		// Its event cannot be there.
		if e.At.Before(v.Since) || e.At.After(v.Until) {
			return
		}
		v.Checked++
		m.Reason = err.Error()
		expected["\x00"+m.Key] = []missing{m}
		return
	}
	switch {
	case e.At.IsZero():
		v.WithoutTime++
	case !e.At.Before(v.Since) && !e.At.After(v.Until):
		v.Checked++
		id := e.Tenant + "\x00" + e.Identity
		expected[id] = append(expected[id], m)
	}
}

// findFailedChanges names the failed changes of what is missing.
func (t *target) findFailedChanges(ctx context.Context, v *verification) error {
	if len(v.Missing) == 0 {
		return nil
	}
	failed := map[string]string{}
	for cursor := ""; ; {
		page, err := t.store.ListFailedChanges(ctx, v.Since.Add(-clockSlack), 1000, cursor)
		if err != nil {
			return err
		}
		for _, f := range page.Changes {
			failed[f.Key] = f.ID
		}
		if cursor = page.Next; cursor == "" {
			break
		}
	}
	for i := range v.Missing {
		v.Missing[i].FailedChange = failed[v.Missing[i].Key]
	}
	return nil
}

func (t *target) scan(ctx context.Context, in *dynamodb.ScanInput, each func(dynamoitem.Item) error) error {
	for pages := dynamodb.NewScanPaginator(t.db, in); pages.HasMorePages(); {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return fmt.Errorf("read %s: %w", aws.ToString(in.TableName), err)
		}
		for _, item := range page.Items {
			if err := each(item); err != nil {
				return err
			}
		}
	}
	return nil
}

func (a *app) printVerification(v verification) error {
	if a.json {
		return a.printJSON(v)
	}
	for _, m := range v.Missing {
		fmt.Fprintf(a.out, "%s  %s\n  %s %s", m.Key, formatTime(m.At), m.Kind, m.EventType)
		if m.Reason != "" {
			fmt.Fprintf(a.out, ": %s", m.Reason)
		}
		if m.FailedChange != "" {
			fmt.Fprintf(a.out, "\n  kept as failed change %s", m.FailedChange)
		}
		fmt.Fprintln(a.out)
	}
	fmt.Fprintf(a.out, "%d of %d records from %s to %s have their event\n", v.Checked-len(v.Missing), v.Checked, formatTime(v.Since), formatTime(v.Until))
	if v.WithoutTime > 0 {
		fmt.Fprintf(a.out, "%d records have no created_at and were not checked\n", v.WithoutTime)
	}
	return nil
}

// shortestRetention returns how many days the events of all captured types are kept at least.
func shortestRetention(known *catalog.Catalog, days int) int {
	for _, name := range known.Types() {
		if t, _ := known.Type(name); t.CapturedFrom != "" && t.RetentionDays > 0 {
			days = min(days, t.RetentionDays)
		}
	}
	return days
}

// checkSince refuses a time in which events have expired already, or records are too young.
func checkSince(since time.Duration, days int) error {
	if longest := event.Retention(event.StoredDays("", time.Time{}, days)) - 24*time.Hour; since <= freshTime || since > longest {
		return usagef("--since must be more than %s and at most %.0f h, because events are kept for %d days", freshTime, longest.Hours(), days)
	}
	return nil
}
