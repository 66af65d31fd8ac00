package console

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/platform"
	"github.com/tidings-dev/tidings/pkg/testsend"
)

// OpenAPIPath is the path of the OpenAPI document.
const OpenAPIPath = "/api/openapi.json"

type response[T any] struct{ Body T }

type byID struct {
	ID string `path:"id" maxLength:"64" doc:"The endpoint's id"`
}

type byDiscussion struct {
	ID string `path:"id" maxLength:"256" doc:"The discussion's id"`
}

type byFailedChange struct {
	ID string `path:"id" maxLength:"64" doc:"The failed change's id"`
}

type byJob struct {
	ID string `path:"id" maxLength:"64" doc:"The job's id"`
}

type byKey struct {
	Endpoint string `path:"endpoint" maxLength:"64" doc:"The endpoint's id"`
	Event    string `path:"event" maxLength:"64" doc:"The event's id"`
}

// Adapters of operations to the API's input.

func withoutInput[O any](do func(context.Context, Session) (O, error)) func(context.Context, Session, *struct{}) (O, error) {
	return func(ctx context.Context, who Session, _ *struct{}) (O, error) { return do(ctx, who) }
}

func withID[O any](do func(context.Context, Session, string) (O, error)) func(context.Context, Session, *byID) (O, error) {
	return func(ctx context.Context, who Session, in *byID) (O, error) { return do(ctx, who, in.ID) }
}

func withKey[O any](do func(context.Context, Session, string, string) (O, error)) func(context.Context, Session, *byKey) (O, error) {
	return func(ctx context.Context, who Session, in *byKey) (O, error) {
		return do(ctx, who, in.Endpoint, in.Event)
	}
}

