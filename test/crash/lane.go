package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/delivery/breaker"
	"github.com/tidings-dev/tidings/pkg/delivery/ratelimit"
	"github.com/tidings-dev/tidings/pkg/delivery/retry"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/local"
	"github.com/tidings-dev/tidings/pkg/local/dynamoemulator"
	"github.com/tidings-dev/tidings/pkg/local/process"
	"github.com/tidings-dev/tidings/pkg/signature"
	"github.com/tidings-dev/tidings/pkg/store/dynamoitem"
	"github.com/tidings-dev/tidings/test/localrunner"
)

const (
	// loadTime is over how long a round's events are emitted, and killTime within
	// how much of a round the kill falls.
	loadTime = 1500 * time.Millisecond
	killTime = 2500 * time.Millisecond
	// downTime is how long DynamoDB or the receiver stays away, at most.
	downTime = 2 * time.Second
	// leaseTime is how long a round is waited for before the next one: until the
	// leases of the attempts under way have ended. What a dead worker had decided
	// on but not queued takes longer: the sweep finds it minutes later.
	leaseTime = 25 * time.Second
	// settleTime is how long a round may take to come to rest.
	settleTime = 5 * time.Minute
	// sweepTime is how often the lane sweeps, beside the runner's own schedule:
	// sweeps may overlap.
	sweepTime = 10 * time.Second
	// visibility is the work queue's in these runs. The template's is six minutes,
	// six times the function's timeout as AWS asks for; nobody would wait for that.
	visibility = 30
)

// lane is one system of runner, DynamoDB and receiver, of which one part is killed
// again and again.
type lane struct {
	name      string // what is killed
	kills     int
	ownDynamo bool // the runner starts DynamoDB, and takes it along when it dies
	binary    string
	events    int
	random    *rand.Rand
	keep      bool

	dir      string
	template string
	secret   signature.Secret
	address  string // the receiver's
	record   string
	port     int // DynamoDB's
	emitted  int
	known    map[string]bool // ids of all accepted events
	outages  []outage

	runner    *localrunner.Runner
	dynamo    *dynamoemulator.Server
	receiving *process.Process
	// They change with every start of the runner.
	mu                 sync.Mutex
	emitURL, invokeURL string
}

// outage is a time in which something was dead.
type outage struct{ killed, back time.Time }

// round is one kill, from the first event to the last verdict.
type round struct {
	number     int
	after      time.Duration
	endpoints  map[string]endpoint.Endpoint // by what they come to
	ids        []string                     // of the events
	deliveries map[string][]delivery.Delivery
}

func (l *lane) run(ctx context.Context, report func(row)) (err error) {
	if l.kills == 0 {
		return nil
	}
	if l.dir, err = os.MkdirTemp("", "tidings-crash-"); err != nil {
		return err
	}
	failed := false
	ctx, cancel := context.WithCancel(ctx)
	defer func() {
		cancel()
		l.stop()
		if l.keep || err != nil || failed {
			fmt.Fprintf(os.Stderr, "crash: the state of %q is kept in %s\n", l.name, l.dir)
			return
		}
		_ = os.RemoveAll(l.dir)
	}()
	if err := l.start(ctx); err != nil {
		return err
	}
	go l.sweep(ctx)
	finish := func(open *round) error {
		r, err := l.account(ctx, open)
		if err != nil {
			return fmt.Errorf("kill %d: %w", open.number+1, err)
		}
		failed = failed || !r.holds()
		report(r)
		return l.remove(ctx, open.endpoints)
	}
	var open []*round
	for n := range l.kills {
		next, err := l.round(ctx, n)
		if err != nil {
			return fmt.Errorf("kill %d: %w", n+1, err)
		}
		settled, err := l.settled(ctx, next, leaseTime)
		switch {
		case err != nil:
			return err
		case !settled:
			open = append(open, next)
		default:
			if err := finish(next); err != nil {
				return err
			}
		}
	}
	for _, one := range open {
		if _, err := l.settled(ctx, one, settleTime); err != nil {
			return err
		}
		if err := finish(one); err != nil {
			return err
		}
	}
	return nil
}

