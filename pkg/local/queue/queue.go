// Package queue is a queue within the process that behaves as an SQS
// standard queue does: delays, visibility timeouts, receive counts, a dead-letter
// queue, and fair hand-out by message group. The local runner and the simulation
// stand on it. It promises that a message which was sent is received until it is
// deleted or dead, and, with a journal, that this survives a killed process.
package queue

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery/work"
)

// Config is a queue's settings, as in the template.
type Config struct {
	Name       string
	Visibility time.Duration // how long a received message stays hidden
	// MaxReceives is how often a message may be received before it moves to
	// Dead; 0 means any number.
	MaxReceives int
	Dead        *Queue
	// Journal is the file in which the queue survives a killed process; "" keeps
	// it in memory only.
	Journal string
}

// Message is a received message.
type Message struct {
	ID       string
	Receipt  string // names this receive; a later one has another
	Body     string
	Group    string
	Receives int
	Sent     time.Time
	First    time.Time // first receive
}

// Stats counts a queue's messages.
type Stats struct {
	Visible, Delayed, InFlight int
	OldestSent                 time.Time // of all that are not in flight; zero when there are none
}

// ErrReceipt says that a receipt is not, or no longer, of this queue.
var ErrReceipt = errors.New("receipt handle is not valid")

// Queue is safe for concurrent use.
type Queue struct {
	config Config

	mu       sync.Mutex
	next     uint64
	messages map[uint64]*message
	later    byTime            // delayed and in flight, by when they become visible
	groups   map[string]*group // with at least one message visible or in flight
	ready    byLoad            // groups with visible messages
	turn     uint64
	waiting  int           // receivers that wait
	wake     chan struct{} // closed for those when something becomes visible, or the earliest time changes
	journal  *journal
}

type message struct {
	id       uint64
	body     string
	group    *group
	sent     time.Time
	first    time.Time
	receives int
	visible  time.Time // when it may be received
	inFlight bool
	place    int // in later; -1 elsewhere
}

// group is one message group: what waits, in order, and how many are in flight.
type group struct {
	name     string
	waiting  []*message
	inFlight int
	served   uint64 // when it was last served
	place    int    // in ready; -1 elsewhere
}

// Open returns a queue. With a journal, what a process before left undeleted is
// there again, visible when its delay is over: its consumers died with it.
func Open(c Config) (*Queue, error) {
	q := &Queue{config: c, messages: map[uint64]*message{}, groups: map[string]*group{}, wake: make(chan struct{})}
	if c.Journal == "" {
		return q, nil
	}
	j, kept, err := openJournal(c.Journal)
	if err != nil {
		return nil, fmt.Errorf("queue %s: %w", c.Name, err)
	}
	q.journal = j
	now := time.Now()
	for _, r := range kept {
		q.next = max(q.next, r.ID)
		q.place(now, &message{id: r.ID, body: r.Body, sent: time.UnixMilli(r.Sent), visible: time.UnixMilli(r.Visible), receives: r.Receives, place: -1}, r.Group)
	}
	return q, nil
}

// Close ends the journal. The queue may not be used after it.
func (q *Queue) Close() error {
	if q.journal == nil {
		return nil
	}
	return q.journal.close()
}

// Name returns the queue's name.
func (q *Queue) Name() string { return q.config.Name }

// Send puts work items on the queue; it is a dispatch.Queue.
func (q *Queue) Send(_ context.Context, items []work.Item) []error {
	bodies := make([]string, len(items))
	for i, item := range items {
		bodies[i] = item.Encode()
	}
	var errs []error
	q.mu.Lock()
	defer q.mu.Unlock()
	now := time.Now()
	for i, item := range items {
		// SQS counts whole seconds; rounding up keeps an item from being early.
		delay := (item.Delay + time.Second - 1).Truncate(time.Second)
		if _, err := q.put(now, bodies[i], item.Group(), delay); err != nil {
			if errs == nil {
				errs = make([]error, len(items))
			}
			errs[i] = err
		}
	}
	q.notify()
	return errs
}

