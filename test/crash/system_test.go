//go:build rig

package crash_test

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
	// loadTime is the time over which a round's events are emitted. The kill comes
	// within killTime after the start of the round.
	loadTime = 1500 * time.Millisecond
	killTime = 2500 * time.Millisecond
	// downTime is the maximum time for which DynamoDB or the receiver stays down.
	downTime = 2 * time.Second
	// leaseTime is the maximum wait for a round before the next one begins: until the
	// leases of the attempts in flight have ended. A retry that a dead worker stored
	// but did not queue takes longer, because the sweep finds it minutes later.
	leaseTime = 25 * time.Second
	// settleTime is the limit for the last verdict of a round.
	settleTime = 5 * time.Minute
	// sweepTime is the interval of sweeps in addition to the runner's own schedule;
	// sweeps may overlap.
	sweepTime = 10 * time.Second
	// visibility is the work queue's visibility timeout in these runs, in seconds. The
	// template's six minutes would take too long.
	visibility = 30
)

// system is a runner, a DynamoDB and a receiver, one of which is killed repeatedly.
type system struct {
	name      string // what is killed
	kills     int
	ownDynamo bool // the runner starts DynamoDB, and DynamoDB ends with it
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
	// The URLs change with every start of the runner.
	mu                 sync.Mutex
	emitURL, invokeURL string
}

// outage is a time in which a process was down.
type outage struct{ killed, back time.Time }

// round is one kill, from the first event to the last verdict.
type round struct {
	number     int
	after      time.Duration
	endpoints  map[string]endpoint.Endpoint // by the name of their behaviour
	ids        []string                     // of the events
	deliveries map[string][]delivery.Delivery
}

func (s *system) run(ctx context.Context, report func(row)) (err error) {
	if s.kills == 0 {
		return nil
	}
	if s.dir, err = os.MkdirTemp("", "tidings-crash-"); err != nil {
		return err
	}
	failed := false
	ctx, cancel := context.WithCancel(ctx)
	defer func() {
		cancel()
		s.stop()
		if s.keep || err != nil || failed {
			fmt.Fprintf(os.Stderr, "crash: the state of %q is kept in %s\n", s.name, s.dir)
			return
		}
		_ = os.RemoveAll(s.dir)
	}()
	if err := s.start(ctx); err != nil {
		return err
	}
	go s.sweep(ctx)
	finish := func(open *round) error {
		r, err := s.account(ctx, open)
		if err != nil {
			return fmt.Errorf("kill %d: %w", open.number+1, err)
		}
		failed = failed || !r.ok()
		report(r)
		return s.remove(ctx, open.endpoints)
	}
	var open []*round
	for n := range s.kills {
		next, err := s.round(ctx, n)
		if err != nil {
			return fmt.Errorf("kill %d: %w", n+1, err)
		}
		settled, err := s.settled(ctx, next, leaseTime)
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
		if _, err := s.settled(ctx, one, settleTime); err != nil {
			return err
		}
		if err := finish(one); err != nil {
			return err
		}
	}
	return nil
}

// sweep invokes dispatch as the schedule does, until ctx ends.
func (s *system) sweep(ctx context.Context) {
	for {
		select {
		case <-time.After(sweepTime):
		case <-ctx.Done():
			return
		}
		s.mu.Lock()
		url := s.invokeURL
		s.mu.Unlock()
		// It fails while the runner is down.
		_ = localrunner.Invoke(ctx, url, "dispatch", `{"action":"sweep"}`)
	}
}

func (s *system) start(ctx context.Context) (err error) {
	s.secret, s.known = signature.NewSecret(), map[string]bool{}
	text, err := os.ReadFile("template.yaml")
	if err != nil {
		return err
	}
	const asDeployed = "VisibilityTimeout: 360"
	if n := strings.Count(string(text), asDeployed); n != 2 {
		return fmt.Errorf("template.yaml contains %q %d times, not for the work queue and the slow queue", asDeployed, n)
	}
	s.template = filepath.Join(s.dir, "template.yaml")
	if err := os.WriteFile(s.template, []byte(strings.ReplaceAll(string(text), asDeployed, fmt.Sprintf("VisibilityTimeout: %d", visibility))), 0o600); err != nil {
		return err
	}
	port, err := process.FreePort()
	if err != nil {
		return err
	}
	s.address, s.record = fmt.Sprintf("127.0.0.1:%d", port), filepath.Join(s.dir, "receiver.jsonl")
	if err := s.startReceiver(ctx); err != nil {
		return err
	}
	if !s.ownDynamo {
		if s.port, err = process.FreePort(); err != nil {
			return err
		}
		if err := s.startDynamo(ctx); err != nil {
			return err
		}
	}
	return s.startRunner(ctx)
}

