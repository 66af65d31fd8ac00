package console

import (
	"net/http"
)

// pages registers the pages on a mux.
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
	show("POST /receiver", c.configureReceiver)
	show("POST /logout", c.logout)
	show("GET /", func(http.ResponseWriter, *http.Request) error {
		return errorf(NotFound, "page not found")
	})
}
