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

// fail shows why something did not work.
func (c *Console) fail(w http.ResponseWriter, r *http.Request, err error) {
	status, message := c.errorResponse(r.Context(), err)
	c.render(w, r, status, "error", page{Title: http.StatusText(status), Data: message})
}

// redirect goes on to another page after a change.
func redirect(w http.ResponseWriter, r *http.Request, to string) {
	http.Redirect(w, r, to, http.StatusSeeOther)
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
