package console_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/tidings-dev/tidings/pkg/console"
	"github.com/tidings-dev/tidings/pkg/endpoint"
)

// secretsOf returns the stored secrets of an endpoint.
func (w *world) secretsOf(id string) string {
	w.t.Helper()
	e, err := w.store.GetEndpoint(w.t.Context(), "default", id)
	if err != nil {
		w.t.Fatal(err)
	}
	var list []string
	for _, s := range e.Auth.Secrets() {
		list = append(list, s.Reveal())
	}
	return strings.Join(list, " ")
}

func TestTheAPISetsKeepsAndRemovesAuth(t *testing.T) {
	w := newWorld(t)
	b := w.login(console.Admin, "default")
	added := b.api("POST", "/api/endpoints", `{"url":"https://crm.example.com/hooks","auth":{"headers":[{"name":"X-Team","value":"marker-1"}],"basic":{"user":"tidings","password":"marker-2"}}}`)
	var e console.WithSecret
	if err := json.Unmarshal(added.Body.Bytes(), &e); err != nil || added.Code != http.StatusOK {
		t.Fatalf("%d %s", added.Code, added.Body)
	}
	path, version := "/api/endpoints/"+e.ID, e.Version
	everything := added.Body.String()
	for _, step := range []struct {
		name, url, auth string // auth is the member with its comma, or ""
		status          int
		want            string // what is stored afterwards
	}{
		{"absent", "", ``, 200, "marker-1 marker-2"},
		{"another path of the host", "https://CRM.example.com:443/other", ``, 200, "marker-1 marker-2"},
		{"another host, absent", "https://evil.example.com/", ``, 422, "marker-1 marker-2"},
		{"another port, masked", "https://crm.example.com:8443/", `,"auth":{"basic":{"user":"tidings","password":"••••••••"}}`, 422, "marker-1 marker-2"},
		{"another host, one of two is new", "https://evil.example.com/", `,"auth":{"headers":[{"name":"X-Team"}],"basic":{"user":"tidings","password":"marker-3"}}`, 422, "marker-1 marker-2"},
		{"plain text", "http://crm.example.com/", `,"auth":{"bearer":"marker-3"}`, 422, "marker-1 marker-2"},
		{"masked", "", `,"auth":{"headers":[{"name":"x-team","value":"••••••••"}],"basic":{"user":"tidings"}}`, 200, "marker-1 marker-2"},
		{"one changed, one removed", "", `,"auth":{"headers":[{"name":"X-Team","value":"marker-3"}]}`, 200, "marker-3"},
		{"a mask without a secret", "", `,"auth":{"bearer":"••••••••"}`, 422, "marker-3"},
		{"a refused header", "", `,"auth":{"headers":[{"name":"X-Amz-Date","value":"marker-4"}]}`, 422, "marker-3"},
		{"another form", "", `,"auth":{"bearer":{"token":"marker-4"}}`, 422, "marker-3"},
		{"an unknown member", "", `,"auth":{"barer":"marker-4"}`, 422, "marker-3"},
		{"another host with all anew", "https://new.example.com/", `,"auth":{"api_key":{"name":"X-Key","value":"marker-5"}}`, 200, "marker-5"},
		{"null", "", `,"auth":null`, 200, ""},
		{"another host without", "https://crm.example.com/", ``, 200, ""},
		{"an empty object", "", `,"auth":{}`, 200, ""},
	} {
		t.Run(step.name, func(t *testing.T) {
			now, err := w.store.GetEndpoint(t.Context(), "default", e.ID)
			if err != nil {
				t.Fatal(err)
			}
			url := now.URL
			if step.url != "" {
				url = step.url
			}
			a := b.api("PUT", path, fmt.Sprintf(`{"url":%q,"version":%d%s}`, url, version, step.auth))
			everything += a.Body.String() + b.get(path).Body.String()
			if a.Code != step.status || w.secretsOf(e.ID) != step.want {
				t.Errorf("%d %s; stored: %q, want %q", a.Code, a.Body, w.secretsOf(e.ID), step.want)
			}
			if a.Code == 200 {
				version++
			}
		})
	}
	b.api("POST", "/api/endpoint-checks", `{"url":"https://crm.example.com/hooks","auth":{"bearer":5}}`)
	for _, page := range []string{"/endpoints/" + e.ID, "/endpoints/" + e.ID + "/edit", "/audit", "/api/audit", "/endpoints", "/api/endpoints"} {
		everything += b.get(page).Body.String()
	}
	if strings.Contains(everything, "marker") || !strings.Contains(everything, `"password":"`+endpoint.MaskedSecret+`"`) || !strings.Contains(everything, `"name":"X-Team"`) {
		t.Errorf("shown: %s", everything)
	}
}

