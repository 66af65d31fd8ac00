package capture_test

import (
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/tidings-dev/tidings/pkg/store/dynamoitem"
)

// change is one change of the platform's table and the events it should give.
type change struct {
	name          string
	before, after dynamoitem.Item // nil where nothing stood or stands there
	byTTL         bool
	failed        string // the change should be an event and cannot be; part of the reason
	lost          bool   // one of the ten that a running system once lost
	want          []said // none if empty
}

// said is an expected event.
type said struct {
	Type, Actor, Tenant, Data string
	At                        time.Time // zero: when the stream recorded it
}

// attrs are the attributes of an item as a platform writes them: a string, a number or
// a bool stands for the attribute's type, nil for NULL.
type attrs map[string]any

// gone removes an attribute.
type gone struct{}

// digits is a number with its digits.
type digits string

// item returns the item of a record with some attributes changed.
func item(record attrs, changes ...any) dynamoitem.Item {
	i := dynamoitem.Item{}
	set := func(name string, v any) {
		switch v := v.(type) {
		case gone:
			delete(i, name)
		case nil:
			i[name] = &types.AttributeValueMemberNULL{Value: true}
		case string:
			i[name] = dynamoitem.S(v)
		case digits:
			i[name] = &types.AttributeValueMemberN{Value: string(v)}
		case int:
			i[name] = dynamoitem.N(int64(v))
		case bool:
			i[name] = &types.AttributeValueMemberBOOL{Value: v}
		case time.Time:
			i[name] = dynamoitem.Millis(v)
		case types.AttributeValue:
			i[name] = v
		default:
			panic(fmt.Sprintf("attribute %q is a %T", name, v))
		}
	}
	for name, v := range record {
		set(name, v)
	}
	for n := 0; n+1 < len(changes); n += 2 {
		set(changes[n].(string), changes[n+1])
	}
	return i
}

// The records, with the least that the platform writes about each.
var (
	user         = attrs{"kind": "user", "user_id": "u_1", "email": "ada@example.org", "name": "Ada Lovelace", "created_at": made}
	member       = attrs{"kind": "membership", "user_id": "u_1", "community_id": "c_7", "community_name": "Gophers Berlin", "community_city": "Berlin", "created_at": made}
	free         = attrs{"kind": "registration", "registration_id": "r_1", "event_id": "e_3", "user_id": "u_1", "status": "success", "created_at": made, "updated_at": made}
	paid         = attrs{"kind": "registration", "registration_id": "r_2", "event_id": "e_3", "user_id": "u_1", "payment_id": "p_5", "status": "pending", "created_at": made, "updated_at": made}
	comment      = attrs{"kind": "comment", "comment_id": "m_8", "discussion_id": "d_2", "user_id": "u_1", "comment_text": "Who brings cables?", "created_at": made}
	flag         = attrs{"kind": "flag", "comment_id": "m_8", "user_id": "u_2", "flagged_user_id": "u_1", "reason": "spam", "created_at": made}
	referral     = attrs{"kind": "referral", "referrer_id": "u_1", "referred_user_id": "u_2", "referral_code": "ADA-2026", "created_at": made}
	end          = time.Date(2126, 1, 30, 12, 34, 56, 789e6, time.UTC) // far off: the local table's clock is real
	discussion   = attrs{"kind": "discussion", "discussion_id": "d_2", "status": "open", "expires_at": end, "created_at": made, "updated_at": made}
	closedAt     = changed.Add(time.Minute)
	binary       = &types.AttributeValueMemberB{Value: []byte("x")}
	longID       = strings.Repeat("x", 257)
	longName     = strings.Repeat("é", 300)
	long255      = strings.Repeat("é", 255) + "…"
	describesAll = []any{"event_name", "Gophers at the Lake", "price", digits("12.5"), "currency", "EUR", "community_id", "c_7", "community_name", "Gophers Berlin"}
)

const described = `,"event_name":"Gophers at the Lake","price":12.5,"currency":"EUR","community_id":"c_7","community_name":"Gophers Berlin"`

// says is one event of the default tenant.
func says(eventType, actor string, at time.Time, data string) []said {
	return []said{{eventType, actor, "default", data, at}}
}

