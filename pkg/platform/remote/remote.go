// Package remote lists and changes the discussions of a platform that keeps them in a
// database of its own. The platform has one HTTP endpoint for it; requests are signed as
// webhooks are. Client is the console's side, Handler the platform's. It promises that
// the errors of package platform arrive as such, that a request ends after ten seconds,
// and that an unsigned or old request changes nothing. Redirects are not followed.
package remote

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/platform"
	"github.com/tidings-dev/tidings/pkg/signature"
)

const (
	requestTime = 10 * time.Second
	maxRequest  = 64 << 10
	maxResponse = 1 << 20
)

// Request is the body of a request. Action is list, get, extend or close; the other
// fields are those of platform.Query, Extension and Closing.
type Request struct {
	Action string `json:"action"`
	Tenant string `json:"tenant"`

	// get, extend and close
	ID    string    `json:"id,omitempty"`
	By    string    `json:"by,omitempty"`    // id of a user of the platform
	Login string    `json:"login,omitempty"` // console:NAME, if the operator is not a user
	At    time.Time `json:"at,omitzero"`     // the time of the change; the same if it is repeated

	// extend
	To   time.Time `json:"to,omitzero"`
	Seen time.Time `json:"seen,omitzero"` // refuse if the discussion has another end by now

	// close
	Reason platform.Reason `json:"reason,omitempty"`

	// list
	View   platform.View `json:"view,omitempty"`
	Until  time.Time     `json:"until,omitzero"`
	Cursor string        `json:"cursor,omitempty"`
	Limit  int           `json:"limit,omitempty"`
}

// Discussion is a discussion in a response.
type Discussion struct {
	platform.Discussion
	Tenant    string    `json:"tenant"`
	CreatedAt time.Time `json:"created_at,omitzero"`
	UpdatedAt time.Time `json:"updated_at,omitzero"`
}

func toWire(d platform.Discussion) Discussion {
	return Discussion{Discussion: d, Tenant: d.Tenant, CreatedAt: d.CreatedAt, UpdatedAt: d.UpdatedAt}
}

func (d Discussion) fromWire() platform.Discussion {
	out := d.Discussion
	out.Tenant, out.CreatedAt, out.UpdatedAt = d.Tenant, utc(d.CreatedAt), utc(d.UpdatedAt)
	out.ExpiresAt, out.ClosedAt = utc(out.ExpiresAt), utc(out.ClosedAt)
	return out
}

// utc makes equal times equal values, also the zero one.
func utc(t time.Time) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	return t.UTC()
}

// Response is the body of a response: one discussion, a page of them, or an error.
type Response struct {
	Discussion  *Discussion  `json:"discussion,omitempty"`
	Discussions []Discussion `json:"discussions,omitempty"`
	Next        string       `json:"next,omitempty"`
	Code        string       `json:"code,omitempty"`
	Message     string       `json:"message,omitempty"`
}

// codes are the errors that a response can carry.
var codes = []struct {
	code   string
	err    error
	status int
}{
	{"not_found", platform.ErrNotFound, http.StatusNotFound},
	{"closed", platform.ErrClosed, http.StatusConflict},
	{"changed", platform.ErrChanged, http.StatusConflict},
	{"not_later", platform.ErrNotLater, http.StatusConflict},
	{"not_expired", platform.ErrNotExpired, http.StatusConflict},
	{"past", platform.ErrPast, http.StatusUnprocessableEntity},
}

// refusal is an error of package platform with the platform's message.
type refusal struct {
	is      error
	message string
}

func (r refusal) Error() string { return r.message }
func (r refusal) Unwrap() error { return r.is }

// Client asks a platform's endpoint.
type Client struct {
	URL    string
	Secret func(ctx context.Context) (signature.Secret, error)
	HTTP   *http.Client // nil for one with the package's limits
	Now    func() time.Time
}