func (s *system) startReceiver(ctx context.Context) (err error) {
	if s.receiving, err = startReceiver(s.address, s.record, s.random.Uint64(), s.secret); err != nil {
		return err
	}
	return s.receiving.Ready(ctx, 30*time.Second, func(ctx context.Context) error {
		var d net.Dialer
		conn, err := d.DialContext(ctx, "tcp", s.address)
		if err != nil {
			return err
		}
		return conn.Close()
	})
}

func (s *system) startDynamo(ctx context.Context) (err error) {
	s.dynamo, err = dynamoemulator.Start(ctx, dynamoemulator.Options{Port: s.port, DBPath: filepath.Join(s.dir, "dynamodb.db")})
	return err
}

func (s *system) startRunner(ctx context.Context) (err error) {
	args := []string{"--template", s.template}
	if !s.ownDynamo {
		args = append(args, "--dynamodb", s.dynamo.URL)
	}
	if s.runner, err = localrunner.StartRunner(ctx, s.binary, filepath.Join(s.dir, "state"), args...); err != nil {
		return err
	}
	s.mu.Lock()
	s.emitURL, s.invokeURL = s.runner.Note.URLs["emit"], s.runner.Note.InvokeURL
	s.mu.Unlock()
	return nil
}

func (s *system) stop() {
	if s.runner != nil {
		s.runner.Kill()
	}
	if s.dynamo != nil {
		s.dynamo.Stop()
	}
	if s.receiving != nil {
		s.receiving.Stop()
	}
}

// kill kills the process under test, and starts it again after a while.
func (s *system) kill(ctx context.Context) error {
	down := time.Duration(s.random.Int64N(int64(downTime)))
	switch s.name {
	case "DynamoDB":
		s.dynamo.Stop() // SIGKILL
		time.Sleep(down)
		return s.startDynamo(ctx)
	case "receiver":
		s.receiving.Stop()
		time.Sleep(down)
		return s.startReceiver(ctx)
	}
	s.runner.Kill()
	return s.startRunner(ctx)
}

// round emits events and kills the process meanwhile.
func (s *system) round(ctx context.Context, number int) (*round, error) {
	endpoints, err := s.endpoints(ctx, number)
	if err != nil {
		return nil, err
	}
	time.Sleep(300 * time.Millisecond) // until the runner's cache has seen them
	began := time.Now()
	after := time.Duration(s.random.Int64N(int64(killTime)))
	type loaded struct {
		ids []string
		err error
	}
	load := make(chan loaded, 1)
	go func() {
		ids, err := s.load(ctx)
		load <- loaded{ids, err}
	}()
	time.Sleep(after)
	killed := time.Now()
	if err := s.kill(ctx); err != nil {
		return nil, err
	}
	s.outages = append(s.outages, outage{killed, time.Now()})
	done := <-load
	return &round{number: number, after: killed.Sub(began), endpoints: endpoints, ids: done.ids}, done.err
}

// endpoints adds the round's endpoints, by the name of their behaviour.
func (s *system) endpoints(ctx context.Context, round int) (map[string]endpoint.Endpoint, error) {
	quick := func(e *endpoint.Endpoint) {
		e.Timeout = 2 * time.Second
		e.Retry = retry.Policy{MaxDelay: 2 * time.Second}
		e.Breaker = breaker.Policy{FailingFor: time.Second, OpenFor: time.Second, MaxOpenFor: 2 * time.Second}
	}
	added := map[string]endpoint.Endpoint{}
	for name := range behaviours {
		e, err := localrunner.AddEndpoint(ctx, s.runner.Store, fmt.Sprintf("http://%s/%s/%d", s.address, name, round), s.secret, func(e *endpoint.Endpoint) {
			quick(e)
			switch name {
			case "broken":
				e.Retry.MaxAttempts, e.Breaker.Failures = 2, 100 // so that its deliveries end soon
			case "gone":
				e.Limit = ratelimit.Limit{PerMinute: 120, Burst: 2} // so that some deliveries are pending when it is disabled
			}
		})
		if err != nil {
			return nil, fmt.Errorf("add endpoint: %w", err)
		}
		added[name] = e
	}
	return added, nil
}

