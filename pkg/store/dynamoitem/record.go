package dynamoitem

import (
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/platform"
)

// recordReader reads the attributes of a platform's record. Ids and statuses must be
// there. What only describes is left out if it cannot be read: an event without a name
// is worth more than no event. NULL means missing.
type recordReader struct {
	item Item
	err  error // of the first id or status that could not be read
}

func (r *recordReader) fail(name, problem string) {
	if r.err == nil {
		r.err = fmt.Errorf("item: attribute %q is %s", name, problem)
	}
}

// id reads an identifier. A number stands for its decimal digits.
func (r *recordReader) id(name string) string {
	var id string
	switch v := r.item[name].(type) {
	case nil, *types.AttributeValueMemberNULL:
		r.fail(name, "missing")
		return ""
	case *types.AttributeValueMemberS:
		id = v.Value
	case *types.AttributeValueMemberN:
		return v.Value
	default:
		r.fail(name, "not a string")
		return ""
	}
	if id == "" {
		r.fail(name, "empty")
	}
	return id
}

// status reads a status.
func (r *recordReader) status(name string) string {
	if _, isNumber := r.item[name].(*types.AttributeValueMemberN); isNumber {
		r.fail(name, "not a string")
		return ""
	}
	return r.id(name)
}

// tenant reads the tenant, the default one if it is missing. A tenant that cannot be
// read is an error: the event must not reach another tenant.
func (r *recordReader) tenant() string {
	switch v := r.item[Tenant].(type) {
	case nil, *types.AttributeValueMemberNULL:
		return event.DefaultTenant
	case *types.AttributeValueMemberS:
		if v.Value == "" {
			return event.DefaultTenant
		}
	}
	return r.id(Tenant)
}

// text reads a description, from the first of the attributes that has one.
func (r *recordReader) text(names ...string) string {
	for _, name := range names {
		switch v := r.item[name].(type) {
		case *types.AttributeValueMemberS:
			if v.Value != "" {
				return v.Value
			}
		case *types.AttributeValueMemberN:
			return v.Value
		}
	}
	return ""
}

// time reads a time, from the first of the attributes that has one. It is zero if no
// attribute has a readable time.
func (r *recordReader) time(names ...string) time.Time {
	for _, name := range names {
		if at, ok := platform.ParseTime(r.text(name)); ok {
			return at
		}
	}
	return time.Time{}
}

// end reads a time on which an event depends: one that is there must be readable. 0
// means none.
func (r *recordReader) end(name string) time.Time {
	switch r.item[name].(type) {
	case nil, *types.AttributeValueMemberNULL:
		return time.Time{}
	}
	text := r.text(name)
	at, ok := platform.ParseTime(text)
	_, isText := r.item[name].(*types.AttributeValueMemberS)
	if !ok && text != "0" && !(isText && text == "") {
		r.fail(name, "not a time")
	}
	return at
}

// ttl reads a time that DynamoDB reads too: in seconds, whatever its size.
func (r *recordReader) ttl(name string) time.Time {
	in := reader{item: r.item}
	if at := in.seconds(name); in.err == nil {
		return at
	}
	return time.Time{}
}

// yes reads a boolean.
func (r *recordReader) yes(name string) bool {
	if v, ok := r.item[name].(*types.AttributeValueMemberBOOL); ok {
		return v.Value
	}
	text := strings.ToLower(r.text(name))
	return text == "true" || text == "1" || text == "yes"
}

// KindOf returns the kind of an item of the platform's table as written, "" if it has
// none or it is not a text.
func KindOf(item Item) platform.Kind { return platform.Kind(TextOf(item, Kind)) }

// DecodeRecord reads what EncodeRecord or another program wrote. It ignores unknown
// attributes. It fails if an id or a status is missing, empty or not a text (an id can
// also be a number), and if a discussion's end is not a time. It leaves out any other attribute that it cannot read. With an
// error it returns what it could read, or nil if the kind is unknown. Its errors
// contain no values.
func DecodeRecord(item Item) (platform.Record, error) {
	r := recordReader{item: item}
	common := platform.Common{
		Tenant: r.tenant(), RequestID: r.text(RequestID), CreatedAt: r.time(CreatedAt), UpdatedAt: r.time(UpdatedAt), TTL: r.ttl(platformTTL),
	}
	var record platform.Record
	switch kind := KindOf(item); kind {
	case platform.KindUser:
		record = platform.User{Common: common, ID: r.id(UserID), Email: r.text(email), Name: r.text(name)}
	case platform.KindMembership:
		record = platform.Membership{
			Common: common, UserID: r.id(UserID), CommunityID: r.id(CommunityID), CommunityName: r.text(CommunityName), CommunityCity: r.text(communityCity),
			AddedBy: r.text(addedBy), Status: platform.MembershipStatus(r.text(Status)), Rejoined: r.yes(rejoined), LeftAt: r.time(leftAt),
		}
	case platform.KindRegistration:
		status := platform.RegistrationStatus(r.status(Status))
		if status == "canceled" {
			status = platform.Cancelled
		}
		record = platform.Registration{
			Common: common, ID: r.id(registrationID), EventID: r.id(EventID), EventName: r.text(eventName),
			CommunityID: r.text(CommunityID), CommunityName: r.text(CommunityName), UserID: r.id(UserID), PaymentID: r.text(paymentID),
			Price: r.text(price), Currency: r.text(currency), Status: status, SucceededAt: r.time(succeededAt), CancelledAt: r.time(cancelledAt, "canceled_at"),
			CancelledBy: r.text(cancelledBy, "canceled_by"), CancelReason: r.text(cancelReason, Reason),
		}
	case platform.KindComment:
		record = platform.Comment{
			Common: common, ID: r.id(CommentID), DiscussionID: r.id(DiscussionID), DiscussionTitle: r.text(discussionTitle),
			CommunityID: r.text(CommunityID), CommunityName: r.text(CommunityName), UserID: r.id(UserID), UserName: r.text(userName), Text: r.text(commentText),
		}
	case platform.KindFlag:
		record = platform.Flag{
			Common: common, CommentID: r.id(CommentID), CommentText: r.text(commentText, "comment_excerpt"), DiscussionID: r.text(DiscussionID),
			DiscussionTitle: r.text(discussionTitle), CommunityID: r.text(CommunityID), CommunityName: r.text(CommunityName),
			UserID: r.id(UserID), FlaggedUserID: r.id(flaggedUserID), FlaggedUserName: r.text(flaggedUserName), Reason: r.text(Reason),
		}
	case platform.KindReferral:
		record = platform.Referral{
			Common: common, ReferrerID: r.id(referrerID), ReferrerName: r.text(referrerName),
			ReferredUserID: r.id(referredUserID), ReferredUserName: r.text(referredUserName), Code: r.text(referralCode),
		}
	case platform.KindDiscussion:
		record = platform.Discussion{
			Common: common, ID: r.id(DiscussionID), CommunityID: r.text(CommunityID), CommunityName: r.text(CommunityName), Title: r.text(title),
			Status: platform.Status(r.status(Status)), ExpiresAt: r.end(ExpiresAt), ExtendedBy: r.text(ExtendedBy), ExtendedByLogin: r.text(ExtendedLogin),
			ClosedAt: r.time(ClosedAt), ClosedBy: r.text(ClosedBy), ClosedByLogin: r.text(ClosedLogin), Reason: platform.Reason(r.text(CloseReason)),
		}
	default:
		return nil, fmt.Errorf("item: unknown record kind %q", kind)
	}
	return record, r.err
}
