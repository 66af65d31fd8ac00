package emit_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/pkg/emit"
	"github.com/tidings-dev/tidings/pkg/event/catalog"
	"github.com/tidings-dev/tidings/pkg/event/deployed"
	"github.com/tidings-dev/tidings/pkg/event/validate"
	"github.com/tidings-dev/tidings/pkg/platform"
	"github.com/tidings-dev/tidings/pkg/store/memory"
	"github.com/tidings-dev/tidings/test/streamtest"
)

const parcel = `{"title":"parcel.lost","description":"A parcel was lost","x-subject":"parcel_id","x-retention-days":7,"type":"object",
	"properties":{"parcel_id":{"type":"string"}},"required":["parcel_id"],"additionalProperties":false,"examples":[{"parcel_id":"p_1"}]}`

// ownParcel makes parcel.lost a type of tenant acme's own.
func ownParcel(t *testing.T, em *emit.Emitter, s *memory.Store, open bool) {
	t.Helper()
	lost, err := catalog.Parse([]byte(parcel))
	if err != nil {
		t.Fatal(err)
	}
	set, err := deployed.Write(t.Context(), s, deployed.Set{Open: open}, "op", "a", time.Now())
	if err == nil {
		_, err = deployed.WriteTenant(t.Context(), s, set, "acme", []catalog.Type{lost}, "op", "b", time.Now())
	}
	if err != nil {
		t.Fatal(err)
	}
	em.Catalog = &validate.Live{Types: &deployed.Live{Source: s, CacheTime: deployed.CacheTime, Now: time.Now, Log: slog.New(slog.DiscardHandler)}}
}

func TestATypeOfATenantIsUnknownToAllOthers(t *testing.T) {
	for _, open := range []bool{false, true} {
		em, s := newEmitter()
		ownParcel(t, em, s, open)
		result := em.Emit(t.Context(), emit.Request{Event: "parcel.lost", Tenant: "acme", Data: []byte(`{"parcel_id":"p_7"}`)})
		if result.Error != nil {
			t.Fatal(result.Error)
		}
		a, err := s.GetEvent(t.Context(), result.ID)
		if err != nil || a.Tenant != "acme" || a.Subject != "p_7" || a.RetentionDays != 7 {
			t.Errorf("stored %+v, %v", a, err)
		}
		// The type's schema counts for its tenant, also if others may use the name without one.
		if result := em.Emit(t.Context(), emit.Request{Event: "parcel.lost", Tenant: "acme", Data: []byte(`{"id":"p_7"}`)}); result.Error == nil || result.Error.Code != emit.InvalidData {
			t.Errorf("data that does not conform: %+v", result)
		}
		for _, tenant := range []string{"", "default", "acm", "acme2", "globex"} {
			result := em.Emit(t.Context(), emit.Request{Event: "parcel.lost", Tenant: tenant, Data: []byte(`{"parcel_id":"p_7"}`)})
			switch {
			case open && result.Error != nil:
				t.Errorf("open, tenant %q: %v", tenant, result.Error)
			case !open && (result.Error == nil || result.Error.Code != emit.UnknownType || strings.Count(result.Error.Message, "parcel") != 1):
				t.Errorf("tenant %q: %+v", tenant, result)
			}
		}
		if result := em.Emit(t.Context(), emit.Request{Event: "user.joined_community", Tenant: "acme", Data: []byte(`{"community_id":"c_7","community_name":"A"}`)}); result.Error != nil {
			t.Errorf("a type of the deployment: %v", result.Error)
		}
		if result := em.Emit(t.Context(), emit.Request{Event: "parcel.lost", Tenant: "acme#", Data: []byte(`{}`)}); result.Error == nil || result.Error.Field != "tenant" {
			t.Errorf("a tenant that is none: %+v", result)
		}
	}
}

// A captured event is checked as a published one of its tenant.
func TestACapturedEventIsCheckedWithTheTypesOfItsTenant(t *testing.T) {
	em, s := newEmitter()
	ownParcel(t, em, s, true)
	em.Rules = &source{set: ruleSet(t, "rules:\n- event: parcel.lost\n  when: change == \"insert\"\n  tenant: '\"acme\"'\n  data: {id: id(new.comment_id)}\n")}
	if again := capture(t, em, changes(t, comment(1))); len(again) != 0 {
		t.Fatalf("the stream has to deliver %v again", again)
	}
	list := failedChanges(t, s)
	if len(list) != 1 || !strings.Contains(list[0].Reason, "data.parcel_id: is missing") || len(stored(t, s)) != 0 {
		t.Errorf("kept %+v, stored %d", list, len(stored(t, s)))
	}
}

// tenantParts fails, or changes, what is read of a tenant's types.
type tenantParts struct {
	*memory.Store
	err error // of the store; nil: the part is missing
}

func (s *tenantParts) GetValue(ctx context.Context, key string) (string, error) {
	if strings.Contains(key, "#acme#") {
		return "", s.err
	}
	return s.Store.GetValue(ctx, key)
}

// Changes of one tenant whose types are damaged do not hold up the others'. A store that
// does not answer does: the stream delivers the change again.
func TestDamagedTypesOfATenantDoNotHoldUpCapture(t *testing.T) {
	for name, away := range map[string]error{"damaged": nil, "away": errors.New("throttled")} {
		t.Run(name, func(t *testing.T) {
			em, s := newEmitter()
			ownParcel(t, em, s, true)
			good := em.Catalog
			em.Catalog = &validate.Live{Types: &deployed.Live{Source: &tenantParts{s, away}, CacheTime: deployed.CacheTime, Now: time.Now, Log: slog.New(slog.DiscardHandler)}}
			em.Rules = &source{set: ruleSet(t, "rules:\n- event: parcel.lost\n  when: change == \"insert\"\n  tenant: new.tenant\n  data: {parcel_id: id(new.comment_id)}\n")}
			first, second := comment(1), comment(2)
			first.Tenant, second.Tenant = "acme", "globex"
			batch := changes(t, first, second)
			again := capture(t, em, batch)
			list := failedChanges(t, s)
			if away != nil {
				if len(again) != 1 || len(list) != 0 {
					t.Errorf("the stream delivers %v again, kept %+v", again, list)
				}
				return
			}
			if len(again) != 0 || len(stored(t, s)) != 1 {
				t.Fatalf("the stream has to deliver %v again, stored %d", again, len(stored(t, s)))
			}
			if len(list) != 1 || list[0].Tenant != "acme" || list[0].EventType != "parcel.lost" || !strings.Contains(list[0].Reason, "event types of tenant acme are damaged") {
				t.Fatalf("kept %+v", list)
			}
			em.Catalog = good // repaired
			got, err := em.Recapture(t.Context(), []string{list[0].ID}, func([]byte) (platform.Change, error) { return streamtest.Changes(batch.Records...)[0], nil })
			if err != nil || len(got) != 1 || !got[0].Captured || len(stored(t, s)) != 2 {
				t.Errorf("captured again: %+v, %v, stored %d", got, err, len(stored(t, s)))
			}
		})
	}
}
