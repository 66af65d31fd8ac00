package console

import (
	"bytes"
	"cmp"
	"embed"
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
	"path"
	"strconv"
	"strings"
	"sync"

	"github.com/tidings-dev/tidings/pkg/event/catalog"
)

//go:embed pages/*.html
var pageFiles embed.FS

// page is the answer to a page request and the data of its template.
type page struct {
	Template string       // a file in pages, without .html
	Block    string       // the part of the template to render; the whole page if empty
	Status   int          // 200 if 0
	Redirect string       // if set, redirect to this URL instead of rendering
	Cookie   *http.Cookie // if set, sent with the answer

	Title   string
	Nav     string // which entry of the navigation is current
	Path    string // the URL that live parts of the page are refreshed from
	Session Session
	CSRF    string
	Notice  string // result of the last change
	Problem string // why the last change failed
	Demo    *Behaviour
	// RetentionDays is how many days events are kept whose type says nothing else, and Spans
	// are the ranges of time that forms offer.
	RetentionDays int
	Spans         []span
	Data          any
}

// Admin reports whether the session may make changes.
func (p page) Admin() bool { return p.Session.Role.changes() }

// OperatesAll reports whether the session may start jobs that concern all tenants.
func (p page) OperatesAll() bool { return operatesAll(p.Session) }

// Operator reports whether the session may see failed changes.
func (p page) Operator() bool { return p.Session.Role == Operator }

// templates returns each page, parsed with the shared layout and parts.
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

// render writes a page. It executes the template into a buffer first, so that a
// failing template does not leave half a page.
func (c *Console) render(w http.ResponseWriter, r *http.Request, p page) {
	if p.Cookie != nil {
		http.SetCookie(w, p.Cookie)
	}
	if p.Redirect != "" {
		http.Redirect(w, r, p.Redirect, http.StatusSeeOther)
		return
	}
	p.Session, p.CSRF, p.Notice = sessionOf(r.Context()), csrfOf(r.Context()), cmp.Or(p.Notice, notice(r))
	p.Path = cmp.Or(p.Path, r.URL.RequestURI())
	p.RetentionDays, p.Spans = c.Operations.retentionDays(catalog.Type{}), c.Operations.spans()
	if c.Operations.Receiver != nil {
		b := c.Operations.Receiver.Behaviour()
		p.Demo = &b
	}
	var out bytes.Buffer
	if err := templates()[p.Template].ExecuteTemplate(&out, cmp.Or(p.Block, "layout"), p); err != nil {
		c.Log.ErrorContext(r.Context(), "console.failed", "page", p.Template, "error", err.Error())
		http.Error(w, "the page could not be rendered; see console.failed in the log", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(cmp.Or(p.Status, http.StatusOK))
	_, _ = out.WriteTo(w)
}

// notices are the messages after a change, by the "did" parameter. The URL carries
// only a key, so that a link cannot put its own text on the page.
var notices = map[string]string{
	"changed":  "Endpoint saved. The settings take effect within 15 seconds.",
	"enabled":  "Endpoint enabled.",
	"paused":   "Endpoint paused. Its events wait in its backlog, up to its age limit.",
	"resumed":  "Endpoint resumed. Its backlog is sent within two minutes.",
	"disabled": "Endpoint disabled. Its pending deliveries are marked skipped.",
	"closed":   "Circuit breaker closed. Pending deliveries are being sent.",
	"extended": "Discussion extended. Subscribed endpoints receive discussion.extended.",
	"ended":    "Discussion closed.",
	"removed":  "Endpoint deleted. Its pending deliveries are marked skipped.",
	"behaves":  "Receiver changed. The setting applies from its next request.",
	"captured": "Captured again. Its event is delivered to the subscribed endpoints.",
	"ruled":    "Capture rules changed. They take effect within a minute.",
	"typed":    "Event types changed. They take effect within a minute.",
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
	text := fmt.Sprintf("%d replayed. They are sent within seconds.", replayed)
	if refused > 0 {
		text += fmt.Sprintf(" %d not replayed: a delivery must be settled and its endpoint enabled.", refused)
	}
	return text
}
