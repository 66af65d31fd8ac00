package console

import (
	"bytes"
	"embed"
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
	"path"
	"strconv"
	"strings"
	"sync"
)

//go:embed pages/*.html
var pageFiles embed.FS

// page is the data of every template.
type page struct {
	Title   string
	Nav     string // which entry of the navigation is current
	Path    string // the URL that live parts of the page are refreshed from
	Session Session
	CSRF    string
	Notice  string // result of the last change
	Problem string // why the last change failed
	Demo    *Behaviour
	Data    any
}

// Admin reports whether the session may make changes.
func (p page) Admin() bool { return p.Session.Role == Admin }

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
		http.Error(w, "the page could not be rendered; see console.failed in the log", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = out.WriteTo(w)
}

// fail answers a page request with an error page.
func (c *Console) fail(w http.ResponseWriter, r *http.Request, err error) {
	status, message := c.errorResponse(r.Context(), err)
	c.writeError(w, r, status, message)
}

// redirect sends the browser to another page after a change.
func redirect(w http.ResponseWriter, r *http.Request, to string) {
	http.Redirect(w, r, to, http.StatusSeeOther)
}

// notices are the messages after a change, by the "did" parameter. The URL carries
// only a key, so that a link cannot put its own text on the page.
var notices = map[string]string{
	"changed":  "Endpoint saved. The settings take effect within 15 seconds.",
	"enabled":  "Endpoint enabled.",
	"disabled": "Endpoint disabled. Its pending deliveries are marked skipped.",
	"closed":   "Circuit breaker closed. Pending deliveries are being sent.",
	"extended": "Discussion extended. Subscribed endpoints receive discussion.extended.",
	"ended":    "Discussion closed.",
	"removed":  "Endpoint deleted. Its pending deliveries are marked skipped.",
	"behaves":  "Receiver changed. The setting applies from its next request.",
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
