package console

import (
	"bytes"
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tidings-dev/tidings/pkg/delivery"
)

//go:embed pages/*.html
var pageFiles embed.FS

// page is what every template gets.
type page struct {
	Title   string
	Nav     string // which entry of the navigation is current
	Path    string // where the page reads itself again, to stay live
	Session Session
	CSRF    string
	Notice  string // what was just done
	Problem string // what just failed
	Demo    *Behaviour
	Data    any
}

// Admin reports whether the session may change something.
func (p page) Admin() bool { return p.Session.Role == Admin }

// templates are the pages, each with the layout and the parts that all share.
var templates = sync.OnceValue(func() map[string]*template.Template {
	base := template.Must(template.New("").Funcs(functions).ParseFS(pageFiles, "pages/layout.html", "pages/parts.html"))
	out := map[string]*template.Template{}
	entries, err := fs.ReadDir(pageFiles, "pages")
	if err != nil {
		panic(err)
	}
	for _, entry := range entries {
		name := strings.TrimSuffix(path.Base(entry.Name()), ".html")
		if name == "layout" || name == "parts" {
			continue
		}
		out[name] = template.Must(template.Must(base.Clone()).ParseFS(pageFiles, "pages/"+entry.Name()))
	}
	return out
})

var functions = template.FuncMap{
	"asset":  assetURL,
	"since":  func(t time.Time) string { return since(time.Since(t)) },
	"until":  func(t time.Time) string { return "in " + ago(time.Until(t)) },
	"minute": func(t time.Time) string { return t.UTC().Format("2 Jan 2006, 15:04 UTC") },
	"moment": func(t time.Time) string {
		if t.IsZero() {
			return ""
		}
		return t.UTC().Format("2006-01-02 15:04:05 UTC")
	},
	"iso":    func(t time.Time) string { return t.UTC().Format(time.RFC3339) },
	"short":  short,
	"words":  func(v any) string { return strings.ReplaceAll(fmt.Sprint(v), "_", " ") },
	"pretty": pretty,
	"join":   func(list []string) string { return strings.Join(list, ", ") },
	"ms":     milliseconds,
	"bars":   bars,
	"n":      thousands,
	"percent": func(f *float64) string {
		if f == nil {
			return "–"
		}
		if *f == 1 {
			return "100 %"
		}
		return fmt.Sprintf("%.1f %%", *f*100)
	},
	"took": func(f *float64) string {
		if f == nil {
			return "–"
		}
		return milliseconds(int64(*f + .5))
	},
	"age":   func(ms int64) string { return ago(time.Duration(ms) * time.Millisecond) },
	"chart": chart,
	"query": func(pairs ...string) string { return query(pairs...) },
	"json": func(v any) (string, error) {
		text, err := json.Marshal(v)
		return string(text), err
	},
	"add": func(a, b int) int { return a + b },
}

// thousands writes a number so that it can be read.
func thousands(n int64) string {
	text := strconv.FormatInt(n, 10)
	for i := len(text) - 3; i > 0 && text[i-1] != '-'; i -= 3 {
		text = text[:i] + "\u202f" + text[i:]
	}
	return text
}

// chart is what the page's script draws: three lists of the same length.
func chart(minutes []Minute) (string, error) {
	var data [3][]int64
	for _, m := range minutes {
		data[0] = append(data[0], m.At.Unix())
		data[1] = append(data[1], m.Delivered)
		data[2] = append(data[2], m.Failed)
	}
	text, err := json.Marshal(data)
	return string(text), err
}

// since says how long ago something was.
func since(d time.Duration) string {
	if d < time.Second {
		return "just now"
	}
	return ago(d) + " ago"
}

// ago says a duration in its largest unit.
func ago(d time.Duration) string {
	switch d = max(d, 0); {
	case d < time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h", int(d.Hours()))
	}
	return fmt.Sprintf("%d days", int(d.Hours()/24))
}

// short is an id's end, by which people tell ids apart.
func short(id string) string {
	if len(id) <= 10 {
		return id
	}
	return "…" + id[len(id)-8:]
}

func pretty(text json.RawMessage) string {
	var out bytes.Buffer
	if err := json.Indent(&out, text, "", "  "); err != nil {
		return string(text)
	}
	return out.String()
}