// Put puts one message on the queue and returns its id.
func (q *Queue) Put(body, groupName string, delay time.Duration) (string, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	id, err := q.put(time.Now(), body, groupName, delay)
	q.notify()
	return strconv.FormatUint(id, 10), err
}

func (q *Queue) put(now time.Time, body, groupName string, delay time.Duration) (id uint64, err error) {
	q.next++
	m := &message{id: q.next, body: body, sent: now, visible: now.Add(delay), place: -1}
	if err := q.journal.sent(m, groupName); err != nil {
		return 0, fmt.Errorf("queue %s: %w", q.config.Name, err)
	}
	q.place(now, m, groupName)
	return m.id, nil
}

// place files a message that is in no list yet.
func (q *Queue) place(now time.Time, m *message, groupName string) {
	g := q.groups[groupName]
	if g == nil {
		g = &group{name: groupName, place: -1}
		q.groups[groupName] = g
	}
	m.group = g
	q.messages[m.id] = m
	if m.visible.After(now) {
		heap.Push(&q.later, m)
	} else {
		q.show(m)
	}
}

// show makes a message receivable.
func (q *Queue) show(m *message) {
	m.group.waiting = append(m.group.waiting, m)
	if m.group.place < 0 {
		heap.Push(&q.ready, m.group)
	}
}

func (q *Queue) notify() {
	if q.waiting == 0 {
		return
	}
	close(q.wake)
	q.wake = make(chan struct{})
}

// Receive returns up to limit messages and hides them for the queue's
// visibility timeout. It waits until there is at least one, or ctx ends.
func (q *Queue) Receive(ctx context.Context, limit int) ([]Message, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for {
		if err := ctx.Err(); err != nil {
			return nil, err // first: who was told to stop takes nothing more
		}
		got, err := q.receive(limit)
		if len(got) > 0 || err != nil {
			return got, err
		}
		if err := q.wait(ctx); err != nil {
			return nil, err
		}
	}
}

