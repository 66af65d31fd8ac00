package reference

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/event/catalog"
)

// MaxAsyncAPIBytes is the maximum size of an AsyncAPI document: Lambda rejects responses over
// 6 MB.
const MaxAsyncAPIBytes = 4_000_000

// TooLargeError says that a catalog is too large for one document.
type TooLargeError struct{ Bytes int }

func (e *TooLargeError) Error() string {
	return fmt.Sprintf("the AsyncAPI document of all types has %d bytes; the maximum is %d. Read the schemas of single types", e.Bytes, MaxAsyncAPIBytes)
}

// object is a JSON object of a document whose form a specification defines.
type object = map[string]any

// AsyncAPI returns an AsyncAPI 3.0 document (https://www.asyncapi.com/docs/reference/specification/v3.0.0)
// of the types: one channel and send operation for each, with a message for each of its
// versions, named by its label. Its version changes with the types. retentionDays is how many
// days the deployment keeps events whose type says nothing else; schemaURL returns where the
// definition with a label can be read.
func AsyncAPI(types []catalog.Type, retentionDays int, schemaURL func(label string) string) ([]byte, error) {
	channels, operations, messages, schemas := object{}, object{}, object{}, object{"headers": headers} // no type's name is without a dot
	digest := sha256.New()
	for _, t := range types {
		data, err := dataSchema(t)
		if err != nil {
			return nil, err
		}
		days := cmp.Or(t.RetentionDays, retentionDays)
		_, _ = digest.Write(t.Schema) // never fails
		_, _ = fmt.Fprint(digest, days)
		label := t.Label()
		schemas[label] = data
		message := object{
			"name": label, "title": label, "summary": t.Description, "contentType": "application/json",
			"headers": object{"$ref": "#/components/schemas/headers"}, "payload": envelope(t),
			"externalDocs":     object{"description": "JSON Schema (draft 2020-12) of data", "url": schemaURL(label)},
			"x-retention-days": days, // an extension, as AsyncAPI allows them
		}
		if t.Deprecated != nil {
			message["description"] = t.Deprecated.String() + "."
			message["payload"].(object)["deprecated"] = true
		}
		body, err := Sample(t)
		if err != nil {
			return nil, fmt.Errorf("sample of %s: %w", t.Name, err)
		}
		if body != nil {
			message["examples"] = []any{object{"name": "sample", "payload": body}}
		}
		messages[label] = message
		if channels[t.Name] == nil {
			channels[t.Name] = object{"address": nil, "title": t.Name, "description": "The URL of each endpoint that subscribes to the type", "messages": object{}}
			operations["send-"+t.Name] = object{"action": "send", "channel": object{"$ref": "#/channels/" + t.Name}, "messages": []any{}}
		}
		channels[t.Name].(object)["messages"].(object)[label] = object{"$ref": "#/components/messages/" + label}
		send := operations["send-"+t.Name].(object)
		send["summary"] = t.Description // the newest version's, which comes last
		send["messages"] = append(send["messages"].([]any), object{"$ref": "#/channels/" + t.Name + "/messages/" + label})
	}
	document := object{
		"asyncapi": "3.0.0",
		"info": object{
			"title": "Webhooks", "version": hex.EncodeToString(digest.Sum(nil))[:12],
			"description": "Events that are sent as webhooks, signed as https://www.standardwebhooks.com describes. Delivery is at least once; " +
				"the order is not guaranteed. Respond with 2xx within ten seconds, and process the event afterwards.",
		},
		"defaultContentType": "application/json",
		"channels":           channels, "operations": operations,
		"components": object{"messages": messages, "schemas": schemas},
	}
	text, err := json.Marshal(document)
	if err == nil && len(text) > MaxAsyncAPIBytes {
		return nil, &TooLargeError{Bytes: len(text)}
	}
	return text, err
}

var text = object{"type": "string"}

// headers are those of Standard Webhooks. They are the same for all types.
var headers = object{
	"type": "object", "required": []any{"webhook-id", "webhook-timestamp", "webhook-signature"},
	"properties": object{
		"webhook-id":        object{"type": "string", "description": "ID of the event, the same in every attempt: deduplicate by it"},
		"webhook-timestamp": object{"type": "string", "pattern": "^[0-9]+$", "description": "Time of the attempt in seconds since 1970"},
		"webhook-signature": object{"type": "string", "description": "Signatures of id, timestamp and body, separated by blanks: v1 for a shared secret, v1a for Ed25519"},
	},
}

// envelope is the schema of a type's body. The fields are those of event.Event's Encode.
func envelope(t catalog.Type) object {
	name := t.Name
	schema := object{
		"type": "object", "required": []any{"id", "event", "timestamp", "data", "idempotency_key"},
		"properties": object{
			"id":              object{"type": "string", "description": "ULID of the event"},
			"event":           object{"type": "string", "const": name},
			"timestamp":       object{"type": "string", "format": "date-time", "description": "When it happened, in UTC"},
			"actor_user_id":   object{"type": "string", "description": "Who caused it"},
			"data":            object{"$ref": "#/components/schemas/" + t.Label()},
			"request_id":      text,
			"trace_id":        text,
			"idempotency_key": object{"type": "string", "description": "The producer's key; the event's ID if it gave none"},
		},
	}
	if t.Version > 1 {
		schema["properties"].(object)["version"] = object{"type": "integer", "const": t.Version, "description": "Version of the type; absent in version 1"}
		schema["required"] = append(schema["required"].([]any), "version")
	}
	return schema
}

// Sample returns a body with the type's first sample; nil if it has none.
func Sample(t catalog.Type) (json.RawMessage, error) {
	if len(t.Samples) == 0 {
		return nil, nil
	}
	at := time.Date(2026, 1, 29, 12, 0, 0, 0, time.UTC) // any
	return event.Event{ID: "01KG4W1KQ0V3PDM80DZ1Q650HY", Type: t.Name, Version: t.Version, Timestamp: at, Data: t.Samples[0]}.Encode()
}

// dataSchema returns the schema of a type's data as a part of the document: its references
// begin at the document's root.
func dataSchema(t catalog.Type) (object, error) {
	var schema object
	if err := json.Unmarshal(t.Schema, &schema); err != nil {
		return nil, fmt.Errorf("schema of %s: %w", t.Name, err)
	}
	delete(schema, "$schema") // AsyncAPI's schemas are of its own dialect
	delete(schema, "$id")     // or references would be relative to it
	root := "#/components/schemas/" + t.Label()
	var rebase func(v any)
	rebase = func(v any) {
		switch v := v.(type) {
		case []any:
			for _, item := range v {
				rebase(item)
			}
		case object:
			for key, item := range v {
				switch to, ok := item.(string); {
				case ok && key == "$ref" && strings.HasPrefix(to, "#"):
					v[key] = root + to[1:]
				case key != "examples" && key != "enum" && key != "const" && key != "default": // data, in which $ref means nothing
					rebase(item)
				}
			}
		}
	}
	rebase(schema)
	return schema, nil
}
