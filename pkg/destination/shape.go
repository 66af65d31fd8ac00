package destination

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/event"
)

// Media types of bodies.
const (
	contentTypeJSON       = "application/json"
	contentTypeCloudEvent = "application/cloudevents+json"
)

// shape writes an event into m as the endpoint gets it: its body with the media type and, in
// binary mode, the context attributes of the CloudEvent. m.Body is the whole event as JSON.
func (m *Message) shape(ep endpoint.Endpoint, e event.Event) (err error) {
	s := ep.Shape
	if s.ContentType != "" {
		m.ContentType = s.ContentType
	}
	keep := selection(s)
	subject := m.Subject
	if !s.IsCloudEvent() {
		if m.Body, err = keep.apply(m.Body); err == nil && keep != nil && !contains(m.Body, subject) {
			m.Subject = pseudonym(ep.ID, subject)
		}
		return err
	}
	data, err := keep.inside("data").apply(e.Data)
	if err != nil {
		return err
	}
	if keep != nil && !contains(data, subject) {
		m.Subject, subject = pseudonym(ep.ID, subject), ""
	}
	c := cloudEvent{
		SpecVersion: "1.0", ID: e.ID, Source: source(ep.Tenant), Type: m.EventType, Subject: subject,
		Time: e.Timestamp.UTC().Format("2006-01-02T15:04:05.000Z"), DataContentType: contentTypeJSON, IdempotencyKey: e.IdempotencyKey,
	}
	if keep.has("actor_user_id") {
		c.ActorUserID = e.ActorUserID
	}
	if keep.has("request_id") {
		c.RequestID = e.RequestID
	}
	if keep.has("trace_id") {
		c.TraceID = e.TraceID
	}
	if e.Version > 1 && keep.has("version") {
		c.Version = e.Version
	}
	if s.Format == endpoint.FormatCloudEventsBinary {
		m.Body, m.CloudEvent = data, c.attributes()
		return nil
	}
	c.Data, m.ContentType = data, contentTypeCloudEvent
	m.Body, err = json.Marshal(c, spelling)
	return err
}

// contains reports whether a JSON value has a text or a number, as it is or anywhere within.
func contains(value []byte, text string) bool {
	in := jsontext.NewDecoder(bytes.NewReader(value), spelling)
	for {
		token, err := in.ReadToken()
		if err != nil {
			return false
		}
		if k := token.Kind(); (k == '"' || k == '0') && token.String() == text {
			return true
		}
	}
}

// pseudonym stands for a subject that the endpoint does not get, where brokers order and
// divide messages by it: the same for the same subject.
func pseudonym(endpointID, subject string) string {
	if subject == "" {
		return ""
	}
	sum := sha256.Sum256([]byte(endpointID + " " + subject))
	return hex.EncodeToString(sum[:16])
}

// source is the source of a tenant's CloudEvents, a URI reference: with the id, it identifies
// an event. A tenant's name has no character that a URI would escape.
func source(tenant string) string { return "/tidings/" + tenant }

// cloudEvent is a CloudEvent in JSON (CloudEvents 1.0.2, JSON Event Format). The names of the
// extensions have lower-case letters only, as the specification asks.
type cloudEvent struct {
	SpecVersion     string `json:"specversion"`
	ID              string `json:"id"`
	Source          string `json:"source"`
	Type            string `json:"type"`
	Subject         string `json:"subject,omitzero"`
	Time            string `json:"time"`
	DataContentType string `json:"datacontenttype"`

	Version        int    `json:"dataversion,omitzero"` // of the event's type; absent for 1
	ActorUserID    string `json:"actoruserid,omitzero"`
	RequestID      string `json:"requestid,omitzero"`
	TraceID        string `json:"traceid,omitzero"`
	IdempotencyKey string `json:"idempotencykey,omitzero"`

	Data jsontext.Value `json:"data,omitzero"`
}

// attributes are the context attributes for binary mode. The media type of the data has a
// header of its own there.
func (c cloudEvent) attributes() map[string]string {
	all := map[string]string{"specversion": c.SpecVersion, "id": c.ID, "source": c.Source, "type": c.Type, "time": c.Time}
	for name, value := range map[string]string{
		"subject": c.Subject, "actoruserid": c.ActorUserID, "requestid": c.RequestID, "traceid": c.TraceID, "idempotencykey": c.IdempotencyKey,
	} {
		if value != "" {
			all[name] = value
		}
	}
	if c.Version != 0 {
		all["dataversion"] = fmt.Sprint(c.Version)
	}
	return all
}

// spelling keeps texts and numbers as they are written in the event. What emit did not accept
// is not refused here: it would be lost.
var spelling = json.JoinOptions(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true), jsontext.PreserveRawStrings(true),
	jsontext.CanonicalizeRawFloats(false), jsontext.CanonicalizeRawInts(false))