func milliseconds(n int64) string {
	if n >= 1000 {
		return fmt.Sprintf("%.1f s", float64(n)/1000)
	}
	return fmt.Sprintf("%d ms", n)
}

// bar is a phase of an attempt, drawn.
type bar struct {
	Name  string
	MS    int64
	X, W  float64 // percent
	Class string
}

// bars draws an attempt's phases on the scale of the longest attempt.
func bars(a Attempt, all []Attempt) []bar {
	longest := int64(1)
	for _, one := range all {
		longest = max(longest, one.Total)
	}
	rest := max(a.Total-a.DNS-a.Connect-a.TLS-a.FirstByte, 0)
	var out []bar
	x := 0.0
	for _, b := range []bar{{Name: "DNS", MS: a.DNS, Class: "dns"}, {Name: "connect", MS: a.Connect, Class: "connect"}, {Name: "TLS", MS: a.TLS, Class: "tls"},
		{Name: "first byte", MS: a.FirstByte, Class: "wait"}, {Name: "rest", MS: rest, Class: "rest"}} {
		if b.MS == 0 {
			continue
		}
		b.X, b.W = x, float64(b.MS)*100/float64(longest)
		x += b.W
		out = append(out, b)
	}
	return out
}

// query builds a query string of those pairs that have a value.
func query(pairs ...string) string {
	v := url.Values{}
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			v.Set(pairs[i], pairs[i+1])
		}
	}
	if len(v) == 0 {
		return ""
	}
	return "?" + v.Encode()
}

// render writes a page. It is built whole first, so that a template that fails
// leaves no half of one.
func (c *Console) render(w http.ResponseWriter, r *http.Request, status int, name string, p page) {
	p.Session, p.CSRF = sessionOf(r.Context()), csrfOf(r.Context())
	if p.Path == "" {
		p.Path = r.URL.RequestURI()
	}
	if p.Notice == "" {
		p.Notice = notice(r)
	}
	if c.Operations.Receiver != nil {
		b := c.Operations.Receiver.Behaviour()
		p.Demo = &b
	}
	var out bytes.Buffer
	if err := templates()[name].ExecuteTemplate(&out, "layout", p); err != nil {
		c.Log.ErrorContext(r.Context(), "console.failed", "page", name, "error", err.Error())
		http.Error(w, "the page could not be written; the console's log has the reason", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = out.WriteTo(w)
}

// notices are what a page that follows a change may say. The address carries the
// word only, so that nobody can put a sentence of theirs on the page by a link.
var notices = map[string]string{
	"changed":  "The endpoint's settings are saved; they count within 15 seconds.",
	"enabled":  "The endpoint is in service.",
	"disabled": "The endpoint is out of service; what waits for it ends as skipped.",
	"closed":   "The circuit is closed; what waited for it is being sent.",
	"extended": "The discussion has more time; everybody who subscribed is told (discussion.extended).",
	"ended":    "The discussion is closed.",
	"removed":  "The endpoint is gone; what waited for it ends as skipped.",
	"behaves":  "The receiver behaves differently from its next request on.",
	"out":      "You are logged out.",
}

func notice(r *http.Request) string {
	q := r.URL.Query()
	if text := notices[q.Get("did")]; text != "" {
		return text
	}
	replayed, err := strconv.Atoi(q.Get("replayed"))
	if err != nil {
		return ""
	}
	refused, _ := strconv.Atoi(q.Get("refused"))
	text := fmt.Sprintf("%d replayed: sent again within seconds.", replayed)
	if refused > 0 {
		text += fmt.Sprintf(" %d could not be: only what is settled, and whose endpoint is enabled, can be replayed.", refused)
	}
	return text
}

// fail shows why something did not work.
func (c *Console) fail(w http.ResponseWriter, r *http.Request, err error) {
	status, message := c.explain(r.Context(), err)
	c.render(w, r, status, "error", page{Title: http.StatusText(status), Data: message})
}

// then goes on to another page after a change.
func then(w http.ResponseWriter, r *http.Request, to string) {
	http.Redirect(w, r, to, http.StatusSeeOther)
}

// pages puts the pages on a mux.
func (c *Console) pages(mux *http.ServeMux) {
	show := func(pattern string, f func(w http.ResponseWriter, r *http.Request) error) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			if err := f(w, r); err != nil {
				c.fail(w, r, err)
			}
		})
	}
	show("GET /{$}", c.overview)
	show("GET /endpoints", c.listEndpoints)
	show("GET /endpoints/new", c.newEndpoint)
	show("POST /endpoints/new", c.addEndpoint)
	show("POST /endpoints/check", c.checkEndpoint)
	show("GET /endpoints/{id}", c.showEndpoint)
	show("GET /endpoints/{id}/edit", c.editEndpoint)
	show("POST /endpoints/{id}/edit", c.changeEndpoint)
	show("POST /endpoints/{id}/enable", c.enableEndpoint)
	show("POST /endpoints/{id}/disable", c.disableEndpoint)
	show("POST /endpoints/{id}/rotate", c.rotateSecret)
	show("POST /endpoints/{id}/remove", c.removeEndpoint)
	show("GET /deliveries", c.listDeliveries)
	show("POST /deliveries/replay", c.replay)
	show("GET /deliveries/{endpoint}/{event}", c.showDelivery)
	show("GET /events", c.listEvents)
	show("GET /events/{event}", c.showEvent)
	show("POST /endpoints/{id}/test", c.testEndpoint)
	show("GET /circuits", c.listCircuits)
	show("POST /circuits/{id}/close", c.closeCircuit)
	show("GET /discussions", c.listDiscussions)
	show("POST /discussions/{id}/extend", c.extendDiscussion)
	show("POST /discussions/{id}/close", c.closeDiscussion)
	show("GET /audit", c.listAudit)
	show("POST /receiver", c.behave)
	show("POST /logout", c.logout)
	show("GET /", func(http.ResponseWriter, *http.Request) error {
		return refuse(NotFound, "there is no such page")
	})
}

