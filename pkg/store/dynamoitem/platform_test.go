package dynamoitem_test

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/google/go-cmp/cmp"

	"github.com/tidings-dev/tidings/pkg/platform"
	"github.com/tidings-dev/tidings/pkg/store/dynamoitem"
	"github.com/tidings-dev/tidings/test/streamtest"
)

var (
	when   = time.Date(2026, 1, 29, 12, 34, 56, 789e6, time.UTC)
	common = platform.Common{Tenant: "t1", RequestID: "req", CreatedAt: when, UpdatedAt: when.Add(time.Second), TTL: when.Truncate(time.Second)}
)

func records() []platform.Record {
	open := platform.Discussion{Common: common, ID: "d", CommunityID: "c", CommunityName: "Gophers", Title: "T", Status: platform.Open, ExpiresAt: when, ExtendedBy: "a"}
	closed := open
	closed.Status, closed.ClosedAt, closed.ClosedBy, closed.Reason = platform.Closed, when, "a", platform.ByHand
	byLogin := open
	byLogin.ExtendedBy, byLogin.ExtendedByLogin = "", "console:ada"
	return []platform.Record{
		platform.User{Common: common, ID: "u", Email: "ada@example.org", Name: "Ada"},
		platform.User{ID: "u", Common: platform.Common{Tenant: "t1"}},
		platform.Membership{Common: common, UserID: "u", CommunityID: "c", CommunityName: "Gophers", CommunityCity: "Berlin"},
		platform.Membership{Common: common, UserID: "u", CommunityID: "c", AddedBy: "organiser", Status: platform.Active, Rejoined: true, LeftAt: when},
		platform.Registration{Common: common, ID: "r", EventID: "e", UserID: "u", PaymentID: "p", Status: platform.Pending},
		platform.Registration{
			Common: common, ID: "r", EventID: "e", EventName: "E", CommunityID: "c", CommunityName: "Gophers", UserID: "u", PaymentID: "p", Price: "12.5", Currency: "EUR",
			Status: platform.Cancelled, SucceededAt: when, CancelledAt: when, CancelledBy: "o", CancelReason: "ill",
		},
		platform.Comment{Common: common, ID: "m", DiscussionID: "d", UserID: "u", Text: "Grüße <&> 🎟"},
		platform.Comment{Common: common, ID: "m", DiscussionID: "d", DiscussionTitle: "T", CommunityID: "c", CommunityName: "Gophers", UserID: "u", UserName: "Ada"},
		platform.Flag{Common: common, CommentID: "m", UserID: "u", FlaggedUserID: "v", Reason: "spam"},
		platform.Flag{
			Common: common, CommentID: "m", CommentText: "x", DiscussionID: "d", DiscussionTitle: "T", CommunityID: "c", CommunityName: "Gophers",
			UserID: "u", FlaggedUserID: "v", FlaggedUserName: "Mallory",
		},
		platform.Referral{Common: common, ReferrerID: "u", ReferredUserID: "v", Code: "ADA"},
		platform.Referral{Common: common, ReferrerID: "u", ReferrerName: "Ada", ReferredUserID: "v", ReferredUserName: "Grace"},
		open, closed, byLogin,
	}
}

func TestRecordRoundTrip(t *testing.T) {
	for _, r := range records() {
		item := dynamoitem.EncodeRecord(r)
		got, err := dynamoitem.DecodeRecord(item)
		if err != nil || got != r {
			t.Errorf("%s: %v\n%s", r.Kind(), err, cmp.Diff(r, got))
		}
		// Unknown attributes and NULL are ignored.
		item["likes"], item["banned"] = dynamoitem.N(3), &types.AttributeValueMemberNULL{Value: true}
		item["photo"] = &types.AttributeValueMemberB{Value: []byte("x")}
		if got, err := dynamoitem.DecodeRecord(item); err != nil || got != r {
			t.Errorf("%s with unknown attributes: %v\n%s", r.Kind(), err, cmp.Diff(r, got))
		}
		image := streamtest.Changes(events.DynamoDBEventRecord{Change: events.DynamoDBStreamRecord{NewImage: dynamoitem.Image(dynamoitem.EncodeRecord(r))}})[0].New
		if got, err := image.Decode(); err != nil || got != r || image.Kind() != r.Kind() {
			t.Errorf("%s through a stream: %v\n%s", r.Kind(), err, cmp.Diff(r, got))
		}
	}
}

// required are the attributes of each kind that must be there and readable.
var required = map[platform.Kind][]string{
	platform.KindUser:         {"user_id"},
	platform.KindMembership:   {"user_id", "community_id"},
	platform.KindRegistration: {"registration_id", "event_id", "user_id", "status"},
	platform.KindComment:      {"comment_id", "discussion_id", "user_id"},
	platform.KindFlag:         {"comment_id", "user_id", "flagged_user_id"},
	platform.KindReferral:     {"referrer_id", "referred_user_id"},
	platform.KindDiscussion:   {"discussion_id", "status"},
}

