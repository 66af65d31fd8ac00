package console

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/testsend"
)

// OpenAPIPath is where the API's document is.
const OpenAPIPath = "/api/openapi.json"

type response[T any] struct{ Body T }

type byID struct {
	ID string `path:"id" maxLength:"64" doc:"The endpoint's id"`
}

type byDiscussion struct {
	ID string `path:"id" maxLength:"256" doc:"The discussion's id"`
}

type byKey struct {
	Endpoint string `path:"endpoint" maxLength:"64" doc:"The endpoint's id"`
	Event    string `path:"event" maxLength:"64" doc:"The event's id"`
}

// api puts the JSON API on a mux and returns its document's source. It has the
// operations' structs for its schemas, so the document can't say anything else
// than what is answered.
func (c *Console) api(mux *http.ServeMux) huma.API {
	config := huma.DefaultConfig("Tidings console", "1")
	config.Info.Description = "What the console's pages do, for programs. `tidings console login --token` makes a credential, " +
		"which goes into the header X-Tidings-Session. A browser's cookie is taken too; a change then needs X-CSRF-Token, which GET /api/session tells."
	config.OpenAPIPath, config.DocsPath, config.SchemasPath = "", "", ""
	config.CreateHooks = nil // no $schema in answers
	config.Components.SecuritySchemes = map[string]*huma.SecurityScheme{
		"token":  {Type: "apiKey", In: "header", Name: sessionHeader},
		"cookie": {Type: "apiKey", In: "cookie", Name: cookieName},
	}
	config.Security = []map[string][]string{{"token": {}}, {"cookie": {}}}
	api := humago.New(mux, config)
	o := c.Operations

	get(c, api, "get-session", "/api/session", "Who I am", func(ctx context.Context, who Session, _ *struct{}) (Identity, error) {
		return Identity{Name: who.Name, Role: who.Role, Tenant: who.Tenant, Expires: who.Expires, CSRF: csrfOf(ctx)}, nil
	})

	get(c, api, "get-overview", "/api/overview", "How it goes: figures of the whole deployment, and the circuits that are not closed", func(ctx context.Context, who Session, _ *struct{}) (Overview, error) {
		return o.Overview(ctx, who)
	})

	get(c, api, "list-endpoints", "/api/endpoints", "Every endpoint", func(ctx context.Context, who Session, _ *struct{}) (Endpoints, error) {
		list, err := o.ListEndpoints(ctx, who)
		return Endpoints{list}, err
	})
	get(c, api, "get-endpoint", "/api/endpoints/{id}", "One endpoint", func(ctx context.Context, who Session, in *byID) (Endpoint, error) {
		return o.GetEndpoint(ctx, who, in.ID)
	})
	register(c, api, http.MethodPost, "add-endpoint", "/api/endpoints", "Add an endpoint; the answer holds its secret, once", func(ctx context.Context, who Session, in *struct{ Body Settings }) (WithSecret, error) {
		return o.AddEndpoint(ctx, who, in.Body)
	})
	register(c, api, http.MethodPost, "check-endpoint", "/api/endpoint-checks", "Say what is wrong with an endpoint's settings; stores nothing", func(ctx context.Context, who Session, in *struct{ Body Settings }) (Checked, error) {
		found := o.CheckSettings(ctx, who, in.Body)
		return Checked{OK: len(found) == 0, Fields: append([]FieldError{}, found...)}, nil
	})
	register(c, api, http.MethodPut, "change-endpoint", "/api/endpoints/{id}", "Replace an endpoint's settings", func(ctx context.Context, who Session, in *struct {
		ID   string `path:"id" maxLength:"64"`
		Body Settings
	}) (Endpoint, error) {
		return o.ChangeEndpoint(ctx, who, in.ID, in.Body)
	})
	register(c, api, http.MethodPost, "enable-endpoint", "/api/endpoints/{id}/enable", "Put an endpoint into service", func(ctx context.Context, who Session, in *byID) (Endpoint, error) {
		return o.EnableEndpoint(ctx, who, in.ID)
	})
	register(c, api, http.MethodPost, "disable-endpoint", "/api/endpoints/{id}/disable", "Take an endpoint out of service", func(ctx context.Context, who Session, in *byID) (Endpoint, error) {
		return o.DisableEndpoint(ctx, who, in.ID)
	})
	register(c, api, http.MethodPost, "rotate-secret", "/api/endpoints/{id}/rotate-secret", "Give an endpoint a fresh secret; the answer holds it, once", func(ctx context.Context, who Session, in *byID) (WithSecret, error) {
		return o.RotateSecret(ctx, who, in.ID)
	})
	register(c, api, http.MethodPost, "test-endpoint", "/api/endpoints/{id}/test", "Send one signed sample now, and report everything that happened", func(ctx context.Context, who Session, in *struct {
		ID    string `path:"id" maxLength:"64"`
		Event string `query:"event" maxLength:"64" doc:"The event type; one that the endpoint takes where it is empty"`
	}) (testsend.Report, error) {
		return o.TestEndpoint(ctx, who, in.ID, in.Event)
	})
	register(c, api, http.MethodDelete, "remove-endpoint", "/api/endpoints/{id}", "Forget an endpoint", func(ctx context.Context, who Session, in *byID) (Removed, error) {
		return Removed{in.ID}, o.RemoveEndpoint(ctx, who, in.ID)
	})

	get(c, api, "list-deliveries", "/api/deliveries", "Deliveries, newest event first", func(ctx context.Context, who Session, in *struct {
		Endpoint string    `query:"endpoint" maxLength:"64"`
		Type     string    `query:"type" maxLength:"64" doc:"Event type"`
		State    string    `query:"state" enum:"pending,in_flight,delivered,dead,skipped"`
		From     time.Time `query:"from" doc:"Only of events accepted at or after this time"`
		To       time.Time `query:"to" doc:"Only of events accepted at or before this time"`
		Limit    int       `query:"limit" minimum:"1" maximum:"200" default:"50"`
		Cursor   string    `query:"cursor" maxLength:"200"`
	}) (DeliveryPage, error) {
		return o.ListDeliveries(ctx, who, DeliveryFilter{
			EndpointID: in.Endpoint, EventType: in.Type, State: delivery.State(in.State), From: in.From, To: in.To, Limit: in.Limit, Cursor: in.Cursor,
		})
	})
	get(c, api, "get-delivery", "/api/deliveries/{endpoint}/{event}", "One delivery with its attempts", func(ctx context.Context, who Session, in *byKey) (Delivery, error) {
		return o.GetDelivery(ctx, who, in.Endpoint, in.Event)
	})
	get(c, api, "get-request", "/api/deliveries/{endpoint}/{event}/request", "What a delivery sends, signed now (admins)", func(ctx context.Context, who Session, in *byKey) (SignedRequest, error) {
		return o.SignRequest(ctx, who, in.Endpoint, in.Event)
	})
	register(c, api, http.MethodPost, "replay-deliveries", "/api/replays", "Send settled deliveries again", func(ctx context.Context, who Session, in *struct {
		Body struct {
			Deliveries []DeliveryKey `json:"deliveries" minItems:"1" maxItems:"100" nullable:"false"`
		}
	}) (Replays, error) {
		var keys []delivery.Key
		for _, k := range in.Body.Deliveries {
			keys = append(keys, delivery.Key{EndpointID: k.EndpointID, EventID: k.EventID})
		}
		list, err := o.Replay(ctx, who, keys)
		return Replays{list}, err
	})

	get(c, api, "list-event-types", "/api/event-types", "The catalog", func(context.Context, Session, *struct{}) (EventTypes, error) {
		return EventTypes{o.EventTypes()}, nil
	})
	get(c, api, "get-event", "/api/events/{event}", "One event, and where it went", func(ctx context.Context, who Session, in *struct {
		Event string `path:"event" maxLength:"64"`
	}) (Event, error) {
		return o.GetEvent(ctx, who, in.Event)
	})

	get(c, api, "list-circuits", "/api/circuits", "The circuits that are not closed", func(ctx context.Context, who Session, _ *struct{}) (Circuits, error) {
		list, err := o.ListCircuits(ctx, who)
		return Circuits{list}, err
	})
	get(c, api, "get-circuit", "/api/circuits/{id}", "One endpoint's circuit", func(ctx context.Context, who Session, in *byID) (Circuit, error) {
		return o.GetCircuit(ctx, who, in.ID)
	})
	register(c, api, http.MethodPost, "close-circuit", "/api/circuits/{id}/close", "Close a circuit by hand: what waits is sent", func(ctx context.Context, who Session, in *byID) (Circuit, error) {
		if err := o.CloseCircuit(ctx, who, in.ID); err != nil {
			return Circuit{}, err
		}
		return o.GetCircuit(ctx, who, in.ID)
	})

	get(c, api, "list-discussions", "/api/discussions", "The platform's discussions", func(ctx context.Context, who Session, in *struct {
		View   string `query:"view" enum:"open,expiring,closed" default:"open" doc:"expiring is what is open for less than a day"`
		Limit  int    `query:"limit" minimum:"1" maximum:"100" default:"50"`
		Cursor string `query:"cursor" maxLength:"1000"`
	}) (DiscussionPage, error) {
		return o.ListDiscussions(ctx, who, in.View, in.Cursor, in.Limit)
	})
	get(c, api, "get-discussion", "/api/discussions/{id}", "One discussion", func(ctx context.Context, who Session, in *byDiscussion) (Discussion, error) {
		return o.GetDiscussion(ctx, who, in.ID)
	})
	register(c, api, http.MethodPost, "extend-discussion", "/api/discussions/{id}/extend", "Give an open discussion more time", func(ctx context.Context, who Session, in *struct {
		ID   string `path:"id" maxLength:"256"`
		Body struct {
			To time.Time `json:"to" doc:"The new end; later than the one it has"`
		}
	}) (Discussion, error) {
		return o.ExtendDiscussion(ctx, who, in.ID, in.Body.To)
	})
	register(c, api, http.MethodPost, "close-discussion", "/api/discussions/{id}/close", "Close an open discussion now", func(ctx context.Context, who Session, in *byDiscussion) (Discussion, error) {
		return o.CloseDiscussion(ctx, who, in.ID)
	})

	get(c, api, "list-audit", "/api/audit", "Who changed what, newest first", func(ctx context.Context, who Session, in *struct {
		Limit  int    `query:"limit" minimum:"1" maximum:"200" default:"50"`
		Cursor string `query:"cursor" maxLength:"200"`
	}) (AuditPage, error) {
		return o.ListAudit(ctx, who, in.Limit, in.Cursor)
	})

	if o.Receiver != nil {
		get(c, api, "get-receiver", "/api/receiver", "How the demonstration's receiver behaves", func(context.Context, Session, *struct{}) (Behaviour, error) {
			return o.Receiver.Behaviour(), nil
		})
		register(c, api, http.MethodPut, "set-receiver", "/api/receiver", "Change how the demonstration's receiver behaves", func(ctx context.Context, who Session, in *struct{ Body Behaviour }) (Behaviour, error) {
			return in.Body, o.ConfigureReceiver(ctx, who, in.Body)
		})
	}
	return api
}

