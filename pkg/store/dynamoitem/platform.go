package dynamoitem

import (
	"cmp"
	"fmt"
	"reflect"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/tidings-dev/tidings/pkg/platform"
)

// The sparse indexes of Discussions: open discussions by their end, closed ones by the
// time of closing.
const (
	ExpiringIndex = "expiring"
	ClosedIndex   = "closed"
)

// Attributes of Platform and Discussions. Their expires_at is in milliseconds and not a
// TTL: a discussion that expires is closed, not deleted.
const (
	PK            = "pk"
	SK            = "sk"
	Kind          = "kind"
	ExpiringShard = "expiring_shard"
	ClosedShard   = "closed_shard"
	ClosedAt      = "closed_at"
	ClosedBy      = "closed_by"
	CloseReason   = "close_reason"
	ExtendedBy    = "extended_by"
	ExtendedLogin = "extended_by_login"
	ClosedLogin   = "closed_by_login"
	RequestID     = "request_id"
	UserID        = "user_id"
	CommunityID   = "community_id"
	CommunityName = "community_name"
	DiscussionID  = "discussion_id"
	CommentID     = "comment_id"
	RecordKey     = "record_key" // of Discussions
	platformTTL   = "ttl"

	addedBy          = "added_by"
	cancelledAt      = "cancelled_at"
	cancelledBy      = "cancelled_by"
	cancelReason     = "cancel_reason"
	commentText      = "comment_text"
	communityCity    = "community_city"
	currency         = "currency"
	discussionTitle  = "discussion_title"
	email            = "email"
	eventName        = "event_name"
	flaggedUserID    = "flagged_user_id"
	flaggedUserName  = "flagged_user_name"
	leftAt           = "left_at"
	name             = "name"
	paymentID        = "payment_id"
	price            = "price"
	referralCode     = "referral_code"
	referredUserID   = "referred_user_id"
	referredUserName = "referred_user_name"
	referrerID       = "referrer_id"
	referrerName     = "referrer_name"
	registrationID   = "registration_id"
	rejoined         = "rejoined"
	succeededAt      = "succeeded_at"
	title            = "title"
	userName         = "user_name"
)

// PlatformKey is the key of a record's item.
func PlatformKey(k platform.Key) Item { return Item{PK: S(k.PK), SK: S(k.SK)} }

// EncodeRecord returns the item of one of the platform's records.
func EncodeRecord(record platform.Record) Item {
	item := PlatformKey(record.Key())
	item[Kind] = S(string(record.Kind()))
	common := func(c platform.Common) {
		put(item, Tenant, c.Tenant)
		put(item, RequestID, c.RequestID)
		putTime(item, CreatedAt, c.CreatedAt)
		putTime(item, UpdatedAt, c.UpdatedAt)
		if !c.TTL.IsZero() {
			item[platformTTL] = Seconds(c.TTL)
		}
	}
	switch r := record.(type) {
	case platform.User:
		common(r.Common)
		item[UserID] = S(r.ID)
		put(item, email, r.Email)
		put(item, name, r.Name)
	case platform.Membership:
		common(r.Common)
		item[UserID], item[CommunityID] = S(r.UserID), S(r.CommunityID)
		put(item, CommunityName, r.CommunityName)
		put(item, communityCity, r.CommunityCity)
		put(item, addedBy, r.AddedBy)
		put(item, Status, string(r.Status))
		putTime(item, leftAt, r.LeftAt)
		if r.Rejoined {
			item[rejoined] = &types.AttributeValueMemberBOOL{Value: true}
		}
	case platform.Registration:
		common(r.Common)
		item[registrationID], item[EventID], item[UserID], item[Status] = S(r.ID), S(r.EventID), S(r.UserID), S(string(r.Status))
		put(item, eventName, r.EventName)
		put(item, CommunityID, r.CommunityID)
		put(item, CommunityName, r.CommunityName)
		put(item, paymentID, r.PaymentID)
		if r.Price != "" {
			item[price] = &types.AttributeValueMemberN{Value: r.Price}
		}
		put(item, currency, r.Currency)
		put(item, cancelledBy, r.CancelledBy)
		put(item, cancelReason, r.CancelReason)
		putTime(item, succeededAt, r.SucceededAt)
		putTime(item, cancelledAt, r.CancelledAt)
	case platform.Comment:
		common(r.Common)
		item[CommentID], item[DiscussionID], item[UserID] = S(r.ID), S(r.DiscussionID), S(r.UserID)
		put(item, discussionTitle, r.DiscussionTitle)
		put(item, CommunityID, r.CommunityID)
		put(item, CommunityName, r.CommunityName)
		put(item, userName, r.UserName)
		put(item, commentText, r.Text)
	case platform.Flag:
		common(r.Common)
		item[CommentID], item[UserID], item[flaggedUserID] = S(r.CommentID), S(r.UserID), S(r.FlaggedUserID)
		put(item, commentText, r.CommentText)
		put(item, DiscussionID, r.DiscussionID)
		put(item, discussionTitle, r.DiscussionTitle)
		put(item, CommunityID, r.CommunityID)
		put(item, CommunityName, r.CommunityName)
		put(item, flaggedUserName, r.FlaggedUserName)
		put(item, Reason, r.Reason)
	case platform.Referral:
		common(r.Common)
		item[referrerID], item[referredUserID] = S(r.ReferrerID), S(r.ReferredUserID)
		put(item, referrerName, r.ReferrerName)
		put(item, referredUserName, r.ReferredUserName)
		put(item, referralCode, r.Code)
	case platform.Discussion:
		common(r.Common)
		item[DiscussionID], item[Status] = S(r.ID), S(string(r.Status))
		put(item, CommunityID, r.CommunityID)
		put(item, CommunityName, r.CommunityName)
		put(item, title, r.Title)
		put(item, ExtendedBy, r.ExtendedBy)
		put(item, ExtendedLogin, r.ExtendedByLogin)
		put(item, ClosedBy, r.ClosedBy)
		put(item, ClosedLogin, r.ClosedByLogin)
		put(item, CloseReason, string(r.Reason))
		putTime(item, ExpiresAt, r.ExpiresAt)
		putTime(item, ClosedAt, r.ClosedAt)
	default:
		panic(fmt.Sprintf("dynamoitem: unsupported record type %T", record))
	}
	return item
}