// api registers the JSON API on a mux and returns it. Its schemas are generated from
// the types that the operations return.
func (c *Console) api(mux *http.ServeMux) huma.API {
	config := huma.DefaultConfig("Tidings console", "1")
	config.Info.Description = "Everything that the console's pages do. Create a token with `tidings console login --token` and send it " +
		"in the header X-Tidings-Session. The session cookie works too; changes then need the X-CSRF-Token from GET /api/session."
	config.OpenAPIPath, config.DocsPath, config.SchemasPath = "", "", ""
	config.CreateHooks = nil // no $schema in responses
	config.Transformers = append(config.Transformers, withoutValues)
	config.Components.SecuritySchemes = map[string]*huma.SecurityScheme{
		"token":  {Type: "apiKey", In: "header", Name: sessionHeader},
		"cookie": {Type: "apiKey", In: "cookie", Name: cookieName},
	}
	config.Security = []map[string][]string{{"token": {}}, {"cookie": {}}}
	api := humago.New(mux, config)
	o := c.Operations

	get(c, api, "get-session", "/api/session", "Get the current session", func(ctx context.Context, who Session, _ *struct{}) (Identity, error) {
		return Identity{Name: who.Name, Role: who.Role, Tenant: who.Tenant, Expires: who.Expires, CSRF: csrfOf(ctx)}, nil
	})

	get(c, api, "get-overview", "/api/overview", "Get figures of the whole deployment and the circuit breakers that are not closed", withoutInput(o.Overview))

	get(c, api, "get-metrics", "/api/metrics", "Get the metrics of the whole deployment with their targets, for now and for each of the last days", func(ctx context.Context, _ Session, in *struct {
		Days int `query:"days" minimum:"1" maximum:"30" default:"30"`
	}) (Metrics, error) {
		return o.Metrics(ctx, in.Days)
	})

	get(c, api, "list-endpoints", "/api/endpoints", "List endpoints", func(ctx context.Context, who Session, _ *struct{}) (Endpoints, error) {
		list, err := o.ListEndpoints(ctx, who)
		return Endpoints{list}, err
	})
	get(c, api, "get-endpoint", "/api/endpoints/{id}", "Get an endpoint", withID(o.GetEndpoint))
	register(c, api, http.MethodPost, "add-endpoint", "/api/endpoints", "Add an endpoint; the response holds its secret, shown only once", func(ctx context.Context, who Session, in *struct{ Body NewEndpoint }) (WithSecret, error) {
		return o.AddEndpoint(ctx, who, in.Body)
	})
	register(c, api, http.MethodPost, "check-endpoint", "/api/endpoint-checks", "Validate an endpoint's settings without storing them", func(ctx context.Context, who Session, in *struct{ Body Settings }) (Checked, error) {
		found := o.CheckSettings(ctx, who, in.Body)
		return Checked{OK: len(found) == 0, Fields: append([]FieldError{}, found...)}, nil
	})
	register(c, api, http.MethodPost, "estimate-backfill", "/api/backfill-estimates", "Count the past events that adding an endpoint with a backfill would send; nothing is added", func(ctx context.Context, who Session, in *struct{ Body NewEndpoint }) (Backfill, error) {
		return o.EstimateBackfill(ctx, who, in.Body)
	})
	register(c, api, http.MethodPut, "change-endpoint", "/api/endpoints/{id}", "Replace an endpoint's settings", func(ctx context.Context, who Session, in *struct {
		ID   string `path:"id" maxLength:"64"`
		Body Settings
	}) (Endpoint, error) {
		return o.ChangeEndpoint(ctx, who, in.ID, in.Body)
	})
	register(c, api, http.MethodPost, "enable-endpoint", "/api/endpoints/{id}/enable", "Enable an endpoint", withID(o.EnableEndpoint))
	register(c, api, http.MethodPost, "disable-endpoint", "/api/endpoints/{id}/disable", "Disable an endpoint; its pending deliveries are marked skipped", withID(o.DisableEndpoint))
	register(c, api, http.MethodPost, "pause-endpoint", "/api/endpoints/{id}/pause", "Pause an endpoint; its events wait in its backlog, up to its age limit", withID(o.PauseEndpoint))
	register(c, api, http.MethodPost, "resume-endpoint", "/api/endpoints/{id}/resume", "Resume a paused endpoint; its backlog is sent within two minutes", withID(o.ResumeEndpoint))
	register(c, api, http.MethodPost, "rotate-secret", "/api/endpoints/{id}/rotate-secret", "Rotate an endpoint's signing secret; the response holds it, shown only once", withID(o.RotateSecret))
	register(c, api, http.MethodPost, "test-endpoint", "/api/endpoints/{id}/test", "Send a signed sample event to an endpoint and get a report", func(ctx context.Context, who Session, in *struct {
		ID    string `path:"id" maxLength:"64"`
		Event string `query:"event" maxLength:"64" doc:"Event type; if empty, one that the endpoint is subscribed to"`
	}) (testsend.Report, error) {
		return o.TestEndpoint(ctx, who, in.ID, in.Event)
	})
	register(c, api, http.MethodDelete, "remove-endpoint", "/api/endpoints/{id}", "Delete an endpoint; its pending deliveries are marked skipped", withID(o.RemoveEndpoint))

	get(c, api, "list-deliveries", "/api/deliveries", "List deliveries, newest event first", func(ctx context.Context, who Session, in *struct {
		Endpoint string    `query:"endpoint" maxLength:"64"`
		Type     string    `query:"type" maxLength:"64" doc:"Event type"`
		State    string    `query:"state" enum:"pending,in_flight,delivered,dead,skipped"`
		Status   string    `query:"status" maxLength:"8" doc:"Status of the response to the latest attempt: one such as 503, or a range such as 500..599"`
		From     time.Time `query:"from" doc:"Only events accepted at or after this time"`
		To       time.Time `query:"to" doc:"Only events accepted at or before this time"`
		Limit    int       `query:"limit" minimum:"1" maximum:"200" default:"50"`
		Cursor   string    `query:"cursor" maxLength:"200"`
	}) (DeliveryPage, error) {
		statuses, err := delivery.ParseStatuses(in.Status)
		if err != nil {
			return DeliveryPage{}, errorf(Invalid, "status: %s", err)
		}
		return o.ListDeliveries(ctx, who, DeliveryFilter{
			EndpointID: in.Endpoint, EventType: in.Type, State: delivery.State(in.State), Status: statuses, From: in.From, To: in.To, Limit: in.Limit, Cursor: in.Cursor,
		})
	})
	get(c, api, "get-delivery", "/api/deliveries/{endpoint}/{event}", "Get a delivery with its attempts", withKey(o.GetDelivery))
	get(c, api, "get-request", "/api/deliveries/{endpoint}/{event}/request", "Get a delivery's request with a current signature (admin role)", withKey(o.SignRequest))
	register(c, api, http.MethodPost, "replay-deliveries", "/api/replays", "Replay settled deliveries", func(ctx context.Context, who Session, in *struct {
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

	get(c, api, "list-jobs", "/api/jobs", "List jobs, newest first", func(ctx context.Context, who Session, in *struct {
		Limit  int    `query:"limit" minimum:"1" maximum:"200" default:"50"`
		Cursor string `query:"cursor" maxLength:"200"`
	}) (JobPage, error) {
		return o.ListJobs(ctx, who, in.Limit, in.Cursor)
	})
	get(c, api, "get-job", "/api/jobs/{id}", "Get a job with its progress", func(ctx context.Context, who Session, in *byJob) (Job, error) {
		return o.GetJob(ctx, who, in.ID)
	})
	register(c, api, http.MethodPost, "start-job", "/api/jobs", "Start a job: recover what an endpoint missed, backfill a new endpoint, replay settled deliveries, or fan out what fan-out lost", func(ctx context.Context, who Session, in *struct{ Body NewJob }) (Job, error) {
		return o.StartJob(ctx, who, in.Body)
	})
	register(c, api, http.MethodPost, "erase-person", "/api/erasures", "Start a job that erases what is stored about a person (admin role); its dry run counts it", func(ctx context.Context, who Session, in *struct{ Body NewErasure }) (Job, error) {
		return o.StartErasure(ctx, who, in.Body)
	})
	register(c, api, http.MethodPost, "cancel-job", "/api/jobs/{id}/cancel", "Cancel a running job; what it has put into a backlog stays there", func(ctx context.Context, who Session, in *byJob) (Job, error) {
		return o.CancelJob(ctx, who, in.ID)
	})

	get(c, api, "list-event-types", "/api/event-types", "List event types, ordered by name", func(ctx context.Context, who Session, in *struct {
		Tenant string `query:"tenant" maxLength:"64" doc:"The tenant whose own types are meant, beside those of the deployment: the session's without it, another one for operators"`
		After  string `query:"after" maxLength:"64" doc:"Only types whose names follow this one: next of the page before"`
		Limit  int    `query:"limit" minimum:"1" maximum:"1000" default:"1000"`
	}) (EventTypes, error) {
		return o.EventTypes(ctx, who, in.Tenant, in.After, in.Limit)
	})
	get(c, api, "get-event-type", "/api/event-types/{type}", "Get an event type with the definitions of its versions", func(ctx context.Context, who Session, in *struct {
		Type   string `path:"type" maxLength:"64" doc:"The type's name"`
		Tenant string `query:"tenant" maxLength:"64" doc:"As for the list"`
	}) (EventType, error) {
		return o.GetEventType(ctx, who, in.Tenant, in.Type)
	})
	register(c, api, http.MethodPost, "change-event-types", "/api/event-types", "Add, replace, deprecate and remove event types, all or nothing; or, as a dry run, say what would change and which endpoints that concerns (operator role)", func(ctx context.Context, who Session, in *struct{ Body EventTypesChange }) (EventTypesPlan, error) {
		return o.ChangeEventTypes(ctx, who, in.Body)
	})
	register(c, api, http.MethodPut, "set-undefined-event-types", "/api/undefined-event-types", "Allow or refuse events of types without a definition (operator role)", func(ctx context.Context, who Session, in *struct{ Body UndefinedTypes }) (UndefinedTypes, error) {
		return o.SetUndefinedTypes(ctx, who, in.Body)
	})
	get(c, api, "list-events", "/api/events", "List and search events, newest first", func(ctx context.Context, who Session, in *struct {
		Type    []string  `query:"type,explode" maxItems:"20" nullable:"false" doc:"Event types; repeat it for several"`
		ID      string    `query:"id" maxLength:"64" doc:"An event's ID, or its last characters"`
		Subject string    `query:"subject" maxLength:"1024" doc:"What the event is about, for example the id of a comment"`
		Actor   string    `query:"actor" maxLength:"1024"`
		Text    string    `query:"q" maxLength:"1024" doc:"A subject, an actor, an ID or its last characters (at least 4)"`
		From    time.Time `query:"from" doc:"Only events accepted at or after this time"`
		To      time.Time `query:"to" doc:"Only events accepted at or before this time"`
		Limit   int       `query:"limit" minimum:"1" maximum:"200" default:"50"`
		Cursor  string    `query:"cursor" maxLength:"200"`
	}) (EventPage, error) {
		return o.ListEvents(ctx, who, EventFilter{
			Types: in.Type, ID: in.ID, Subject: in.Subject, Actor: in.Actor, Text: in.Text, From: in.From, To: in.To, Limit: in.Limit, Cursor: in.Cursor,
		})
	})
	get(c, api, "get-event", "/api/events/{event}", "Get an event and its deliveries", func(ctx context.Context, who Session, in *struct {
		Event string `path:"event" maxLength:"64"`
	}) (Event, error) {
		return o.GetEvent(ctx, who, in.Event)
	})

	get(c, api, "list-circuits", "/api/circuits", "List circuit breakers that are not closed", func(ctx context.Context, who Session, _ *struct{}) (Circuits, error) {
		list, err := o.ListCircuits(ctx, who)
		return Circuits{list}, err
	})
	get(c, api, "get-circuit", "/api/circuits/{id}", "Get an endpoint's circuit breaker", withID(o.GetCircuit))
	register(c, api, http.MethodPost, "close-circuit", "/api/circuits/{id}/close", "Close a circuit breaker; its backlog is sent", withID(func(ctx context.Context, who Session, id string) (Circuit, error) {
		if _, err := o.CloseCircuit(ctx, who, id); err != nil {
			return Circuit{}, err
		}
		return o.GetCircuit(ctx, who, id)
	}))

	get(c, api, "list-discussions", "/api/discussions", "List the platform's discussions", func(ctx context.Context, who Session, in *struct {
		View   string `query:"view" enum:"open,expiring,closed" default:"open" doc:"expiring lists open discussions that expire within a day"`
		Limit  int    `query:"limit" minimum:"1" maximum:"100" default:"50"`
		Cursor string `query:"cursor" maxLength:"4000"`
	}) (DiscussionPage, error) {
		return o.ListDiscussions(ctx, who, in.View, in.Cursor, in.Limit)
	})
	get(c, api, "get-discussion", "/api/discussions/{id}", "Get a discussion", func(ctx context.Context, who Session, in *byDiscussion) (platform.Discussion, error) {
		return o.GetDiscussion(ctx, who, in.ID)
	})
	register(c, api, http.MethodPost, "extend-discussion", "/api/discussions/{id}/extend", "Extend an open discussion", func(ctx context.Context, who Session, in *struct {
		ID   string `path:"id" maxLength:"256"`
		Body struct {
			To   time.Time `json:"to" doc:"The new end; later than the current one"`
			Seen time.Time `json:"seen,omitempty" required:"false" doc:"The current end that you know; the answer is 409 if it is another one"`
		}
	}) (platform.Discussion, error) {
		return o.ExtendDiscussion(ctx, who, in.ID, in.Body.To, in.Body.Seen)
	})
	register(c, api, http.MethodPost, "close-discussion", "/api/discussions/{id}/close", "Close an open discussion", func(ctx context.Context, who Session, in *byDiscussion) (platform.Discussion, error) {
		return o.CloseDiscussion(ctx, who, in.ID)
	})

	get(c, api, "list-failed-changes", "/api/failed-changes", "List the changes of the platform's table that could not become events, newest first (operator role)", func(ctx context.Context, who Session, in *struct {
		From   time.Time `query:"from" doc:"Only changes made at or after this time"`
		Limit  int       `query:"limit" minimum:"1" maximum:"200" default:"50"`
		Cursor string    `query:"cursor" maxLength:"200"`
	}) (FailedChangePage, error) {
		return o.ListFailedChanges(ctx, who, in.From, in.Limit, in.Cursor)
	})
	get(c, api, "get-failed-change", "/api/failed-changes/{id}", "Get a failed change with its images (operator role)", func(ctx context.Context, who Session, in *byFailedChange) (FailedChange, error) {
		return o.GetFailedChange(ctx, who, in.ID)
	})
	register(c, api, http.MethodPost, "redrive-failed-change", "/api/failed-changes/{id}/redrive", "Capture a failed change again (operator role)", func(ctx context.Context, who Session, in *byFailedChange) (Recaptured, error) {
		return o.RedriveFailedChange(ctx, who, in.ID)
	})

	get(c, api, "list-capture-rules", "/api/capture-rules", "List the capture rules of the deployment (operator role)", func(ctx context.Context, who Session, _ *struct{}) (CaptureRules, error) {
		return o.ListCaptureRules(ctx, who)
	})
	register(c, api, http.MethodPost, "change-capture-rules", "/api/capture-rules", "Add, replace and remove capture rules, all or nothing; or, as a dry run, check them (operator role)", func(ctx context.Context, who Session, in *struct{ Body CaptureRulesChange }) (CaptureRulesPlan, error) {
		return o.ChangeCaptureRules(ctx, who, in.Body)
	})

	get(c, api, "list-audit", "/api/audit", "List the audit log, newest entry first", func(ctx context.Context, who Session, in *struct {
		Limit  int    `query:"limit" minimum:"1" maximum:"200" default:"50"`
		Cursor string `query:"cursor" maxLength:"200"`
	}) (AuditPage, error) {
		return o.ListAudit(ctx, who, in.Limit, in.Cursor)
	})

	c.publishSourceAddresses(api)

	if o.Receiver != nil {
		get(c, api, "get-receiver", "/api/receiver", "Get the demo receiver's behaviour", func(context.Context, Session, *struct{}) (Behaviour, error) {
			return o.Receiver.Behaviour(), nil
		})
		register(c, api, http.MethodPut, "set-receiver", "/api/receiver", "Set the demo receiver's behaviour", func(ctx context.Context, who Session, in *struct{ Body Behaviour }) (Behaviour, error) {
			return in.Body, o.ConfigureReceiver(ctx, who, in.Body)
		})
	}
	return api
}

// withoutValues removes what the client sent from errors about it: it can be a secret.
func withoutValues(_ huma.Context, _ string, body any) (any, error) {
	if problem, ok := body.(*huma.ErrorModel); ok {
		for _, detail := range problem.Errors {
			if _, ours := detail.Value.(PlannedType); !ours {
				detail.Value = nil
			}
		}
	}
	return body, nil
}

// Responses that only the API has.
type (
	// Identity is the session of the request.
	Identity struct {
		Name    string    `json:"name"`
		Role    Role      `json:"role" enum:"viewer,admin,operator"`
		Tenant  string    `json:"tenant"`
		Expires time.Time `json:"expires_at"`
		CSRF    string    `json:"csrf_token" doc:"Value for X-CSRF-Token, if the session is a cookie"`
	}
	// Endpoints is a list of endpoints.
	Endpoints struct {
		Endpoints []Endpoint `json:"endpoints" nullable:"false"`
	}
	// Checked is the result of validating an endpoint's settings.
	Checked struct {
		OK     bool         `json:"ok"`
		Fields []FieldError `json:"fields" nullable:"false"`
	}
	// Removed is the id of the deleted endpoint.
	Removed struct {
		Removed string `json:"removed"`
	}
	// DeliveryKey identifies a delivery.
	DeliveryKey struct {
		EndpointID string `json:"endpoint_id" minLength:"1" maxLength:"64"`
		EventID    string `json:"event_id" minLength:"1" maxLength:"64"`
	}
	// Replays are the results of a replay, in the order of the request.
	Replays struct {
		Results []Replayed `json:"results" nullable:"false"`
	}
	// Circuits is a list of circuit breakers.
	Circuits struct {
		Circuits []Circuit `json:"circuits" nullable:"false"`
	}
	// EventTypes is a page of event types.
	EventTypes struct {
		Types            []EventType `json:"types" nullable:"false"`
		UndefinedAllowed bool        `json:"undefined_allowed" doc:"Events of types without a definition are accepted"`
		Next             string      `json:"next,omitempty" doc:"Value of after for the next page; missing on the last one"`
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

// problem converts an error to problem details (RFC 9457).
func (c *Console) problem(ctx context.Context, err error) error {
	status, message := c.errorResponse(ctx, err)
	var details []error
	var known *Error
	if errors.As(err, &known) {
		for _, f := range known.Fields {
			details = append(details, &huma.ErrorDetail{Location: "body." + f.Field, Message: f.Message})
		}
		for _, i := range known.Refused {
			details = append(details, &huma.ErrorDetail{Location: i.Type, Message: i.Refused, Value: i})
		}
	}
	return huma.NewError(status, message, details...)
}

// errorResponse returns the status and message for an error. Only an *Error has its
// message shown; other errors are logged.
func (c *Console) errorResponse(ctx context.Context, err error) (status int, message string) {
	var known *Error
	if errors.As(err, &known) {
		return int(known.Kind), known.Message
	}
	return http.StatusInternalServerError, c.Operations.shown(ctx, err)
}