func (c *Console) showLogin(w http.ResponseWriter, r *http.Request) {
	c.render(w, r, http.StatusOK, "login", page{Title: "Log in", Data: r.URL.Query().Get("link")})
}

// login takes a link's token from the form that showLogin has shown: a GET uses
// nothing up, because mail and chat programs open links to preview them.
func (c *Console) login(w http.ResponseWriter, r *http.Request) {
	refused := func(status int, message string) {
		c.render(w, r, status, "login", page{Title: "Log in", Problem: message, Data: ""})
	}
	s, err := c.gate.use(r.Context(), r.PostFormValue("link"), r.RemoteAddr)
	switch {
	case errors.Is(err, errTooMany):
		w.Header().Set("Retry-After", "60")
		refused(http.StatusTooManyRequests, err.Error())
		return
	case errors.Is(err, errNoLink):
		refused(http.StatusUnauthorized, err.Error())
		return
	}
	var cookie *http.Cookie
	if err == nil {
		cookie, err = c.gate.cookie(r.Context(), r, s)
	}
	if err != nil {
		status, message := c.explain(r.Context(), err)
		refused(status, message)
		return
	}
	c.Log.InfoContext(r.Context(), "console.login", "name", s.Name, "role", string(s.Role), "tenant", s.Tenant)
	http.SetCookie(w, cookie)
	then(w, r, "/")
}

func (c *Console) logout(w http.ResponseWriter, r *http.Request) error {
	if err := c.gate.end(r.Context(), sessionOf(r.Context())); err != nil {
		return err
	}
	http.SetCookie(w, &http.Cookie{Name: cookieName, Path: "/", MaxAge: -1, HttpOnly: true, Secure: !onThisMachine(r.Host), SameSite: http.SameSiteLaxMode})
	then(w, r, "/login?did=out")
	return nil
}

// glance is an endpoint with its latest deliveries.
type glance struct {
	Endpoint
	Recent []Delivery // newest first
}

// glanceAt is how many of an endpoint's latest deliveries show how it is.
const glanceAt = 24

func (c *Console) glances(ctx context.Context, who Session) ([]glance, error) {
	list, err := c.Operations.ListEndpoints(ctx, who)
	if err != nil {
		return nil, err
	}
	out := make([]glance, len(list))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(parallel)
	for i, e := range list {
		group.Go(func() error {
			recent, err := c.Operations.Deliveries.QueryDeliveries(ctx, delivery.Query{EndpointID: e.ID, Limit: glanceAt})
			if err != nil {
				return err
			}
			out[i] = glance{Endpoint: e}
			for _, d := range recent.Deliveries {
				out[i].Recent = append(out[i].Recent, ViewDelivery(d, nil))
			}
			return nil
		})
	}
	return out, group.Wait()
}

