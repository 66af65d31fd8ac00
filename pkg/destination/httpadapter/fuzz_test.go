package httpadapter_test

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/destination/httpadapter"
)

const year = 365 * 24 * time.Hour

// FuzzRetryAfter: the result is between 0 and a year, whole seconds are returned
// unchanged, and a date gives the time until then.
func FuzzRetryAfter(f *testing.F) {
	now := time.Date(2026, 1, 29, 12, 0, 0, 0, time.UTC)
	for _, seed := range []string{"", "0", "5", "-5", "+5", "1e3", "120 ", "5.5", "99999999999999999999", "Thu, 29 Jan 2026 12:00:05 GMT", "Thursday, 29-Jan-26 12:00:05 GMT", "Thu Jan 29 12:00:05 2026", "Thu, 29 Jan 9999 12:00:05 GMT", "Thu, 29 Jan 1970 12:00:05 GMT", "soon", "５"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, header string) {
		wait := httpadapter.ParseRetryAfter(header, now)
		if wait < 0 || wait > year {
			t.Errorf("%q is parsed as %s", header, wait)
		}
		if n, err := strconv.Atoi(strings.TrimSpace(header)); err == nil && n >= 0 && n < 1_000_000 && wait != time.Duration(n)*time.Second {
			t.Errorf("%q is parsed as %s", header, wait)
		}
		if at, err := http.ParseTime(strings.TrimSpace(header)); err == nil && wait != min(max(at.Sub(now), 0), year) && at.Year() < 2200 {
			t.Errorf("%q is parsed as %s", header, wait)
		}
		if wait > 0 {
			at := now.Add(wait).Format(http.TimeFormat)
			if again := httpadapter.ParseRetryAfter(at, now); wait < year && again != wait {
				t.Errorf("%q is parsed as %s, but the equivalent %q as %s", header, wait, at, again)
			}
		}
	})
}

// FuzzAnswer: the outcome is Success if and only if the response begins with a valid
// HTTP response with status 2xx. What is kept of a response is short and printable.
func FuzzAnswer(f *testing.F) {
	for _, seed := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "HTTP/1.1 204 No Content\r\n\r\n", "HTTP/1.0 200 OK\r\n\r\nrest", "HTTP/1.1 500 x\r\nRetry-After: 5\r\n\r\nwhy\x00\x1b[31m \xff",
		"HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
		"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 410 Gone\r\n\r\n", "HTTP/1.1 101 Switching\r\n\r\n", "HTTP/2 200\r\n\r\n", "HTTP/1.1 2000 x\r\n\r\n",
		"", "\n", "HTTP/1.1 200", "hello", "HTTP/1.1 429 x\r\nRetry-After: Thu, 29 Jan 2099 12:00:05 GMT\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
		"\x16\x03\x01\x00", "HTTP/1.1 503 x\r\nContent-Length: 99\r\n\r\nearly",
	} {
		f.Add([]byte(seed))
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = listener.Close() })
	answers := make(chan []byte, 1)
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return // the test is over
			}
			if r, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
				_, _ = io.Copy(io.Discard, r.Body)
				_, _ = conn.Write(<-answers)
			}
			_ = conn.Close()
		}
	}()
	f.Fuzz(func(t *testing.T, answer []byte) {
		if len(answer) > 32*1024 {
			return // net/http rejects longer headers
		}
		// A new connection per response, because a reused one may break during the next request.
		r := router(nil)
		defer r.Close()
		answers <- answer
		o := deliver(t, r, "http://"+listener.Addr().String()+"/", 20*time.Second)
		if (o.Class == delivery.Success) != (o.Status >= 200 && o.Status <= 299) || o.Permanent {
			t.Errorf("outcome of %q = %+v", answer, o)
		}
		if first, ok := final(answer); ok && (o.Class == delivery.Success) != (first >= 200 && first <= 299) {
			t.Errorf("outcome of %q = %+v, but its status is %d", answer, o, first)
		}
		if o.Class == delivery.Success {
			if o.Snippet != "" || len(o.Error) > 256 {
				t.Errorf("outcome of a success = %+v, want no snippet and a short note", o)
			}
			return
		}
		if o.Error == "" || len(o.Error) > 256 || len(o.Snippet) > delivery.MaxSnippetBytes || !utf8.ValidString(o.Snippet) || strings.ContainsFunc(o.Snippet, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("outcome of %q has error %q, snippet %q", answer, o.Error, o.Snippet)
		}
		if o.RetryAfter < 0 || o.RetryAfter > year {
			t.Errorf("outcome of %q has RetryAfter %s", answer, o.RetryAfter)
		}
	})
}

// final returns the first status in the bytes that is not an informational one (1xx),
// or false if net/http cannot parse them.
func final(answer []byte) (status int, ok bool) {
	in := bufio.NewReader(bytes.NewReader(answer))
	for range 5 {
		response, err := http.ReadResponse(in, &http.Request{Method: http.MethodPost})
		if err != nil {
			return 0, false
		}
		if response.StatusCode >= 200 || response.StatusCode == http.StatusSwitchingProtocols {
			return response.StatusCode, true
		}
	}
	return 0, false
}
