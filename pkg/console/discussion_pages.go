package console

import (
	"net/http"
	"strconv"
)

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
	to, err := extensionEnd(d, days, c.Operations.Now())
	if err != nil {
		return err
	}
	if _, err := c.Operations.ExtendDiscussion(r.Context(), who, id, to); err != nil {
		return err
	}
	redirect(w, r, "/discussions?did=extended")
	return nil
}

func (c *Console) closeDiscussion(w http.ResponseWriter, r *http.Request) error {
	_, err := c.Operations.CloseDiscussion(r.Context(), sessionOf(r.Context()), r.PathValue("id"))
	if err == nil {
		redirect(w, r, "/discussions?view=closed&did=ended")
	}
	return err
}
