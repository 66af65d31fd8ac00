package local

import (
	"crypto/md5"
	"encoding/hex"
	"fmt"
	"strconv"
	"unicode/utf8"

	"github.com/aws/aws-lambda-go/events"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/tidings-dev/tidings/pkg/local/queue"
	"github.com/tidings-dev/tidings/pkg/onepass"
)

// On AWS somebody else writes the payloads that functions are invoked with. Here
// they are written by appending: the writing of them is not what the runner is for.
// They read as what encoding/json makes of aws-lambda-go's types.

// text appends a string; what is not UTF-8 becomes U+FFFD.
func text(to []byte, value string) []byte {
	begun := len(to)
	to = append(to, '"')
	from := 0
	for i := 0; i < len(value); {
		if i+8 <= len(value) && ordinary(value[i:i+8]) {
			i += 8
			continue
		}
		switch c := value[i]; {
		case c >= utf8.RuneSelf:
			to, _ = jsontext.AppendQuote(to[:begun], value) // the error says that there was U+FFFD to write
			return to
		case c < ' ':
			to = append(append(to, value[from:i]...), '\\', 'u', '0', '0', "0123456789abcdef"[c>>4], "0123456789abcdef"[c&0xf])
			from = i + 1
		case c == '"' || c == '\\':
			to = append(append(to, value[from:i]...), '\\', c)
			from = i + 1
		}
		i++
	}
	return append(append(to, value[from:]...), '"')
}

// ordinary tells whether none of eight bytes needs an escape or is a part of a
// character beyond ASCII. It looks at all eight in one word.
func ordinary(s string) bool {
	const each, high = 0x0101010101010101, 0x8080808080808080
	w := uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24 | uint64(s[4])<<32 | uint64(s[5])<<40 | uint64(s[6])<<48 | uint64(s[7])<<56
	quote, backslash := w^each*'"', w^each*'\\'
	return (w|(w-each*' ')&^w|(quote-each)&^quote|(backslash-each)&^backslash)&high == 0
}

// member appends a name, which needs no escapes, and a string.
func member(to []byte, name, value string) []byte {
	to = append(append(append(to, '"'), name...), `":`...)
	return text(to, value)
}

// streamPayload is the payload of a stream's batch.
func streamPayload(records []events.DynamoDBEventRecord) ([]byte, error) {
	size := 64
	for _, r := range records {
		size += 768 + int(r.Change.SizeBytes)
	}
	to := append(make([]byte, 0, size), `{"Records":[`...)
	var err error
	for i, r := range records {
		if i > 0 {
			to = append(to, ',')
		}
		to = append(to, '{')
		to = append(member(to, "eventID", r.EventID), ',')
		to = append(member(to, "eventName", r.EventName), ',')
		to = append(member(to, "eventVersion", r.EventVersion), ',')
		to = append(member(to, "eventSource", r.EventSource), ',')
		to = append(member(to, "awsRegion", r.AWSRegion), ',')
		to = append(member(to, "eventSourceARN", r.EventSourceArn), ',')
		if u := r.UserIdentity; u != nil {
			to = append(to, `"userIdentity":{`...)
			to = append(member(to, "type", u.Type), ',')
			to = append(member(to, "principalId", u.PrincipalID), `},`...)
		}
		to = append(to, `"dynamodb":{"ApproximateCreationDateTime":`...)
		at, failed := r.Change.ApproximateCreationDateTime.MarshalJSON()
		if failed != nil {
			return nil, fmt.Errorf("stream record %s: %w", r.Change.SequenceNumber, failed)
		}
		to = append(append(to, at...), ',')
		for _, image := range []struct {
			name       string
			attributes map[string]events.DynamoDBAttributeValue
		}{{"Keys", r.Change.Keys}, {"NewImage", r.Change.NewImage}, {"OldImage", r.Change.OldImage}} {
			if to, err = appendImage(to, image.name, image.attributes); err != nil {
				return nil, fmt.Errorf("stream record %s: %w", r.Change.SequenceNumber, err)
			}
		}
		to = append(member(to, "SequenceNumber", r.Change.SequenceNumber), `,"SizeBytes":`...)
		to = append(strconv.AppendInt(to, r.Change.SizeBytes, 10), ',')
		to = append(member(to, "StreamViewType", r.Change.StreamViewType), `}}`...)
	}
	return append(to, `]}`...), nil
}

func appendImage(to []byte, name string, image map[string]events.DynamoDBAttributeValue) ([]byte, error) {
	if len(image) == 0 {
		return to, nil
	}
	to = append(append(append(to, '"'), name...), `":{`...)
	for attribute, value := range image {
		to = append(text(to, attribute), ':')
		switch value.DataType() {
		case events.DataTypeString:
			to = append(member(append(to, '{'), "S", value.String()), `},`...)
		case events.DataTypeNumber:
			to = append(member(append(to, '{'), "N", value.Number()), `},`...)
		default:
			other, err := value.MarshalJSON()
			if err != nil {
				return nil, fmt.Errorf("attribute %q: %w", attribute, err)
			}
			to = append(append(to, other...), ',')
		}
	}
	return append(to[:len(to)-1], `},`...), nil
}