// Health is an endpoint's health in a word.
func (g glance) Health() string {
	if g.Status != "enabled" {
		return "disabled"
	}
	var good, bad int
	for _, d := range g.Recent {
		switch {
		case d.State == delivery.Delivered && d.Attempts == 1:
			good++
		case d.State == delivery.Dead || d.State == delivery.Pending && len(d.History) > 0:
			bad++
		}
	}
	switch {
	case len(g.Recent) == 0:
		return "idle"
	case bad == 0:
		return "healthy"
	case bad > good:
		return "failing"
	}
	return "troubled"
}

func (c *Console) overview(w http.ResponseWriter, r *http.Request) error {
	who := sessionOf(r.Context())
	var data struct {
		Overview
		Endpoints []glance
		Latest    []Delivery
	}
	group, ctx := errgroup.WithContext(r.Context())
	group.Go(func() (err error) {
		data.Overview, err = c.Operations.Overview(ctx, who)
		return err
	})
	group.Go(func() (err error) {
		data.Endpoints, err = c.glances(ctx, who)
		return err
	})
	group.Go(func() error {
		latest, err := c.Operations.ListDeliveries(ctx, who, DeliveryFilter{Limit: 8})
		data.Latest = latest.Deliveries
		return err
	})
	if err := group.Wait(); err != nil {
		return err
	}
	c.render(w, r, http.StatusOK, "overview", page{Title: "Overview", Nav: "overview", Data: data})
	return nil
}

func (c *Console) listCircuits(w http.ResponseWriter, r *http.Request) error {
	list, err := c.Operations.ListCircuits(r.Context(), sessionOf(r.Context()))
	if err != nil {
		return err
	}
	c.render(w, r, http.StatusOK, "circuits", page{Title: "Circuits", Nav: "circuits", Data: list})
	return nil
}

func (c *Console) closeCircuit(w http.ResponseWriter, r *http.Request) error {
	err := c.Operations.CloseCircuit(r.Context(), sessionOf(r.Context()), r.PathValue("id"))
	if err == nil {
		then(w, r, "/circuits?did=closed")
	}
	return err
}

func (c *Console) testEndpoint(w http.ResponseWriter, r *http.Request) error {
	report, err := c.Operations.TestEndpoint(r.Context(), sessionOf(r.Context()), r.PathValue("id"), r.PostFormValue("event"))
	if err != nil {
		return err
	}
	c.render(w, r, http.StatusOK, "test", page{Title: "Test", Nav: "endpoints", Data: report})
	return nil
}

func (c *Console) listDiscussions(w http.ResponseWriter, r *http.Request) error {
	view := r.URL.Query().Get("view")
	if view == "" {
		view = "open"
	}
	found, err := c.Operations.ListDiscussions(r.Context(), sessionOf(r.Context()), view, r.URL.Query().Get("cursor"), defaultPage)
	if err != nil {
		return err
	}
	c.render(w, r, http.StatusOK, "discussions", page{Title: "Discussions", Nav: "discussions", Data: struct {
		DiscussionPage
		View string
	}{found, view}})
	return nil
}

func (c *Console) extendDiscussion(w http.ResponseWriter, r *http.Request) error {
	who, id := sessionOf(r.Context()), r.PathValue("id")
	d, err := c.Operations.GetDiscussion(r.Context(), who, id)
	if err != nil {
		return err
	}
	days, _ := strconv.Atoi(r.PostFormValue("days")) // 0 is refused
	to, err := extended(d, days, c.Operations.Now())
	if err != nil {
		return err
	}
	if _, err := c.Operations.ExtendDiscussion(r.Context(), who, id, to); err != nil {
		return err
	}
	then(w, r, "/discussions?did=extended")
	return nil
}

func (c *Console) closeDiscussion(w http.ResponseWriter, r *http.Request) error {
	_, err := c.Operations.CloseDiscussion(r.Context(), sessionOf(r.Context()), r.PathValue("id"))
	if err == nil {
		then(w, r, "/discussions?view=closed&did=ended")
	}
	return err
}

