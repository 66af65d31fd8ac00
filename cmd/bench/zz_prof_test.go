package main

import (
	"fmt"
	"os"
	"runtime/pprof"
	"strconv"
	"testing"
)

func TestProfileEngine(t *testing.T) {
	to, err := http2()
	if err != nil {
		t.Fatal(err)
	}
	e, err := newEngine(to + "/swallow/")
	if err != nil {
		t.Fatal(err)
	}
	n, _ := strconv.Atoi(os.Getenv("N"))
	if n == 0 {
		n = 60000
	}
	b, _ := strconv.Atoi(os.Getenv("B"))
	if b == 0 {
		b = 10
	}
	if _, err := e.deliver(1, 1000); err != nil {
		t.Fatal(err)
	}
	if p := os.Getenv("PROF"); p != "" {
		f, _ := os.Create(p)
		payloads, _ := e.payloads(n)
		_ = payloads
		pprof.StartCPUProfile(f)
		defer f.Close()
		defer pprof.StopCPUProfile()
	}
	for range 3 {
		var bare pace
		if os.Getenv("PROF") == "" {
			var err error
			bare, err = e.bare(b*10, n)
			if err != nil {
				t.Fatal(err)
			}
		}
		p, err := e.deliver(b, n)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Printf("bare %.0f/s %.1fµs  engine %.0f/s %.1f µs  ratio %.2f %.2f allocs %.0f %.1f KB\n", bare.rate, bare.cpu, p.rate, p.cpu, p.rate/bare.rate, p.cpu/bare.cpu, p.allocs, p.bytes/1024)
	}
}
func http2() (string, error) { return os.Getenv("TO"), nil }
