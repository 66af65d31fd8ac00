package local

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/aws/aws-lambda-go/events"
	"github.com/google/uuid"

	"github.com/tidings-dev/tidings/pkg/local/samtemplate"
	"github.com/tidings-dev/tidings/pkg/ops/tracing"
)

// maxPayload is Lambda's limit for a synchronous invocation and for a function URL
// request, in bytes (AWS Lambda Developer Guide, "Lambda quotas").
const maxPayload = 6 * 1024 * 1024

// InvokeAPI serves Lambda's Invoke operation, so that the AWS CLI and SDKs can call
// the functions. It does not check credentials; withKey does.
func InvokeAPI(functions []*Function) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /2015-03-31/functions/{name}/invocations", func(w http.ResponseWriter, r *http.Request) {
		f := findFunction(functions, r.PathValue("name"))
		if f == nil {
			apiError(w, http.StatusNotFound, "ResourceNotFoundException",
				fmt.Sprintf("function %s does not exist; the functions are %s", r.PathValue("name"), strings.Join(folders(functions), ", ")))
			return
		}
		payload, err := readAll(w, r)
		if err != nil {
			apiError(w, http.StatusRequestEntityTooLarge, "RequestTooLargeException", "the payload exceeds 6 MB")
			return
		}
		if len(payload) == 0 {
			payload = []byte("{}")
		}
		if !json.Valid(payload) {
			apiError(w, http.StatusBadRequest, "InvalidRequestContentException", "Could not parse request body into json")
			return
		}
		invoke(w, r, f, payload)
	})
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		for _, f := range functions {
			fmt.Fprintf(w, "aws lambda invoke --endpoint-url http://%s --function-name %s --payload … out.json\n", r.Host, f.Folder)
		}
	})
	return mux
}

// readAll reads a request's body, up to maxPayload, into a buffer of its declared size.
func readAll(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	body := bytes.NewBuffer(make([]byte, 0, min(max(r.ContentLength, 0), maxPayload)+bytes.MinRead))
	_, err := body.ReadFrom(http.MaxBytesReader(w, r.Body, maxPayload))
	return body.Bytes(), err
}

// traceContext is a request's context with the X-Ray header of the caller.
func traceContext(r *http.Request) context.Context {
	return tracing.WithHeader(r.Context(), r.Header.Get("X-Amzn-Trace-Id"))
}

func invoke(w http.ResponseWriter, r *http.Request, f *Function, payload []byte) {
	w.Header().Set("X-Amzn-Requestid", uuid.NewString())
	switch r.Header.Get("X-Amz-Invocation-Type") {
	case "DryRun":
		w.WriteHeader(http.StatusNoContent)
		return
	case "Event":
		go func() {
			if _, err := f.Invoke(context.WithoutCancel(traceContext(r)), payload); err != nil {
				f.Log.Error("asynchronous invocation failed", "function", f.Folder, "error", err.Error())
			}
		}()
		w.WriteHeader(http.StatusAccepted)
		return
	}
	answer, err := f.Invoke(traceContext(r), payload)
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Amz-Executed-Version", "$LATEST")
	var failure *Failure
	if errors.As(err, &failure) {
		w.Header().Set("X-Amz-Function-Error", "Unhandled")
		answer, err = json.Marshal(failure)
	}
	if err != nil {
		apiError(w, http.StatusInternalServerError, "ServiceException", err.Error())
		return
	}
	_, _ = w.Write(answer) // fails only if the client has disconnected
}

// findFunction returns the function with a folder name, full name or ARN, with or
// without the alias; nil if there is none.
func findFunction(functions []*Function, name string) *Function {
	name = strings.TrimSuffix(name, ":"+samtemplate.Alias)
	i := slices.IndexFunc(functions, func(f *Function) bool { return name == f.Folder || name == f.Name || name == f.ARN })
	if i < 0 {
		return nil
	}
	return functions[i]
}

func folders(functions []*Function) []string {
	var names []string
	for _, f := range functions {
		names = append(names, f.Folder)
	}
	return names
}

func apiError(w http.ResponseWriter, status int, kind, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Amzn-Errortype", kind)
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"Type": "User", "Message": message, "message": message})
}

// FunctionURL serves a function over HTTP like a Lambda function URL, with payload
// format version 2.0.
func FunctionURL(f *Function) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := readAll(w, r)
		if err != nil {
			apiError(w, http.StatusRequestEntityTooLarge, "RequestTooLargeException", "the request exceeds 6 MB")
			return
		}
		var answer []byte
		payload, err := urlPayload(urlRequest(r, body))
		if err == nil {
			answer, err = f.Invoke(traceContext(r), payload)
		}
		if err != nil {
			apiError(w, http.StatusBadGateway, "InternalServerErrorException", "Internal Server Error")
			return
		}
		writeURLResponse(w, answer)
	})
}

func urlRequest(r *http.Request, body []byte) events.LambdaFunctionURLRequest {
	now := time.Now()
	in := events.LambdaFunctionURLRequest{
		Version: "2.0", RawPath: r.URL.EscapedPath(), RawQueryString: r.URL.RawQuery,
		Headers: map[string]string{"host": r.Host},
		Body:    string(body),
		RequestContext: events.LambdaFunctionURLRequestContext{
			AccountID: "anonymous", APIID: "local", DomainName: r.Host, RequestID: uuid.NewString(),
			Time: now.UTC().Format("02/Jan/2006:15:04:05 -0700"), TimeEpoch: now.UnixMilli(),
			HTTP: events.LambdaFunctionURLRequestContextHTTPDescription{
				Method: r.Method, Path: r.URL.Path, Protocol: r.Proto, UserAgent: r.UserAgent(),
			},
		},
	}
	if host, _, err := net.SplitHostPort(r.RemoteAddr); err == nil {
		in.RequestContext.HTTP.SourceIP = host
	}
	for name, values := range r.Header {
		if name == "Cookie" {
			continue
		}
		in.Headers[strings.ToLower(name)] = strings.Join(values, ",")
	}
	for _, c := range r.Cookies() {
		in.Cookies = append(in.Cookies, c.Name+"="+c.Value)
	}
	if query := r.URL.Query(); len(query) > 0 {
		in.QueryStringParameters = map[string]string{}
		for name, values := range query {
			in.QueryStringParameters[name] = strings.Join(values, ",")
		}
	}
	if !utf8.Valid(body) {
		in.Body, in.IsBase64Encoded = base64.StdEncoding.EncodeToString(body), true
	}
	return in
}

// writeURLResponse writes a function's result as an HTTP response. A result without a
// statusCode is the body itself (AWS Lambda Developer Guide, "Invoking Lambda function
// URLs", response payload format).
func writeURLResponse(w http.ResponseWriter, answer []byte) {
	out, ok := readURLAnswer(answer)
	if !ok {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(answer)
		return
	}
	body := []byte(out.Body)
	if out.IsBase64Encoded {
		decoded, err := base64.StdEncoding.DecodeString(out.Body)
		if err != nil {
			apiError(w, http.StatusBadGateway, "InternalServerErrorException", "Internal Server Error")
			return
		}
		body = decoded
	}
	for name, value := range out.Headers {
		w.Header().Set(name, value)
	}
	for _, cookie := range out.Cookies {
		w.Header().Add("Set-Cookie", cookie)
	}
	w.WriteHeader(out.StatusCode)
	_, _ = w.Write(body)
}
