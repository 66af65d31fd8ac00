package console

import (
	"net/http"
)

func (c *Console) listCircuits(w http.ResponseWriter, r *http.Request) error {
	list, err := c.Operations.ListCircuits(r.Context(), sessionOf(r.Context()))
	if err != nil {
		return err
	}
	c.render(w, r, http.StatusOK, "circuits", page{Title: "Circuit breakers", Nav: "circuits", Data: list})
	return nil
}

func (c *Console) closeCircuit(w http.ResponseWriter, r *http.Request) error {
	err := c.Operations.CloseCircuit(r.Context(), sessionOf(r.Context()), r.PathValue("id"))
	if err == nil {
		redirect(w, r, "/circuits?did=closed")
	}
	return err
}