// A record needs its ids and its status. The error names the attribute and contains no
// value. Any other attribute is left out if it is missing or cannot be read; only the
// tenant and a discussion's end must be readable if they are there.
func TestDecodeRecordNeedsIdsAndStatusOnly(t *testing.T) {
	attributes := map[platform.Kind]int{}
	for _, r := range records() {
		for name := range dynamoitem.EncodeRecord(r) {
			if name == dynamoitem.PK || name == dynamoitem.SK || name == dynamoitem.Kind || strings.HasSuffix(name, "_shard") {
				continue // not decoded
			}
			attributes[r.Kind()]++
			for problem, value := range map[string]types.AttributeValue{
				"missing": nil, "NULL": &types.AttributeValueMemberNULL{Value: true}, "empty": dynamoitem.S(""),
				"a boolean": &types.AttributeValueMemberBOOL{Value: false}, "of another type": &types.UnknownUnionMember{Tag: name},
			} {
				item := dynamoitem.EncodeRecord(r)
				if item[name] = value; value == nil {
					delete(item, name)
				}
				got, err := dynamoitem.DecodeRecord(item)
				needed := slices.Contains(required[r.Kind()], name)
				if name == dynamoitem.Tenant || r.Kind() == platform.KindDiscussion && name == dynamoitem.ExpiresAt {
					needed = problem == "a boolean" || problem == "of another type"
				}
				// A membership's status only describes.
				if r.Kind() == platform.KindMembership && name == dynamoitem.Status {
					needed = false
				}
				if needed && (err == nil || !strings.Contains(err.Error(), strconv.Quote(name))) || !needed && err != nil {
					t.Errorf("%s whose %s is %s: %v", r.Kind(), name, problem, err)
				}
				if got == nil || got.Kind() != r.Kind() || !needed && got == r && problem != "a boolean" && problem != "empty" {
					t.Errorf("%s whose %s is %s is read as %+v", r.Kind(), name, problem, got)
				}
			}
		}
	}
	for kind := range required {
		if attributes[kind] < 7 {
			t.Errorf("%s: %d attributes are tested", kind, attributes[kind])
		}
	}
	if record, err := dynamoitem.DecodeRecord(dynamoitem.Item{dynamoitem.Kind: dynamoitem.S("poll")}); err == nil || record != nil {
		t.Errorf("an unknown kind is read as %+v, %v", record, err)
	}
}

// Every time of every record can be written in each of the forms of platform.ParseTime,
// and every id as a number.
func TestRecordsAreReadInOtherSpellings(t *testing.T) {
	for _, r := range records() {
		item := dynamoitem.EncodeRecord(r)
		for name, value := range item {
			n, isNumber := value.(*types.AttributeValueMemberN)
			if !isNumber || !strings.HasSuffix(name, "_at") {
				continue
			}
			ms, err := strconv.ParseInt(n.Value, 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			at := time.UnixMilli(ms).UTC()
			for _, other := range []types.AttributeValue{
				dynamoitem.S(n.Value), dynamoitem.S(at.Format(time.RFC3339Nano)), dynamoitem.Micros(at), dynamoitem.S(at.Format("2006-01-02 15:04:05.000")),
			} {
				item[name] = other
				if got, err := dynamoitem.DecodeRecord(item); err != nil || got != r {
					t.Errorf("%s whose %s is %v: %v\n%s", r.Kind(), name, other, err, cmp.Diff(r, got))
				}
			}
			item[name] = value
		}
		for _, name := range required[r.Kind()] {
			if name == dynamoitem.Status {
				continue
			}
			asText, asNumber := maps.Clone(item), maps.Clone(item)
			asText[name], asNumber[name] = dynamoitem.S("42"), dynamoitem.N(42)
			want, err := dynamoitem.DecodeRecord(asText)
			got, errNumber := dynamoitem.DecodeRecord(asNumber)
			if err != nil || errNumber != nil || got != want {
				t.Errorf("%s whose %s is a number: %v, %v\n%s", r.Kind(), name, err, errNumber, cmp.Diff(want, got))
			}
		}
	}
	canceled := dynamoitem.EncodeRecord(platform.Registration{ID: "r", EventID: "e", UserID: "u", Status: "canceled"})
	canceled["canceled_at"], canceled["canceled_by"], canceled["reason"] = dynamoitem.Millis(when), dynamoitem.S("o"), dynamoitem.S("ill")
	want := platform.Registration{Common: platform.Common{Tenant: "default"}, ID: "r", EventID: "e", UserID: "u", Status: platform.Cancelled, CancelledAt: when, CancelledBy: "o", CancelReason: "ill"}
	if got, err := dynamoitem.DecodeRecord(canceled); err != nil || got != want {
		t.Errorf("canceled with one l: %v\n%s", err, cmp.Diff(platform.Record(want), got))
	}
}