// wait waits, without the lock, until there may be something to receive.
func (q *Queue) wait(ctx context.Context) error {
	wake := q.wake
	var timer <-chan time.Time
	if len(q.later) > 0 {
		t := time.NewTimer(time.Until(q.later[0].visible))
		defer t.Stop()
		timer = t.C
	}
	q.waiting++
	q.mu.Unlock()
	defer func() {
		q.mu.Lock()
		q.waiting--
	}()
	select {
	case <-wake:
	case <-timer:
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

func (q *Queue) receive(limit int) ([]Message, error) {
	now := time.Now()
	for len(q.later) > 0 && !q.later[0].visible.After(now) {
		m := heap.Pop(&q.later).(*message)
		if m.inFlight {
			m.inFlight = false
			m.group.inFlight--
			if m.group.place >= 0 {
				heap.Fix(&q.ready, m.group.place)
			}
		}
		q.show(m)
	}
	var got []Message
	for len(got) < limit && len(q.ready) > 0 {
		// The group with the fewest messages in flight goes first, and among
		// equals the one that was served longest ago.
		g := q.ready[0]
		m := g.waiting[0]
		g.waiting[0] = nil
		g.waiting = g.waiting[1:]
		if q.config.MaxReceives > 0 && m.receives >= q.config.MaxReceives {
			q.settle(g)
			if err := q.bury(m); err != nil {
				return got, err
			}
			continue
		}
		q.turn++
		g.served = q.turn
		g.inFlight++
		m.inFlight = true
		m.receives++
		if m.first.IsZero() {
			m.first = now
		}
		m.visible = now.Add(q.config.Visibility)
		heap.Push(&q.later, m)
		q.settle(g)
		if err := q.journal.received(m); err != nil {
			return got, fmt.Errorf("queue %s: %w", q.config.Name, err)
		}
		got = append(got, Message{
			ID: strconv.FormatUint(m.id, 10), Receipt: receiptOf(m), Body: m.body, Group: g.name,
			Receives: m.receives, Sent: m.sent, First: m.first,
		})
	}
	return got, nil
}

// settle puts the group that stands first in ready where it belongs now.
func (q *Queue) settle(g *group) {
	if len(g.waiting) == 0 {
		heap.Remove(&q.ready, g.place)
	} else {
		heap.Fix(&q.ready, g.place)
	}
}

// bury moves a message to the dead-letter queue.
func (q *Queue) bury(m *message) error {
	if q.config.Dead != nil {
		if _, err := q.config.Dead.Put(m.body, m.group.name, 0); err != nil {
			return err
		}
	}
	return q.remove(m)
}

func (q *Queue) remove(m *message) error {
	delete(q.messages, m.id)
	if len(m.group.waiting) == 0 && m.group.inFlight == 0 {
		delete(q.groups, m.group.name)
	}
	if err := q.journal.deleted(m.id); err != nil {
		return fmt.Errorf("queue %s: %w", q.config.Name, err)
	}
	return nil
}

// find returns the message that a receipt names, if it is still that receive's.
func (q *Queue) find(receipt string) (*message, error) {
	name, _, _ := strings.Cut(receipt, ".")
	id, err := strconv.ParseUint(name, 10, 64)
	if err != nil {
		return nil, ErrReceipt
	}
	m := q.messages[id]
	if m == nil || receiptOf(m) != receipt || !m.inFlight {
		return nil, ErrReceipt
	}
	return m, nil
}

// receiptOf names a message's latest receive.
func receiptOf(m *message) string {
	return strconv.FormatUint(m.id, 10) + "." + strconv.Itoa(m.receives)
}

// Delete ends a received message. ErrReceipt where it was received again since,
// or is gone.
func (q *Queue) Delete(receipt string) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	m, err := q.find(receipt)
	if err != nil {
		return err
	}
	heap.Remove(&q.later, m.place)
	m.inFlight = false
	m.group.inFlight--
	if m.group.place >= 0 {
		heap.Fix(&q.ready, m.group.place)
	}
	return q.remove(m)
}

// Stats counts the messages.
func (q *Queue) Stats() Stats {
	q.mu.Lock()
	defer q.mu.Unlock()
	var s Stats
	now := time.Now()
	for _, m := range q.messages {
		switch {
		case m.inFlight && m.visible.After(now):
			s.InFlight++
			continue
		case m.visible.After(now):
			s.Delayed++
		default:
			s.Visible++
		}
		if s.OldestSent.IsZero() || m.sent.Before(s.OldestSent) {
			s.OldestSent = m.sent
		}
	}
	return s
}

// Depth counts the queue's messages as SQS's attributes do.
func (q *Queue) Depth(context.Context) (work.Depth, error) {
	s := q.Stats()
	return work.Depth{Visible: s.Visible, Delayed: s.Delayed, InFlight: s.InFlight}, nil
}

// byTime is a heap of messages by when they become visible.
type byTime []*message

func (h byTime) Len() int           { return len(h) }
func (h byTime) Less(i, j int) bool { return h[i].visible.Before(h[j].visible) }
func (h byTime) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].place, h[j].place = i, j
}
func (h *byTime) Push(x any) {
	m := x.(*message)
	m.place = len(*h)
	*h = append(*h, m)
}
func (h *byTime) Pop() any {
	old := *h
	m := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	m.place = -1
	return m
}

// byLoad is a heap of groups by how many of their messages are in flight, then
// by when they were last served.
type byLoad []*group

func (h byLoad) Len() int { return len(h) }
func (h byLoad) Less(i, j int) bool {
	if h[i].inFlight != h[j].inFlight {
		return h[i].inFlight < h[j].inFlight
	}
	return h[i].served < h[j].served
}
func (h byLoad) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].place, h[j].place = i, j
}
func (h *byLoad) Push(x any) {
	g := x.(*group)
	g.place = len(*h)
	*h = append(*h, g)
}
func (h *byLoad) Pop() any {
	old := *h
	g := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	g.place = -1
	return g
}