func (s *system) remove(ctx context.Context, endpoints map[string]endpoint.Endpoint) error {
	for _, e := range endpoints {
		if err := s.runner.Store.RemoveEndpoint(ctx, e.Tenant, e.ID); err != nil {
			return err
		}
	}
	return nil
}

// load emits the round's events. It retries a failed call with the same idempotency
// key until the event is accepted.
func (s *system) load(ctx context.Context) (ids []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, settleTime)
	defer cancel()
	var mu sync.Mutex
	var calls sync.WaitGroup
	for i := range s.events {
		n := s.emitted + i
		calls.Go(func() {
			time.Sleep(loadTime * time.Duration(i) / time.Duration(s.events))
			request := localrunner.Comment(n)
			request.IdempotencyKey = fmt.Sprint("crash-", n)
			for {
				s.mu.Lock()
				url := s.emitURL
				s.mu.Unlock()
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
	s.emitted += s.events
	for _, id := range ids {
		if s.known[id] {
			err = errors.Join(err, fmt.Errorf("emit returned the id %s for two events", id))
		}
		s.known[id] = true
	}
	return ids, err
}

// settled waits until every delivery of the round is settled, and reports whether
// that was within the limit.
func (s *system) settled(ctx context.Context, r *round, limit time.Duration) (bool, error) {
	for end := time.Now().Add(limit); ; time.Sleep(500 * time.Millisecond) {
		r.deliveries = map[string][]delivery.Delivery{}
		waiting := 0
		for name, e := range r.endpoints {
			list, err := localrunner.Deliveries(ctx, s.runner.Store, e.ID)
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

// account compares producer, store and receiver after a round.
func (s *system) account(ctx context.Context, of *round) (r row, err error) {
	r = row{killed: s.name, after: of.after, events: len(of.ids)}
	if r.phantoms, err = s.phantoms(ctx); err != nil {
		return r, err
	}
	record, err := answers(s.record)
	if err != nil {
		return r, err
	}
	ids, all := of.ids, of.deliveries
	byDelivery := map[string][]answer{}
	for _, a := range record {
		byDelivery[a.Path+" "+a.ID] = append(byDelivery[a.Path+" "+a.ID], a)
	}
	for name, e := range of.endpoints {
		// An endpoint that answered 410 is disabled, so only events that were fanned out
		// before have a delivery.
		if name == "gone" {
			r.accepted += len(all[name])
		} else {
			r.accepted += len(ids)
			r.unsettled += len(ids) - len(all[name])
		}
		path := strings.TrimPrefix(e.URL, "http://"+s.address)
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
				return r, fmt.Errorf("the store says that %s is delivered, but the receiver has no record of it", d.Key)
			}
			if len(succeeded) > 1 {
				r.duplicated++
				// A duplicate is allowed if the earlier success came while a process was
				// down or just before, when its verdict was not stored yet.
				for _, a := range succeeded[:len(succeeded)-1] {
					if !slices.ContainsFunc(s.outages, func(o outage) bool { return a.Began.Before(o.back) && a.Ended.Add(verdictTime).After(o.killed) }) {
						r.unexcused++
					}
				}
				if lost == 0 && s.name != "receiver" {
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

// verdictTime is the maximum time between a response and the write of its verdict on a busy
// machine. A duplicate must also have an attempt without a verdict.
const verdictTime = 10 * time.Second

// phantoms counts the events in the table that were never acknowledged to a producer.
func (s *system) phantoms(ctx context.Context) (int, error) {
	table := local.Tables(s.runner.Note.Stack).Events
	db := s.runner.Note.DynamoDB()
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
			if !s.known[a.ID] {
				unknown++
			}
		}
	}
	return unknown, nil
}