// fields are the fields to keep of a JSON value. Nil keeps all.
type fields struct {
	only  bool               // only the named ones; else all but those that are named as a whole
	named map[string]*fields // nil for one that is named as a whole
	ids   bool               // only id, *_id and *_ids
	plain bool               // no object
}

// selection returns the fields that a shape keeps of an event.
func selection(s endpoint.Shape) *fields {
	var root *fields
	switch {
	case s.Thin:
		root = &fields{named: map[string]*fields{"data": {ids: true}}}
	case len(s.Include) > 0:
		root = &fields{only: true, named: map[string]*fields{"id": nil, "event": nil, "timestamp": nil, "idempotency_key": nil, "data": {only: true}}}
	case len(s.Exclude) > 0:
		root = &fields{}
	}
	for _, path := range slices.Concat(s.Include, s.Exclude) { // one of them is empty
		root.add(path)
	}
	return root
}

// add names a path. What is named as a whole stays so.
func (f *fields) add(path string) {
	name, rest, deeper := strings.Cut(path, ".")
	if f.named == nil {
		f.named = map[string]*fields{}
	}
	below, named := f.named[name]
	switch {
	case named && below == nil:
	case !deeper:
		f.named[name] = nil
	default:
		if !named {
			below = &fields{only: f.only}
			f.named[name] = below
		}
		below.add(rest)
	}
}

// of returns whether a member is kept, and what of it.
func (f *fields) of(name string) (below *fields, kept bool) {
	if f == nil {
		return nil, true
	}
	if f.ids {
		return &fields{plain: true}, name == "id" || strings.HasSuffix(name, "_id") || strings.HasSuffix(name, "_ids")
	}
	below, named := f.named[name]
	return below, named && (f.only || below != nil) || !named && !f.only
}

// has reports whether a member is kept.
func (f *fields) has(name string) bool {
	_, kept := f.of(name)
	return kept
}

// inside returns what is kept of a member that is kept.
func (f *fields) inside(name string) *fields {
	below, _ := f.of(name)
	return below
}

// apply returns a JSON value without the members that are not kept, as it is written otherwise.
func (f *fields) apply(value []byte) ([]byte, error) {
	if f == nil {
		return value, nil
	}
	var out bytes.Buffer
	out.Grow(len(value))
	if _, err := f.write(&out, jsontext.NewDecoder(bytes.NewReader(value), spelling)); err != nil {
		return nil, fmt.Errorf("select the fields of the event: %w", err)
	}
	return out.Bytes(), nil
}

// write copies the next value. It writes nothing if the value has none of the fields to
// include: it is neither an object nor an array.
func (f *fields) write(out *bytes.Buffer, in *jsontext.Decoder) (wrote bool, err error) {
	kind := in.PeekKind()
	if f != nil && f.plain && kind == '{' {
		return false, in.SkipValue()
	}
	if f == nil || kind != '{' && kind != '[' {
		value, err := in.ReadValue()
		if err != nil || f != nil && (f.only || f.ids) {
			return false, err
		}
		out.Write(value)
		return true, nil
	}
	if _, err := in.ReadToken(); err != nil {
		return false, err
	}
	out.WriteByte(byte(kind))
	for first := true; in.PeekKind() != '}' && in.PeekKind() != ']'; {
		start := out.Len()
		if !first {
			out.WriteByte(',')
		}
		below, kept := f, true // the items of an array
		if kind == '{' {
			name, err := in.ReadValue()
			if err != nil {
				return false, err
			}
			var text string
			if err := json.Unmarshal(name, &text, spelling); err != nil {
				return false, err
			}
			if below, kept = f.of(text); kept {
				out.Write(name)
				out.WriteByte(':')
			}
		}
		if !kept {
			if err := in.SkipValue(); err != nil {
				return false, err
			}
		} else if kept, err = below.write(out, in); err != nil {
			return false, err
		}
		if !kept {
			out.Truncate(start)
			continue
		}
		first = false
	}
	end, err := in.ReadToken()
	if err != nil {
		return false, err
	}
	out.WriteByte(byte(end.Kind()))
	return true, nil
}

// headerValue writes a context attribute as a header (CloudEvents 1.0.2, HTTP Protocol
// Binding, section 3.1.3.2): the bytes of other than printable ASCII characters, and of the
// blank, the quote and the percent sign, as %xy.
func headerValue(text string) string {
	var b strings.Builder
	for _, c := range []byte(text) {
		if c <= ' ' || c > '~' || c == '"' || c == '%' {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// CloudEventHeaders returns the context attributes of a CloudEvent in binary mode as headers
// of HTTP, none in another mode.
func (m Message) CloudEventHeaders() map[string]string {
	if m.CloudEvent == nil {
		return nil
	}
	all := make(map[string]string, len(m.CloudEvent))
	for name, value := range m.CloudEvent {
		all["ce-"+name] = headerValue(value)
	}
	return all
}
