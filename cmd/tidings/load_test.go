package main

import (
	"bytes"
	"context"
	"encoding/json"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/tidings-dev/tidings/pkg/systemtest"
)

func TestLoadMeasuresTheLocalRunner(t *testing.T) {
	if testing.Short() {
		t.Skip("puts load on a runner")
	}
	t.Parallel()
	x := newTool(t)
	out, progress := x.do(0, "", "load", "--rate", "20", "--seconds", "2")
	if !strings.Contains(out, "accepted     40") || !strings.Contains(out, "received     40") || !strings.Contains(out, "missing      0") ||
		!strings.Contains(out, "duplicated   0") || !strings.Contains(out, "p95") || !strings.Contains(out, "$0.0") || !strings.Contains(progress, "received") {
		t.Errorf("it prints\n%s\n%s", out, progress)
	}
	var report systemtest.LoadReport
	x.json(&report, "load", "--rate", "10", "--seconds", "1")
	if !report.OK() || report.Received != 10 || report.Latency.P50 <= 0 || report.Latency.Max < report.Latency.P99 || report.Dollars <= 0 {
		t.Errorf("it reports %+v", report)
	}
	if out, _ := x.do(0, "", "endpoint", "list", "--tenant", "test-"+report.Run); !strings.Contains(out, "no endpoints") {
		t.Errorf("left behind:\n%s", out)
	}
}

func TestCtrlCStopsALoadTestWithTheFiguresSoFar(t *testing.T) {
	if testing.Short() {
		t.Skip("puts load on a runner")
	}
	t.Parallel()
	x := newTool(t)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var out bytes.Buffer
	// Ctrl-C cancels the context, once the progress line says that something arrived.
	progress := writer(func(p []byte) {
		if bytes.Contains(p, []byte("received")) && !bytes.Contains(p, []byte("received 0")) {
			stop()
		}
	})
	code := run(ctx, []string{"--state-dir", x.dir, "load", "--rate", "20", "--seconds", "600"}, strings.NewReader(""), &out, progress)
	if code != exitFailed || !strings.Contains(out.String(), ", stopped") || !strings.Contains(out.String(), "missing      0") {
		t.Errorf("exit code %d\n%s", code, out.String())
	}
}

// writer calls a function with what is written.
type writer func([]byte)

func (w writer) Write(p []byte) (int, error) {
	w(p)
	return len(p), nil
}

func TestLoadFailsWhereNothingArrives(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for what does not come")
	}
	t.Parallel()
	x := newTool(t)
	out, _ := x.do(1, "", "load", "--rate", "5", "--seconds", "1", "--wait-time", "1s", "--receiver-url", "http://127.0.0.1:1", "--json")
	var report systemtest.LoadReport
	if err := json.Unmarshal([]byte(out), &report); err != nil || report.Accepted != 5 || report.Missing != 5 || report.Received != 0 {
		t.Errorf("%v, %+v", err, report)
	}
}

func TestLoadRefusesAProductionStack(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		stack     string
		protected bool
		says      string
	}{
		"by its name":                 {"tidings-prod", false, "by its name"},
		"by its name, in full":        {"Production", false, "by its name"},
		"by its protection":           {"tidings", true, "protected from deletion"},
		"no production stack":         {"tidings-staging", false, ""},
		"a name that only resembles":  {"product-events", false, ""},
		"another that only resembles": {"reproduction", false, ""},
	} {
		t.Run(name, func(t *testing.T) {
			err := refuseProduction(t.Context(), protection(c.protected), c.stack)
			switch {
			case c.says == "" && err != nil:
				t.Errorf("refused: %v", err)
			case c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), "--yes")):
				t.Errorf("error %v, want one that says %q", err, c.says)
			}
		})
	}
}

// protection is a DynamoDB whose tables are protected from deletion, or not.
type protection bool

func (p protection) DescribeTable(context.Context, *dynamodb.DescribeTableInput, ...func(*dynamodb.Options)) (*dynamodb.DescribeTableOutput, error) {
	return &dynamodb.DescribeTableOutput{Table: &types.TableDescription{DeletionProtectionEnabled: aws.Bool(bool(p))}}, nil
}

func TestLoadRefusesWhatItCannotSend(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"--rate", "0"}, {"--rate", "501"}, {"--seconds", "0"}, {"--seconds", "3601"}, {"--wait-time", "2h"}} {
		var out, errOut bytes.Buffer
		if code := run(t.Context(), append([]string{"load"}, args...), strings.NewReader(""), &out, &errOut); code != exitUsage {
			t.Errorf("tidings load %v: exit code %d, want %d\n%s", args, code, exitUsage, errOut.String())
		}
	}
}
