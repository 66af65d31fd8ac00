package memory_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/store/memory"
)

// FuzzDueCursor: a valid cursor leads to due deliveries only, in order. Errors are short.
func FuzzDueCursor(f *testing.F) {
	for _, seed := range []string{"", "x", "1/a/b", "1/a", "-1//", "9223372036854775807/a/b", "9223372036854775808/a/b", "1/a/b/c", strings.Repeat("x", 1000)} {
		f.Add(seed)
	}
	start := time.UnixMilli(1_770_000_000_000).UTC()
	f.Fuzz(func(t *testing.T, cursor string) {
		s := memory.New(func() time.Time { return start })
		due := 0
		for i := range 40 {
			k := delivery.Key{EndpointID: "ep_1", EventID: fmt.Sprintf("01KDJ00000000000000000%04d", i)}
			d, err := s.Claim(t.Context(), delivery.Claim{Key: k, Tenant: "t", Accepted: start, ID: "c", Now: start, Lease: time.Minute})
			if err != nil {
				t.Fatal(err)
			}
			d.State, d.DueAt, d.NextAttemptAt = delivery.Pending, start.Add(time.Duration(i)*time.Second), start
			if d.DueShard() == 0 {
				due++
			}
			if err := s.Complete(t.Context(), d); err != nil {
				t.Fatal(err)
			}
		}
		page, _, err := s.Due(t.Context(), 0, start.Add(20*time.Second), cursor, 100)
		if err != nil {
			if len(err.Error()) > 1024 {
				t.Errorf("an error of %d bytes", len(err.Error()))
			}
			return
		}
		if due == 0 || len(page) > due || cursor == "" && len(page) == 0 {
			t.Fatalf("%d of %d", len(page), due)
		}
		for i, d := range page {
			if d.DueAt.After(start.Add(20*time.Second)) || i > 0 && d.DueAt.Before(page[i-1].DueAt) {
				t.Errorf("cursor %q leads to %+v", cursor, page)
			}
		}
	})
}