func (c *Console) listEndpoints(w http.ResponseWriter, r *http.Request) error {
	list, err := c.glances(r.Context(), sessionOf(r.Context()))
	if err != nil {
		return err
	}
	c.render(w, r, http.StatusOK, "endpoints", page{Title: "Endpoints", Nav: "endpoints", Data: list})
	return nil
}

func (c *Console) showEndpoint(w http.ResponseWriter, r *http.Request) error {
	who := sessionOf(r.Context())
	e, err := c.Operations.GetEndpoint(r.Context(), who, r.PathValue("id"))
	if err != nil {
		return err
	}
	return c.endpointPage(w, r, WithSecret{Endpoint: e})
}

func (c *Console) endpointPage(w http.ResponseWriter, r *http.Request, e WithSecret) error {
	recent, err := c.Operations.ListDeliveries(r.Context(), sessionOf(r.Context()), DeliveryFilter{EndpointID: e.ID, Limit: 20})
	if err != nil {
		return err
	}
	circuit, err := c.Operations.GetCircuit(r.Context(), sessionOf(r.Context()), e.ID)
	if err != nil {
		return err
	}
	c.render(w, r, http.StatusOK, "endpoint", page{Title: e.URL, Nav: "endpoints", Path: "/endpoints/" + url.PathEscape(e.ID), Data: struct {
		WithSecret
		Circuit Circuit
		Recent  []Delivery
	}{e, circuit, recent.Deliveries}})
	return nil
}

func (c *Console) enableEndpoint(w http.ResponseWriter, r *http.Request) error {
	e, err := c.Operations.EnableEndpoint(r.Context(), sessionOf(r.Context()), r.PathValue("id"))
	if err == nil {
		then(w, r, "/endpoints/"+e.ID+"?did=enabled")
	}
	return err
}

func (c *Console) disableEndpoint(w http.ResponseWriter, r *http.Request) error {
	e, err := c.Operations.DisableEndpoint(r.Context(), sessionOf(r.Context()), r.PathValue("id"))
	if err == nil {
		then(w, r, "/endpoints/"+e.ID+"?did=disabled")
	}
	return err
}

// rotateSecret answers with the page itself and not with another address: the
// secret is shown this once.
func (c *Console) rotateSecret(w http.ResponseWriter, r *http.Request) error {
	e, err := c.Operations.RotateSecret(r.Context(), sessionOf(r.Context()), r.PathValue("id"))
	if err != nil {
		return err
	}
	return c.endpointPage(w, r, e)
}

func (c *Console) removeEndpoint(w http.ResponseWriter, r *http.Request) error {
	err := c.Operations.RemoveEndpoint(r.Context(), sessionOf(r.Context()), r.PathValue("id"))
	if err == nil {
		then(w, r, "/endpoints?did=removed")
	}
	return err
}

// deliveriesPage is a page of deliveries with the filter that it is of.
type deliveriesPage struct {
	DeliveryPage
	Endpoints []Endpoint
	Types     []string
	States    []delivery.State

	Endpoint, Type, State, Since, Cursor string
}

// Rest is the address of the next page.
func (d deliveriesPage) Rest() string {
	return "/deliveries" + query("endpoint", d.Endpoint, "type", d.Type, "state", d.State, "since", d.Since, "cursor", d.Next)
}

// Here is the address of the filter's first page.
func (d deliveriesPage) Here() string {
	return "/deliveries" + query("endpoint", d.Endpoint, "type", d.Type, "state", d.State, "since", d.Since)
}

// spans are the times that the page offers.
var spans = map[string]time.Duration{"15m": 15 * time.Minute, "1h": time.Hour, "24h": 24 * time.Hour, "7d": 7 * 24 * time.Hour}

