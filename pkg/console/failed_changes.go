package console

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/ops/stats"
	"github.com/tidings-dev/tidings/pkg/platform"
)

// FailedChange is a failed change as the console and the CLI show it.
type FailedChange struct {
	ID             string             `json:"id"`
	Tenant         string             `json:"tenant,omitempty" doc:"Absent if it cannot be read"`
	Key            json.RawMessage    `json:"key,omitempty" doc:"The item's key, as DynamoDB JSON"`
	Kind           string             `json:"kind,omitempty" doc:"The item's kind, as it is written there"`
	Operation      platform.Operation `json:"operation,omitempty" doc:"What happened to the item: INSERT, MODIFY or REMOVE"`
	EventType      string             `json:"event_type,omitempty" doc:"The event that the change should have become; absent if unknown"`
	Reason         string             `json:"reason" doc:"Why it could not"`
	Stream         string             `json:"stream,omitempty"`
	SequenceNumber string             `json:"sequence_number,omitempty"`
	At             time.Time          `json:"at,omitzero" doc:"When the change was made"`
	FirstSeen      time.Time          `json:"first_seen"`
	LastTried      time.Time          `json:"last_tried"`
	Attempts       int                `json:"attempts"`
	RecordBytes    int                `json:"record_bytes"`
	Kept           bool               `json:"kept" doc:"False if the stream's record was too large to keep; the change cannot be captured again then"`
	Record         json.RawMessage    `json:"record,omitempty" doc:"The stream's record with both images; absent in lists. It contains the platform's data"`
}

// ViewFailedChange converts a failed change for display; the CLI uses it too.
func ViewFailedChange(f platform.FailedChange) FailedChange {
	return FailedChange{
		ID: f.ID, Tenant: f.Tenant, Key: rawJSON(f.Key), Kind: f.Kind, Operation: f.Operation, EventType: f.EventType, Reason: f.Reason,
		Stream: f.Stream, SequenceNumber: f.SequenceNumber, At: f.At, FirstSeen: f.FirstSeen, LastTried: f.LastTried, Attempts: f.Attempts,
		RecordBytes: f.RecordBytes, Kept: f.Kept(), Record: rawJSON(string(f.Record)),
	}
}

// rawJSON returns a text as JSON; nil if it is none.
func rawJSON(text string) json.RawMessage {
	if !json.Valid([]byte(text)) {
		return nil
	}
	return json.RawMessage(text)
}

// FailedChangePage is a page of failed changes, newest first.
type FailedChangePage struct {
	Changes []FailedChange `json:"changes" nullable:"false"`
	Next    string         `json:"next,omitempty"`
	// UnknownKinds are those of the last 24 hours, the most frequent first.
	UnknownKinds []stats.Kind `json:"unknown_kinds" nullable:"false" doc:"Changes of the last 24 hours whose kind Tidings does not know, by kind"`
}

// Recaptured is the result of capturing a failed change again.
type Recaptured struct {
	ID     string `json:"id"`
	Events int    `json:"events" doc:"Number of its events; 0 if the change means none by today's rules"`
}

// operates requires the operator role: failed changes contain data of every tenant.
func operates(who Session) error {
	if who.Role != Operator {
		return errorf(Forbidden, "failed changes contain data of every tenant; to see them, log in with --role operator")
	}
	return nil
}

// ListFailedChanges returns a page of the failed changes of the whole deployment that
// were made since from.
func (o *Operations) ListFailedChanges(ctx context.Context, who Session, from time.Time, limit int, cursor string) (FailedChangePage, error) {
	if err := operates(who); err != nil {
		return FailedChangePage{}, err
	}
	of := list{tenant: who.Tenant, name: "failed-changes"}
	place, err := o.openCursor(ctx, of, cursor)
	if err != nil {
		return FailedChangePage{}, err
	}
	if place != "" {
		last, err := delivery.CursorEvent(place)
		if err != nil {
			return FailedChangePage{}, invalidCursor()
		}
		if passed(last, from) {
			return FailedChangePage{Changes: []FailedChange{}, UnknownKinds: []stats.Kind{}}, nil
		}
	}
	summary, err := o.Statistics.Summary(ctx)
	if err != nil {
		return FailedChangePage{}, err
	}
	found, err := o.FailedChanges.ListFailedChanges(ctx, from, limit, place)
	if err != nil {
		return FailedChangePage{}, err
	}
	page := FailedChangePage{Changes: []FailedChange{}, UnknownKinds: summary.Kinds()}
	for _, f := range found.Changes {
		page.Changes = append(page.Changes, ViewFailedChange(f))
	}
	page.Next, err = o.sealCursor(ctx, of, found.Next)
	return page, err
}

// GetFailedChange returns a failed change with its record.
func (o *Operations) GetFailedChange(ctx context.Context, who Session, id string) (FailedChange, error) {
	if err := operates(who); err != nil {
		return FailedChange{}, err
	}
	f, err := o.loadFailedChange(ctx, id)
	return ViewFailedChange(f), err
}

func (o *Operations) loadFailedChange(ctx context.Context, id string) (platform.FailedChange, error) {
	if !event.IsID(id) {
		return platform.FailedChange{}, explain(id, platform.ErrNoFailedChange)
	}
	f, err := o.FailedChanges.GetFailedChange(ctx, id)
	return f, explain(id, err)
}

// RedriveFailedChange captures a failed change again, by the emit function.
func (o *Operations) RedriveFailedChange(ctx context.Context, who Session, id string) (Recaptured, error) {
	if err := operates(who); err != nil {
		return Recaptured{}, err
	}
	return change(ctx, o, who, "capture.redrive", &id, "", func() (Recaptured, error) {
		if _, err := o.loadFailedChange(ctx, id); err != nil {
			return Recaptured{}, err
		}
		var answer struct {
			Results []struct {
				Captured bool   `json:"captured"`
				Events   int    `json:"events"`
				Error    string `json:"error"`
			} `json:"results"`
		}
		command := struct {
			Action string   `json:"action"`
			IDs    []string `json:"ids"`
		}{"recapture", []string{id}}
		if err := o.Emit(ctx, command, &answer); err != nil {
			return Recaptured{}, err
		}
		if len(answer.Results) != 1 || !answer.Results[0].Captured {
			why := "emit did not answer for it"
			if len(answer.Results) == 1 {
				why = answer.Results[0].Error
			}
			return Recaptured{}, errorf(Conflict, "the change was not captured: %s", why)
		}
		return Recaptured{ID: id, Events: answer.Results[0].Events}, nil
	})
}

func (c *Console) listFailedChanges(r *http.Request, who Session) (page, error) {
	found, err := c.Operations.ListFailedChanges(r.Context(), who, time.Time{}, defaultPage, r.URL.Query().Get("cursor"))
	return page{Template: "capture", Title: "Capture", Nav: "capture", Data: found}, err
}

func (c *Console) showFailedChange(r *http.Request, who Session) (page, error) {
	f, err := c.Operations.GetFailedChange(r.Context(), who, r.PathValue("id"))
	var record bytes.Buffer
	if json.Indent(&record, f.Record, "", "  ") != nil {
		record.Reset() // it was not kept
	}
	return page{Template: "failed", Title: "Failed change", Nav: "capture", Data: struct {
		FailedChange
		KeyText, RecordText string
	}{f, string(f.Key), record.String()}}, err
}
