package emit_test

import (
	"encoding/json"
	"strings"
	"testing"

	emithandler "github.com/tidings-dev/tidings/functions/emit/handler"
)

// BenchmarkList accepts a list of 100 events of half a kilobyte by function URL.
func BenchmarkList(b *testing.B) {
	one := `{"event":"user.posted_comment","actor_user_id":"u_1042","data":{"discussion_id":"d_7","comment_id":"m_1","comment_text":"` + strings.Repeat("Who brings the projector? ", 10) + `"}}`
	payload, err := json.Marshal(url("POST", "["+strings.Repeat(one+",", 99)+one+"]"))
	if err != nil {
		b.Fatal(err)
	}
	em, _ := newEmitter()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := emithandler.Route(em)(b.Context(), payload); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkEvent accepts one event of half a kilobyte per request.
func BenchmarkEvent(b *testing.B) {
	payload, err := json.Marshal(url("POST", `{"event":"user.posted_comment","actor_user_id":"u_1042","data":{"discussion_id":"d_7","comment_id":"m_1","comment_text":"`+strings.Repeat("Who brings the projector? ", 10)+`"}}`))
	if err != nil {
		b.Fatal(err)
	}
	em, _ := newEmitter()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := emithandler.Route(em)(b.Context(), payload); err != nil {
			b.Fatal(err)
		}
	}
}