func TestTheFormSetsKeepsAndRemovesAuth(t *testing.T) {
	w := newWorld(t)
	b := w.login(console.Admin, "default")
	e, err := w.ops.Endpoints.Add(t.Context(), endpoint.Endpoint{Tenant: "default", URL: "https://crm.example.com/hooks", Auth: &endpoint.Auth{
		Headers: []endpoint.AuthHeader{{Name: "X-Team", Value: endpoint.NewSecret("marker-1")}}, Bearer: endpoint.NewSecret("marker-2"),
		APIKey: &endpoint.AuthHeader{Name: "X-Key", Value: endpoint.NewSecret("marker-3")},
	}})
	if err != nil {
		t.Fatal(err)
	}
	path := "/endpoints/" + e.ID + "/edit"
	everything := ""
	for _, step := range []struct {
		name   string
		fields map[string]string
		status int
		want   string
		says   string
	}{
		{"a new header beside one that stays", map[string]string{"auth.headers": "X-Team: ••••••••\r\nX-More: marker-4\r\n"}, 303, "marker-1 marker-4 marker-2 marker-3", ""},
		{"a refused header", map[string]string{"auth.headers": "X-Team: ••••••••\nHost: marker-5", "auth.bearer": "marker-5"}, 422, "marker-1 marker-4 marker-2 marker-3", "cannot be set"},
		{"another host", map[string]string{"url": "https://evil.example.com/"}, 422, "marker-1 marker-4 marker-2 marker-3", "another host"},
		{"Basic in place of the token", map[string]string{"auth.bearer": "", "auth.basic": "tidings", "auth.basic_password": "marker-6"}, 303, "marker-1 marker-4 marker-6 marker-3", ""},
		{"a password without a user", map[string]string{"auth.basic": "", "auth.basic_password": "marker-7"}, 422, "marker-1 marker-4 marker-6 marker-3", "the user name"},
		{"none", map[string]string{"auth.headers": "", "auth.basic": "", "auth.basic_password": "", "auth.api_key": "", "auth.api_key_value": ""}, 303, "", ""},
	} {
		t.Run(step.name, func(t *testing.T) {
			page := b.get(path).Body.String()
			form := controls(t, page)
			for field, value := range step.fields {
				form.Set(field, value)
			}
			check := b.post("/endpoints/check", form).Body.String()
			a := b.post(path, form)
			everything += page + check + a.Body.String()
			if a.Code != step.status || w.secretsOf(e.ID) != step.want || !strings.Contains(a.Body.String(), step.says) {
				t.Errorf("%d; stored: %q, want %q: %s", a.Code, w.secretsOf(e.ID), step.want, text(t, a.Body.String()))
			}
			if a.Code == 303 && strings.Contains(check, "</p>") && strings.Contains(text(t, check), "auth") {
				t.Errorf("the check refuses what is valid: %s", check)
			}
		})
	}
	// Saving the refused form again changes nothing that is stored.
	kept, err := w.ops.Endpoints.Add(t.Context(), endpoint.Endpoint{Tenant: "default", URL: "https://crm.example.com/hooks", Auth: &endpoint.Auth{
		Headers: []endpoint.AuthHeader{{Name: "X-Team", Value: endpoint.NewSecret("marker-1")}}, Bearer: endpoint.NewSecret("marker-2"),
	}})
	if err != nil {
		t.Fatal(err)
	}
	form := controls(t, b.get("/endpoints/"+kept.ID+"/edit").Body.String())
	form.Set("auth.bearer", "marker-8 marker-9")
	form.Set("auth.headers", "X-Team: marker-8")
	a := b.post("/endpoints/"+kept.ID+"/edit", form)
	everything += a.Body.String()
	if a := b.post("/endpoints/"+kept.ID+"/edit", controls(t, a.Body.String())); a.Code != 303 || w.secretsOf(kept.ID) != "marker-1 marker-2" {
		t.Errorf("%d: stored are %q: %s", a.Code, w.secretsOf(kept.ID), text(t, a.Body.String()))
	}
	everything += b.get("/endpoints/"+e.ID).Body.String() + b.get("/audit").Body.String()
	if strings.Contains(everything, "marker") || !strings.Contains(everything, "enter it once more") {
		t.Errorf("shown: %s", everything)
	}
}
