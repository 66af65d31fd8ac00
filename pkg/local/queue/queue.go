// Package queue is an in-process queue that behaves like an SQS queue: delays,
// visibility timeouts, receive counts, a dead-letter queue, and fair hand-out by
// message group, or FIFO order within each group. The local runner, the local SQS
// API (package sqsapi), the simulation and the bench use it. It promises that a
// message is received until it is deleted or moved to the dead-letter queue. With
// a journal this also holds when the process is killed.
package queue

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery/work"
	"github.com/tidings-dev/tidings/pkg/local/priority"
)

// Config is a queue's settings, as in the template.
type Config struct {
	Name       string
	Visibility time.Duration // visibility timeout of a received message
	// MaxReceives is the number of receives after which a message moves to Dead;
	// 0 means no limit.
	MaxReceives int
	Dead        *Queue
	// FIFO keeps each group in order: while one of its messages is in flight, later
	// ones are not received.
	FIFO bool
	// Journal is the file from which the queue is restored after the process was
	// killed; "" keeps the queue in memory only.
	Journal string
	// Now is the clock; nil is time.Now. Receive always waits on the real clock.
	Now func() time.Time
	// Choose returns which of n visible messages is received next, for tests that need
	// a random order; nil is the fair order. It is not for FIFO queues.
	Choose func(n int) int
}

// Attribute is a message attribute, as in the SQS API.
type Attribute struct {
	DataType    string
	StringValue string `json:",omitempty"`
	BinaryValue []byte `json:",omitempty"`
}

// Outgoing is a message to send.
type Outgoing struct {
	Body            string               `json:"body,omitempty"`
	Group           string               `json:"group,omitempty"`            // message group id
	DeduplicationID string               `json:"deduplication_id,omitempty"` // kept for the receiver; the queue does not deduplicate
	Attributes      map[string]Attribute `json:"attributes,omitempty"`
	Delay           time.Duration        `json:"-"`
}

// Message is a received message.
type Message struct {
	ID              string
	Receipt         string // identifies this receive; the next one has another
	Body            string
	Group           string
	DeduplicationID string
	Attributes      map[string]Attribute
	Receives        int
	Sent            time.Time
	First           time.Time // first receive
}

// Stats counts a queue's messages.
type Stats struct {
	Visible, Delayed, InFlight int
	OldestSent                 time.Time // of the messages that are not in flight; zero if there are none
}

// ErrReceipt means that the receipt is unknown, or that its message was received
// again, became visible again, or was deleted.
var ErrReceipt = errors.New("receipt handle is not valid")

// Queue is safe for concurrent use.
type Queue struct {
	config Config

	mu       sync.Mutex
	next     uint64
	messages map[uint64]*message
	later    priority.Queue[*message] // delayed and in flight, by when they become visible
	groups   map[string]*group        // with at least one message visible or in flight
	ready    priority.Queue[*group]   // groups from which a message can be received
	turn     uint64
	waiting  int           // blocked receivers
	wake     chan struct{} // closed to wake them when a message is sent or its visibility changes
	journal  *journal
}

type message struct {
	Outgoing
	id       uint64
	group    *group
	sent     time.Time
	first    time.Time
	receives int
	visible  time.Time // when it may be received
	inFlight bool
	position int // in later
}

func (m *message) Position() *int { return &m.position }

// group is one message group: its visible messages, in order, and how many are in flight.
type group struct {
	name     string
	waiting  []*message
	inFlight int
	served   uint64 // turn in which it was last served
	position int    // in ready
}

func (g *group) Position() *int { return &g.position }

// Open returns a queue. With a journal, it holds the messages that an earlier
// process did not delete. Those that were in flight are visible at once, because
// their consumers ended with the process.
func Open(c Config) (*Queue, error) {
	if c.Now == nil {
		c.Now = time.Now
	}
	q := &Queue{config: c, messages: map[uint64]*message{}, groups: map[string]*group{}, wake: make(chan struct{})}
	q.later.Before = func(a, b *message) bool { return a.visible.Before(b.visible) }
	// The group with the fewest messages in flight goes first, and among equals the
	// one that was served longest ago.
	q.ready.Before = func(a, b *group) bool {
		if a.inFlight != b.inFlight {
			return a.inFlight < b.inFlight
		}
		return a.served < b.served
	}
	if c.Journal == "" {
		return q, nil
	}
	j, kept, err := openJournal(c.Journal)
	if err != nil {
		return nil, fmt.Errorf("queue %s: %w", c.Name, err)
	}
	q.journal = j
	now := q.config.Now()
	// As in SQS, an ID is not used again: emit takes it for an idempotency key. The journal
	// forgets the IDs of deleted messages, so they begin at the time.
	q.next = uint64(max(now.UnixMicro(), 0))
	for _, r := range kept {
		q.next = max(q.next, r.ID)
		q.insert(now, &message{Outgoing: r.Outgoing, id: r.ID, sent: time.UnixMilli(r.Sent), visible: time.UnixMilli(r.Visible), receives: r.Receives, position: -1})
	}
	return q, nil
}

