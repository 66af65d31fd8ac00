package httpadapter_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/destination"
)

// FuzzHTTP2Frames: whatever bytes a receiver sends after the request, the attempt ends by
// its deadline, with at most one request on the wire; it is a success if and only if there
// is a status 2xx, and a failure says what happened.
func FuzzHTTP2Frames(f *testing.F) {
	frames := func(write func(*http2.Framer, func(fields ...string) []byte)) []byte {
		var out, block bytes.Buffer
		framer := http2.NewFramer(&out, nil)
		framer.AllowIllegalWrites = true
		encoder := hpack.NewEncoder(&block)
		write(framer, func(fields ...string) []byte {
			block.Reset()
			for i := 0; i < len(fields); i += 2 {
				_ = encoder.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]}) // to a bytes.Buffer
			}
			return bytes.Clone(block.Bytes())
		})
		return out.Bytes()
	}
	type encode = func(fields ...string) []byte
	headers := func(block []byte, end bool) http2.HeadersFrameParam {
		return http2.HeadersFrameParam{StreamID: 1, BlockFragment: block, EndStream: end, EndHeaders: true}
	}
	for _, seed := range [][]byte{
		frames(func(w *http2.Framer, e encode) { _ = w.WriteHeaders(headers(e(":status", "204"), true)) }),
		frames(func(w *http2.Framer, e encode) {
			_ = w.WriteHeaders(headers(e(":status", "500", "retry-after", "5"), false))
			_ = w.WriteData(1, true, []byte("why"))
		}),
		frames(func(w *http2.Framer, e encode) {
			_ = w.WriteHeaders(headers(e(":status", "103"), false))
			_ = w.WriteHeaders(headers(e(":status", "410"), true))
		}),
		frames(func(w *http2.Framer, _ encode) { _ = w.WriteRSTStream(1, http2.ErrCodeRefusedStream) }),
		frames(func(w *http2.Framer, _ encode) { _ = w.WriteGoAway(0, http2.ErrCodeNo, []byte("bye")) }),
		frames(func(w *http2.Framer, _ encode) { _ = w.WriteGoAway(1, http2.ErrCodeInternal, nil) }),
		frames(func(w *http2.Framer, _ encode) {
			_ = w.WriteSettings(http2.Setting{ID: http2.SettingMaxFrameSize, Val: 1})
		}),
		frames(func(w *http2.Framer, _ encode) { _ = w.WriteWindowUpdate(0, 1<<31-1) }),
		frames(func(w *http2.Framer, e encode) {
			_ = w.WritePushPromise(http2.PushPromiseParam{StreamID: 1, PromiseID: 2, BlockFragment: e(":method", "GET"), EndHeaders: true})
		}),
		frames(func(w *http2.Framer, e encode) {
			_ = w.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: e(":status", "200")})
			_ = w.WriteContinuation(1, true, e("x", "y"))
		}),
		[]byte("HTTP/1.1 200 OK\r\n\r\n"), {0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1}, {},
	} {
		f.Add(seed)
	}
	log.SetOutput(io.Discard) // net/http logs unknown frames
	template := httptest.NewUnstartedServer(nil)
	template.StartTLS()
	f.Cleanup(template.Close)
	roots := x509.NewCertPool()
	roots.AddCert(template.Certificate())
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: template.TLS.Certificates, NextProtos: []string{"h2"}})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = listener.Close() })
	answers := make(chan []byte, 1)
	var requests atomic.Int32
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return // the test is over
			}
			in := bufio.NewReader(conn)
			_, _ = io.ReadFull(in, make([]byte, len(http2.ClientPreface)))
			framer := http2.NewFramer(conn, in)
			_ = framer.WriteSettings()
			for answered := false; ; {
				frame, err := framer.ReadFrame()
				if err != nil {
					break
				}
				if _, ok := frame.(*http2.HeadersFrame); ok {
					requests.Add(1)
				}
				data, ok := frame.(*http2.DataFrame)
				if ok && data.StreamEnded() && !answered {
					answered = true
					_, _ = conn.Write(<-answers)
					_ = conn.(*tls.Conn).CloseWrite() // nothing follows
				}
			}
			_ = conn.Close()
		}
	}()
	const timeout = 2 * time.Second
	f.Fuzz(func(t *testing.T, answer []byte) {
		r := router(roots)
		defer r.Close()
		requests.Store(0)
		answers <- answer
		ctx, cancel := context.WithTimeout(t.Context(), timeout)
		defer cancel()
		began := time.Now()
		o := r.Deliver(ctx, destination.Target{ID: "e", URL: "https://" + listener.Addr().String() + "/"}, message)
		if took := time.Since(began); took > timeout+hang {
			t.Errorf("%x took %s", answer, took)
		}
		if requests.Load() > 1 {
			t.Errorf("%x made %d requests", answer, requests.Load())
		}
		if (o.Class == delivery.Success) != (o.Status >= 200 && o.Status <= 299) || o.Permanent {
			t.Errorf("outcome of %x = %+v", answer, o)
		}
		if o.Class != delivery.Success && (o.Error == "" || len(o.Error) > 256 || len(o.Snippet) > delivery.MaxSnippetBytes) {
			t.Errorf("outcome of %x = %+v, want a short error", answer, o)
		}
	})
}

// A connection that dies while a request is under way is found by PING frames, not only
// by the attempt's deadline.
func TestADeadHTTP2ConnectionEndsTheAttempt(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 7 s")
	}
	t.Parallel()
	template := httptest.NewUnstartedServer(nil)
	template.StartTLS()
	t.Cleanup(template.Close)
	roots := x509.NewCertPool()
	roots.AddCert(template.Certificate())
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: template.TLS.Certificates, NextProtos: []string{"h2"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	var pings atomic.Int32
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			return // the test is over
		}
		defer conn.Close()
		in := bufio.NewReader(conn)
		_, _ = io.ReadFull(in, make([]byte, len(http2.ClientPreface)))
		framer := http2.NewFramer(conn, in)
		_ = framer.WriteSettings()
		for {
			frame, err := framer.ReadFrame()
			if err != nil {
				return
			}
			if _, ok := frame.(*http2.PingFrame); ok {
				pings.Add(1) // and no answer
			}
		}
	}()
	r := router(roots)
	defer r.Close()
	const timeout = 5 * time.Minute
	began := time.Now()
	o := deliver(t, r, "https://"+listener.Addr().String()+"/", timeout)
	if o.Class != delivery.Protocol && o.Class != delivery.Connect || o.Permanent || pings.Load() == 0 || time.Since(began) > timeout/2 {
		t.Errorf("%+v after %s and %d PINGs", o, time.Since(began), pings.Load())
	}
}