// sweep invokes dispatch as the schedule does, until ctx ends.
func (l *lane) sweep(ctx context.Context) {
	for {
		select {
		case <-time.After(sweepTime):
		case <-ctx.Done():
			return
		}
		l.mu.Lock()
		url := l.invokeURL
		l.mu.Unlock()
		// It fails where the runner is just being killed.
		_ = localrunner.Invoke(ctx, url, "dispatch", `{"action":"sweep"}`)
	}
}

func (l *lane) start(ctx context.Context) (err error) {
	l.secret, l.known = signature.NewSecret(), map[string]bool{}
	text, err := os.ReadFile("template.yaml")
	if err != nil {
		return err
	}
	const asDeployed = "VisibilityTimeout: 360"
	if strings.Count(string(text), asDeployed) != 1 {
		return fmt.Errorf("template.yaml has not one %q", asDeployed)
	}
	l.template = filepath.Join(l.dir, "template.yaml")
	if err := os.WriteFile(l.template, []byte(strings.Replace(string(text), asDeployed, fmt.Sprintf("VisibilityTimeout: %d", visibility), 1)), 0o600); err != nil {
		return err
	}
	port, err := process.FreePort()
	if err != nil {
		return err
	}
	l.address, l.record = fmt.Sprintf("127.0.0.1:%d", port), filepath.Join(l.dir, "receiver.jsonl")
	if err := l.startReceiver(ctx); err != nil {
		return err
	}
	if !l.ownDynamo {
		if l.port, err = process.FreePort(); err != nil {
			return err
		}
		if err := l.startDynamo(ctx); err != nil {
			return err
		}
	}
	return l.startRunner(ctx)
}

func (l *lane) startReceiver(ctx context.Context) (err error) {
	if l.receiving, err = startReceiver(l.address, l.record, l.random.Uint64(), l.secret); err != nil {
		return err
	}
	return l.receiving.Ready(ctx, 30*time.Second, func(ctx context.Context) error {
		var d net.Dialer
		conn, err := d.DialContext(ctx, "tcp", l.address)
		if err != nil {
			return err
		}
		return conn.Close()
	})
}

func (l *lane) startDynamo(ctx context.Context) (err error) {
	l.dynamo, err = dynamoemulator.Start(ctx, dynamoemulator.Options{Port: l.port, DBPath: filepath.Join(l.dir, "lane.db")})
	return err
}

func (l *lane) startRunner(ctx context.Context) (err error) {
	args := []string{"--template", l.template}
	if !l.ownDynamo {
		args = append(args, "--dynamodb", l.dynamo.URL)
	}
	if l.runner, err = localrunner.StartRunner(ctx, l.binary, filepath.Join(l.dir, "state"), args...); err != nil {
		return err
	}
	l.mu.Lock()
	l.emitURL, l.invokeURL = l.runner.Note.URLs["emit"], l.runner.Note.InvokeURL
	l.mu.Unlock()
	return nil
}

func (l *lane) stop() {
	if l.runner != nil {
		l.runner.Kill()
	}
	if l.dynamo != nil {
		l.dynamo.Stop()
	}
	if l.receiving != nil {
		l.receiving.Stop()
	}
}

// kill kills what the lane kills, and starts it again after a while.
func (l *lane) kill(ctx context.Context) error {
	down := time.Duration(l.random.Int64N(int64(downTime)))
	switch l.name {
	case "DynamoDB":
		l.dynamo.Stop() // SIGKILL
		time.Sleep(down)
		return l.startDynamo(ctx)
	case "receiver":
		l.receiving.Stop()
		time.Sleep(down)
		return l.startReceiver(ctx)
	}
	l.runner.Kill()
	return l.startRunner(ctx)
}

