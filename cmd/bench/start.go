package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"time"
)

// packageInit finds the milliseconds of each package in GODEBUG=inittrace=1.
var packageInit = regexp.MustCompile(`(?m)^init \S+ @\S+ ms, ([0-9.]+) ms clock`)

// measureStart builds each function as it is deployed and starts it.
func measureStart(ctx context.Context, r *Report, _ options) error {
	dir, err := os.MkdirTemp("", "tidings-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	mains, err := filepath.Glob("functions/*/main.go")
	if err != nil {
		return err
	}
	t := r.table("start", "Start of each function (binary as deployed, this machine's architecture)", "function", "binary, MB", "zip, MB", "package init, ms", "process start to end, ms")
	t.Notes = []string{"Outside Lambda a function ends as soon as it is initialised. Clients are built at their first use, so a first invocation adds the handshakes with DynamoDB, SQS and the receiver, which this machine has none of."}
	for _, main := range mains {
		name := filepath.Base(filepath.Dir(main))
		path := filepath.Join(dir, name)
		build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-tags", "lambda.norpc", "-ldflags", "-s -w", "-o", path, "./functions/"+name)
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %w\n%s", name, err, out)
		}
		file, err := os.Stat(path)
		if err != nil {
			return err
		}
		zipped, err := zippedSize(path)
		if err != nil {
			return err
		}
		var inits, starts []float64
		for range 7 {
			c := exec.CommandContext(ctx, path)
			c.Env = append(os.Environ(), "GODEBUG=inittrace=1")
			began := time.Now()
			out, _ := c.CombinedOutput() // it ends with an error: this is no Lambda
			starts = append(starts, float64(time.Since(began).Microseconds())/1000)
			sum := 0.0
			for _, m := range packageInit.FindAllSubmatch(out, -1) {
				ms, err := strconv.ParseFloat(string(m[1]), 64)
				if err != nil {
					return err
				}
				sum += ms
			}
			inits = append(inits, sum)
		}
		t.add(name, of(float64(file.Size())/1e6), of(float64(zipped)/1e6), of(inits...), of(starts...))
	}
	return nil
}