func (c *Console) listDeliveries(w http.ResponseWriter, r *http.Request) error {
	who, q := sessionOf(r.Context()), r.URL.Query()
	d := deliveriesPage{
		Endpoint: q.Get("endpoint"), Type: q.Get("type"), State: q.Get("state"), Since: q.Get("since"), Cursor: q.Get("cursor"),
		Types: c.Operations.Catalog.Types(), States: delivery.States,
	}
	filter := DeliveryFilter{EndpointID: d.Endpoint, EventType: d.Type, State: delivery.State(d.State), Cursor: d.Cursor}
	if span, ok := spans[d.Since]; ok {
		filter.From = c.Operations.Now().Add(-span)
	}
	var err error
	if d.Endpoints, err = c.Operations.ListEndpoints(r.Context(), who); err != nil {
		return err
	}
	if d.DeliveryPage, err = c.Operations.ListDeliveries(r.Context(), who, filter); err != nil {
		return err
	}
	c.render(w, r, http.StatusOK, "deliveries", page{Title: "Deliveries", Nav: "deliveries", Data: d})
	return nil
}

func (c *Console) showDelivery(w http.ResponseWriter, r *http.Request) error {
	who := sessionOf(r.Context())
	d, err := c.Operations.GetDelivery(r.Context(), who, r.PathValue("endpoint"), r.PathValue("event"))
	if err != nil {
		return err
	}
	data := struct {
		Delivery
		Request *SignedRequest
		Missing string // why there is no request to show
	}{Delivery: d}
	request, err := c.Operations.Request(r.Context(), who, d.EndpointID, d.EventID)
	var refused *Error
	switch {
	case err == nil:
		data.Request = &request
	case errors.As(err, &refused):
		data.Missing = refused.Message
	default:
		return err
	}
	c.render(w, r, http.StatusOK, "delivery", page{Title: "Delivery", Nav: "deliveries", Data: data})
	return nil
}

// replay takes what the list's boxes, or one delivery's button, name.
func (c *Console) replay(w http.ResponseWriter, r *http.Request) error {
	if err := r.ParseForm(); err != nil {
		return refuse(Invalid, "the form could not be read")
	}
	var keys []delivery.Key
	for _, text := range r.PostForm["delivery"] {
		endpointID, eventID, _ := strings.Cut(text, "/")
		keys = append(keys, delivery.Key{EndpointID: endpointID, EventID: eventID})
	}
	results, err := c.Operations.Replay(r.Context(), sessionOf(r.Context()), keys)
	if err != nil {
		return err
	}
	if len(results) == 1 {
		if !results[0].Replayed {
			return refuse(Conflict, "%s", results[0].Message)
		}
		then(w, r, "/deliveries/"+url.PathEscape(keys[0].EndpointID)+"/"+url.PathEscape(keys[0].EventID)+"?replayed=1")
		return nil
	}
	replayed := 0
	for _, one := range results {
		if one.Replayed {
			replayed++
		}
	}
	then(w, r, fmt.Sprintf("/deliveries?replayed=%d&refused=%d", replayed, len(results)-replayed))
	return nil
}

func (c *Console) listEvents(w http.ResponseWriter, r *http.Request) error {
	if id := strings.TrimSpace(r.URL.Query().Get("id")); id != "" {
		then(w, r, "/events/"+url.PathEscape(id))
		return nil
	}
	c.render(w, r, http.StatusOK, "events", page{Title: "Events", Nav: "events", Data: c.Operations.EventTypes()})
	return nil
}

func (c *Console) showEvent(w http.ResponseWriter, r *http.Request) error {
	e, err := c.Operations.GetEvent(r.Context(), sessionOf(r.Context()), r.PathValue("event"))
	if err != nil {
		return err
	}
	c.render(w, r, http.StatusOK, "event", page{Title: e.Type, Nav: "events", Data: e})
	return nil
}

func (c *Console) listAudit(w http.ResponseWriter, r *http.Request) error {
	found, err := c.Operations.ListAudit(r.Context(), sessionOf(r.Context()), defaultPage, r.URL.Query().Get("cursor"))
	if err != nil {
		return err
	}
	c.render(w, r, http.StatusOK, "audit", page{Title: "Audit log", Nav: "audit", Data: found})
	return nil
}

func (c *Console) behave(w http.ResponseWriter, r *http.Request) error {
	number := func(field string) int {
		n, err := strconv.Atoi(r.PostFormValue(field))
		if err != nil {
			return -1
		}
		return n
	}
	b := Behaviour{FailPercent: number("fail_percent"), FailStatus: number("fail_status"), SlowSeconds: number("slow_seconds")}
	if err := c.Operations.Behave(r.Context(), sessionOf(r.Context()), b); err != nil {
		return err
	}
	then(w, r, "/?did=behaves")
	return nil
}

