//go:build rig

package hostile_test

import (
	"bytes"
	"encoding/binary"
	"io"
	"strings"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/protobuf/proto"

	"github.com/tidings-dev/tidings/pkg/delivery"
)

// session is the server's side of an HTTP/2 connection, frame by frame.
type session struct {
	*conn
	*http2.Framer
	block   bytes.Buffer
	encoder *hpack.Encoder

	mute      bool // does not acknowledge PING and SETTINGS
	keepsFull bool // does not open the window
}

// http2 begins a session with the settings.
func (c *conn) http2(settings ...http2.Setting) *session {
	s := &session{conn: c, Framer: http2.NewFramer(c.Conn, c.in)}
	s.AllowIllegalWrites, s.AllowIllegalReads = true, true
	s.encoder = hpack.NewEncoder(&s.block)
	_, _ = io.ReadFull(c.in, make([]byte, len(http2.ClientPreface)))
	_ = s.WriteSettings(settings...)
	return s
}

// read handles one frame; it returns the stream that a HEADERS frame opens, and whether
// the frame ends a stream.
func (s *session) read() (stream uint32, end bool, err error) {
	f, err := s.ReadFrame()
	if err != nil {
		return 0, false, err
	}
	switch f := f.(type) {
	case *http2.SettingsFrame:
		if !f.IsAck() && !s.mute {
			_ = s.WriteSettingsAck()
		}
	case *http2.PingFrame:
		if !f.IsAck() && !s.mute {
			_ = s.WritePing(true, f.Data)
		}
	case *http2.HeadersFrame:
		s.requests.Add(1)
		return f.StreamID, f.StreamEnded(), nil
	case *http2.DataFrame:
		if n := len(f.Data()); n > 0 && !s.keepsFull {
			_ = s.WriteWindowUpdate(0, uint32(n))
			_ = s.WriteWindowUpdate(f.StreamID, uint32(n))
		}
		return 0, f.StreamEnded(), nil
	}
	return 0, false, nil
}

// opened returns the stream of the next request, once its headers have arrived.
func (s *session) opened() uint32 {
	for {
		if stream, _, err := s.read(); err != nil || stream != 0 {
			return stream
		}
	}
}

// whole returns the stream of the next request, once all of it has arrived.
func (s *session) whole() uint32 {
	stream := s.opened()
	for stream != 0 {
		if _, end, err := s.read(); err != nil || end {
			break
		}
	}
	return stream
}

// rest counts further requests until the connection is closed.
func (s *session) rest() {
	for {
		if _, _, err := s.read(); err != nil {
			return
		}
	}
}

func (s *session) encode(fields ...string) []byte {
	s.block.Reset()
	for i := 0; i < len(fields); i += 2 {
		_ = s.encoder.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	return s.block.Bytes()
}

func (s *session) header(stream uint32, end bool, fields ...string) {
	_ = s.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: s.encode(fields...), EndStream: end, EndHeaders: true})
}

// begin sends the headers of a success.
func (s *session) begin(stream uint32) {
	if s.scheme == pubsub {
		s.header(stream, false, ":status", "200", "content-type", "application/grpc")
		return
	}
	s.header(stream, false, ":status", "200")
}

// receipt is Pub/Sub's answer to a publish request, as a gRPC message.
var receipt = func() []byte {
	body, err := proto.Marshal(&pubsubpb.PublishResponse{MessageIds: []string{"1"}})
	if err != nil {
		panic(err)
	}
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(body))), body...)
}()

// succeed answers as a good receiver does.
func (s *session) succeed(stream uint32) {
	s.begin(stream)
	if s.scheme == pubsub {
		_ = s.WriteData(stream, false, receipt)
		s.header(stream, true, "grpc-status", "0")
		return
	}
	_ = s.WriteData(stream, true, nil)
}

// endlessly writes frames until the connection breaks, while another goroutine reads.
func (s *session) endlessly(write func() error) {
	go s.rest()
	for write() == nil {
	}
}