// round emits events and kills in their midst.
func (l *lane) round(ctx context.Context, number int) (*round, error) {
	endpoints, err := l.endpoints(ctx, number)
	if err != nil {
		return nil, err
	}
	time.Sleep(300 * time.Millisecond) // until the runner's cache has seen them
	began := time.Now()
	after := time.Duration(l.random.Int64N(int64(killTime)))
	type loaded struct {
		ids []string
		err error
	}
	load := make(chan loaded, 1)
	go func() {
		ids, err := l.load(ctx)
		load <- loaded{ids, err}
	}()
	time.Sleep(after)
	killed := time.Now()
	if err := l.kill(ctx); err != nil {
		return nil, err
	}
	l.outages = append(l.outages, outage{killed, time.Now()})
	done := <-load
	return &round{number: number, after: killed.Sub(began), endpoints: endpoints, ids: done.ids}, done.err
}

// endpoints adds the round's endpoints, by what they come to.
func (l *lane) endpoints(ctx context.Context, round int) (map[string]endpoint.Endpoint, error) {
	quick := func(e *endpoint.Endpoint) {
		e.Timeout = 2 * time.Second
		e.Retry = retry.Policy{MaxDelay: 2 * time.Second}
		e.Breaker = breaker.Policy{OpenFor: time.Second, MaxOpenFor: 2 * time.Second}
	}
	added := map[string]endpoint.Endpoint{}
	for name := range behaviours {
		e, err := localrunner.AddEndpoint(ctx, l.runner.Store, fmt.Sprintf("http://%s/%s/%d", l.address, name, round), l.secret, func(e *endpoint.Endpoint) {
			quick(e)
			switch name {
			case "broken":
				e.Retry.MaxAttempts, e.Breaker.Failures = 2, 100 // so that it ends soon
			case "gone":
				e.Limit = ratelimit.Limit{PerMinute: 120, Burst: 2} // so that some wait when it goes
			}
		})
		if err != nil {
			return nil, fmt.Errorf("add endpoint: %w", err)
		}
		added[name] = e
	}
	return added, nil
}

func (l *lane) remove(ctx context.Context, endpoints map[string]endpoint.Endpoint) error {
	for _, e := range endpoints {
		if err := l.runner.Store.RemoveEndpoint(ctx, e.Tenant, e.ID); err != nil {
			return err
		}
	}
	return nil
}

// load emits the round's events, each until it is accepted: a producer whose call
// failed repeats it under the same key.
func (l *lane) load(ctx context.Context) (ids []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var mu sync.Mutex
	var calls sync.WaitGroup
	for i := range l.events {
		n := l.emitted + i
		calls.Go(func() {
			time.Sleep(loadTime * time.Duration(i) / time.Duration(l.events))
			request := localrunner.Comment(n)
			request.IdempotencyKey = fmt.Sprint("crash-", n)
			for {
				l.mu.Lock()
				url := l.emitURL
				l.mu.Unlock()
				results, failed := localrunner.Post(ctx, url, request)
				if failed == nil {
					mu.Lock()
					ids = append(ids, results[0].ID)
					mu.Unlock()
					return
				}
				select {
				case <-time.After(100 * time.Millisecond):
				case <-ctx.Done():
					mu.Lock()
					err = fmt.Errorf("event %d was never accepted: %w", n, failed)
					mu.Unlock()
					return
				}
			}
		})
	}
	calls.Wait()
	l.emitted += l.events
	for _, id := range ids {
		if l.known[id] {
			err = errors.Join(err, fmt.Errorf("%s was answered for two events", id))
		}
		l.known[id] = true
	}
	return ids, err
}