// ---- the endpoint's form -----------------------------------------------------------------------

// form is an endpoint's settings as a form shows them: in the words that were
// typed, right or wrong.
type form struct {
	ID       string // empty for a new one
	Values   url.Values
	Types    []string // what can be subscribed to
	Families []string // user.*, discussion.*
	Errors   map[string]string
}

// Value is what a field holds.
func (f form) Value(field string) string { return f.Values.Get(field) }

// Has reports whether a box is ticked.
func (f form) Has(field, value string) bool { return slices.Contains(f.Values[field], value) }

// message is what is wrong with a field; Swap lets htmx put it in the place of the
// one before.
type message struct {
	Field, Text string
	Swap        bool
}

// Message is what is wrong with a field.
func (f form) Message(field string) message { return message{field, f.Errors[field], false} }

// Messages are those of all fields.
func (f form) Messages() []message {
	var out []message
	for _, field := range fields {
		if field != "ordered" && field != "traceparent" {
			out = append(out, message{field, f.Errors[field], true})
		}
	}
	return out
}

// Advanced reports whether something beyond the first fields is set or wrong.
func (f form) Advanced() bool {
	for _, field := range fields[4:] {
		if f.Values.Get(field) != "" || f.Errors[field] != "" {
			return true
		}
	}
	return false
}

func (c *Console) form(id string, values url.Values, problems []FieldError) form {
	f := form{ID: id, Values: values, Types: c.Operations.Catalog.Types(), Errors: map[string]string{}}
	for _, t := range f.Types {
		family, _, _ := strings.Cut(t, ".")
		if family += ".*"; !slices.Contains(f.Families, family) {
			f.Families = append(f.Families, family)
		}
	}
	for _, p := range problems {
		f.Errors[p.Field] = p.Message
	}
	return f
}

// settings reads a form. Its second result is what is no number where one must be.
func settings(v url.Values) (Settings, []FieldError) {
	var problems []FieldError
	number := func(field string) float64 {
		text := strings.TrimSpace(v.Get(field))
		if text == "" {
			return 0
		}
		n, err := strconv.ParseFloat(text, 64)
		if err != nil {
			problems = append(problems, FieldError{field, fmt.Sprintf("%q is no number", text)})
		}
		return n
	}
	s := Settings{
		URL: v.Get("url"), Description: strings.TrimSpace(v.Get("description")), EventTypes: v["event_types"],
		RoleARN: strings.TrimSpace(v.Get("role_arn")), Credentials: strings.TrimSpace(v.Get("credentials")),
		Ordered: v.Get("ordered") != "", Traceparent: v.Get("traceparent") != "", Ed25519: v.Get("ed25519") != "",
		Timeout: number("timeout_seconds"), MaxAttempts: int(number("max_attempts")),
		MaxAge: strings.TrimSpace(v.Get("max_age")), MaxDelay: strings.TrimSpace(v.Get("max_delay")), Version: int(number("version")),
		PerMinute: int(number("rate_per_minute")), Burst: int(number("burst")),
		Breaker: BreakerSettings{
			Failures: int(number("breaker.failures")), OpenFor: strings.TrimSpace(v.Get("breaker.open_for")),
			MaxOpenFor: strings.TrimSpace(v.Get("breaker.max_open_for")), DisableAfter: strings.TrimSpace(v.Get("breaker.disable_after")),
		},
	}
	if text := strings.TrimSpace(v.Get("filter")); text != "" {
		s.Filter = json.RawMessage(text)
	}
	return s, problems
}

// values are an endpoint's settings as its form shows them first.
func (e Endpoint) values() url.Values {
	v := url.Values{
		"url": {e.URL}, "description": {e.Description}, "event_types": e.EventTypes, "filter": {""},
		"role_arn": {e.RoleARN}, "credentials": {e.Credentials}, "max_age": {e.MaxAge}, "max_delay": {e.MaxDelay},
		"breaker.open_for": {e.Breaker.OpenFor}, "breaker.max_open_for": {e.Breaker.MaxOpenFor}, "breaker.disable_after": {e.Breaker.DisableAfter},
		"version": {strconv.Itoa(e.Version)},
	}
	if len(e.Filter) > 0 {
		v.Set("filter", pretty(e.Filter))
	}
	if e.Timeout != 10 {
		v.Set("timeout_seconds", strconv.FormatFloat(e.Timeout, 'f', -1, 64))
	}
	for field, n := range map[string]int{"max_attempts": e.MaxAttempts, "rate_per_minute": e.PerMinute, "burst": e.Burst, "breaker.failures": e.Breaker.Failures} {
		if n > 0 {
			v.Set(field, strconv.Itoa(n))
		}
	}
	if e.Ordered {
		v.Set("ordered", "yes")
	}
	if e.Traceparent {
		v.Set("traceparent", "yes")
	}
	return v
}