// Close closes the journal. The queue must not be used afterwards.
func (q *Queue) Close() error {
	if q.journal == nil {
		return nil
	}
	return q.journal.close()
}

// Name returns the queue's name.
func (q *Queue) Name() string { return q.config.Name }

// Visibility returns the queue's visibility timeout.
func (q *Queue) Visibility() time.Duration { return q.config.Visibility }

// Send puts work items on the queue; it implements dispatch.Queue.
func (q *Queue) Send(_ context.Context, items []work.Item) []error {
	var errs []error
	for i, item := range items {
		// SQS counts whole seconds; rounding up keeps an item from being early.
		delay := (item.Delay + time.Second - 1).Truncate(time.Second)
		if _, err := q.Put(item.Encode(), item.Group(), delay); err != nil {
			if errs == nil {
				errs = make([]error, len(items))
			}
			errs[i] = err
		}
	}
	return errs
}

// Put puts a message without attributes on the queue and returns its id.
func (q *Queue) Put(body, group string, delay time.Duration) (id string, err error) {
	return q.PutMessage(Outgoing{Body: body, Group: group, Delay: delay})
}

// PutMessage puts a message on the queue and returns its id.
func (q *Queue) PutMessage(o Outgoing) (id string, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := q.config.Now()
	q.next++
	m := &message{Outgoing: o, id: q.next, sent: now, visible: now.Add(o.Delay), position: -1}
	if err := q.journal.sent(m); err != nil {
		return "", fmt.Errorf("queue %s: %w", q.config.Name, err)
	}
	q.insert(now, m)
	q.notify()
	return strconv.FormatUint(m.id, 10), nil
}

// insert adds a message that is new to this process.
func (q *Queue) insert(now time.Time, m *message) {
	m.group = q.groups[m.Group]
	if m.group == nil {
		m.group = &group{name: m.Group, position: -1}
		q.groups[m.Group] = m.group
	}
	q.messages[m.id] = m
	if m.visible.After(now) {
		q.later.Put(m)
	} else {
		q.show(m)
	}
}

// show makes a message receivable.
func (q *Queue) show(m *message) {
	g := m.group
	at := len(g.waiting)
	if q.config.FIFO { // it may come back from being in flight
		at, _ = slices.BinarySearchFunc(g.waiting, m, func(a, b *message) int { return cmp.Compare(a.id, b.id) })
	}
	g.waiting = slices.Insert(g.waiting, at, m)
	q.rank(g)
}

// rank updates a group's place among those that can be received from.
func (q *Queue) rank(g *group) {
	if len(g.waiting) == 0 || q.config.FIFO && g.inFlight > 0 {
		q.ready.Remove(g)
	} else {
		q.ready.Put(g)
	}
}

// land ends a message's being in flight.
func (q *Queue) land(m *message) {
	if m.inFlight {
		m.inFlight = false
		m.group.inFlight--
		q.rank(m.group)
	}
}

func (q *Queue) notify() {
	if q.waiting == 0 {
		return
	}
	close(q.wake)
	q.wake = make(chan struct{})
}

// Receive waits until there is at least one message, and returns up to limit
// messages, hidden for the queue's visibility timeout. It returns the error of ctx
// when ctx ends; once ctx has ended it receives nothing.
func (q *Queue) Receive(ctx context.Context, limit int) ([]Message, error) {
	return q.ReceiveHidden(ctx, limit, q.config.Visibility)
}

// ReceiveHidden is Receive with another visibility timeout than the queue's.
func (q *Queue) ReceiveHidden(ctx context.Context, limit int, visibility time.Duration) ([]Message, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		got, err := q.receive(limit, visibility)
		if len(got) > 0 || err != nil {
			return got, err
		}
		if err := q.wait(ctx); err != nil {
			return nil, err
		}
	}
}

// Poll is ReceiveHidden without waiting.
func (q *Queue) Poll(limit int, visibility time.Duration) ([]Message, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.receive(limit, visibility)
}

