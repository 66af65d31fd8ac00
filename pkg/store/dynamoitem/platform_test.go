package dynamoitem_test

import (
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
	open := platform.Discussion{Common: common, ID: "d", CommunityID: "c", Title: "T", Status: platform.Open, ExpiresAt: when, ExtendedBy: "a"}
	closed := open
	closed.Status, closed.ClosedAt, closed.ClosedBy, closed.Reason = platform.Closed, when, "a", platform.ByHand
	return []platform.Record{
		platform.User{Common: common, ID: "u", Email: "ada@example.org", Name: "Ada"},
		platform.Membership{Common: common, UserID: "u", CommunityID: "c", CommunityName: "Gophers", CommunityCity: "Berlin"},
		platform.Membership{Common: common, UserID: "u", CommunityID: "c", CommunityName: "Gophers", AddedBy: "organiser"},
		platform.Registration{Common: common, ID: "r", EventID: "e", UserID: "u", PaymentID: "p", Status: platform.Pending},
		platform.Comment{Common: common, ID: "m", DiscussionID: "d", UserID: "u", Text: "Grüße <&> 🎟"},
		platform.Flag{Common: common, CommentID: "m", UserID: "u", FlaggedUserID: "v", Reason: "spam"},
		platform.Referral{Common: common, ReferrerID: "u", ReferredUserID: "v", Code: "ADA"},
		open, closed,
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

// The error names the attribute and contains no value.
func TestDecodeRecordRejectsMissingAndWrongAttributes(t *testing.T) {
	for _, r := range records() {
		whole := dynamoitem.EncodeRecord(r)
		if _, err := dynamoitem.DecodeRecord(dynamoitem.Item{dynamoitem.Kind: whole[dynamoitem.Kind]}); err == nil {
			t.Errorf("%s with only its kind is accepted", r.Kind())
		}
		for name := range whole {
			if name == dynamoitem.PK || name == dynamoitem.SK || name == dynamoitem.Kind || strings.HasSuffix(name, "_shard") {
				continue // not decoded
			}
			item := dynamoitem.EncodeRecord(r)
			item[name] = &types.AttributeValueMemberBOOL{Value: true}
			if _, err := dynamoitem.DecodeRecord(item); err == nil || !strings.Contains(err.Error(), name) {
				t.Errorf("%s whose %s is a boolean: %v", r.Kind(), name, err)
			}
		}
	}
	if _, err := dynamoitem.DecodeRecord(dynamoitem.Item{dynamoitem.Kind: dynamoitem.S("poll")}); err == nil {
		t.Error("an unknown kind is accepted")
	}
}
