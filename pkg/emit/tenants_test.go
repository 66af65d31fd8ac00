package emit_test

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/pkg/emit"
	"github.com/tidings-dev/tidings/pkg/event/catalog"
	"github.com/tidings-dev/tidings/pkg/event/deployed"
	"github.com/tidings-dev/tidings/pkg/event/validate"
	"github.com/tidings-dev/tidings/pkg/store/memory"
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
