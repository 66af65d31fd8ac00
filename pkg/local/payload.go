package local

import (
	"crypto/md5"
	"encoding/hex"
	"errors"
	"strconv"

	"github.com/aws/aws-lambda-go/events"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/tidings-dev/tidings/pkg/local/queue"
)

// payloadOptions write payloads as AWS does, at a speed that leaves the machine to
// the functions: aws-lambda-go writes each attribute by reflection.
var payloadOptions = json.JoinOptions(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true), json.WithMarshalers(json.MarshalToFunc(writeAttribute)))

// writeAttribute writes the two types that the tables of this project use.
func writeAttribute(enc *jsontext.Encoder, v events.DynamoDBAttributeValue) error {
	var kind, text string
	switch v.DataType() {
	case events.DataTypeString:
		kind, text = "S", v.String()
	case events.DataTypeNumber:
		kind, text = "N", v.Number()
	default:
		return errors.ErrUnsupported // by the type's own method
	}
	return errors.Join(enc.WriteToken(jsontext.BeginObject), enc.WriteToken(jsontext.String(kind)), enc.WriteToken(jsontext.String(text)), enc.WriteToken(jsontext.EndObject))
}

// payload collects what is written. With it, the library writes in pieces; json.Marshal
// would grow a buffer to the size of the whole and copy it, which was a sixth of all that
// the runner allocates.
type payload []byte

func (p *payload) Write(piece []byte) (int, error) {
	*p = append(*p, piece...)
	return len(piece), nil
}

// marshal returns a payload of about size bytes.
func marshal(v any, size int) ([]byte, error) {
	p := make(payload, 0, size)
	err := json.MarshalWrite(&p, v, payloadOptions)
	return p, err
}

// streamPayload is the payload of a stream's batch.
func streamPayload(records []events.DynamoDBEventRecord) ([]byte, error) {
	size := 64
	for _, r := range records {
		size += 512 + int(r.Change.SizeBytes)*5/4
	}
	return marshal(events.DynamoDBEvent{Records: records}, size)
}

// queueRecord is a message in the payload of a queue's batch.
type queueRecord struct {
	MessageID     string `json:"messageId"`
	ReceiptHandle string `json:"receiptHandle"`
	Body          string `json:"body"`
	MD5           string `json:"md5OfBody"`
	Attributes    struct {
		Receives string `json:"ApproximateReceiveCount"`
		First    string `json:"ApproximateFirstReceiveTimestamp"`
		Sent     string `json:"SentTimestamp"`
		Sender   string `json:"SenderId"`
		Group    string `json:"MessageGroupId"`
	} `json:"attributes"`
	MessageAttributes struct{} `json:"messageAttributes"`
	Source            string   `json:"eventSource"`
	SourceARN         string   `json:"eventSourceARN"`
	Region            string   `json:"awsRegion"`
}

// queuePayload is the payload of a batch from a queue.
func queuePayload(batch []queue.Message, arn, region string) ([]byte, error) {
	records := make([]queueRecord, len(batch))
	size := 64
	for i, m := range batch {
		size += 512 + len(m.Body)*5/4
		sum := md5.Sum([]byte(m.Body)) // SQS's MD5OfBody
		r := &records[i]
		*r = queueRecord{MessageID: m.ID, ReceiptHandle: m.Receipt, Body: m.Body, MD5: hex.EncodeToString(sum[:]), Source: "aws:sqs", SourceARN: arn, Region: region}
		r.Attributes.Receives = strconv.Itoa(m.Receives)
		r.Attributes.First = strconv.FormatInt(m.First.UnixMilli(), 10)
		r.Attributes.Sent = strconv.FormatInt(m.Sent.UnixMilli(), 10)
		r.Attributes.Sender, r.Attributes.Group = "local", m.Group
	}
	return marshal(map[string][]queueRecord{"Records": records}, size)
}

// urlPayload is the payload of a request to a function URL.
func urlPayload(in events.LambdaFunctionURLRequest) ([]byte, error) {
	return marshal(in, 1024+len(in.Body)*5/4)
}

// readURLAnswer reads a function's answer to a request to its URL. ok is false if the
// answer itself is the body.
func readURLAnswer(answer []byte) (out events.LambdaFunctionURLResponse, ok bool) {
	var read struct {
		Status *int `json:"statusCode"`
		events.LambdaFunctionURLResponse
	}
	err := json.Unmarshal(answer, &read, jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	if err != nil || read.Status == nil {
		return out, false
	}
	out = read.LambdaFunctionURLResponse
	out.StatusCode = *read.Status
	return out, true
}
