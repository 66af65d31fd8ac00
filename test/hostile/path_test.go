//go:build rig

package hostile_test

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery"
)

// healthy serves a connection as a good receiver does, until stop says so.
func (c *conn) healthy(stop func() bool) {
	switch c.scheme {
	case kafka:
		c.relay(produce, func(response []byte) ([]byte, bool) { return response, !stop() })
	case httpsH2, pubsub:
		s := c.http2()
		for {
			stream := s.whole()
			if stream == 0 || stop() {
				return
			}
			s.succeed(stream)
		}
	default:
		body := ""
		if c.scheme == sqs {
			body = sent
		}
		for c.request() && !stop() {
			c.send("HTTP/1.1 200 OK\r\nContent-Length: " + strconv.Itoa(len(body)) + "\r\n\r\n" + body)
		}
	}
}

// path is the network between the adapter and the receiver.
type path struct {
	// dead is the number of the first connection that works: the network no longer
	// carries what is sent on earlier ones, and tells nobody.
	dead atomic.Int64
}

func never() bool { return false }

func pathBehaviours() []behaviour {
	var list []behaviour
	add := func(name string, on []string, serve func(*cell, *conn), attempts func(*cell) string) {
		for _, scheme := range on {
			list = append(list, behaviour{layer: "path", name: name, on: []string{scheme}, serve: func(c *conn) { serve(c.cell, c) }, attempts: attempts})
		}
	}
	succeed := func(c *cell, n int) string {
		for i := range n {
			if o, wrong := c.attempt(); wrong != "" || o.Class != delivery.Success {
				return fmt.Sprintf("attempt %d: %+v %s", i+1, o, wrong)
			}
		}
		return ""
	}
	// paths by cell: behaviours are shared, cells are not.
	var paths sync.Map
	of := func(c *cell) *path {
		p, _ := paths.LoadOrStore(c, &path{})
		return p.(*path)
	}
	add("the network drops all connections without FIN", schemes, func(c *cell, k *conn) {
		k.healthy(func() bool {
			if k.number >= of(c).dead.Load() {
				return false
			}
			k.silent()
			return true
		})
	}, func(c *cell) string {
		var warm sync.WaitGroup
		for range 6 {
			warm.Go(func() { c.attempt() })
		}
		warm.Wait()
		if wrong := succeed(c, 1); wrong != "" {
			return "before: " + wrong
		}
		of(c).dead.Store(c.accepted.Load() + 1)
		failed := 0
		for range 12 {
			o, wrong := c.attempt()
			if wrong != "" {
				return wrong
			}
			if o.Class != delivery.Success {
				failed++
			}
		}
		if failed > 1 {
			return fmt.Sprintf("%d of 12 attempts failed, want at most 1", failed)
		}
		return ""
	})
	add("closes each connection a moment after the response", []string{plainHTTP, httpsH1, httpsH2, sqs}, func(_ *cell, k *conn) {
		answered := false
		k.healthy(func() bool {
			if answered {
				return true
			}
			answered = true
			time.AfterFunc(30*time.Millisecond, func() { _ = k.raw.Close() })
			return false
		})
	}, func(c *cell) string {
		for i := range 5 {
			if o, wrong := c.attempt(); wrong != "" || o.Class != delivery.Success {
				return fmt.Sprintf("attempt %d: %+v %s", i+1, o, wrong)
			}
			time.Sleep(100 * time.Millisecond) // the connection is closed meanwhile
		}
		if c.requests.Load() != 5 {
			return fmt.Sprintf("%d requests for 5 attempts", c.requests.Load())
		}
		return ""
	})
	add("recovers after a timeout", schemes, func(_ *cell, k *conn) {
		if k.number == 1 {
			k.silent()
			return
		}
		k.healthy(never)
	}, func(c *cell) string {
		if o, wrong := c.attempt(); wrong != "" || o.Class != delivery.Timeout {
			return fmt.Sprintf("the first: %+v %s", o, wrong)
		}
		return succeed(c, 3)
	})
	add("refuses connections", schemes, func(*cell, *conn) {}, func(c *cell) string {
		c.target.URL = replacePort(c.target.URL)
		if slices.Contains([]string{sqs, pubsub}, c.scheme) {
			return "" // their address is not in the URL; the conformance suite has it
		}
		o, wrong := c.attempt()
		if wrong == "" && o.Class != delivery.Connect {
			wrong = fmt.Sprintf("%+v", o)
		}
		return wrong
	})
	// One table row per behaviour, not per scheme.
	var rows []behaviour
	for _, b := range list {
		if n := len(rows); n > 0 && rows[n-1].name == b.name {
			rows[n-1].on = append(rows[n-1].on, b.on...)
			continue
		}
		rows = append(rows, b)
	}
	return rows
}

// replacePort replaces the URL's port by 1, where nothing listens.
func replacePort(url string) string {
	begin := strings.LastIndex(url, ":") + 1
	end := begin + strings.IndexFunc(url[begin:]+"/", func(r rune) bool { return r < '0' || r > '9' })
	return url[:begin] + "1" + url[end:]
}