// wait waits, without the lock, until there may be something to receive.
func (q *Queue) wait(ctx context.Context) error {
	wake := q.wake
	var timer <-chan time.Time
	if q.later.Len() > 0 {
		t := time.NewTimer(q.later.At(0).visible.Sub(q.config.Now()))
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

func (q *Queue) receive(limit int, visibility time.Duration) (got []Message, err error) {
	now := q.config.Now()
	for q.later.Len() > 0 && !q.later.At(0).visible.After(now) {
		m := q.later.Pop()
		q.land(m)
		q.show(m)
	}
	for len(got) < limit && q.ready.Len() > 0 {
		g, at := q.choose()
		// A FIFO group is received from once, for it is blocked until these messages
		// are no longer in flight.
		for first := true; len(got) < limit && len(g.waiting) > 0 && (first || q.config.FIFO); first = false {
			var m *message
			if m, err = q.take(g, at, now, visibility); err != nil {
				break
			}
			if m != nil {
				got = append(got, Message{
					ID: strconv.FormatUint(m.id, 10), Receipt: receiptOf(m), Body: m.Body, Group: g.name, DeduplicationID: m.DeduplicationID,
					Attributes: m.Attributes, Receives: m.receives, Sent: m.sent, First: m.first,
				})
			}
		}
		q.rank(g)
		if err != nil {
			return got, fmt.Errorf("queue %s: %w", q.config.Name, err)
		}
	}
	return got, nil
}

// choose returns the group to receive from, and the index of its message.
func (q *Queue) choose() (g *group, at int) {
	if q.config.Choose == nil {
		return q.ready.At(0), 0
	}
	visible := 0
	for i := range q.ready.Len() {
		visible += len(q.ready.At(i).waiting)
	}
	at = q.config.Choose(visible)
	for i := 0; ; i++ {
		if g = q.ready.At(i); at < len(g.waiting) {
			return g, at
		}
		at -= len(g.waiting)
	}
}

// take receives one of a group's visible messages. It returns nil where that
// message moved to the dead-letter queue instead.
func (q *Queue) take(g *group, at int, now time.Time, visibility time.Duration) (*message, error) {
	m := g.waiting[at]
	if at == 0 { // without moving a long backlog
		g.waiting[0] = nil
		g.waiting = g.waiting[1:]
	} else {
		g.waiting = slices.Delete(g.waiting, at, at+1)
	}
	if q.config.MaxReceives > 0 && m.receives >= q.config.MaxReceives {
		return nil, q.bury(m)
	}
	q.turn++
	g.served = q.turn
	g.inFlight++
	m.inFlight = true
	m.receives++
	if m.first.IsZero() {
		m.first = now
	}
	m.visible = now.Add(visibility)
	q.later.Put(m)
	return m, q.journal.received(m)
}

// bury moves a message to the dead-letter queue.
func (q *Queue) bury(m *message) error {
	if q.config.Dead != nil {
		dead := m.Outgoing
		dead.Delay = 0
		if _, err := q.config.Dead.PutMessage(dead); err != nil {
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
	return q.journal.deleted(m.id)
}

// find returns the message of a receipt that is still valid.
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

// receiptOf identifies a message's latest receive.
func receiptOf(m *message) string {
	return strconv.FormatUint(m.id, 10) + "." + strconv.Itoa(m.receives)
}

// Delete deletes a received message. It returns ErrReceipt if the receipt is no
// longer valid.
func (q *Queue) Delete(receipt string) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	m, err := q.find(receipt)
	if err != nil {
		return err
	}
	q.later.Remove(m)
	q.land(m)
	if err := q.remove(m); err != nil {
		return fmt.Errorf("queue %s: %w", q.config.Name, err)
	}
	return nil
}

// Hide changes a received message's visibility timeout, counted from now. It
// returns ErrReceipt if the receipt is no longer valid.
func (q *Queue) Hide(receipt string, visibility time.Duration) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	m, err := q.find(receipt)
	if err != nil {
		return err
	}
	m.visible = q.config.Now().Add(visibility)
	q.later.Put(m)
	q.notify()
	return nil
}

// Next returns when the next message that is delayed or in flight becomes visible;
// zero if there is none.
func (q *Queue) Next() time.Time {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.later.Len() == 0 {
		return time.Time{}
	}
	return q.later.At(0).visible
}

// Stats counts the messages.
func (q *Queue) Stats() Stats {
	q.mu.Lock()
	defer q.mu.Unlock()
	var s Stats
	now := q.config.Now()
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

// Depth counts the queue's messages; it implements health.Queue.
func (q *Queue) Depth(context.Context) (work.Depth, error) {
	s := q.Stats()
	return work.Depth{Visible: s.Visible, Delayed: s.Delayed, InFlight: s.InFlight}, nil
}