// Lists and small answers of the API.
type (
	// Identity is the session that asks.
	Identity struct {
		Name    string    `json:"name"`
		Role    Role      `json:"role" enum:"viewer,admin"`
		Tenant  string    `json:"tenant"`
		Expires time.Time `json:"expires_at"`
		CSRF    string    `json:"csrf_token" doc:"For X-CSRF-Token, where the session is a cookie"`
	}
	// Endpoints is a list of endpoints.
	Endpoints struct {
		Endpoints []Endpoint `json:"endpoints" nullable:"false"`
	}
	// Checked says what is wrong with an endpoint's settings.
	Checked struct {
		OK     bool         `json:"ok"`
		Fields []FieldError `json:"fields" nullable:"false"`
	}
	// Removed names an endpoint that is gone.
	Removed struct {
		Removed string `json:"removed"`
	}
	// DeliveryKey names a delivery.
	DeliveryKey struct {
		EndpointID string `json:"endpoint_id" maxLength:"64"`
		EventID    string `json:"event_id" maxLength:"64"`
	}
	// Replays are the results of a replay, in the order that was asked.
	Replays struct {
		Results []Replayed `json:"results" nullable:"false"`
	}
	// Circuits is a list of circuits.
	Circuits struct {
		Circuits []Circuit `json:"circuits" nullable:"false"`
	}
	// EventTypes is the catalog.
	EventTypes struct {
		Types []EventType `json:"types" nullable:"false"`
	}
)