func changes() []change {
	var none time.Time
	signUp := func(at time.Time, rest string) []said {
		return says("user.joined_platform", "u_1", at, `{"user_id":"u_1"`+rest+`}`)
	}
	const ada = `,"email":"ada@example.org","name":"Ada Lovelace"`
	joined := func(at time.Time, rest string) []said {
		return says("user.joined_community", "u_1", at, `{"community_id":"c_7"`+rest+`}`)
	}
	const gophers = `,"community_name":"Gophers Berlin","community_city":"Berlin"`
	freely := func(rest string) []said {
		return says("user.registered_event", "u_1", made, `{"event_id":"e_3","registration_id":"r_1","status":"success"`+rest+`}`)
	}
	payment := func(status string, at time.Time) []said {
		return says("user.registered_event", "u_1", at, `{"event_id":"e_3","registration_id":"r_2","payment_id":"p_5","status":"`+status+`"}`)
	}
	cancelled := func(actor string, at time.Time, rest string) []said {
		return says("user.cancelled_registration", actor, at, `{"event_id":"e_3","registration_id":"r_1","user_id":"u_1"`+rest+`}`)
	}
	cancelledPaid := func(before string) []said {
		return says("user.cancelled_registration", "u_1", changed, `{"event_id":"e_3","registration_id":"r_2","user_id":"u_1","previous_status":"`+before+`","payment_id":"p_5"}`)
	}
	comments := func(text, rest string) []said {
		return says("user.posted_comment", "u_1", made, `{"discussion_id":"d_2","comment_id":"m_8","comment_text":`+text+rest+`}`)
	}
	flags := func(at time.Time, rest string) []said {
		return says("user.flagged_comment", "u_2", at, `{"comment_id":"m_8","flagged_user_id":"u_1"`+rest+`}`)
	}
	refers := func(at time.Time, rest string) []said {
		return says("user.referred_user", "u_1", at, `{"referred_user_id":"u_2","referrer_id":"u_1"`+rest+`}`)
	}
	closes := func(at time.Time, text, rest string) []said {
		return says("discussion.auto_closed", "", at, `{"discussion_id":"d_2","closed_at":"`+text+`"`+rest+`}`)
	}
	extends := func(actor string, at time.Time, rest string) []said {
		return says("discussion.extended", actor, at, `{"discussion_id":"d_2","new_expires_at":"2126-02-06T12:34:56.789Z","previous_expires_at":"2126-01-30T12:34:56.789Z"`+rest+`}`)
	}
	closed := func(more ...any) dynamoitem.Item {
		return item(discussion, append([]any{"status", "closed", "close_reason", "expired", "closed_at", closedAt, "updated_at", closedAt}, more...)...)
	}
	later := end.Add(7 * 24 * time.Hour)
	longer := func(more ...any) dynamoitem.Item {
		return item(discussion, append([]any{"expires_at", later, "extended_by", "u_9", "updated_at", changed}, more...)...)
	}

	return []change{
		// user.joined_platform
		{name: "a user is inserted", after: item(user), want: signUp(made, ada)},
		{name: "a user without a name", lost: true, after: item(user, "name", gone{}), want: signUp(made, `,"email":"ada@example.org"`)},
		{name: "a user without an email", lost: true, after: item(user, "email", gone{}), want: signUp(made, `,"name":"Ada Lovelace"`)},
		{name: "a user with neither, as after a sign-up by phone", lost: true, after: item(user, "email", nil, "name", ""), want: signUp(made, "")},
		{name: "an email with a display name", lost: true, after: item(user, "email", "Ann <ann@example.com>"), want: signUp(made, `,"email":"ann@example.com","name":"Ada Lovelace"`)},
		{name: "an email in another script", after: item(user, "email", "jörg@exämple.de"), want: signUp(made, `,"email":"jörg@exämple.de","name":"Ada Lovelace"`)},
		{name: "an email that is none", after: item(user, "email", "ask Ada"), want: signUp(made, `,"name":"Ada Lovelace"`)},
		{name: "a name that is a number", after: item(user, "name", 7), want: signUp(made, `,"email":"ada@example.org","name":"7"`)},
		{name: "a name of another type", after: item(user, "name", binary), want: signUp(made, `,"email":"ada@example.org"`)},
		{name: "a name over the limit", lost: true, after: item(user, "name", longName), want: signUp(made, `,"email":"ada@example.org","name":"`+long255+`"`)},
		{name: "an id that is a number", after: item(user, "user_id", 1042),
			want: says("user.joined_platform", "1042", made, `{"user_id":"1042"`+ada+`}`)},
		{name: "a user of a tenant, with a request", after: item(user, "tenant", "acme", "request_id", "req-1"), want: []said{{"user.joined_platform", "u_1", "acme", `{"user_id":"u_1"` + ada + `}`, made}}},
		{name: "a tenant that is a number", after: item(user, "tenant", 7), want: []said{{"user.joined_platform", "u_1", "7", `{"user_id":"u_1"` + ada + `}`, made}}},
		{name: "a record with more than we know", after: item(user, "likes", 3, "photo", binary, "tags", &types.AttributeValueMemberSS{Value: []string{"a"}}), want: signUp(made, ada)},
		{name: "a user changes their name", before: item(user), after: item(user, "name", "A. Lovelace")},
		{name: "a user is written again", before: item(user), after: item(user)},
		{name: "a user is removed", before: item(user)},
		{name: "a user is anonymised", before: item(user), after: item(user, "name", gone{}, "email", nil, "deleted_at", changed)},
		{name: "a user is removed by TTL", before: item(user), byTTL: true},

		// Times.
		{name: "no time", after: item(user, "created_at", gone{}), want: signUp(none, ada)},
		{name: "a time in seconds", after: item(user, "created_at", digits("1769690096")), want: signUp(made.Truncate(time.Second), ada)},
		{name: "a time in seconds with a fraction", after: item(user, "created_at", digits("1769690096.789")), want: signUp(made, ada)},
		{name: "a time in milliseconds, as text", after: item(user, "created_at", "1769690096789"), want: signUp(made, ada)},
		{name: "a time in microseconds", after: item(user, "created_at", digits("1769690096789000")), want: signUp(made, ada)},
		{name: "a time in ISO 8601", lost: true, after: item(user, "created_at", "2026-01-29T12:34:56.789Z"), want: signUp(made, ada)},
		{name: "a time in ISO 8601 with an offset", after: item(user, "created_at", "2026-01-29T13:34:56.789+01:00"), want: signUp(made, ada)},
		{name: "a time that cannot be read", after: item(user, "created_at", "last Thursday"), want: signUp(none, ada)},
		{name: "a time of another type", after: item(user, "created_at", true), want: signUp(none, ada)},
		{name: "a time before 1970", after: item(user, "created_at", -1), want: signUp(none, ada)},
		{name: "a ttl that is no number", after: item(user, "ttl", "never"), want: signUp(made, ada)},

		// user.joined_community
		{name: "a user joins", after: item(member), want: joined(made, gophers)},
		{name: "an organiser adds a user", after: item(member, "added_by", "u_9"), want: joined(made, gophers+`,"added_by":"u_9"`)},
		{name: "a community without a city", after: item(member, "community_city", nil), want: joined(made, `,"community_name":"Gophers Berlin"`)},
		{name: "a membership without the community's name", lost: true, after: item(member, "community_name", gone{}, "community_city", gone{}), want: joined(made, "")},
		{name: "an active membership", after: item(member, "status", "active"), want: joined(made, gophers)},
		{name: "an invitation", after: item(member, "status", "invited")},
		{name: "an invitation is accepted", before: item(member, "status", "invited"), after: item(member, "status", "active", "updated_at", changed), want: joined(changed, gophers)},
		{name: "a request to join is approved", before: item(member, "status", "pending"), after: item(member, "status", "moderator"), want: joined(none, gophers)},
		{name: "a request to join is rejected", before: item(member, "status", "requested"), after: item(member, "status", "rejected")},
		{name: "a member leaves, by status", before: item(member), after: item(member, "status", "left", "left_at", changed)},
		{name: "a member who left joins again, by status", before: item(member, "status", "left", "left_at", made), after: item(member, "status", "active", "updated_at", changed), want: joined(changed, gophers+`,"rejoined":true`)},
		{name: "a removed member is added again", before: item(member, "status", "removed"), after: item(member, "added_by", "u_9"), want: joined(none, gophers+`,"added_by":"u_9","rejoined":true`)},
		{name: "an inactive member is active again", before: item(member, "status", "inactive"), after: item(member, "status", "active"), want: joined(none, gophers+`,"rejoined":true`)},
		{name: "a membership that says rejoined", after: item(member, "rejoined", true), want: joined(made, gophers+`,"rejoined":true`)},
		{name: "a membership that says when the user had left", after: item(member, "left_at", changed), want: joined(none, gophers+`,"rejoined":true`)},
		{name: "a membership of a user who left is imported", after: item(member, "status", "left")},
		{name: "a member becomes a moderator", before: item(member, "status", "active"), after: item(member, "status", "moderator")},
		{name: "a membership is touched", before: item(member), after: item(member, "role", "host")},
		{name: "a membership is removed", before: item(member)},

		// user.registered_event
		{name: "a free registration", after: item(free), want: freely("")},
		{name: "a paid registration", after: item(paid), want: payment("pending", made)},
		{name: "a registration with all that describes it", after: item(free, describesAll...), want: freely(described)},
		{name: "a price that is text", after: item(free, "price", " 12.50 ", "currency", "EUR"), want: freely(`,"price":12.50,"currency":"EUR"`)},
		{name: "a price that is no number", after: item(free, "price", "12 €"), want: freely("")},
		{name: "a payment succeeds", before: item(paid), after: item(paid, "status", "success", "updated_at", changed), want: payment("success", changed)},
		{name: "a payment fails", before: item(paid), after: item(paid, "status", "failed", "updated_at", changed), want: payment("failed", changed)},
		{name: "a payment succeeds after it had failed", before: item(paid, "status", "failed", "updated_at", changed), after: item(paid, "status", "success", "updated_at", changed), want: payment("success", none)},
		{name: "a waitlisted registration moves up", before: item(free, "status", "waitlisted"), after: item(free, "updated_at", changed),
			want: says("user.registered_event", "u_1", changed, `{"event_id":"e_3","registration_id":"r_1","status":"success"}`)},
		{name: "an update with its time in seconds", before: item(paid), after: item(paid, "status", "success", "updated_at", digits("1769693696")), want: payment("success", changed.Truncate(time.Second))},
		{name: "a registration that was paid before it was stored", after: item(paid, "status", "success"), want: payment("success", made)},
		{name: "ids that are numbers", lost: true, after: item(free, "registration_id", 1, "event_id", 3, "user_id", 42),
			want: says("user.registered_event", "42", made, `{"event_id":"3","registration_id":"1","status":"success"}`)},
		{name: "the old image lacks an id", before: item(paid, "registration_id", gone{}), after: item(paid, "status", "success", "updated_at", changed), want: payment("success", changed)},
		{name: "a waitlist", after: item(free, "status", "waitlisted")},
		{name: "a pending registration is written again", before: item(paid), after: item(paid)},
		{name: "a pending registration gets a note", before: item(paid), after: item(paid, "note", "vegan")},
		{name: "a registration's own expires_at moves", before: item(free, "expires_at", 1), after: item(free, "expires_at", 2)},
		{name: "a failed payment is tried again", before: item(paid, "status", "failed"), after: item(paid)},
		{name: "a payment is refunded", before: item(paid, "status", "success"), after: item(paid, "status", "refunded")},

		// user.cancelled_registration
		{name: "a status becomes cancelled", before: item(free), after: item(free, "status", "cancelled", "updated_at", changed), want: cancelled("u_1", changed, `,"previous_status":"success"`)},
		{name: "a status becomes canceled, with one l", before: item(free), after: item(free, "status", "canceled", "updated_at", changed), want: cancelled("u_1", changed, `,"previous_status":"success"`)},
		{name: "an organiser cancels", before: item(free), after: item(free, "status", "cancelled", "cancelled_by", "u_9", "cancel_reason", "The venue is closed", "updated_at", changed),
			want: cancelled("u_9", changed, `,"cancelled_by":"u_9","reason":"The venue is closed","previous_status":"success"`)},
		{name: "a user cancels and says so", before: item(free), after: item(free, "status", "cancelled", "cancelled_by", "u_1", "reason", "ill", "cancelled_at", "2026-01-29T13:34:56.789Z"),
			want: cancelled("u_1", changed, `,"cancelled_by":"u_1","reason":"ill","previous_status":"success"`)},
		{name: "a pending registration is cancelled, by status", before: item(paid), after: item(paid, "status", "cancelled", "updated_at", changed), want: cancelledPaid("pending")},
		{name: "a waitlisted registration is cancelled, by status", before: item(paid, "status", "waitlisted"), after: item(paid, "status", "cancelled", "updated_at", changed), want: cancelledPaid("waitlisted")},
		{name: "a cancellation with all that describes it", before: item(free), after: item(free, append([]any{"status", "cancelled"}, describesAll...)...), want: cancelled("u_1", none, `,"previous_status":"success"`+described)},
		{name: "a cancelled registration is cancelled with the other spelling", before: item(free, "status", "cancelled"), after: item(free, "status", "canceled")},
		{name: "a cancelled registration is written again", before: item(free, "status", "cancelled"), after: item(free, "status", "cancelled", "note", "x")},
		{name: "a cancelled registration is removed", before: item(free, "status", "cancelled")},
		{name: "a registration is imported cancelled", after: item(free, "status", "cancelled")},
		{name: "a cancelled registration is made again", before: item(free, "status", "cancelled"), after: item(free, "updated_at", changed),
			want: says("user.registered_event", "u_1", changed, `{"event_id":"e_3","registration_id":"r_1","status":"success"}`)},
		{name: "a successful registration is removed", before: item(free), want: cancelled("u_1", none, `,"previous_status":"success"`)},
		{name: "a registration is removed after cancelled_by was written", before: item(free, "cancelled_by", "u_9"), want: cancelled("u_9", none, `,"cancelled_by":"u_9","previous_status":"success"`)},
		{name: "an attended registration is removed", before: item(free, "status", "attended"), want: cancelled("u_1", none, `,"previous_status":"attended"`)},
		{name: "a refunded registration is removed", before: item(free, "status", "refunded"), want: cancelled("u_1", none, `,"previous_status":"refunded"`)},
		{name: "a refunded registration that was cancelled before is removed", before: item(free, "status", "refunded", "cancelled_at", made)},
		{name: "a registration that was cancelled, made again and succeeded is removed", before: item(free, "cancelled_at", made), want: cancelled("u_1", none, `,"previous_status":"success"`)},
		{name: "the registration of a deleted user is removed", before: item(free, "user_id", "u_deleted"),
			want: says("user.cancelled_registration", "u_deleted", none, `{"event_id":"e_3","registration_id":"r_1","user_id":"u_deleted","previous_status":"success"}`)},
		{name: "a pending registration that had succeeded is removed", before: item(free, "status", "pending", "succeeded_at", made), want: cancelled("u_1", none, `,"previous_status":"pending"`)},
		{name: "a pending registration is removed", before: item(paid)},
		{name: "a waitlisted registration is removed", before: item(free, "status", "waitlisted")},
		{name: "a failed registration is removed", before: item(paid, "status", "failed")},
		{name: "a successful registration is removed by TTL", before: item(free), byTTL: true},

		// user.posted_comment
		{name: "a comment", after: item(comment), want: comments(`"Who brings cables?"`, "")},
		{name: "a comment with characters that JSON and HTML escape", after: item(comment, "comment_text", "a < b && \"c\"\u2028🎟 Grüße"), want: comments("\"a < b && \\\"c\\\"\\u2028🎟 Grüße\"", "")},
		{name: "a comment over 200,000 characters, and over 256 KiB", lost: true, after: item(comment, "comment_text", strings.Repeat("ü", 200_001)),
			want: comments(`"`+strings.Repeat("ü", 128_967)+`…"`, `,"comment_truncated":true,"comment_length":200001`)},
		{name: "a comment over 256 KiB of characters that take six bytes in JSON", after: item(comment, "comment_text", strings.Repeat("\x01", 199_999)),
			want: comments(`"`+strings.Repeat(`\u0001`, 42_989)+`…"`, `,"comment_truncated":true,"comment_length":199999`)},
		{name: "a comment of 200,001 short characters", after: item(comment, "comment_text", strings.Repeat("x", 200_001)),
			want: comments(`"`+strings.Repeat("x", 199_999)+`…"`, `,"comment_truncated":true,"comment_length":200001`)},
		{name: "a comment of 200,000 short characters", after: item(comment, "comment_text", strings.Repeat("x", 200_000)), want: comments(`"`+strings.Repeat("x", 200_000)+`"`, "")},
		{name: "a comment without a text, such as an image", after: item(comment, "comment_text", gone{}), want: comments(`""`, "")},
		{name: "a comment whose text is a number", after: item(comment, "comment_text", 5), want: comments(`"5"`, "")},
		{name: "a comment with all that describes it", after: item(comment, "user_name", "Ada", "discussion_title", "Projector", "community_id", "c_7", "community_name", "Gophers Berlin"),
			want: comments(`"Who brings cables?"`, `,"user_name":"Ada","discussion_title":"Projector","community_id":"c_7","community_name":"Gophers Berlin"`)},
		{name: "an optional id over the limit", after: item(comment, "community_id", longID), want: comments(`"Who brings cables?"`, "")},
		{name: "a comment is corrected", before: item(comment), after: item(comment, "comment_text", "b > a")},
		{name: "a comment is removed", before: item(comment)},
		{name: "a comment is removed by TTL", before: item(comment), byTTL: true},

		// user.flagged_comment
		{name: "a flag", after: item(flag), want: flags(made, `,"reason":"spam"`)},
		{name: "a flag without a reason", lost: true, after: item(flag, "reason", gone{}), want: flags(made, "")},
		{name: "a flag with an empty reason", after: item(flag, "reason", ""), want: flags(made, "")},
		{name: "a flag whose time cannot be read", after: item(flag, "created_at", "?"), want: flags(none, `,"reason":"spam"`)},
		{name: "a flag with a reason over the limit", after: item(flag, "reason", strings.Repeat("é", 5000)), want: flags(made, `,"reason":"`+strings.Repeat("é", 3999)+`…"`)},
		{name: "a flag with all that describes it", after: item(flag, "flagged_user_name", "Mallory", "comment_text", strings.Repeat("x", 300), "discussion_id", "d_2", "discussion_title", "Projector", "community_id", "c_7", "community_name", "Gophers Berlin"),
			want: flags(made, `,"reason":"spam","flagged_user_name":"Mallory","comment_excerpt":"`+strings.Repeat("x", 279)+`…","discussion_id":"d_2","discussion_title":"Projector","community_id":"c_7","community_name":"Gophers Berlin"`)},
		{name: "a flag is taken back", before: item(flag)},

		// user.referred_user
		{name: "a referral", after: item(referral), want: refers(made, `,"referral_code":"ADA-2026"`)},
		{name: "a referral without a code", after: item(referral, "referral_code", gone{}), want: refers(made, "")},
		{name: "a referral with a code that is a number, in seconds", after: item(referral, "referral_code", 7, "created_at", digits("1769690096")), want: refers(made.Truncate(time.Second), `,"referral_code":"7"`)},
		{name: "a referral with names", after: item(referral, "referrer_name", "Ada", "referred_user_name", "Grace"), want: refers(made, `,"referral_code":"ADA-2026","referred_user_name":"Grace","referrer_name":"Ada"`)},
		{name: "a referral is removed", before: item(referral)},

		// discussion.auto_closed
		{name: "a discussion expires", before: item(discussion), after: closed(), want: closes(closedAt, "2026-01-29T13:35:56.789Z", "")},
		{name: "a discussion with a title expires", before: item(discussion), after: closed("title", "Projector", "community_id", "c_7", "community_name", "Gophers Berlin"),
			want: closes(closedAt, "2026-01-29T13:35:56.789Z", `,"title":"Projector","community_id":"c_7","community_name":"Gophers Berlin"`)},
		{name: "a discussion expires, its times in ISO 8601", before: item(discussion, "expires_at", "2126-01-30T12:34:56.789Z"), after: closed("expires_at", "2126-01-30T12:34:56.789Z", "closed_at", "2026-01-29T13:35:56.789Z"),
			want: closes(closedAt, "2026-01-29T13:35:56.789Z", "")},
		{name: "a discussion expires, without the time", before: item(discussion), after: closed("closed_at", gone{}), want: closes(none, "RECORDED", "")},
		{name: "a discussion is opened", after: item(discussion)},
		{name: "a discussion is imported closed", after: closed()},
		{name: "a discussion is closed by hand", before: item(discussion), after: closed("close_reason", "by_hand", "closed_by", "u_9")},
		{name: "a closed discussion is written again", before: closed(), after: closed("note", "x")},
		{name: "a closed discussion's reason is corrected", before: closed("close_reason", "by_hand"), after: closed()},
		{name: "a discussion is removed", before: item(discussion)},

		// discussion.extended
		{name: "a discussion is extended", before: item(discussion), after: longer(), want: extends("u_9", changed, "")},
		{name: "a discussion is extended, its times in seconds", before: item(discussion, "expires_at", digits("4925450096")), after: item(discussion, "expires_at", digits("4926054896"), "extended_by", 9, "updated_at", changed),
			want: says("discussion.extended", "9", changed, `{"discussion_id":"d_2","new_expires_at":"2126-02-06T12:34:56.000Z","previous_expires_at":"2126-01-30T12:34:56.000Z"}`)},
		{name: "an operator extends a discussion", before: item(discussion), after: longer("extended_by", gone{}, "extended_by_login", "console:grace"), want: extends("", changed, `,"extended_by_login":"console:grace"`)},
		{name: "a user extends a discussion that an operator extended before", before: item(discussion, "extended_by_login", "console:grace"), after: longer("extended_by", "u_9", "extended_by_login", "console:grace"), want: extends("u_9", changed, "")},
		{name: "an operator extends a discussion, written the old way", before: item(discussion), after: longer("extended_by", "console:grace"), want: extends("", changed, `,"extended_by_login":"console:grace"`)},
		{name: "a discussion with a title is extended", before: item(discussion), after: longer("title", "Projector", "community_id", "c_7", "community_name", "Gophers Berlin"),
			want: extends("u_9", changed, `,"title":"Projector","community_id":"c_7","community_name":"Gophers Berlin"`)},
		{name: "an expired discussion that is still open is extended", before: item(discussion, "expires_at", made.Add(time.Hour)), after: longer(),
			want: says("discussion.extended", "u_9", changed, `{"discussion_id":"d_2","new_expires_at":"2126-02-06T12:34:56.789Z","previous_expires_at":"2026-01-29T13:34:56.789Z"}`)},
		{name: "an extension to a time that is past", before: item(discussion, "expires_at", made), after: item(discussion, "expires_at", made.Add(time.Hour))},
		{name: "the same end in another form", before: item(discussion), after: item(discussion, "expires_at", "2126-01-30T12:34:56.789Z")},
		{name: "a discussion is shortened", before: item(discussion), after: item(discussion, "expires_at", end.Add(-time.Hour))},
		{name: "a discussion is renamed", before: item(discussion, "title", "a"), after: item(discussion, "title", "b")},
		{name: "a closed discussion is opened again, with more time", before: closed(), after: longer()},
		{name: "a closed discussion's end is moved", before: closed(), after: closed("expires_at", later)},
		{name: "an endless discussion gets an end", before: item(discussion, "expires_at", gone{}), after: item(discussion)},
		{name: "a discussion loses its end", before: item(discussion), after: item(discussion, "expires_at", gone{})},

		// Other records.
		{name: "a kind that has no rules", after: item(user, "kind", "poll")},
		{name: "a kind in capitals", after: item(user, "kind", "User")},
		{name: "a record without a kind", after: item(user, "kind", gone{})},
		{name: "a kind that is a number", after: item(user, "kind", 1)},
		{name: "a record gets its kind later", before: item(paid, "kind", gone{}), after: item(paid, "status", "success")},

		// What should be an event and cannot be.
		{name: "a user without an id", after: item(user, "user_id", gone{}), failed: `"user_id" is missing`},
		{name: "a membership with an empty id", after: item(member, "community_id", ""), failed: `"community_id" is empty`},
		{name: "a comment whose discussion is a list", after: item(comment, "discussion_id", &types.AttributeValueMemberSS{Value: []string{"d_2"}}), failed: `"discussion_id" is not a string`},
		{name: "a flag of nobody's comment", after: item(flag, "flagged_user_id", nil), failed: `"flagged_user_id" is missing`},
		{name: "a referral of nobody", after: item(referral, "referred_user_id", gone{}), failed: `"referred_user_id" is missing`},
		{name: "a registration without a status", after: item(free, "status", gone{}), failed: `"status" is missing`},
		{name: "a registration whose status is a number", after: item(free, "status", 1), failed: `"status" is not a string`},
		{name: "a cancelled registration that has no id", before: item(free, "registration_id", gone{}), failed: `"registration_id" is missing`},
		{name: "an extension to a word", before: item(discussion), after: item(discussion, "expires_at", "next week"), failed: `"expires_at" is not a time`},
		{name: "a tenant of another type", after: item(user, "tenant", true), failed: `"tenant" is not a string`},
		{name: "an id over the limit", after: item(user, "user_id", longID), failed: "data.user_id: has 257 characters"},
	}
}