func http2Behaviours() []behaviour {
	after := func(then func(*session, uint32)) func(*conn) {
		return func(c *conn) {
			s := c.http2()
			if stream := s.whole(); stream != 0 {
				then(s, stream)
			}
		}
	}
	restAfter := func(then func(*session, uint32)) func(*conn) {
		return after(func(s *session, stream uint32) {
			then(s, stream)
			s.rest()
		})
	}
	resets := func(code http2.ErrCode) func(*conn) {
		return func(c *conn) {
			s := c.http2()
			if stream := s.opened(); stream != 0 {
				_ = s.WriteRSTStream(stream, code)
				s.rest()
			}
		}
	}
	goaway := func(last uint32, code http2.ErrCode, closes bool) func(*conn) {
		return func(c *conn) {
			s := c.http2()
			if stream := s.opened(); stream != 0 {
				_ = s.WriteGoAway(last, code, []byte("debug data"))
				if closes {
					time.Sleep(20 * time.Millisecond) // so that the frame arrives before the end
					return
				}
				s.rest()
			}
		}
	}
	broken := func() map[string][]delivery.Class {
		return but(classes(delivery.Protocol), pubsub, delivery.Protocol, delivery.Connect, delivery.Answered)
	}
	brokenOrLate := func() map[string][]delivery.Class {
		return classes(delivery.Protocol, delivery.Timeout, delivery.Connect, delivery.Answered)
	}
	// gRPC's status is in the trailers, so that a success without them is none.
	success := func(pubsubs ...delivery.Class) map[string][]delivery.Class {
		return but(classes(delivery.Success), pubsub, pubsubs...)
	}
	list := []behaviour{
		{name: "reads the request and is silent", serve: after(func(s *session, _ uint32) { s.rest() }), want: classes(delivery.Timeout)},
		{name: "reads the request and answers no PING", serve: after(func(s *session, _ uint32) {
			s.mute = true
			s.rest()
		}), want: classes(delivery.Timeout)},
		{name: "sends no SETTINGS", serve: func(c *conn) { c.silent() }, want: classes(delivery.Timeout)},
		{name: "acknowledges no SETTINGS", serve: func(c *conn) {
			s := c.http2()
			s.mute = true
			s.succeed(s.whole())
			s.rest()
		}, want: classes(delivery.Success)},
		{name: "REFUSED_STREAM", serve: resets(http2.ErrCodeRefusedStream), want: broken()},
		{name: "RST_STREAM NO_ERROR", serve: resets(http2.ErrCodeNo), want: broken()},
		{name: "RST_STREAM PROTOCOL_ERROR", serve: resets(http2.ErrCodeProtocol), want: broken()},
		{name: "RST_STREAM INTERNAL_ERROR", serve: resets(http2.ErrCodeInternal), want: broken()},
		{name: "RST_STREAM CANCEL", serve: resets(http2.ErrCodeCancel), want: broken()},
		{name: "RST_STREAM ENHANCE_YOUR_CALM", serve: resets(http2.ErrCodeEnhanceYourCalm), want: but(broken(), pubsub, delivery.Throttled, delivery.Answered, delivery.Protocol)},
		{name: "RST_STREAM INADEQUATE_SECURITY", serve: resets(http2.ErrCodeInadequateSecurity), want: but(broken(), pubsub, delivery.Denied), permanent: true},
		{name: "RST_STREAM HTTP_1_1_REQUIRED", serve: resets(http2.ErrCodeHTTP11Required), want: broken()},
		{name: "RST_STREAM 0xffffffff", serve: resets(http2.ErrCode(0xffffffff)), want: broken()},
		{name: "GOAWAY 0, keeps the connection", serve: goaway(0, http2.ErrCodeNo, false), want: broken()},
		{name: "GOAWAY 0, closes", serve: goaway(0, http2.ErrCodeNo, true), want: broken()},
		{name: "GOAWAY 0 ENHANCE_YOUR_CALM", serve: goaway(0, http2.ErrCodeEnhanceYourCalm, true), want: broken()},
		{name: "GOAWAY 2^31-1, is silent", serve: goaway(1<<31-1, http2.ErrCodeNo, false), want: classes(delivery.Timeout)},
		{name: "GOAWAY 2^31-1, closes", serve: goaway(1<<31-1, http2.ErrCodeNo, true), want: broken()},
		{name: "GOAWAY twice, the second with a higher stream", serve: func(c *conn) {
			s := c.http2()
			if stream := s.opened(); stream != 0 {
				_ = s.WriteGoAway(0, http2.ErrCodeNo, nil)
				_ = s.WriteGoAway(5, http2.ErrCodeNo, nil)
				s.rest()
			}
		}, want: brokenOrLate()},
		{name: "GOAWAY, then answers", serve: restAfter(func(s *session, stream uint32) {
			_ = s.WriteGoAway(stream, http2.ErrCodeNo, nil)
			s.succeed(stream)
		}), want: classes(delivery.Success)},
		{name: "GOAWAY instead of SETTINGS", serve: func(c *conn) {
			s := &session{conn: c, Framer: http2.NewFramer(c.Conn, c.in)}
			_ = s.WriteGoAway(0, http2.ErrCodeInternal, nil)
			c.silent()
		}, want: brokenOrLate()},
		{name: "SETTINGS for ever", serve: after(func(s *session, _ uint32) {
			s.endlessly(func() error { return s.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 65535}) })
		}), want: brokenOrLate()},
		{name: "PING for ever", serve: after(func(s *session, _ uint32) { s.endlessly(func() error { return s.WritePing(false, [8]byte{1}) }) }), want: brokenOrLate()},
		{name: "PING acknowledgements for ever", serve: after(func(s *session, _ uint32) { s.endlessly(func() error { return s.WritePing(true, [8]byte{1}) }) }), want: brokenOrLate()},
		{name: "PRIORITY for ever", serve: after(func(s *session, stream uint32) {
			s.endlessly(func() error { return s.WritePriority(stream, http2.PriorityParam{Weight: 1}) })
		}), want: brokenOrLate()},
		{name: "RST_STREAM of closed streams for ever", serve: after(func(s *session, _ uint32) { s.endlessly(func() error { return s.WriteRSTStream(99, http2.ErrCodeNo) }) }), want: brokenOrLate()},
		{name: "unknown frames for ever", serve: after(func(s *session, stream uint32) {
			s.endlessly(func() error { return s.WriteRawFrame(0xee, 0, stream, make([]byte, 100)) })
		}), want: brokenOrLate()},
		{name: "empty DATA for ever", serve: after(func(s *session, stream uint32) {
			s.begin(stream)
			s.endlessly(func() error { return s.WriteData(stream, false, nil) })
		}), want: success(delivery.Timeout, delivery.Protocol, delivery.Answered, delivery.Connect)},
		{name: "CONTINUATION for ever", serve: after(func(s *session, stream uint32) {
			_ = s.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: s.encode(":status", "200")})
			more := bytes.Clone(s.encode("x-more", strings.Repeat("x", 1000)))
			s.endlessly(func() error { return s.WriteContinuation(stream, false, more) })
		}), want: brokenOrLate()},
		{name: "empty CONTINUATION for ever", serve: after(func(s *session, stream uint32) {
			_ = s.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: s.encode(":status", "200")})
			s.endlessly(func() error { return s.WriteContinuation(stream, false, nil) })
		}), want: brokenOrLate()},
		{name: "103 for ever", serve: after(func(s *session, stream uint32) {
			s.endlessly(func() error { s.header(stream, false, ":status", "103"); return s.WritePing(true, [8]byte{}) })
		}), want: brokenOrLate()},
		{name: "101 in HTTP/2", serve: restAfter(func(s *session, stream uint32) { s.header(stream, false, ":status", "101") }), want: brokenOrLate()},
		{name: "a window of 0 for ever", serve: func(c *conn) {
			s := c.http2(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
			s.keepsFull = true
			s.rest()
		}, want: classes(delivery.Timeout)},
		{name: "a window that never opens again", serve: func(c *conn) {
			s := c.http2()
			s.keepsFull = true
			s.rest()
		}, want: classes(delivery.Timeout)},
		{name: "a window of 0, answers early", serve: func(c *conn) {
			s := c.http2(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
			s.keepsFull = true
			s.succeed(s.opened())
			s.rest()
		}, want: success(delivery.Success, delivery.Protocol, delivery.Answered, delivery.Timeout)},
		{name: "answers early, then RST_STREAM NO_ERROR", serve: func(c *conn) {
			s := c.http2(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
			s.keepsFull = true
			stream := s.opened()
			s.succeed(stream)
			_ = s.WriteRSTStream(stream, http2.ErrCodeNo)
			s.rest()
		}, want: success(delivery.Success, delivery.Protocol, delivery.Answered, delivery.Timeout)},
		{name: "WINDOW_UPDATE of 0", serve: restAfter(func(s *session, stream uint32) {
			_ = s.WriteRawFrame(http2.FrameWindowUpdate, 0, stream, make([]byte, 4))
		}), want: brokenOrLate()},
		{name: "WINDOW_UPDATE overflows", serve: restAfter(func(s *session, _ uint32) {
			_ = s.WriteWindowUpdate(0, 1<<31-1)
			_ = s.WriteWindowUpdate(0, 1<<31-1)
		}), want: brokenOrLate()},
		{name: "allows no streams", serve: func(c *conn) { c.http2(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 0}).rest() }, want: classes(delivery.Timeout)},
		{name: "invalid SETTINGS", serve: func(c *conn) { c.http2(http2.Setting{ID: http2.SettingMaxFrameSize, Val: 1}).rest() }, want: brokenOrLate()},
		{name: "SETTINGS of a wrong length", serve: restAfter(func(s *session, _ uint32) { _ = s.WriteRawFrame(http2.FrameSettings, 0, 0, make([]byte, 5)) }), want: brokenOrLate()},
		{name: "a frame of 16 MB", serve: restAfter(func(s *session, stream uint32) {
			s.begin(stream)
			_, _ = s.Write([]byte{0xff, 0xff, 0xff, 0, 0, 0, 0, 0, byte(stream)})
		}), want: success(delivery.Timeout, delivery.Protocol, delivery.Connect, delivery.Answered)},
		{name: "a frame that ends in the middle", serve: after(func(s *session, stream uint32) {
			_, _ = s.Write([]byte{0, 0, 100, 1, 4, 0, 0, 0, byte(stream), 0x88})
		}), want: broken()},
		{name: "malformed HPACK", serve: restAfter(func(s *session, stream uint32) {
			_ = s.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, EndHeaders: true})
		}), want: broken()},
		{name: "HPACK bomb", serve: restAfter(func(s *session, stream uint32) {
			block := bytes.Clone(s.encode(":status", "200", "x-bomb", strings.Repeat("x", 3000)))
			_ = s.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: append(block, bytes.Repeat([]byte{0xbe}, 10000)...), EndHeaders: true})
		}), want: brokenOrLate()},
		{name: "no :status", serve: restAfter(func(s *session, stream uint32) { s.header(stream, true, "x", "y") }), want: broken()},
		{name: "a :status that is no number", serve: restAfter(func(s *session, stream uint32) { s.header(stream, true, ":status", "ok") }), want: broken()},
		{name: "two :status", serve: restAfter(func(s *session, stream uint32) { s.header(stream, true, ":status", "200", ":status", "500") }), want: brokenOrLate()},
		{name: "a header name in upper case", serve: restAfter(func(s *session, stream uint32) { s.header(stream, true, ":status", "500", "X-Upper", "y") }), want: brokenOrLate()},
		{name: "70 KB of headers", serve: restAfter(func(s *session, stream uint32) {
			s.encoder.SetMaxDynamicTableSize(0)
			block := bytes.Clone(s.encode(append([]string{":status", "200", "content-type", "application/grpc"}, slicesOf(70, "x-more", strings.Repeat("~", 1000))...)...))
			_ = s.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: block[:16000]})
			for block = block[16000:]; len(block) > 0; {
				n := min(len(block), 16000)
				_ = s.WriteContinuation(stream, n == len(block), block[:n])
				block = block[n:]
			}
			if s.scheme == pubsub {
				_ = s.WriteData(stream, false, receipt)
				s.header(stream, true, "grpc-status", "0")
				return
			}
			_ = s.WriteData(stream, true, nil)
		}), want: success(delivery.Success, delivery.Protocol, delivery.Answered, delivery.Connect)},
		{name: "DATA before HEADERS", serve: restAfter(func(s *session, stream uint32) { _ = s.WriteData(stream, true, []byte("x")) }), want: brokenOrLate()},
		{name: "DATA on stream 0", serve: restAfter(func(s *session, _ uint32) { _ = s.WriteData(0, true, []byte("x")) }), want: brokenOrLate()},
		{name: "HEADERS on a stream that was never opened", serve: restAfter(func(s *session, _ uint32) { s.header(98, true, ":status", "200") }), want: brokenOrLate()},
		{name: "PUSH_PROMISE", serve: restAfter(func(s *session, stream uint32) {
			_ = s.WritePushPromise(http2.PushPromiseParam{StreamID: stream, PromiseID: 2, BlockFragment: s.encode(":method", "GET"), EndHeaders: true})
		}), want: brokenOrLate()},
		{name: "CONTINUATION without HEADERS", serve: restAfter(func(s *session, stream uint32) { _ = s.WriteContinuation(stream, true, []byte{0x88}) }), want: brokenOrLate()},
		{name: "PING of a wrong length", serve: restAfter(func(s *session, _ uint32) { _ = s.WriteRawFrame(http2.FramePing, 0, 0, make([]byte, 7)) }), want: brokenOrLate()},
		{name: "padding longer than the frame", serve: restAfter(func(s *session, stream uint32) {
			_ = s.WriteRawFrame(http2.FrameHeaders, http2.FlagHeadersPadded|http2.FlagHeadersEndHeaders, stream, []byte{200, 0x88})
		}), want: brokenOrLate()},
		{name: "success without the end of the stream", serve: restAfter((*session).begin), want: success(delivery.Timeout)},
		{name: "success, then drips DATA", serve: after(func(s *session, stream uint32) {
			s.begin(stream)
			go s.rest()
			for s.WriteData(stream, false, []byte("x")) == nil {
				time.Sleep(20 * time.Millisecond) // how slow the receiver is
			}
		}), want: success(delivery.Timeout, delivery.Answered, delivery.Protocol, delivery.Connect, delivery.Throttled)},
		{name: "success, then endless DATA", serve: after(func(s *session, stream uint32) {
			s.begin(stream)
			go s.rest()
			for s.WriteData(stream, false, make([]byte, 1000)) == nil { // more than the client's window allows
			}
		}), want: success(delivery.Timeout, delivery.Answered, delivery.Protocol, delivery.Connect, delivery.Throttled)},
		{name: "success, then RST_STREAM", serve: restAfter(func(s *session, stream uint32) {
			s.begin(stream)
			_ = s.WriteRSTStream(stream, http2.ErrCodeInternal)
		}), want: success(delivery.Answered, delivery.Protocol)},
		{name: "success, then GOAWAY 0", serve: restAfter(func(s *session, stream uint32) {
			s.begin(stream)
			_ = s.WriteGoAway(0, http2.ErrCodeInternal, nil)
		}), want: success(delivery.Answered, delivery.Protocol, delivery.Connect, delivery.Timeout)},
		{name: "success, then closes in the body", serve: after((*session).begin), want: success(delivery.Connect, delivery.Protocol)},
		{name: "success, then resets in the body", serve: after(func(s *session, stream uint32) {
			s.begin(stream)
			time.Sleep(20 * time.Millisecond) // so that the response arrives before the reset
			s.reset()
		}), want: success(delivery.Connect, delivery.Protocol)},
		{name: "success with a wrong length", serve: restAfter(func(s *session, stream uint32) {
			s.header(stream, false, ":status", "200", "content-length", "5", "content-type", "application/grpc")
			_ = s.WriteData(stream, true, []byte("longer than five"))
		}), want: success(delivery.Answered, delivery.Protocol, delivery.Throttled)},
		{name: "closes without a response", serve: after(func(*session, uint32) {}), want: but(classes(delivery.Protocol, delivery.Connect), pubsub, delivery.Connect, delivery.Protocol)},
		{name: "resets without a response", serve: after(func(s *session, _ uint32) { s.reset() }), want: classes(delivery.Connect, delivery.Protocol)},
		{name: "answers in HTTP/1", serve: after(func(s *session, _ uint32) {
			s.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
			s.silent()
		}), want: brokenOrLate()},
	}
	for i := range list {
		list[i].layer, list[i].on = "HTTP/2", http2s
	}
	return list
}

