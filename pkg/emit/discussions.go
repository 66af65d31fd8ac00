package emit

import (
	"context"
	"fmt"

	"github.com/tidings-dev/tidings/pkg/platform"
)

// Discussions indexes the discussions of the platform's table. Tidings closes and lists
// discussions by this index, and not by attributes of the records: the platform does not
// have to know it, and its table can have any keys.
type Discussions interface {
	// IndexDiscussion indexes what the record with this key has become; before or after
	// is nil if there was, or is, no discussion. Repeating it changes nothing.
	IndexDiscussion(ctx context.Context, recordKey string, before, after *platform.Discussion) error
	// AddDiscussion indexes the discussion in a record, unless it is indexed already.
	AddDiscussion(ctx context.Context, recordKey string, d platform.Discussion) error
}

// indexDiscussion indexes a changed discussion. An *Error means that the record cannot be
// read, and that retrying cannot help: it is not closed when it expires.
func (em *Emitter) indexDiscussion(ctx context.Context, change platform.Change) error {
	if em.Discussions == nil || !em.isPlatform(change) {
		return nil
	}
	before, _ := discussionOf(change.Old) // nil if unreadable: the new image is indexed whatever was before
	after, err := discussionOf(change.New)
	if err != nil {
		return &Error{Code: InvalidData, Message: fmt.Sprintf("the discussion is not indexed: %s", err)}
	}
	if before == nil && after == nil {
		return nil
	}
	return em.Discussions.IndexDiscussion(ctx, change.Key, before, after)
}

// isPlatform reports whether a change is one of the platform's table. Other tables can have
// items of the same kinds.
func (em *Emitter) isPlatform(change platform.Change) bool {
	return em.PlatformTable == "" || change.Table() == em.PlatformTable
}

// indexAgain indexes the discussion of a change that could not be read at first. Later
// changes may be indexed by now, and are not replaced.
func (em *Emitter) indexAgain(ctx context.Context, change platform.Change) error {
	if em.Discussions == nil || !em.isPlatform(change) {
		return nil
	}
	d, err := discussionOf(change.New)
	if err != nil {
		return &Error{Code: InvalidData, Message: fmt.Sprintf("the discussion is not indexed: %s", err)}
	}
	if d == nil {
		return nil
	}
	return em.Discussions.AddDiscussion(ctx, change.Key, *d)
}

// discussionOf returns the discussion of an image, nil if it has none.
func discussionOf(image platform.Image) (*platform.Discussion, error) {
	if image == nil || image.Kind() != platform.KindDiscussion {
		return nil, nil
	}
	record, err := image.Decode()
	if err != nil {
		return nil, err
	}
	d := record.(platform.Discussion) // its kind says so
	return &d, nil
}
