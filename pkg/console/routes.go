package console

import (
	"context"
	"net/http"
	"net/url"
	"strings"
)

// handler answers a page request.
type handler func(r *http.Request, who Session) (page, error)

// pages registers the pages on a mux.
func (c *Console) pages(mux *http.ServeMux) {
	show := func(pattern string, f handler) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPost {
				if err := r.ParseForm(); err != nil {
					c.fail(w, r, errorf(Invalid, "the form could not be parsed"))
					return
				}
			}
			p, err := f(r, sessionOf(r.Context()))
			if err != nil {
				c.fail(w, r, err)
				return
			}
			c.render(w, r, p)
		})
	}
	o := c.Operations
	show("GET /{$}", c.overview)
	show("GET /metrics", c.showMetrics)
	show("GET /endpoints", c.listEndpoints)
	show("GET /endpoints/new", c.newEndpoint)
	show("POST /endpoints/new", c.saveEndpoint)
	show("POST /endpoints/check", c.checkEndpoint)
	show("GET /endpoints/{id}", c.showEndpoint)
	show("GET /endpoints/{id}/edit", c.editEndpoint)
	show("POST /endpoints/{id}/edit", c.saveEndpoint)
	show("POST /endpoints/{id}/enable", redirectAfter(o.EnableEndpoint, "/endpoints/{id}?did=enabled"))
	show("POST /endpoints/{id}/pause", redirectAfter(o.PauseEndpoint, "/endpoints/{id}?did=paused"))
	show("POST /endpoints/{id}/resume", redirectAfter(o.ResumeEndpoint, "/endpoints/{id}?did=resumed"))
	show("POST /endpoints/{id}/disable", redirectAfter(o.DisableEndpoint, "/endpoints/{id}?did=disabled"))
	show("POST /endpoints/{id}/rotate", c.rotateSecret)
	show("POST /endpoints/{id}/remove", redirectAfter(o.RemoveEndpoint, "/endpoints?did=removed"))
	show("POST /endpoints/{id}/test", c.testEndpoint)
	show("POST /endpoints/{id}/recover", c.recoverMissed)
	show("GET /deliveries", c.listDeliveries)
	show("POST /deliveries/replay", c.replay)
	show("POST /deliveries/replay-matching", c.replayMatching)
	show("GET /deliveries/{endpoint}/{event}", c.showDelivery)
	show("GET /events", c.listEvents)
	show("GET /events/{event}", c.showEvent)
	show("GET /circuits", c.listCircuits)
	show("POST /circuits/{id}/close", redirectAfter(o.CloseCircuit, "/circuits?did=closed"))
	show("GET /discussions", c.listDiscussions)
	show("POST /discussions/{id}/extend", c.extendDiscussion)
	show("POST /discussions/{id}/close", redirectAfter(o.CloseDiscussion, "/discussions?view=closed&did=ended"))
	show("GET /capture", c.listFailedChanges)
	show("GET /capture/{id}", c.showFailedChange)
	show("POST /capture/{id}/redrive", redirectAfter(o.RedriveFailedChange, "/capture?did=captured"))
	show("GET /capture-rules", c.showRules)
	show("POST /capture-rules", c.changeRules)
	show("GET /event-types", c.showTypes)
	show("POST /event-types", c.changeTypes)
	show("GET /jobs", c.listJobs)
	show("POST /jobs/stream", c.recoverStream)
	show("GET /jobs/{id}", c.showJob)
	show("POST /jobs/{id}/cancel", redirectAfter(o.CancelJob, "/jobs/{id}"))
	show("POST /jobs/{id}/send", c.sendCounted)
	show("POST /erasures", c.erasePerson)
	show("GET /audit", c.listAudit)
	c.publishCatalog(mux, show)
	show("POST /receiver", c.configureReceiver)
	show("POST /logout", c.logout)
	show("GET /", func(*http.Request, Session) (page, error) { return page{}, errorf(NotFound, "page not found") })
}

// redirectAfter returns a handler that changes the object {id} and then redirects.
func redirectAfter[T any](change func(ctx context.Context, who Session, id string) (T, error), to string) handler {
	return func(r *http.Request, who Session) (page, error) {
		id := r.PathValue("id")
		_, err := change(r.Context(), who, id)
		return page{Redirect: strings.ReplaceAll(to, "{id}", url.PathEscape(id))}, err
	}
}
