package emit_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidings-dev/tidings/pkg/emit"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/event/catalog"
	"github.com/tidings-dev/tidings/pkg/event/validate"
)

// keptFor returns a type whose events are kept for some days; 0: as the deployment says.
func keptFor(t *testing.T, days int) *validate.Catalog {
	t.Helper()
	keyword := ""
	if days > 0 {
		keyword = fmt.Sprintf(`"x-retention-days":%d,`, days)
	}
	parsed, err := catalog.Parse([]byte(`{"title":"order.paid","description":"An order was paid",` + keyword + `"type":"object","examples":[{}]}`))
	if err != nil {
		t.Fatal(err)
	}
	known, err := catalog.New([]catalog.Type{parsed})
	if err != nil {
		t.Fatal(err)
	}
	return validate.New(known)
}

func TestAnEventIsKeptAsItsTypeOrElseTheDeploymentSays(t *testing.T) {
	for name, c := range map[string]struct{ ofType, deployment, want int }{
		"neither":                  {0, 0, 0},
		"the deployment":           {0, 7, 7},
		"the deployment's default": {0, 30, 0},
		"the type":                 {90, 7, 90},
		"the type, as the default": {30, 7, 0},
		"a day":                    {1, 365, 2},
	} {
		synctest.Test(t, func(t *testing.T) {
			em, s := newEmitter()
			em.Catalog, em.RetentionDays = keptFor(t, c.ofType), c.deployment
			result := em.Emit(t.Context(), emit.Request{Event: "order.paid", Data: []byte(`{}`)})
			if result.Error != nil {
				t.Fatal(result.Error)
			}
			a, err := s.GetEvent(t.Context(), result.ID)
			if err != nil || a.RetentionDays != c.want || time.Until(a.ExpiresAt).Round(time.Hour) != event.Retention(c.want) {
				t.Errorf("%s: kept for %d days, until %s (%v), want %d", name, a.RetentionDays, a.ExpiresAt, err, c.want)
			}
			if list := stored(t, s); len(list) != 1 || list[0].RetentionDays != c.want {
				t.Errorf("%s: the stream says %+v", name, list)
			}
		})
	}
}

// A key without its event would store the event again, with the same id.
func TestAnIdempotencyKeyDoesNotOutliveItsEvent(t *testing.T) {
	for days, want := range map[int]time.Duration{1: 23 * time.Hour, 2: 47 * time.Hour, 7: 167 * time.Hour, 0: emit.KeyRetention, 365: emit.KeyRetention} {
		synctest.Test(t, func(t *testing.T) {
			em, s := newEmitter()
			em.Catalog = keptFor(t, days)
			send := func() emit.Result {
				t.Helper()
				result := em.Emit(t.Context(), emit.Request{Event: "order.paid", Data: []byte(`{}`), IdempotencyKey: "k"})
				if result.Error != nil {
					t.Fatal(result.Error)
				}
				s.DeleteExpired()
				return result
			}
			first := send()
			time.Sleep(want - time.Second)
			if again := send(); again.ID != first.ID || !again.Duplicate {
				t.Errorf("%d days: before %s, the key gives %+v, want %s", days, want, again, first.ID)
			}
			time.Sleep(2 * time.Second)
			if again := send(); again.ID == first.ID || again.Duplicate {
				t.Errorf("%d days: after %s, the key gives %+v", days, want, again)
			}
		})
	}
}
