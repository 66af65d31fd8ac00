package local

import "github.com/tidings-dev/tidings/pkg/local/sqsapi"

// sqsPort is the port of the SQS API, counted from the first one.
const sqsPort = 7

// listenSQS has Run serve the queues of the stack through the SQS API, for `aws sqs
// --endpoint-url` and for functions that run outside of this process.
func (s *System) listenSQS() (err error) {
	api := sqsapi.New()
	for _, q := range s.Queues {
		api.Serve(q)
	}
	s.SQSURL, err = s.Listen(sqsPort, withKey(s.Access.Key, api))
	return err
}