func slicesOf(n int, pair ...string) (list []string) {
	for range n {
		list = append(list, pair...)
	}
	return list
}

// grpcBehaviours are about what gRPC adds to HTTP/2.
func grpcBehaviours() []behaviour {
	says := func(then func(*session, uint32)) func(*conn) {
		return func(c *conn) {
			s := c.http2()
			if stream := s.whole(); stream != 0 {
				then(s, stream)
				s.rest()
			}
		}
	}
	status := func(code string) func(*conn) {
		return says(func(s *session, stream uint32) {
			s.header(stream, true, ":status", "200", "content-type", "application/grpc", "grpc-status", code, "grpc-message", "%zz\x01")
		})
	}
	failure := func() map[string][]delivery.Class { return classes(delivery.Answered, delivery.Protocol) }
	list := []behaviour{
		{name: "gRPC status UNAVAILABLE", serve: status("14"), want: classes(delivery.Connect, delivery.Answered)},
		{name: "gRPC status UNKNOWN", serve: status("2"), want: failure()},
		{name: "gRPC status 4711", serve: status("4711"), want: failure()},
		{name: "gRPC status that is no number", serve: status("fine"), want: failure()},
		{name: "gRPC status CANCELLED", serve: status("1"), want: failure()},
		{name: "gRPC without status", serve: says(func(s *session, stream uint32) {
			s.begin(stream)
			_ = s.WriteData(stream, false, receipt)
			s.header(stream, true, "x", "y")
		}), want: failure()},
		{name: "gRPC success without a message", serve: says(func(s *session, stream uint32) {
			s.header(stream, true, ":status", "200", "content-type", "application/grpc", "grpc-status", "0")
		}), want: failure()},
		{name: "gRPC with a message of 2 GB", serve: says(func(s *session, stream uint32) {
			s.begin(stream)
			_ = s.WriteData(stream, false, []byte{0, 0x7f, 0xff, 0xff, 0xff})
		}), want: classes(delivery.Throttled, delivery.Answered, delivery.Protocol)},
		{name: "gRPC with an unknown compression", serve: says(func(s *session, stream uint32) {
			s.header(stream, false, ":status", "200", "content-type", "application/grpc", "grpc-encoding", "rot13")
			_ = s.WriteData(stream, false, append([]byte{1}, receipt[1:]...))
			s.header(stream, true, "grpc-status", "0")
		}), want: failure()},
		{name: "gRPC with a message that is no protobuf", serve: says(func(s *session, stream uint32) {
			s.begin(stream)
			_ = s.WriteData(stream, false, []byte{0, 0, 0, 0, 3, 0xff, 0xff, 0xff})
			s.header(stream, true, "grpc-status", "0")
		}), want: failure()},
		{name: "a proxy's 502 with HTML", serve: says(func(s *session, stream uint32) {
			s.header(stream, false, ":status", "502", "content-type", "text/html")
			_ = s.WriteData(stream, true, []byte("<h1>Bad Gateway</h1>"))
		}), want: classes(delivery.Connect, delivery.Answered, delivery.Protocol)},
	}
	for i := range list {
		list[i].layer, list[i].on = "gRPC", []string{pubsub}
	}
	return list
}