// DecodeDiscussion reads the item of a discussion.
func DecodeDiscussion(item Item) (platform.Discussion, error) {
	record, err := DecodeRecord(item)
	d, ok := record.(platform.Discussion)
	if err == nil && !ok {
		err = fmt.Errorf("item: is a %s, not a discussion", record.Kind())
	}
	return d, err
}

// DiscussionChanges returns the attributes with which a discussion's item becomes that of
// another state of it. A nil attribute is removed. Times are in the form that the item
// has, because the platform that wrote it reads that form.
func DiscussionChanges(item Item, before, after platform.Discussion) Item {
	was, is, changes := EncodeRecord(before), EncodeRecord(after), Item{}
	for _, name := range []string{Status, ExtendedBy, ExtendedLogin, ClosedBy, ClosedLogin, CloseReason} {
		if !reflect.DeepEqual(was[name], is[name]) {
			changes[name] = is[name]
		}
	}
	for _, t := range []struct {
		name          string
		before, after time.Time
	}{{ExpiresAt, before.ExpiresAt, after.ExpiresAt}, {ClosedAt, before.ClosedAt, after.ClosedAt}, {UpdatedAt, before.UpdatedAt, after.UpdatedAt}} {
		if !t.before.Equal(t.after) {
			changes[t.name] = timeLike(cmp.Or(item[t.name], item[ExpiresAt]), t.after)
		}
	}
	return changes
}

// timeLike returns a time attribute in the form of another one: epoch seconds,
// milliseconds, microseconds or nanoseconds, as a number or a text, or ISO 8601 in UTC.
// Without another one it is a number of milliseconds.
func timeLike(form types.AttributeValue, t time.Time) types.AttributeValue {
	switch v := form.(type) {
	case *types.AttributeValueMemberS:
		if _, err := strconv.ParseFloat(v.Value, 64); err == nil && len(v.Value) > len("20060102") {
			return S(epochLike(v.Value, t))
		}
		return S(t.UTC().Format("2006-01-02T15:04:05.000Z07:00"))
	case *types.AttributeValueMemberN:
		return &types.AttributeValueMemberN{Value: epochLike(v.Value, t)}
	}
	return Millis(t)
}

// epochLike returns a time in the unit of an epoch time, as platform.ParseTime tells the
// units apart.
func epochLike(form string, t time.Time) string {
	n, _ := strconv.ParseFloat(form, 64) // 0 is none of the units
	switch {
	case n >= 1e17:
		return strconv.FormatInt(t.UnixNano(), 10)
	case n >= 1e14:
		return strconv.FormatInt(t.UnixMicro(), 10)
	case n >= 1e8 && n < 1e11:
		return strconv.FormatInt(t.Unix(), 10)
	}
	return strconv.FormatInt(t.UnixMilli(), 10)
}

// EncodeEntry returns the item of Discussions for a discussion. recordKey is the key of the
// discussion's item in the platform's table, as EncodeKey returns it.
func EncodeEntry(d platform.Discussion, recordKey string) Item {
	e := platform.EndingOf(d)
	item := EntryKey(e.Tenant, e.ID)
	item[RecordKey] = S(recordKey)
	// A discussion is only in the index of its state.
	switch shard := N(int64(platform.Shard(e.ID))); {
	case e.At.IsZero():
	case d.Status == platform.Open:
		item[ExpiringShard], item[ExpiresAt] = shard, Millis(e.At)
	case d.Status == platform.Closed:
		item[ClosedShard], item[ClosedAt] = shard, Millis(e.At)
	}
	return item
}

// EntryKey is the key of a discussion's item of Discussions.
func EntryKey(tenant, id string) Item { return Item{Tenant: S(tenant), DiscussionID: S(id)} }

// DecodeEnding reads an item, or a key, of an index of Discussions. at is the name of the
// index's time attribute.
func DecodeEnding(item Item, at string) (platform.Ending, error) {
	r := reader{item: item}
	r.must(Tenant, DiscussionID, at)
	return platform.Ending{Tenant: r.s(Tenant), ID: r.s(DiscussionID), At: r.millis(at)}, r.err
}

// DecodeRecordKey returns the key of the discussion's item in the platform's table.
func DecodeRecordKey(entry Item) (text string, key Item, err error) {
	r := reader{item: entry}
	r.must(RecordKey)
	if text = r.s(RecordKey); r.err != nil {
		return "", nil, r.err
	}
	key, err = DecodeKey(text)
	return text, key, err
}
