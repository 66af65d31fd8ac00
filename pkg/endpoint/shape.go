package endpoint

import (
	"errors"
	"fmt"
	"mime"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Format is how an event is written for an endpoint.
type Format string

const (
	// FormatTidings is the event as docs/events.md describes it, as JSON. The default is the same.
	FormatTidings Format = "tidings"
	// FormatCloudEvents is a CloudEvent in structured mode: one JSON object with the context
	// attributes and the data (CloudEvents 1.0.2, JSON Event Format).
	FormatCloudEvents Format = "cloudevents"
	// FormatCloudEventsBinary is a CloudEvent in binary mode: the body is the data alone, and the
	// context attributes are headers (CloudEvents 1.0.2, protocol bindings).
	FormatCloudEventsBinary Format = "cloudevents-binary"
)

// Formats are all formats.
var Formats = []Format{FormatTidings, FormatCloudEvents, FormatCloudEventsBinary}

// Limits of a shape.
const (
	MaxFields           = 50 // to include or to exclude
	MaxFieldBytes       = 256
	MaxContentTypeBytes = 128
)

// Shape says what of an event an endpoint gets, and how it is written. The zero value is the
// whole event.
type Shape struct {
	Format Format // empty: FormatTidings
	// At most one of Thin, Include and Exclude is set. The event's id, type, timestamp and
	// idempotency key are always sent.
	Thin bool // of the data, only the fields id, *_id and *_ids, if they are no objects
	// Include are the only fields to send, Exclude those not to send: paths in the event's JSON,
	// with dots, such as data.customer.email or actor_user_id. A path leads into each item of
	// an array.
	Include, Exclude []string
	// Method and ContentType are those of the HTTP request. Empty: POST, and the format's media
	// type.
	Method, ContentType string
}

// IsZero reports whether the whole event is sent as usual.
func (s Shape) IsZero() bool {
	return s.Format == "" && !s.Thin && len(s.Include) == 0 && len(s.Exclude) == 0 && s.Method == "" && s.ContentType == ""
}

// IsCloudEvent reports whether the endpoint gets CloudEvents.
func (s Shape) IsCloudEvent() bool {
	return s.Format == FormatCloudEvents || s.Format == FormatCloudEventsBinary
}

// alwaysSent are the fields that receivers need to tell events apart.
var alwaysSent = []string{"id", "event", "timestamp", "idempotency_key"}

// methods are the methods of HTTP that carry a body and may be repeated by a receiver's leave.
var methods = []string{"POST", "PUT", "PATCH"}

// validate returns what is wrong, each error with the name of its field.
func (s Shape) validate() (errs []error) {
	add := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if s.Format != "" && !slices.Contains(Formats, s.Format) {
		add("format: %q is not one of tidings, cloudevents and cloudevents-binary", s.Format)
	}
	chosen := 0
	for _, set := range []bool{s.Thin, len(s.Include) > 0, len(s.Exclude) > 0} {
		if set {
			chosen++
		}
	}
	if chosen > 1 {
		add("include_fields: only one of thin, include_fields and exclude_fields can be set")
	}
	for name, list := range map[string][]string{"include_fields": s.Include, "exclude_fields": s.Exclude} {
		if len(list) > MaxFields {
			add("%s has %d entries; the limit is %d", name, len(list), MaxFields)
			continue
		}
		for _, path := range list {
			if err := checkField(path); err != nil {
				add("%s: %w", name, err)
			}
		}
	}
	for _, path := range s.Exclude {
		if slices.Contains(alwaysSent, path) {
			add("exclude_fields: %s is always sent: receivers need it to tell events apart", path)
		}
	}
	if s.Method != "" && !slices.Contains(methods, s.Method) {
		add("method: %q is not one of POST, PUT and PATCH", s.Method)
	}
	if s.ContentType != "" {
		if err := checkContentType(s.ContentType); err != nil {
			add("content_type: %w", err)
		} else if s.Format == FormatCloudEvents {
			add("content_type: the format cloudevents has the media type application/cloudevents+json")
		}
	}
	return errs
}

// checkField returns an error for a path that cannot be one of a field.
func checkField(path string) error {
	switch root, _, _ := strings.Cut(path, "."); {
	case path == "" || len(path) > MaxFieldBytes || !utf8.ValidString(path):
		return fmt.Errorf("a field's path is %d bytes; it must be 1 to %d of UTF-8", len(path), MaxFieldBytes)
	case strings.ContainsFunc(path, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) || r == ',' }):
		return fmt.Errorf("%q has a blank or a comma, which separate paths", path)
	case strings.HasPrefix(path, ".") || strings.HasSuffix(path, ".") || strings.Contains(path, ".."):
		return fmt.Errorf("%q is not a path of names with dots, such as data.customer.email", path)
	case !slices.Contains([]string{"id", "event", "version", "timestamp", "actor_user_id", "data", "request_id", "trace_id", "idempotency_key"}, root):
		return fmt.Errorf("%q is not a field of events; did you mean data.%s?", path, path)
	case root != "data" && root != path:
		return fmt.Errorf("%q: %s has no fields within it", path, root)
	case path == "data":
		return errors.New("data as a whole cannot be named; thin keeps its ids only")
	}
	return nil
}

func checkContentType(text string) error {
	if len(text) > MaxContentTypeBytes {
		return fmt.Errorf("it is %d bytes; the limit is %d", len(text), MaxContentTypeBytes)
	}
	if strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r > '~' }) {
		return errors.New("it has a character that is not printable ASCII")
	}
	kind, parameters, err := mime.ParseMediaType(text)
	charset, named := parameters["charset"]
	switch {
	case err != nil || !strings.Contains(kind, "/"):
		return fmt.Errorf("%q is not a media type, such as application/vnd.example+json", text)
	case strings.HasPrefix(kind, "application/cloudevents"):
		return errors.New("that of CloudEvents belongs to the format cloudevents, which sets it")
	case kind == "application/x-www-form-urlencoded" || strings.HasPrefix(kind, "multipart/"):
		return errors.New("the body is JSON, not a form")
	case named && !strings.EqualFold(charset, "utf-8"):
		return errors.New("the body is UTF-8")
	}
	return nil
}
