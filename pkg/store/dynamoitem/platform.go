package dynamoitem

import (
	"fmt"
	"maps"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/platform"
)

// The sparse indexes of Platform: open discussions by expiry, closed ones by the time of
// closing.
const (
	ExpiringIndex = "expiring"
	ClosedIndex   = "closed"
)

// Attributes of Platform. Its expires_at is in milliseconds and not a TTL: a discussion
// that expires is closed, not deleted.
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
	RequestID     = "request_id"
	UserID        = "user_id"
	CommunityID   = "community_id"
	DiscussionID  = "discussion_id"
	CommentID     = "comment_id"
	platformTTL   = "ttl"
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
		item[UserID], item["email"], item["name"] = S(r.ID), S(r.Email), S(r.Name)
	case platform.Membership:
		common(r.Common)
		item[UserID], item[CommunityID], item["community_name"] = S(r.UserID), S(r.CommunityID), S(r.CommunityName)
		put(item, "community_city", r.CommunityCity)
		put(item, "added_by", r.AddedBy)
	case platform.Registration:
		common(r.Common)
		item["registration_id"], item[EventID], item[UserID], item[Status] = S(r.ID), S(r.EventID), S(r.UserID), S(string(r.Status))
		put(item, "payment_id", r.PaymentID)
	case platform.Comment:
		common(r.Common)
		item[CommentID], item[DiscussionID], item[UserID], item["comment_text"] = S(r.ID), S(r.DiscussionID), S(r.UserID), S(r.Text)
	case platform.Flag:
		common(r.Common)
		item[CommentID], item[UserID], item["flagged_user_id"], item[Reason] = S(r.CommentID), S(r.UserID), S(r.FlaggedUserID), S(r.Reason)
	case platform.Referral:
		common(r.Common)
		item["referrer_id"], item["referred_user_id"], item["referral_code"] = S(r.ReferrerID), S(r.ReferredUserID), S(r.Code)
	case platform.Discussion:
		common(r.Common)
		item[DiscussionID], item[Status] = S(r.ID), S(string(r.Status))
		put(item, CommunityID, r.CommunityID)
		put(item, "title", r.Title)
		put(item, ExtendedBy, r.ExtendedBy)
		put(item, ClosedBy, r.ClosedBy)
		put(item, CloseReason, string(r.Reason))
		putTime(item, ExpiresAt, r.ExpiresAt)
		putTime(item, ClosedAt, r.ClosedAt)
		// A discussion is only in the index of its state.
		switch {
		case r.Status == platform.Open && !r.ExpiresAt.IsZero():
			item[ExpiringShard] = N(int64(platform.Shard(r.ID)))
		case r.Status == platform.Closed && !r.ClosedAt.IsZero():
			item[ClosedShard] = N(int64(platform.Shard(r.ID)))
		}
	default:
		panic(fmt.Sprintf("dynamoitem: unsupported record type %T", record))
	}
	return item
}

// KindOf returns the kind of an item of the platform's table, or "" if it has none.
func KindOf(item Item) platform.Kind {
	v, ok := item[Kind].(*types.AttributeValueMemberS)
	if !ok {
		return ""
	}
	return platform.Kind(v.Value)
}

// DecodeRecord reads what EncodeRecord or another program wrote. It ignores unknown
// attributes and treats NULL as missing. It fails if a required attribute is missing or
// an attribute has the wrong type. Its errors contain no values.
func DecodeRecord(item Item) (platform.Record, error) {
	r := reader{item: item}
	isNull := func(_ string, v types.AttributeValue) bool {
		_, null := v.(*types.AttributeValueMemberNULL)
		return null
	}
	for name, value := range item {
		if isNull(name, value) {
			r.item = maps.Clone(item)
			maps.DeleteFunc(r.item, isNull)
			break
		}
	}
	common := platform.Common{
		Tenant: r.s(Tenant), RequestID: r.s(RequestID), CreatedAt: r.millis(CreatedAt), UpdatedAt: r.millis(UpdatedAt), TTL: r.seconds(platformTTL),
	}
	if common.Tenant == "" {
		common.Tenant = event.DefaultTenant
	}
	var record platform.Record
	switch kind := KindOf(item); kind {
	case platform.KindUser:
		r.must(UserID, "email", "name")
		record = platform.User{Common: common, ID: r.s(UserID), Email: r.s("email"), Name: r.s("name")}
	case platform.KindMembership:
		r.must(UserID, CommunityID, "community_name")
		record = platform.Membership{
			Common: common, UserID: r.s(UserID), CommunityID: r.s(CommunityID), CommunityName: r.s("community_name"),
			CommunityCity: r.s("community_city"), AddedBy: r.s("added_by"),
		}
	case platform.KindRegistration:
		r.must("registration_id", EventID, UserID, Status)
		record = platform.Registration{
			Common: common, ID: r.s("registration_id"), EventID: r.s(EventID), UserID: r.s(UserID),
			PaymentID: r.s("payment_id"), Status: platform.RegistrationStatus(r.s(Status)),
		}
	case platform.KindComment:
		r.must(CommentID, DiscussionID, UserID, "comment_text")
		record = platform.Comment{Common: common, ID: r.s(CommentID), DiscussionID: r.s(DiscussionID), UserID: r.s(UserID), Text: r.s("comment_text")}
	case platform.KindFlag:
		r.must(CommentID, UserID, "flagged_user_id", Reason)
		record = platform.Flag{Common: common, CommentID: r.s(CommentID), UserID: r.s(UserID), FlaggedUserID: r.s("flagged_user_id"), Reason: r.s(Reason)}
	case platform.KindReferral:
		r.must("referrer_id", "referred_user_id", "referral_code")
		record = platform.Referral{Common: common, ReferrerID: r.s("referrer_id"), ReferredUserID: r.s("referred_user_id"), Code: r.s("referral_code")}
	case platform.KindDiscussion:
		r.must(DiscussionID, Status)
		record = platform.Discussion{
			Common: common, ID: r.s(DiscussionID), CommunityID: r.s(CommunityID), Title: r.s("title"), Status: platform.Status(r.s(Status)),
			ExpiresAt: r.millis(ExpiresAt), ExtendedBy: r.s(ExtendedBy), ClosedAt: r.millis(ClosedAt), ClosedBy: r.s(ClosedBy),
			Reason: platform.Reason(r.s(CloseReason)),
		}
	default:
		return nil, fmt.Errorf("item: unknown record kind %q", kind)
	}
	return record, r.err
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

// DecodeEnding reads an entry, or a key, of an index of discussions. at is the name of
// the index's time attribute.
func DecodeEnding(item Item, at string) (platform.Ending, error) {
	r := reader{item: item}
	r.must(PK, at)
	id, _ := strings.CutPrefix(r.s(PK), "DISCUSSION#")
	if id == "" || id == r.s(PK) {
		r.fail(PK, "a discussion's key")
	}
	return platform.Ending{ID: id, At: r.millis(at)}, r.err
}
