package emit

import (
	"context"
	"errors"
	"fmt"

	"github.com/tidings-dev/tidings/pkg/platform"
)

// MaxRecaptures is the maximum number of failed changes per call of Recapture.
const MaxRecaptures = 100

// Recaptured is the result of capturing one failed change again.
type Recaptured struct {
	ID string `json:"id"`
	// Captured means that its events are stored and the failed change is removed. Events
	// is their number; 0 if the change means no event by today's rules.
	Captured bool   `json:"captured"`
	Events   int    `json:"events"`
	Error    string `json:"error,omitempty"` // why it was not captured
}

// Recapture captures failed changes again. The events get the IDs that they would have
// got at first, so repeating it stores nothing twice. A failed change that is captured is
// removed; otherwise it keeps the new reason. It returns an error only if the call itself
// is wrong.
func (em *Emitter) Recapture(ctx context.Context, ids []string, read func(record []byte) (platform.Change, error)) ([]Recaptured, error) {
	if len(ids) == 0 || len(ids) > MaxRecaptures {
		return nil, &Error{Code: InvalidField, Field: "ids", Message: fmt.Sprintf("ids: must be 1 to %d IDs of failed changes", MaxRecaptures)}
	}
	var t captureTally
	results := make([]Recaptured, 0, len(ids))
	for _, id := range ids { // in order, because they can be changes of one item
		results = append(results, em.recaptureOne(ctx, id, read, &t))
	}
	em.countCapture(ctx, &t)
	return results, nil
}

func (em *Emitter) recaptureOne(ctx context.Context, id string, read func([]byte) (platform.Change, error), t *captureTally) Recaptured {
	result := Recaptured{ID: clip(id)}
	got, err := em.recapture(ctx, id, read)
	t.stored(got)
	if err != nil {
		result.Error = err.Error()
		em.Log.WarnContext(ctx, "capture.failed_again", "failed_change", result.ID, "error", result.Error)
		return result
	}
	result.Captured, result.Events = true, got.stored+got.duplicates
	em.Log.InfoContext(ctx, "capture.recaptured", "failed_change", id, "events", result.Events)
	return result
}

func (em *Emitter) recapture(ctx context.Context, id string, read func([]byte) (platform.Change, error)) (got captureResult, err error) {
	f, err := em.Kept.GetFailedChange(ctx, id)
	if err != nil {
		return got, err
	}
	if f.Record == nil {
		return got, fmt.Errorf("the change was too large to keep (%d bytes): publish its event with `tidings emit`, from the item %s", f.RecordBytes, f.Key)
	}
	change, err := read(f.Record)
	if err == nil {
		err = em.indexAgain(ctx, change)
	}
	if err == nil {
		got, err = em.captureOne(ctx, change)
	}
	var refused *Error
	if errors.As(err, &refused) {
		if again := em.Kept.FailAgain(ctx, f, refused.Message, em.Now()); again != nil {
			return got, errors.Join(err, again)
		}
	}
	if err != nil {
		return got, err
	}
	return got, em.Kept.RemoveFailedChange(ctx, id)
}
