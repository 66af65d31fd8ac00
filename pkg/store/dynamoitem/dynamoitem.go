// Package dynamoitem encodes events, deliveries, endpoints and the rest as DynamoDB
// items, and decodes them: it defines the tables' keys, the attribute names and the
// encodings. It promises that decoding an encoded value returns it (times to the
// millisecond), and that a delivery's item stays below 1 KB, which is one write unit.
package dynamoitem

// The tables, by the names that streams and documents use.
const (
	Events     = "Events"
	Deliveries = "Deliveries"
	Endpoints  = "Endpoints"
	Control    = "Control"
	Platform   = "Platform"

	TestReceiver = "TestReceiver"
	// Discussions is the index of the discussions in the platform's table.
	Discussions = "Discussions"
)

// DueIndex is the sparse index of Deliveries that the sweep reads.
const DueIndex = "due"

// WaitingIndex is the sparse index of Deliveries that holds the endpoints' backlogs,
// oldest event first.
const WaitingIndex = "waiting"

// ListedIndex is the sparse index of Deliveries with those in a state that is indexed
// (delivery.State.Indexed), one partition for each endpoint and state, by event.
const ListedIndex = "listed"

// WakeIndex is the sparse index of Control with the circuits that the sweep has to act
// on, by time.
const WakeIndex = "wake"

// WakeIndexShard is the only partition of WakeIndex: few circuits are open at a
// time.
const WakeIndexShard = 0

// Attributes that keys, indexes, conditions and TTL name.
const (
	EventID    = "event_id"
	EndpointID = "endpoint_id"
	Tenant     = "tenant"
	Key        = "key"
	DueShard   = "due_shard"
	DueAt      = "due_at"
	ExpiresAt  = "expires_at" // TTL, epoch seconds; every other time is in milliseconds
	State      = "state"
	Attempts   = "attempts"
	ClaimID    = "claim_id"
	LeaseUntil = "lease_until"
	NextAt     = "next_attempt_at"
	UpdatedAt  = "updated_at"
	CreatedAt  = "created_at"
	Since      = "since"
	EventType  = "event_type"
	Version    = "version"
	Status     = "status"
	StatusWhy  = "status_reason"
	Reason     = "reason"
	Waiting    = "waiting" // the endpoint's id while the delivery is in its backlog
	Listed     = "listed"  // the partition of ListedIndex
	Slot       = "slot"
	ErasedAt   = "erased_at"
	// RetentionDays is absent where it is event.DefaultRetentionDays, so that most items are
	// as long as they were before it could be chosen.
	RetentionDays = "retention_days"
	WakeShard     = "wake_shard"
	WakeAt        = "wake_at"
	SlotsAt       = "slots_at" // microseconds, the theoretical arrival time

	body      = "body"
	trace     = "trace"
	subject   = "subject"
	oldType   = "old_type"
	versions  = "versions"
	undefined = "undefined" // 1 if the event's type had no definition
	erasedBy  = "erased_by"
	uncounted = "uncounted"
	snippet   = "snippet"
	history   = "history"
	digest    = "digest"
)
