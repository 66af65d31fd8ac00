package tracing_test

import (
	"context"
	"testing"

	"github.com/tidings-dev/tidings/pkg/ops/tracing"
)

const (
	root   = "1-5759e988-bd862e3fe1be46a994272793"
	parent = "53995c3f42cd8ad8"
)

// withoutParent is the W3C form of a trace without a parent segment.
const withoutParent = "00-5759e988bd862e3fe1be46a994272793-aa6bc1e95040c9d1-00"

func TestParseAndTraceparent(t *testing.T) {
	for text, want := range map[string]struct{ id, text, w3c string }{
		"Root=" + root + ";Parent=" + parent + ";Sampled=1":                {root, "Root=" + root + ";Parent=" + parent + ";Sampled=1", "00-5759e988bd862e3fe1be46a994272793-53995c3f42cd8ad8-01"},
		"Root=" + root + ";Parent=" + parent + ";Sampled=0;Lineage=1:ab:0": {root, "Root=" + root + ";Parent=" + parent + ";Sampled=0", "00-5759e988bd862e3fe1be46a994272793-53995c3f42cd8ad8-00"},
		" Sampled=1 ; Parent=" + parent + " ; Root=" + root:                {root, "Root=" + root + ";Parent=" + parent + ";Sampled=1", "00-5759e988bd862e3fe1be46a994272793-53995c3f42cd8ad8-01"},
		// As Lambda passes it on if nothing is recorded.
		"Root=" + root:                                                             {root, "Root=" + root + ";Sampled=0", withoutParent},
		"Root=" + root + ";Lineage=1:fc3b4ff1:0":                                   {root, "Root=" + root + ";Sampled=0", withoutParent},
		"Root=" + root + ";Parent=x\r\nEvil: 1":                                    {root, "Root=" + root + ";Sampled=0", withoutParent},
		"Root=" + root + ";Parent=0000000000000000":                                {root, "Root=" + root + ";Parent=0000000000000000;Sampled=0", withoutParent},
		"Root=1-00000000-000000000000000000000000;Parent=" + parent + ";Sampled=1": {"1-00000000-000000000000000000000000", "Root=1-00000000-000000000000000000000000;Parent=" + parent + ";Sampled=1", ""},
		"Root=1-5759e988-bd862e3fe1be46a99427279\n;Parent=" + parent:               {},
		"Root=" + root + "0":                                                       {},
		"00-" + root + "-x-01":                                                     {},
		"":                                                                         {},
	} {
		h, ok := tracing.Parse(text)
		if ok != (want.id != "") || tracing.ID(text) != want.id || ok && h.String() != want.text || tracing.Traceparent(text, "call") != want.w3c {
			t.Errorf("%q: %+v, %t, W3C %q; want %+v", text, h, ok, tracing.Traceparent(text, "call"), want)
		}
	}
}

// Without a segment, each attempt has its own, stable parent ID.
func TestTraceparentDerivesParentFromCall(t *testing.T) {
	one, two := tracing.Traceparent("Root="+root, "one"), tracing.Traceparent("Root="+root, "two")
	if one == two || len(one) != 55 || len(two) != 55 || one != tracing.Traceparent("Root="+root, "one") {
		t.Errorf("one is %q, two is %q", one, two)
	}
}

func TestContextKeyIsTheRuntimes(t *testing.T) {
	ctx := context.WithValue(context.Background(), "x-amzn-trace-id", "Root="+root) //nolint:staticcheck // SA1029: the key is aws-lambda-go's
	if got := tracing.FromContext(ctx); got != "Root="+root {
		t.Errorf("header = %q", got)
	}
	if got := tracing.FromContext(tracing.WithHeader(context.Background(), "x")); got != "x" {
		t.Errorf("header = %q", got)
	}
	if got := tracing.FromContext(context.Background()); got != "" {
		t.Errorf("header = %q", got)
	}
}

func TestNonePassesHeadersOn(t *testing.T) {
	under, end := tracing.None{}.Begin("x", "h")
	end(tracing.Fault, nil)
	if under != "h" {
		t.Errorf("under = %q", under)
	}
}
