package main

import "testing"

func TestWhatWasOfferedAndTaken(t *testing.T) {
	for _, c := range []struct {
		fan, rate int
		delivered float64
		want      string
	}{
		{1, 50, 49.9, "load"},
		{10, 200, 1990, "load"},
		{10, 1000, 6000, "load: offered, and 600/s taken"},
		{10, 0, 6000, "load"}, // flat out, nothing is offered
	} {
		if got := offered("load", c.fan, c.rate, c.delivered); got != c.want {
			t.Errorf("%d events/s to %d endpoints, %v delivered: %q, want %q", c.rate, c.fan, c.delivered, got, c.want)
		}
	}
}
