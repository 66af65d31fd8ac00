// Package deployed holds the event types of one deployment: the shipped ones, without
// those that were switched off, and those that the deployment added. With them, it holds
// the files of capture rules, as texts: what they say is up to package rules. It stores
// all as one compressed set, so that a change of many types takes effect at once and a
// rule and its type cannot be changed apart, and reads it again every minute. A tenant can
// have types of its own beside them, in a set of its own, which is read when the tenant
// first needs it. The package promises that a reader never sees half of a change, that the
// types of a set that can be read can be used, and that the types of tenants take a bounded
// part of the memory.
package deployed

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/tidings-dev/tidings/pkg/event/catalog"
)

const (
	// document is the name of the document that lists the parts of the set.
	document = "catalog"
	// partBytes is the size of a part before its encoding. An item can have 400 KB.
	partBytes = 256 * 1024
	// MaxBytes is the maximum size of all definitions of a deployment together: emit
	// reads them when it starts.
	MaxBytes = 16 << 20
	// maxStored is the maximum size of the set as it is stored, before its compression: JSON
	// within JSON is a little longer.
	maxStored = 2 * MaxBytes
	// MaxTypes is the maximum number of types of a deployment.
	MaxTypes = 10_000
	// MaxRuleFiles is the maximum number of files of capture rules of a deployment.
	MaxRuleFiles = 100
	// MaxRuleBytes is the maximum size of all files of capture rules of a deployment together:
	// emit compiles them when it captures its first change, which takes about a second for
	// each 80 KB.
	MaxRuleBytes = 256 << 10
	// maxReads is how often a read begins again because the set was replaced meanwhile.
	maxReads = 3
)

// ErrConflict is the error of a write over a set that changed since it was read.
var ErrConflict = errors.New("the event types were changed at the same time: try again")

// LimitError says that a set has more than a deployment can have.
type LimitError struct{ text string }

func (e *LimitError) Error() string { return e.text }

func limitf(format string, args ...any) error { return &LimitError{fmt.Sprintf(format, args...)} }

// Source is where a set is read from.
type Source interface {
	// ReadDocument: see alert.Documents. The document lists the parts of the set.
	ReadDocument(ctx context.Context, name string) (document []byte, version int, err error)
	// GetValue: see console.SessionStore. Each part is a value.
	GetValue(ctx context.Context, key string) (string, error)
}

// Store is where a set is stored. Each write has keys of its own for its parts, so that
// the removal of a replaced part cannot meet a later write.
type Store interface {
	Source
	WriteDocument(ctx context.Context, name string, document []byte, was int, writer string) (stored bool, err error)
	PutValueIfAbsent(ctx context.Context, key, value string, expires time.Time) (current string, err error)
	DeleteValue(ctx context.Context, key string) error
}

// Set is what a deployment changed in the shipped catalog and the shipped capture rules.
type Set struct {
	Revision int            // 0: nothing was changed yet
	Types    []catalog.Type // added, or instead of a shipped one of the same name and version; in catalog.Order
	Without  []string       // names of shipped types that are switched off; sorted
	// Open allows types without a definition.
	Open      bool
	Rules     Rules
	ChangedAt time.Time
	ChangedBy string

	tenants map[string]ownTypes // where the types of tenants are stored
}

// Rules are the capture rules that a deployment added to the shipped ones.
type Rules struct {
	Files          []RuleFile // sorted by name
	WithoutShipped bool       // the shipped rules are switched off
}

// RuleFile is a file of capture rules.
type RuleFile struct {
	Name   string   `json:"name"`   // unique in the deployment
	Text   string   `json:"text"`   // as it was written
	Events []string `json:"events"` // types of the events that the rules publish; sorted
}

// Publishes reports whether a rule of the deployment's own publishes events of a type, and
// the file of the first one.
func (r Rules) Publishes(eventType string) (file string, ok bool) {
	for _, f := range r.Files {
		if slices.Contains(f.Events, eventType) {
			return f.Name, true
		}
	}
	return "", false
}

// Catalog returns the deployment's event types.
func (s Set) Catalog() (*catalog.Catalog, error) {
	list := slices.Clone(s.Types)
	shipped := catalog.Default()
	for _, name := range shipped.Types() {
		t, _ := shipped.Type(name)
		own := slices.ContainsFunc(s.Types, func(o catalog.Type) bool { return o.Label() == t.Label() })
		if !own && !slices.Contains(s.Without, name) {
			list = append(list, t)
		}
	}
	if len(list) > MaxTypes {
		return nil, limitf("%d event types; the maximum is %d", len(list), MaxTypes)
	}
	known, err := catalog.New(list)
	if err == nil && s.Open {
		known = known.Opened()
	}
	return known, err
}

