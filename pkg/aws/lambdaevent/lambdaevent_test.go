package lambdaevent

import "testing"

func TestOf(t *testing.T) {
	for name, c := range map[string]struct {
		payload string
		want    Kind
		fails   bool
	}{
		"a DynamoDB stream batch":                {payload: `{"Records":[{"eventSource":"aws:dynamodb"}]}`, want: Stream},
		"an SQS batch":                           {payload: `{"Records":[{"eventSource":"aws:sqs","body":"{}"}]}`, want: Queue},
		"a function URL request":                 {payload: `{"version":"2.0","requestContext":{"http":{"method":"POST"}}}`, want: FunctionURL},
		"a schedule's own input":                 {payload: `{"action":"sweep"}`, want: Direct},
		"a list":                                 {payload: `[{"event":"x"}]`, want: Direct},
		"a name used for something else":         {payload: `{"Records":"mine"}`, want: Direct},
		"an empty list of records":               {payload: `{"Records":[]}`, want: Direct},
		"records of a source nobody here serves": {payload: `{"Records":[{"eventSource":"aws:s3"}]}`, fails: true},
		"no JSON":                                {payload: `{"Records":`, fails: true},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Of([]byte(c.payload))
			if (err != nil) != c.fails || (err == nil && got != c.want) {
				t.Errorf("Of = %v, %v; want %v, failing %v", got, err, c.want, c.fails)
			}
		})
	}
}