func (c *Console) newEndpoint(w http.ResponseWriter, r *http.Request) error {
	if sessionOf(r.Context()).Role != Admin {
		return forbidden()
	}
	c.render(w, r, http.StatusOK, "form", page{Title: "Add an endpoint", Nav: "endpoints", Data: c.form("", url.Values{"event_types": {"*"}}, nil)})
	return nil
}

func (c *Console) editEndpoint(w http.ResponseWriter, r *http.Request) error {
	if sessionOf(r.Context()).Role != Admin {
		return forbidden()
	}
	e, err := c.Operations.GetEndpoint(r.Context(), sessionOf(r.Context()), r.PathValue("id"))
	if err != nil {
		return err
	}
	c.render(w, r, http.StatusOK, "form", page{Title: "Edit an endpoint", Nav: "endpoints", Data: c.form(e.ID, e.values(), nil)})
	return nil
}

// again shows a form that was refused, as it was filled in; it fails with errors
// that are no refusal of it.
func (c *Console) again(w http.ResponseWriter, r *http.Request, title, id string, problems []FieldError, err error) error {
	var refused *Error
	problem := "Nothing was saved: see the marked fields."
	if err != nil {
		if !errors.As(err, &refused) || refused.Kind != Invalid && refused.Kind != Conflict {
			return err
		}
		problems = append(problems, refused.Fields...)
		if len(refused.Fields) == 0 {
			problem = "Nothing was saved: " + refused.Message
		}
	}
	c.render(w, r, http.StatusUnprocessableEntity, "form", page{Title: title, Nav: "endpoints", Problem: problem, Data: c.form(id, r.PostForm, problems)})
	return nil
}

func (c *Console) addEndpoint(w http.ResponseWriter, r *http.Request) error {
	if err := r.ParseForm(); err != nil {
		return refuse(Invalid, "the form could not be read")
	}
	const title = "Add an endpoint"
	s, problems := settings(r.PostForm)
	if problems != nil {
		return c.again(w, r, title, "", problems, nil)
	}
	e, err := c.Operations.AddEndpoint(r.Context(), sessionOf(r.Context()), s)
	if err != nil {
		return c.again(w, r, title, "", nil, err)
	}
	return c.endpointPage(w, r, e)
}

func (c *Console) changeEndpoint(w http.ResponseWriter, r *http.Request) error {
	if err := r.ParseForm(); err != nil {
		return refuse(Invalid, "the form could not be read")
	}
	const title = "Edit an endpoint"
	id := r.PathValue("id")
	s, problems := settings(r.PostForm)
	if problems != nil {
		return c.again(w, r, title, id, problems, nil)
	}
	e, err := c.Operations.ChangeEndpoint(r.Context(), sessionOf(r.Context()), id, s)
	if err != nil {
		return c.again(w, r, title, id, nil, err)
	}
	then(w, r, "/endpoints/"+e.ID+"?did=changed")
	return nil
}

// checkEndpoint answers a form that is being filled in with its fields' messages,
// which htmx puts where they belong.
func (c *Console) checkEndpoint(w http.ResponseWriter, r *http.Request) error {
	if err := r.ParseForm(); err != nil {
		return refuse(Invalid, "the form could not be read")
	}
	s, problems := settings(r.PostForm)
	if strings.TrimSpace(s.URL) != "" {
		problems = append(problems, c.Operations.CheckSettings(r.Context(), sessionOf(r.Context()), s)...)
	}
	var out bytes.Buffer
	if err := templates()["form"].ExecuteTemplate(&out, "messages", c.form("", r.PostForm, problems)); err != nil {
		return err
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = out.WriteTo(w)
	return nil
}