// IsShipped reports whether a type is one of those that come with Tidings.
func IsShipped(name string) bool {
	_, ok := catalog.Default().Type(name)
	return ok
}

// head is the stored list of parts.
type head struct {
	Parts     []string  `json:"parts"` // keys of the parts, in order
	ChangedAt time.Time `json:"changed_at"`
	ChangedBy string    `json:"changed_by"`
	// Tenants says where the types of tenants are, by the tenant's name. It is written with
	// the parts, so that a type cannot come into the deployment and into a tenant at once.
	Tenants map[string]ownTypes `json:"tenants,omitempty"`
}

// body is the stored set, compressed and cut into parts.
type body struct {
	Types []string `json:"types"` // definitions, as they were written
	// AddedAt is when versions were added, by their label.
	AddedAt      map[string]time.Time `json:"added_at,omitempty"`
	Without      []string             `json:"without,omitempty"`
	Rules        []RuleFile           `json:"rules,omitempty"`
	Open         bool                 `json:"open,omitempty"`
	WithoutRules bool                 `json:"without_rules,omitempty"` // the shipped ones
}

// Read returns the stored set; revision 0 if there is none. If its revision is known, it
// returns only the revision.
func Read(ctx context.Context, from Source, known int) (Set, error) {
	set, _, err := read(ctx, from, known, nil)
	return set, err
}

// read is Read, with the keys of the set's parts. If the reader has these parts already, the
// set is without its types and rules.
func read(ctx context.Context, from Source, known int, has []string) (set Set, parts []string, err error) {
	for range maxReads {
		h, revision, err := readHead(ctx, from)
		if err != nil || revision == 0 || revision == known {
			return Set{Revision: revision}, nil, err
		}
		stored := Set{Revision: revision, ChangedAt: h.ChangedAt, ChangedBy: h.ChangedBy, tenants: h.Tenants}
		if len(has) > 0 && slices.Equal(h.Parts, has) {
			return stored, h.Parts, nil
		}
		text, complete, err := readParts(ctx, from, h.Parts)
		if err != nil {
			return Set{}, nil, err
		}
		if !complete {
			continue // a part was removed, because the set was replaced
		}
		set, err := decode(text)
		if err != nil {
			return Set{}, nil, fmt.Errorf("read event types: revision %d: %w", revision, err)
		}
		set.Revision, set.ChangedAt, set.ChangedBy, set.tenants = revision, h.ChangedAt, h.ChangedBy, h.Tenants
		return set, h.Parts, nil
	}
	return Set{}, nil, errors.New("read event types: they changed during each of several attempts: try again")
}

func readHead(ctx context.Context, from Source) (h head, revision int, err error) {
	text, revision, err := from.ReadDocument(ctx, document)
	if err == nil && revision > 0 {
		err = json.Unmarshal(text, &h)
	}
	if err != nil {
		return h, revision, fmt.Errorf("read event types: %w", err)
	}
	return h, revision, nil
}

func readParts(ctx context.Context, from Source, keys []string) (text []byte, complete bool, err error) {
	for _, key := range keys {
		value, err := from.GetValue(ctx, key)
		if err != nil {
			return nil, false, fmt.Errorf("read event types: part %s: %w", key, err)
		}
		part, err := base64.StdEncoding.DecodeString(value)
		if err != nil {
			return nil, false, fmt.Errorf("read event types: part %s: %w", key, err)
		}
		if len(part) == 0 {
			return nil, false, nil
		}
		text = append(text, part...)
	}
	return text, true, nil
}

// Write replaces the set of revision set.Revision and returns it with its new revision. It
// returns ErrConflict if another one was stored since, and a *LimitError if the set is too
// large. by is who changed it; writer must be unique.
func Write(ctx context.Context, store Store, set Set, by, writer string, now time.Time) (Set, error) {
	if _, err := set.Catalog(); err != nil {
		return set, err
	}
	text, err := encode(set)
	if err != nil {
		return set, fmt.Errorf("write event types: %w", err)
	}
	h, err := headOf(ctx, store, set)
	if err != nil {
		return set, err
	}
	unneeded := h.Parts
	if h.Parts, err = writeParts(ctx, store, document+"#"+writer, text); err != nil {
		return set, err
	}
	return replace(ctx, store, set, h, h.Parts, unneeded, by, writer, now)
}

// headOf reads where the parts of a set are, if it is still the stored one; ErrConflict if
// not.
func headOf(ctx context.Context, store Store, set Set) (head, error) {
	h, revision, err := readHead(ctx, store)
	if err == nil && revision != set.Revision {
		err = ErrConflict
	}
	return h, err
}

