package deployed

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/event/catalog"
)

const (
	// MaxTenants is the maximum number of tenants with types of their own: the names of all
	// are read each minute.
	MaxTenants = 1000
	// MaxTenantTypes is the maximum number of types of a tenant's own.
	MaxTenantTypes = 1000
	// MaxTenantBytes is the maximum size of all definitions of a tenant's own together.
	MaxTenantBytes = 1 << 20
)

// ownTypes says where a tenant's types are stored.
type ownTypes struct {
	Writer string `json:"w"` // of the parts
	Parts  int    `json:"n"`
}

// prefix is how the keys of a tenant's parts begin. A tenant's name has no #.
func (o ownTypes) prefix(tenant string) string {
	return fmt.Sprintf("%s#tenant#%s#%s", document, tenant, o.Writer)
}

func (o ownTypes) keys(tenant string) (keys []string) {
	for i := range o.Parts {
		keys = append(keys, fmt.Sprintf("%s#%d", o.prefix(tenant), i))
	}
	return keys
}

// Tenants returns the tenants that have types of their own, sorted.
func (s Set) Tenants() []string { return slices.Sorted(maps.Keys(s.tenants)) }

// UnreadableError says that what is stored of a tenant's types cannot be used, however often
// it is read: a part is missing, or it is not what was written. The store itself answers.
type UnreadableError struct {
	Tenant string
	Err    error
}

func (e *UnreadableError) Error() string {
	return fmt.Sprintf("the stored event types of tenant %s are damaged: %s", e.Tenant, e.Err)
}

func (e *UnreadableError) Unwrap() error { return e.Err }

// ReadTenant returns the types of a tenant's own, in catalog.Order; none if it has none. It
// returns ErrConflict if they changed since the set was read, and an *UnreadableError if they
// do not decode.
func ReadTenant(ctx context.Context, from Source, set Set, tenant string) ([]catalog.Type, error) {
	at, ok := set.tenants[tenant]
	if !ok {
		return nil, nil
	}
	text, complete, err := readParts(ctx, from, at.keys(tenant))
	if err == nil && !complete {
		err = ErrConflict
	}
	var malformed base64.CorruptInputError
	if errors.As(err, &malformed) {
		return nil, &UnreadableError{tenant, err}
	}
	if err != nil {
		return nil, fmt.Errorf("event types of tenant %s: %w", tenant, err)
	}
	own, err := decode(text)
	if err != nil {
		return nil, &UnreadableError{tenant, err}
	}
	return own.Types, nil
}

// WriteTenant replaces the types of a tenant's own; no types remove them all. The set says
// what the deployment and the tenants have: WriteTenant returns ErrConflict if any of it
// changed since the set was read, and the set with its new revision. by is who changed it;
// writer must be unique.
func WriteTenant(ctx context.Context, store Store, set Set, tenant string, types []catalog.Type, by, writer string, now time.Time) (Set, error) {
	text, err := encodeTenant(tenant, types)
	if err != nil {
		return set, fmt.Errorf("write event types of tenant %s: %w", tenant, err)
	}
	h, err := headOf(ctx, store, set)
	if err != nil {
		return set, err
	}
	if len(h.Parts) == 0 { // a release that knows no tenants must find a set
		if set, err = Write(ctx, store, set, by, writer, now); err != nil {
			return set, err
		}
		if h, err = headOf(ctx, store, set); err != nil {
			return set, err
		}
	}
	unneeded := h.Tenants[tenant].keys(tenant)
	if h.Tenants = maps.Clone(h.Tenants); h.Tenants == nil {
		h.Tenants = map[string]ownTypes{}
	}
	delete(h.Tenants, tenant)
	var written []string
	if len(types) > 0 {
		if len(h.Tenants) == MaxTenants {
			return set, limitf("%d tenants have event types of their own, which is the maximum", MaxTenants)
		}
		at := ownTypes{Writer: writer}
		if written, err = writeParts(ctx, store, at.prefix(tenant), text); err != nil {
			return set, err
		}
		at.Parts = len(written)
		h.Tenants[tenant] = at
	}
	return replace(ctx, store, set, h, written, unneeded, by, writer, now)
}

func encodeTenant(tenant string, types []catalog.Type) ([]byte, error) {
	if err := event.CheckTenant(tenant); err != nil {
		return nil, err
	}
	own, err := catalog.New(types)
	if err != nil {
		return nil, err
	}
	if n := len(own.Types()); n > MaxTenantTypes {
		return nil, limitf("%d event types; the maximum of a tenant is %d", n, MaxTenantTypes)
	}
	if size := definitionBytes(types); size > MaxTenantBytes {
		return nil, limitf("the definitions have %d bytes together; the maximum of a tenant is %d", size, MaxTenantBytes)
	}
	return pack(bodyOf(Set{Types: types}))
}

func definitionBytes(types []catalog.Type) (size int) {
	for _, t := range types {
		size += len(t.Schema)
	}
	return size
}
