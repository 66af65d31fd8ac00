package lambdaevent_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/tidings-dev/tidings/pkg/aws/lambdaevent"
	"github.com/tidings-dev/tidings/test/jsontest"
)

// FuzzOf checks that a payload with a trigger has the names that AWS documents for it,
// and that errors are short.
func FuzzOf(f *testing.F) {
	for _, seed := range []string{
		``, `null`, `[]`, `{}`, `{"Records":[]}`, `{"Records":[{"eventSource":"aws:sqs"}]}`, `{"Records":[{"eventSource":"aws:dynamodb"}]}`, `{"Records":[{"eventSource":"aws:s3"}]}`,
		`{"Records":[{"eventSource":"` + strings.Repeat("x", 5000) + `"}]}`, `{"Records":5}`, `{"requestContext":{"http":{"method":"GET"}}}`, `{"requestContext":{"http":null}}`, `{"records":[{"EVENTSOURCE":"aws:sqs"}]}`, `{"action":"sweep"}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		payload, ok := jsontest.Comparable(payload, "Records", "eventSource", "requestContext", "http")
		kind, err := lambdaevent.Of(payload)
		if err != nil {
			if len(err.Error()) > 512 || kind != lambdaevent.Direct {
				t.Errorf("%s: an error of %d bytes", kind, len(err.Error()))
			}
			return
		}
		if kind == lambdaevent.Direct && !json.Valid(payload) {
			t.Fatal("what is not JSON is a direct invocation")
		}
		var names struct {
			Records        []map[string]any
			RequestContext map[string]any `json:"requestContext"`
		}
		read := ok && json.Unmarshal(payload, &names) == nil
		if wrong := kind == lambdaevent.FunctionURL && names.RequestContext == nil || (kind == lambdaevent.Stream || kind == lambdaevent.Queue) && len(names.Records) == 0; read && wrong {
			t.Errorf("%s is called a %s", payload, kind)
		}
	})
}
