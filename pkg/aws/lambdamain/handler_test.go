package lambdamain

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
)

type settings struct {
	Table string `env:"TIDINGS_TEST_TABLE,required,notEmpty"`
}

func TestAFunctionIsBuiltFromItsEnvironment(t *testing.T) {
	t.Setenv("AWS_REGION", "eu-central-1")
	t.Setenv("TIDINGS_TEST_TABLE", "events")
	var got settings
	var region string
	build := Build[settings](func(s settings, access aws.Config, _ *slog.Logger) (Handler, error) {
		got, region = s, access.Region
		return func(context.Context, json.RawMessage) (any, error) { return nil, nil }, nil
	})
	var served Handler
	err := build.serve(slog.New(slog.DiscardHandler), func(h Handler) { served = h })
	if err != nil || got.Table != "events" || region != "eu-central-1" || served == nil {
		t.Errorf("built from %+v in %q, %v", got, region, err)
	}
}

func TestAMissingSettingIsNamed(t *testing.T) {
	build := Build[settings](func(settings, aws.Config, *slog.Logger) (Handler, error) {
		t.Error("built without its settings")
		return nil, nil
	})
	if err := build.serve(slog.New(slog.DiscardHandler), func(Handler) { t.Error("served") }); err == nil || !strings.Contains(err.Error(), "TIDINGS_TEST_TABLE") {
		t.Errorf("error %v", err)
	}
}

func TestAnswersAreEncodedWithoutEscapes(t *testing.T) {
	h := Handler(func(_ context.Context, payload json.RawMessage) (any, error) {
		switch string(payload) {
		case `"fail"`:
			return nil, errors.New("failed")
		case `"unencodable"`:
			return make(chan int), nil
		}
		return map[string]string{"got": string(payload)}, nil
	})
	if out, err := h.Invoke(t.Context(), []byte(`"<&>"`)); err != nil || string(out) != `{"got":"\"<&>\""}` {
		t.Errorf("Invoke = %s, %v", out, err)
	}
	for _, payload := range []string{`"fail"`, `"unencodable"`} {
		if out, err := h.Invoke(t.Context(), []byte(payload)); err == nil || out != nil {
			t.Errorf("%s: %s, %v; want an error", payload, out, err)
		}
	}
}
