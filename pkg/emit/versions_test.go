package emit_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/tidings-dev/tidings/pkg/emit"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/event/catalog"
	"github.com/tidings-dev/tidings/pkg/event/validate"
)

// withTwoVersions returns an emitter whose catalog has the versions 1 and 2 of a shipped
// type: version 2 calls the community's name title.
func withTwoVersions(t *testing.T) (*emit.Emitter, func() []event.Accepted) {
	t.Helper()
	first, _ := catalog.Default().Type("user.joined_community")
	second, err := catalog.Parse([]byte(`{"title":"user.joined_community","x-version":2,"description":"d","x-subject":"community_id","type":"object",
		"properties":{"community_id":{"type":"string"},"title":{"type":"string"}},"required":["community_id"],"additionalProperties":false,"examples":[{"community_id":"c"}],
		"x-downgrade":{"community_name":"data.?title","rejoined":"data.?title == optional.of('again') ? optional.of(true) : optional.none()"},
		"x-upgrade":{"title":"data.?community_name"}}`))
	if err != nil {
		t.Fatal(err)
	}
	known, err := catalog.New([]catalog.Type{first, second})
	if err != nil {
		t.Fatal(err)
	}
	em, store := newEmitter()
	em.Catalog = validate.New(known)
	return em, func() []event.Accepted { return stored(t, store) }
}

func TestAnEventIsStoredInAllVersionsOfItsType(t *testing.T) {
	for name, c := range map[string]struct{ payload, data, versions string }{
		"the newest":     {`{"event":"user.joined_community","data":{"community_id":"c_7","title":"again"}}`, `{"community_id":"c_7","title":"again"}`, `{"community_id":"c_7","community_name":"again","rejoined":true}`},
		"an old one":     {`{"event":"user.joined_community","data":{"community_id":"c_7","community_name":"n"}}`, `{"community_id":"c_7","title":"n"}`, `{"community_id":"c_7","community_name":"n"}`},
		"the one named":  {`{"event":"user.joined_community","version":1,"data":{"community_id":"c_7"}}`, `{"community_id":"c_7"}`, `{"community_id":"c_7"}`},
		"in a list":      {`[{"event":"user.joined_community","version":2,"data":{"community_id":"c_7"}}]`, `{"community_id":"c_7"}`, `{"community_id":"c_7"}`},
		"with a subject": {`{"event":"user.joined_community","version":2,"data":{"community_id":"c_7"}}`, `{"community_id":"c_7"}`, `{"community_id":"c_7"}`},
	} {
		em, all := withTwoVersions(t)
		if _, err := call(t, em, c.payload); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		got := all()
		if len(got) != 1 {
			t.Fatalf("%s: %d events", name, len(got))
		}
		e, err := event.Decode(got[0].Body)
		if err != nil || e.Version != 2 || string(e.Data) != c.data || got[0].Subject != "c_7" {
			t.Errorf("%s: %v, stored %s, subject %s", name, err, got[0].Body, got[0].Subject)
		}
		if want := fmt.Sprintf(`[{"version":2},{"version":1,"data":%s}]`, c.versions); string(got[0].Versions) != want {
			t.Errorf("%s: versions %s, want %s", name, got[0].Versions, want)
		}
	}
}

func TestAnEventThatOneVersionCannotExpressIsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		payload string
		code    emit.Code
		field   string
	}{
		"of no version":    {`{"event":"user.joined_community","data":{"community_id":"c_7","x":1}}`, emit.InvalidData, "data.x"},
		"not of its own":   {`{"event":"user.joined_community","version":1,"data":{"community_id":"c_7","title":"x"}}`, emit.InvalidData, "data.title"},
		"of one too far":   {`{"event":"user.joined_community","version":3,"data":{"community_id":"c_7"}}`, emit.InvalidData, "version"},
		"repeated version": {`{"event":"user.joined_community","version":1,"version":1,"data":{"community_id":"c_7"}}`, emit.InvalidField, "version"},
	} {
		em, all := withTwoVersions(t)
		_, err := call(t, em, c.payload)
		refused, ok := err.(*emit.Error)
		if !ok || refused.Code != c.code || refused.Field != c.field || len(all()) != 0 {
			t.Errorf("%s: %+v, %d stored", name, err, len(all()))
		}
	}
}

// A key stands for the version, too: the same data can be another event in another version.
func TestAKeyStandsForOneVersion(t *testing.T) {
	em, all := withTwoVersions(t)
	if _, err := call(t, em, `{"event":"user.joined_community","version":1,"idempotency_key":"k","data":{"community_id":"c_7"}}`); err != nil {
		t.Fatal(err)
	}
	again, err := call(t, em, `{"event":"user.joined_community","version":1,"idempotency_key":"k","data":{"community_id":"c_7"}}`)
	if err != nil || again["duplicate"] != true {
		t.Errorf("%v %v", again, err)
	}
	_, err = call(t, em, `{"event":"user.joined_community","version":2,"idempotency_key":"k","data":{"community_id":"c_7"}}`)
	if refused, ok := err.(*emit.Error); !ok || refused.Code != emit.KeyConflict || len(all()) != 1 {
		t.Errorf("%v, %d stored", err, len(all()))
	}
}

// An old version can be larger than the newest, which fits.
func TestAnEventThatIsTooLargeInOneVersionIsRefused(t *testing.T) {
	em, all := withTwoVersions(t)
	first, _ := catalog.Default().Type("user.joined_community")
	first.Schema = []byte(strings.Replace(string(first.Schema), `"maxLength": 256`, `"maxLength": 400000`, 2))
	second, err := catalog.Parse([]byte(`{"title":"user.joined_community","x-version":2,"description":"d","type":"object",
		"properties":{"community_id":{"type":"string"},"title":{"type":"string"}},"required":["title"],"examples":[{"title":"c"}],
		"x-downgrade":{"community_id":"'c'","community_name":"data.title + data.title + data.title"}}`))
	if err != nil {
		t.Fatal(err)
	}
	known, err := catalog.New([]catalog.Type{first, second})
	if err != nil {
		t.Fatal(err)
	}
	em.Catalog = validate.New(known)
	publish := func(size int) error {
		_, err := call(t, em, `{"event":"user.joined_community","data":{"title":"`+strings.Repeat("x", size)+`"}}`)
		return err
	}
	if err := publish(10_000); err != nil || len(all()) != 1 {
		t.Errorf("%v, %d stored", err, len(all()))
	}
	refused, ok := publish(90_000).(*emit.Error)
	if !ok || refused.Code != emit.TooLarge || len(all()) != 1 {
		t.Errorf("%+v, %d stored", refused, len(all()))
	}
}
