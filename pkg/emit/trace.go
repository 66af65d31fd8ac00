package emit

import (
	"context"
	"strings"
)

// traceHeader returns the X-Ray header of the invocation. The Lambda runtime
// puts it into the context under this name (aws-lambda-go, lambda/handler.go).
func traceHeader(ctx context.Context) string {
	header, _ := ctx.Value("x-amzn-trace-id").(string)
	return header
}

// traceRoot returns the trace id (1-…-…) in an X-Ray header.
func traceRoot(header string) string {
	for part := range strings.SplitSeq(header, ";") {
		if root, ok := strings.CutPrefix(part, "Root="); ok {
			return root
		}
	}
	return ""
}
