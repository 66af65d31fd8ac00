package brokers

import "testing"

func TestPortsAreDifferent(t *testing.T) {
	for range 50 {
		list, err := ports(20)
		if err != nil {
			t.Fatal(err)
		}
		seen := map[int]bool{}
		for _, p := range list {
			if seen[p] {
				t.Fatalf("port %d twice in %v", p, list)
			}
			seen[p] = true
		}
	}
}