// writeParts stores a text in parts, whose keys begin with a prefix that no other write has.
func writeParts(ctx context.Context, store Store, prefix string, text []byte) (keys []string, err error) {
	for part := range slices.Chunk(text, partBytes) {
		key := fmt.Sprintf("%s#%d", prefix, len(keys))
		if _, err := store.PutValueIfAbsent(ctx, key, base64.StdEncoding.EncodeToString(part), time.Time{}); err != nil {
			return nil, fmt.Errorf("write event types: %w", err)
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// replace stores where the parts are, of the deployment and of the tenants, if the set is
// still the stored one, and then removes the parts that are not needed any more: the
// unneeded ones, or the written ones if it is not.
func replace(ctx context.Context, store Store, set Set, h head, written, unneeded []string, by, writer string, now time.Time) (Set, error) {
	h.ChangedAt, h.ChangedBy = now.UTC(), by
	list, err := json.Marshal(h)
	if err != nil {
		return set, fmt.Errorf("write event types: %w", err)
	}
	switch stored, err := store.WriteDocument(ctx, document, list, set.Revision, writer); {
	case err != nil:
		return set, fmt.Errorf("write event types: %w", err)
	case !stored:
		removeLost(ctx, store, written)
		return set, ErrConflict
	}
	for _, key := range unneeded {
		_ = store.DeleteValue(ctx, key) // the set is stored; a part that stays does no harm
	}
	set.Revision++
	set.ChangedAt, set.ChangedBy, set.tenants = h.ChangedAt, by, h.Tenants
	return set, nil
}

// removeLost removes the parts of a write that lost against another one. The write may have
// been stored nevertheless, if the answer to a first try was lost: then others were stored on
// top of it, and what is stored now may need its parts.
func removeLost(ctx context.Context, store Store, written []string) {
	h, _, err := readHead(ctx, store)
	if err != nil {
		return
	}
	used := h.Parts
	for tenant, at := range h.Tenants {
		used = append(used, at.keys(tenant)...)
	}
	for _, key := range written {
		if !slices.Contains(used, key) {
			_ = store.DeleteValue(ctx, key) // a part that stays does no harm
		}
	}
}

func encode(set Set) ([]byte, error) {
	if len(set.Rules.Files) > MaxRuleFiles {
		return nil, limitf("%d files of capture rules; the maximum is %d", len(set.Rules.Files), MaxRuleFiles)
	}
	size := 0
	for _, f := range set.Rules.Files {
		size += len(f.Text)
	}
	if size > MaxRuleBytes {
		return nil, limitf("the files of capture rules have %d bytes together; the maximum is %d", size, MaxRuleBytes)
	}
	if size += definitionBytes(set.Types); size > MaxBytes {
		return nil, limitf("the definitions and rules have %d bytes together; the maximum is %d", size, MaxBytes)
	}
	return pack(bodyOf(set))
}

func bodyOf(set Set) body {
	b := body{Types: []string{}, Without: set.Without, AddedAt: map[string]time.Time{}, Open: set.Open, Rules: set.Rules.Files, WithoutRules: set.Rules.WithoutShipped}
	for _, t := range set.Types {
		b.Types = append(b.Types, string(t.Schema))
		if !t.AddedAt.IsZero() {
			b.AddedAt[t.Label()] = t.AddedAt.UTC()
		}
	}
	return b
}

// pack compresses a set.
func pack(b body) ([]byte, error) {
	plain, err := json.Marshal(b)
	if err != nil {
		return nil, err
	}
	if len(plain) > maxStored {
		return nil, limitf("the definitions and rules have %d bytes together as they are stored; the maximum is %d: their quotes, < and > take two to six bytes", len(plain), maxStored)
	}
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(plain); err != nil {
		return nil, err
	}
	err = w.Close() // before the bytes are complete
	return out.Bytes(), err
}

func decode(text []byte) (Set, error) {
	r, err := gzip.NewReader(bytes.NewReader(text))
	if err != nil {
		return Set{}, err
	}
	plain, err := io.ReadAll(io.LimitReader(r, maxStored))
	if err != nil {
		return Set{}, err
	}
	var b body
	if err := json.Unmarshal(plain, &b); err != nil {
		return Set{}, err
	}
	set := Set{Without: b.Without, Open: b.Open, Types: make([]catalog.Type, len(b.Types)), Rules: Rules{Files: b.Rules, WithoutShipped: b.WithoutRules}}
	for i, schema := range b.Types {
		t, err := catalog.FromStored([]byte(schema))
		if err != nil {
			return Set{}, err
		}
		t.AddedAt = b.AddedAt[t.Label()]
		set.Types[i] = t
	}
	slices.SortFunc(set.Types, catalog.Order)
	return set, nil
}