var defaultHTTP = &http.Client{
	Timeout:       requestTime,
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// GetDiscussion returns a tenant's discussion, or platform.ErrNotFound.
func (c *Client) GetDiscussion(ctx context.Context, tenant, id string) (platform.Discussion, error) {
	return c.one(ctx, Request{Action: "get", Tenant: tenant, ID: id})
}

// ListDiscussions returns a page of a tenant's discussions in the order of the view.
func (c *Client) ListDiscussions(ctx context.Context, q platform.Query) (platform.Page, error) {
	if err := q.Check(); err != nil {
		return platform.Page{}, err
	}
	answer, err := c.ask(ctx, Request{Action: "list", Tenant: q.Tenant, View: q.View, Until: q.Until, Cursor: q.Cursor, Limit: q.Limit})
	page := platform.Page{Next: answer.Next}
	for _, d := range answer.Discussions {
		page.Discussions = append(page.Discussions, d.fromWire())
	}
	return page, err
}

// ExtendDiscussion moves the end of an open discussion and returns the discussion.
func (c *Client) ExtendDiscussion(ctx context.Context, x platform.Extension) (platform.Discussion, error) {
	return c.one(ctx, Request{Action: "extend", Tenant: x.Tenant, ID: x.ID, To: x.To, Seen: x.Seen, By: x.By, Login: x.Login, At: x.At})
}

// CloseDiscussion closes an open discussion and returns it.
func (c *Client) CloseDiscussion(ctx context.Context, x platform.Closing) (platform.Discussion, error) {
	return c.one(ctx, Request{Action: "close", Tenant: x.Tenant, ID: x.ID, Reason: x.Reason, By: x.By, Login: x.Login, At: x.At})
}

func (c *Client) one(ctx context.Context, r Request) (platform.Discussion, error) {
	answer, err := c.ask(ctx, r)
	switch {
	case err != nil:
		return platform.Discussion{}, err
	case answer.Discussion == nil:
		return platform.Discussion{}, fmt.Errorf("%s a discussion: the platform's response has no discussion", r.Action)
	}
	return answer.Discussion.fromWire(), nil
}

func (c *Client) ask(ctx context.Context, r Request) (Response, error) {
	fail := func(err error) (Response, error) {
		return Response{}, fmt.Errorf("%s discussions at the platform's endpoint: %w", r.Action, err)
	}
	secret, err := c.Secret(ctx)
	if err != nil {
		return fail(err)
	}
	body, err := json.Marshal(r)
	if err != nil {
		return fail(err)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, c.URL, bytes.NewReader(body))
	if err != nil {
		return fail(err)
	}
	now := c.Now()
	id := event.NewID(now)
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("webhook-id", id)
	request.Header.Set("webhook-timestamp", fmt.Sprint(now.Unix()))
	request.Header.Set("webhook-signature", signature.Sign([]signature.Secret{secret}, id, now, body))
	client := c.HTTP
	if client == nil {
		client = defaultHTTP
	}
	response, err := client.Do(request)
	if err != nil {
		return fail(err)
	}
	defer func() { _ = response.Body.Close() }() // it is read, or of no use
	if response.StatusCode == http.StatusSwitchingProtocols {
		// Its body is the connection, which the client's timeout does not end.
		return fail(errors.New("it responded with status 101: it must not switch to another protocol"))
	}
	var answer Response
	if err := json.NewDecoder(io.LimitReader(response.Body, maxResponse)).Decode(&answer); err != nil {
		return fail(fmt.Errorf("it responded with %s, which is not the JSON of docs/postgres.md", response.Status))
	}
	if response.StatusCode == http.StatusOK {
		return answer, nil
	}
	for _, known := range codes {
		if answer.Code == known.code {
			return Response{}, refusal{known.err, answer.Message}
		}
	}
	return fail(fmt.Errorf("it responded with %s: %.200s", response.Status, answer.Message))
}

// Store keeps discussions.
type Store interface {
	GetDiscussion(ctx context.Context, tenant, id string) (platform.Discussion, error)
	ListDiscussions(ctx context.Context, q platform.Query) (platform.Page, error)
	ExtendDiscussion(ctx context.Context, x platform.Extension) (platform.Discussion, error)
	CloseDiscussion(ctx context.Context, c platform.Closing) (platform.Discussion, error)
}

// Handler is the platform's endpoint. Failed is called with the errors whose cause the
// response does not say.
type Handler struct {
	Store  Store
	Secret signature.Secret
	Now    func() time.Time
	Failed func(error)
}

// ServeHTTP answers one signed request.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequest))
	if err != nil || r.Method != http.MethodPost {
		respond(w, http.StatusBadRequest, Response{Code: "invalid", Message: "send a signed POST request"})
		return
	}
	if signature.Verify(h.Secret, r.Header.Get("webhook-id"), r.Header.Get("webhook-timestamp"), r.Header.Get("webhook-signature"), body, h.Now()) != nil {
		respond(w, http.StatusUnauthorized, Response{Code: "unauthorized", Message: "the signature is missing, invalid or too old"})
		return
	}
	var request Request
	if err := json.Unmarshal(body, &request); err != nil {
		respond(w, http.StatusBadRequest, Response{Code: "invalid", Message: "the body is not a JSON object of the known fields"})
		return
	}
	answer, err := h.do(r.Context(), request)
	if err == nil {
		respond(w, http.StatusOK, answer)
		return
	}
	for _, known := range codes {
		if errors.Is(err, known.err) {
			respond(w, known.status, Response{Code: known.code, Message: err.Error()})
			return
		}
	}
	if errors.Is(err, ErrInvalid) {
		respond(w, http.StatusBadRequest, Response{Code: "invalid", Message: err.Error()})
		return
	}
	h.Failed(err)
	respond(w, http.StatusInternalServerError, Response{Code: "failed", Message: "the platform could not answer; see its log"})
}

// ErrInvalid is the error of a request that cannot be understood. A Store returns it for an
// invalid cursor.
var ErrInvalid = errors.New("invalid request")

func (h *Handler) do(ctx context.Context, r Request) (Response, error) {
	var d platform.Discussion
	var err error
	switch r.Action {
	case "list":
		q := platform.Query{Tenant: r.Tenant, View: r.View, Until: r.Until, Cursor: r.Cursor, Limit: r.Limit}
		if err := q.Check(); err != nil {
			return Response{}, fmt.Errorf("%w: %w", ErrInvalid, err)
		}
		page, err := h.Store.ListDiscussions(ctx, q)
		answer := Response{Next: page.Next}
		for _, d := range page.Discussions {
			answer.Discussions = append(answer.Discussions, toWire(d))
		}
		return answer, err
	case "get":
		d, err = h.Store.GetDiscussion(ctx, r.Tenant, r.ID)
	case "extend":
		d, err = h.Store.ExtendDiscussion(ctx, platform.Extension{Tenant: r.Tenant, ID: r.ID, To: r.To, Seen: r.Seen, By: r.By, Login: r.Login, At: r.At})
	case "close":
		d, err = h.Store.CloseDiscussion(ctx, platform.Closing{Tenant: r.Tenant, ID: r.ID, Reason: r.Reason, By: r.By, Login: r.Login, At: r.At})
	default:
		return Response{}, fmt.Errorf("%w: the action must be list, get, extend or close", ErrInvalid)
	}
	if err != nil {
		return Response{}, err
	}
	wire := toWire(d)
	return Response{Discussion: &wire}, nil
}

func respond(w http.ResponseWriter, status int, answer Response) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(answer) // the client is gone if it fails
}