// queuePayload is the payload of a batch from a queue.
func queuePayload(batch []queue.Message, arn, region string) []byte {
	size := 64
	for _, m := range batch {
		size += 512 + len(m.Body)*5/4
	}
	to := append(make([]byte, 0, size), `{"Records":[`...)
	for i, m := range batch {
		if i > 0 {
			to = append(to, ',')
		}
		to = append(to, '{')
		to = append(member(to, "messageId", m.ID), ',')
		to = append(member(to, "receiptHandle", m.Receipt), ',')
		to = append(member(to, "body", m.Body), `,"md5OfBody":"`...)
		sum := md5.Sum([]byte(m.Body)) // what SQS calls MD5OfBody
		to = append(hex.AppendEncode(to, sum[:]), `","attributes":{"ApproximateReceiveCount":"`...)
		to = append(strconv.AppendInt(to, int64(m.Receives), 10), `","ApproximateFirstReceiveTimestamp":"`...)
		to = append(strconv.AppendInt(to, m.First.UnixMilli(), 10), `","SentTimestamp":"`...)
		to = append(strconv.AppendInt(to, m.Sent.UnixMilli(), 10), `","SenderId":"local",`...)
		to = append(member(to, "MessageGroupId", m.Group), `},"messageAttributes":{},"eventSource":"aws:sqs",`...)
		to = append(member(to, "eventSourceARN", arn), ',')
		to = append(member(to, "awsRegion", region), '}')
	}
	return append(to, `]}`...)
}

// urlPayload is the payload of a request to a function URL.
func urlPayload(in events.LambdaFunctionURLRequest) []byte {
	to := append(make([]byte, 0, 2048+len(in.Body)*5/4), '{')
	to = append(member(to, "version", in.Version), ',')
	to = append(member(to, "rawPath", in.RawPath), ',')
	to = append(member(to, "rawQueryString", in.RawQueryString), ',')
	if len(in.Cookies) > 0 {
		to = append(to, `"cookies":[`...)
		for i, c := range in.Cookies {
			if i > 0 {
				to = append(to, ',')
			}
			to = text(to, c)
		}
		to = append(to, `],`...)
	}
	to = append(members(to, "headers", in.Headers), ',')
	if len(in.QueryStringParameters) > 0 {
		to = append(members(to, "queryStringParameters", in.QueryStringParameters), ',')
	}
	c := in.RequestContext
	to = append(to, `"requestContext":{`...)
	to = append(member(to, "accountId", c.AccountID), ',')
	to = append(member(to, "requestId", c.RequestID), ',')
	to = append(member(to, "apiId", c.APIID), ',')
	to = append(member(to, "domainName", c.DomainName), ',')
	to = append(member(to, "domainPrefix", c.DomainPrefix), ',')
	to = append(member(to, "time", c.Time), `,"timeEpoch":`...)
	to = append(strconv.AppendInt(to, c.TimeEpoch, 10), `,"http":{`...)
	to = append(member(to, "method", c.HTTP.Method), ',')
	to = append(member(to, "path", c.HTTP.Path), ',')
	to = append(member(to, "protocol", c.HTTP.Protocol), ',')
	to = append(member(to, "sourceIp", c.HTTP.SourceIP), ',')
	to = append(member(to, "userAgent", c.HTTP.UserAgent), `}},`...)
	if in.Body != "" {
		to = append(member(to, "body", in.Body), ',')
	}
	to = strconv.AppendBool(append(to, `"isBase64Encoded":`...), in.IsBase64Encoded)
	return append(to, '}')
}

func members(to []byte, name string, values map[string]string) []byte {
	to = append(append(append(to, '"'), name...), `":{`...)
	for name, value := range values {
		to = append(text(to, name), ':')
		to = append(text(to, value), ',')
	}
	if len(values) > 0 {
		to = to[:len(to)-1]
	}
	return append(to, '}')
}

// readURLAnswer reads what a function has answered a request to its URL with; ok is
// false for an answer that is itself the body.
func readURLAnswer(answer []byte) (out events.LambdaFunctionURLResponse, ok bool) {
	err := onepass.Read(answer, func(r *onepass.Reader) error {
		return r.Object(func(name []byte) error {
			switch string(name) {
			case "statusCode":
				out.StatusCode = noStatus
				err := r.Int(&out.StatusCode)
				ok = out.StatusCode != noStatus
				return err
			case "headers":
				return r.Object(func(text []byte) error {
					if out.Headers == nil {
						out.Headers = map[string]string{}
					}
					name, value := string(text), ""
					err := r.String(&value)
					out.Headers[name] = value
					return err
				})
			case "body":
				return r.String(&out.Body)
			case "isBase64Encoded":
				return r.Bool(&out.IsBase64Encoded)
			case "cookies":
				return r.Array(func() error {
					var cookie string
					err := r.String(&cookie)
					out.Cookies = append(out.Cookies, cookie)
					return err
				})
			}
			return r.Skip()
		})
	})
	return out, ok && err == nil
}

// noStatus is no status of HTTP's; null leaves it.
const noStatus = -1