// settled waits until every delivery of the round has found its end, and reports
// whether that was within the limit.
func (l *lane) settled(ctx context.Context, r *round, limit time.Duration) (bool, error) {
	for end := time.Now().Add(limit); ; time.Sleep(500 * time.Millisecond) {
		r.deliveries = map[string][]delivery.Delivery{}
		waiting := 0
		for name, e := range r.endpoints {
			list, err := localrunner.Deliveries(ctx, l.runner.Store, e.ID)
			if err != nil {
				return false, err
			}
			list = slices.DeleteFunc(list, func(d delivery.Delivery) bool { return !slices.Contains(r.ids, d.EventID) })
			r.deliveries[name] = list
			if name != "gone" {
				waiting += len(r.ids) - len(list)
			}
			for _, d := range list {
				if !d.State.Settled() {
					waiting++
				}
			}
		}
		if waiting == 0 || time.Now().After(end) {
			return waiting == 0, nil
		}
	}
}

// account says what a round came to.
func (l *lane) account(ctx context.Context, of *round) (r row, err error) {
	r = row{killed: l.name, after: of.after, events: len(of.ids)}
	if r.phantoms, err = l.phantoms(ctx); err != nil {
		return r, err
	}
	record, err := answers(l.record)
	if err != nil {
		return r, err
	}
	ids, all := of.ids, of.deliveries
	byDelivery := map[string][]answer{}
	for _, a := range record {
		byDelivery[a.Path+" "+a.ID] = append(byDelivery[a.Path+" "+a.ID], a)
	}
	for name, e := range of.endpoints {
		// An endpoint that has answered 410 is disabled, and wants no events from
		// then on: only those that had been fanned out before are deliveries.
		if name == "gone" {
			r.accepted += len(all[name])
		} else {
			r.accepted += len(ids)
			r.unsettled += len(ids) - len(all[name])
		}
		path := strings.TrimPrefix(e.URL, "http://"+l.address)
		for _, d := range all[name] {
			switch d.State {
			case delivery.Delivered:
				r.delivered++
			case delivery.Dead:
				r.dead++
			case delivery.Skipped:
				r.skipped++
			default:
				r.unsettled++
			}
			lost := 0
			for _, a := range d.History {
				if a.Class == delivery.Lost {
					lost++
				}
			}
			r.inFlight += lost
			got := byDelivery[path+" "+d.EventID]
			succeeded := slices.DeleteFunc(slices.Clone(got), func(a answer) bool { return a.Status >= 300 })
			if d.State == delivery.Delivered && len(succeeded) == 0 {
				return r, fmt.Errorf("%s is delivered by the store, and its receiver knows nothing of it", d.Key)
			}
			if len(succeeded) > 1 {
				r.duplicated++
				// Excused are attempts under way at the kill: all but the last answer
				// were given while something was being killed, or just before, when
				// the verdict was not stored yet.
				for _, a := range succeeded[:len(succeeded)-1] {
					if !slices.ContainsFunc(l.outages, func(o outage) bool { return a.Began.Before(o.back) && a.Ended.Add(verdictTime).After(o.killed) }) {
						r.unexcused++
					}
				}
				if lost == 0 && l.name != "receiver" {
					r.unexcused++ // every attempt's verdict was stored
				}
			}
			slices.SortFunc(got, func(a, b answer) int { return a.Began.Compare(b.Began) })
			for i := 1; i < len(got); i++ {
				if got[i].Began.Before(got[i-1].Ended) {
					r.overlaps++
				}
			}
		}
	}
	return r, nil
}

// verdictTime is how long after an answer its verdict may not be stored yet.
const verdictTime = time.Second

// phantoms counts the events in the table that no answer to a producer speaks of.
func (l *lane) phantoms(ctx context.Context) (int, error) {
	table := local.Tables(l.runner.Note.Stack).Events
	db := dynamoemulator.Client(l.runner.Note.DynamoURL)
	unknown := 0
	pages := dynamodb.NewScanPaginator(db, &dynamodb.ScanInput{TableName: &table, ConsistentRead: aws.Bool(true)})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return 0, err
		}
		for _, item := range page.Items {
			a, err := dynamoitem.DecodeEvent(item)
			if err != nil {
				return 0, err
			}
			if !l.known[a.ID] {
				unknown++
			}
		}
	}
	return unknown, nil
}
