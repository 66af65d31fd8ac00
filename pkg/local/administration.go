package local

import (
	"context"
	"time"

	"github.com/tidings-dev/tidings/pkg/admin"
	"github.com/tidings-dev/tidings/pkg/console"
	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/platform"
)

// Administration is the operator's side of a store.
type Administration interface {
	admin.Store
	console.SessionStore
	console.Audit
	ListFailedChanges(ctx context.Context, from time.Time, limit int, cursor string) (platform.FailedChangePage, error)
	GetDelivery(ctx context.Context, k delivery.Key) (delivery.Delivery, error)
	// The platform's own writes, for what simulates it.
	PutRecord(ctx context.Context, record platform.Record) error
	DeleteRecord(ctx context.Context, k platform.Key) error
	ExtendDiscussion(ctx context.Context, x platform.Extension) (platform.Discussion, error)
}
