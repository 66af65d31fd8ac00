package main

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// usage is the CPU time and memory that a process uses.
type usage struct {
	CPU time.Duration
	RSS float64 // MB, now
}

// ticks are the kernel's units of CPU time in /proc (USER_HZ, 100 on every Linux).
const ticks = 100

// used returns the usage of a process.
func used(pid int) (u usage, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return u, fmt.Errorf("usage is read from /proc, on Linux only: %w", err)
	}
	// The name in parentheses may contain any character.
	_, rest, _ := strings.Cut(string(text[bytes.LastIndexByte(text, ')'):]), " ")
	fields := strings.Fields(rest)
	if len(fields) < 22 {
		return u, fmt.Errorf("/proc/%d/stat has %d fields", pid, len(fields))
	}
	user, err := strconv.Atoi(fields[11])
	if err != nil {
		return u, err
	}
	system, err := strconv.Atoi(fields[12])
	if err != nil {
		return u, err
	}
	pages, err := strconv.Atoi(fields[21])
	if err != nil {
		return u, err
	}
	return usage{time.Duration(user+system) * time.Second / ticks, float64(pages) * float64(os.Getpagesize()) / 1e6}, nil
}

// ownCPU returns the CPU time of this process, with microseconds.
func ownCPU() time.Duration {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		return 0
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}
