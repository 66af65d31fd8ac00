package functionurl

import (
	"encoding/json"
	"fmt"

	"github.com/aws/aws-lambda-go/events"

	"github.com/tidings-dev/tidings/pkg/onepass"
)

// ReadRequest reads what Lambda invokes a function with for a request to its URL,
// as encoding/json reads it; what is unusual, it leaves to that.
func ReadRequest(payload []byte) (events.LambdaFunctionURLRequest, error) {
	var in events.LambdaFunctionURLRequest
	if err := onepass.Read(payload, func(r *onepass.Reader) error { return readRequest(r, &in) }); err == nil {
		return in, nil
	}
	in = events.LambdaFunctionURLRequest{}
	if err := json.Unmarshal(payload, &in); err != nil {
		return in, fmt.Errorf("function URL request: %w", err)
	}
	return in, nil
}

func readRequest(r *onepass.Reader, to *events.LambdaFunctionURLRequest) error {
	return r.Object(func(name []byte) error {
		switch string(name) {
		case "version":
			return r.String(&to.Version)
		case "rawPath":
			return r.String(&to.RawPath)
		case "rawQueryString":
			return r.String(&to.RawQueryString)
		case "cookies":
			return r.Array(func() error {
				var cookie string
				err := r.String(&cookie)
				to.Cookies = append(to.Cookies, cookie)
				return err
			})
		case "headers":
			return readStrings(r, &to.Headers)
		case "queryStringParameters":
			return readStrings(r, &to.QueryStringParameters)
		case "requestContext":
			return readContext(r, &to.RequestContext)
		case "body":
			return r.String(&to.Body)
		case "isBase64Encoded":
			return r.Bool(&to.IsBase64Encoded)
		}
		return r.Skip()
	})
}

func readStrings(r *onepass.Reader, to *map[string]string) error {
	return r.Object(func(text []byte) error {
		if *to == nil {
			*to = map[string]string{}
		}
		name, value := string(text), ""
		err := r.String(&value)
		(*to)[name] = value
		return err
	})
}

func readContext(r *onepass.Reader, to *events.LambdaFunctionURLRequestContext) error {
	return r.Object(func(name []byte) error {
		switch string(name) {
		case "accountId":
			return r.String(&to.AccountID)
		case "requestId":
			return r.String(&to.RequestID)
		case "authorizer":
			value, err := r.Raw()
			if err != nil {
				return err
			}
			return json.Unmarshal(value, &to.Authorizer)
		case "apiId":
			return r.String(&to.APIID)
		case "domainName":
			return r.String(&to.DomainName)
		case "domainPrefix":
			return r.String(&to.DomainPrefix)
		case "time":
			return r.String(&to.Time)
		case "timeEpoch":
			var epoch int
			err := r.Int(&epoch)
			to.TimeEpoch = int64(epoch)
			return err
		case "http":
			return r.Object(func(name []byte) error {
				switch string(name) {
				case "method":
					return r.String(&to.HTTP.Method)
				case "path":
					return r.String(&to.HTTP.Path)
				case "protocol":
					return r.String(&to.HTTP.Protocol)
				case "sourceIp":
					return r.String(&to.HTTP.SourceIP)
				case "userAgent":
					return r.String(&to.HTTP.UserAgent)
				}
				return r.Skip()
			})
		}
		return r.Skip()
	})
}
