package memory_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/store/dynamoitem"
	"github.com/tidings-dev/tidings/pkg/store/memory"
	"github.com/tidings-dev/tidings/test/storetest"
)

func TestConformance(t *testing.T) {
	storetest.Run(t, func(*testing.T) storetest.Store { return memory.New(time.Now) })
}

func put(t *testing.T, s *memory.Store, n int) event.Accepted {
	t.Helper()
	a := event.Accepted{ID: event.NewID(time.Now()), Tenant: "t", Body: fmt.Appendf(nil, `{"n":%d}`, n)}
	if err := s.PutEvent(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	return a
}

func TestFeedReturnsEveryEventInOrder(t *testing.T) {
	s := memory.New(time.Now)
	var want []string
	for n := range 250 {
		want = append(want, put(t, s, n).ID)
	}
	after := ""
	var got []string
	for len(got) < len(want) {
		page, err := s.Records(t.Context(), dynamoitem.Events, after, 100)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range page {
			a, err := dynamoitem.EventFromImage(r.Change.NewImage)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, a.ID)
		}
		after = page[len(page)-1].Change.SequenceNumber
		s.Trim(dynamoitem.Events, after) // like a stream's retention
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Error("the feed is out of order or incomplete")
	}
}

func TestRecordsWaitsForTheNextRecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memory.New(time.Now)
		got := make(chan int)
		go func() {
			page, err := s.Records(t.Context(), dynamoitem.Events, "", 10)
			if err != nil {
				t.Error(err)
			}
			got <- len(page)
		}()
		synctest.Wait() // the reader waits
		put(t, s, 1)
		if n := <-got; n != 1 {
			t.Errorf("%d records", n)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := s.Records(ctx, dynamoitem.Events, "000000000000000000001", 10); err == nil {
			t.Error("Records ignores the end of its context")
		}
	})
}
