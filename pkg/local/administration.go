package local

import (
	"context"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/registry"
)

// Administration is the operator's side of a store.
type Administration interface {
	registry.Store
	GetDelivery(ctx context.Context, k delivery.Key) (delivery.Delivery, error)
}