func get[I, O any](c *Console, api huma.API, id, path, summary string, do func(context.Context, Session, *I) (O, error)) {
	register(c, api, http.MethodGet, id, path, summary, do)
}

func register[I, O any](c *Console, api huma.API, method, id, path, summary string, do func(context.Context, Session, *I) (O, error)) {
	huma.Register(api, huma.Operation{
		OperationID: id, Method: method, Path: path, Summary: summary, DefaultStatus: http.StatusOK,
		Errors: []int{400, 401, 403, 404, 409, 422, 500},
	}, func(ctx context.Context, in *I) (*response[O], error) {
		out, err := do(ctx, sessionOf(ctx), in)
		if err != nil {
			return nil, c.problem(ctx, err)
		}
		return &response[O]{out}, nil
	})
}

// problem is an error as the API answers it (RFC 9457).
func (c *Console) problem(ctx context.Context, err error) error {
	status, message := c.errorResponse(ctx, err)
	var details []error
	var refused *Error
	if errors.As(err, &refused) {
		for _, f := range refused.Fields {
			details = append(details, &huma.ErrorDetail{Location: "body." + f.Field, Message: f.Message})
		}
	}
	return huma.NewError(status, message, details...)
}

// explain says an error to whoever asked: a refusal in its own words, anything
// else in the log only.
func (c *Console) errorResponse(ctx context.Context, err error) (status int, message string) {
	var refused *Error
	if errors.As(err, &refused) {
		return map[Kind]int{
			Invalid: http.StatusUnprocessableEntity, NotFound: http.StatusNotFound, Conflict: http.StatusConflict, Forbidden: http.StatusForbidden,
		}[refused.Kind], refused.Message
	}
	c.Log.LogAttrs(ctx, slog.LevelError, "console.failed", slog.String("error", err.Error()))
	return http.StatusInternalServerError, "that did not work; the console's log has the reason (console.failed)"
}
