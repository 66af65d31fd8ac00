package handler_test

import (
	"errors"
	"testing"

	"github.com/tidings-dev/tidings/functions/test-webhook/handler"
	"github.com/tidings-dev/tidings/pkg/destination"
)

func TestInvalidDestinationSettingsFailAtTheStart(t *testing.T) {
	cause := errors.New("ALLOW_NETWORKS is malformed")
	_, err := handler.New(handler.Backend{Open: func() (*destination.Router, error) { return nil, cause }})
	if !errors.Is(err, cause) {
		t.Errorf("error %v", err)
	}
	failing := destination.Kind{Close: func() error { return cause }}
	_, err = handler.New(handler.Backend{Open: func() (*destination.Router, error) { return destination.NewRouter(1, failing), nil }})
	if !errors.Is(err, cause) {
		t.Errorf("error of a router that cannot be closed: %v", err)
	}
}
