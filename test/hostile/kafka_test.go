//go:build rig

package hostile_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"io"
	"math/big"
	"net"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/tidings-dev/tidings/pkg/delivery"
)

// Keys of Kafka's requests (kafka.apache.org/protocol).
const (
	produce     = 0
	metadata    = 3
	apiVersions = 18
)

// address is a listener's address that differs from its own, for the broker to advertise.
type advertised struct {
	net.Listener
	cell *cell
}

type address string

func (address) Network() string  { return "tcp" }
func (a address) String() string { return string(a) }

func (a advertised) Addr() net.Addr { return address(a.cell.address) }

// broker starts a Kafka broker behind the behaviour.
func (c *cell) broker() (stop func(), err error) {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "events"), kfake.ListenFn(func(network, _ string) (net.Listener, error) {
		l, err := net.Listen(network, "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		c.backend = l.Addr().String()
		return advertised{l, c}, nil
	}))
	if err != nil {
		return nil, err
	}
	return cluster.Close, nil
}

// relay carries requests to the broker and its responses back, one after the other. It
// counts produce requests. At the first response to a request of the key, then decides
// what happens: it returns the bytes to send, and whether to go on.
func (c *conn) relay(key uint16, then func(response []byte) (send []byte, goOn bool)) {
	back, err := net.Dial("tcp", c.backend)
	if err != nil {
		return
	}
	defer back.Close()
	for {
		request, err := frame(c.in)
		if err != nil {
			return
		}
		kind := binary.BigEndian.Uint16(request[4:])
		if kind == produce {
			c.requests.Add(1)
		}
		if _, err := back.Write(request); err != nil {
			return
		}
		response, err := frame(back)
		if err != nil {
			return
		}
		goOn := true
		if kind == key {
			response, goOn = then(response)
		}
		if !c.send(string(response)) || !goOn {
			return
		}
	}
}

// frame reads a request or a response with its length.
func frame(r io.Reader) ([]byte, error) {
	head := make([]byte, 4)
	if _, err := io.ReadFull(r, head); err != nil {
		return nil, err
	}
	whole := append(head, make([]byte, binary.BigEndian.Uint32(head))...)
	_, err := io.ReadFull(r, whole[4:])
	return whole, err
}

func kafkaBehaviours() (list []behaviour) {
	phases := []struct {
		name string
		key  uint16
	}{{"ApiVersions", apiVersions}, {"Metadata", metadata}, {"Produce", produce}}
	anyFailure := classes(delivery.Timeout, delivery.Protocol, delivery.Connect, delivery.Answered, delivery.Missing)
	for _, phase := range phases {
		at := func(name string, want map[string][]delivery.Class, then func(c *conn, response []byte) (send []byte, goOn bool)) {
			list = append(list, behaviour{layer: "Kafka", name: phase.name + ": " + name, on: []string{kafka}, want: want, serve: func(c *conn) {
				c.relay(phase.key, func(response []byte) ([]byte, bool) { return then(c, response) })
			}})
		}
		at("no response", classes(delivery.Timeout), func(c *conn, _ []byte) ([]byte, bool) {
			c.silent()
			return nil, false
		})
		at("closes instead", classes(delivery.Protocol, delivery.Connect), func(*conn, []byte) ([]byte, bool) { return nil, false })
		at("resets instead", classes(delivery.Connect, delivery.Protocol), func(c *conn, _ []byte) ([]byte, bool) {
			c.reset()
			return nil, false
		})
		at("half of the response, then silence", classes(delivery.Timeout), func(c *conn, response []byte) ([]byte, bool) {
			c.send(string(response[:len(response)/2]))
			c.silent()
			return nil, false
		})
		at("half of the response, then closes", classes(delivery.Protocol, delivery.Connect), func(_ *conn, response []byte) ([]byte, bool) {
			return response[:len(response)/2], false
		})
		at("drips the response", anyFailure, func(c *conn, response []byte) ([]byte, bool) {
			for _, b := range response[:len(response)-1] {
				if !c.send(string([]byte{b})) {
					break
				}
				time.Sleep(40 * time.Millisecond) // how slow the broker is
			}
			return nil, false
		})
		at("a length of 2 GB", anyFailure, func(c *conn, response []byte) ([]byte, bool) {
			binary.BigEndian.PutUint32(response, 1<<31-1)
			c.send(string(response))
			c.silent()
			return nil, false
		})
		at("a negative length", anyFailure, func(c *conn, response []byte) ([]byte, bool) {
			binary.BigEndian.PutUint32(response, 1<<32-5)
			c.send(string(response))
			c.silent()
			return nil, false
		})
		at("a length of 0", anyFailure, func(c *conn, response []byte) ([]byte, bool) {
			c.send("\x00\x00\x00\x00")
			c.silent()
			return nil, false
		})
		at("another correlation id", anyFailure, func(c *conn, response []byte) ([]byte, bool) {
			response[7]++
			c.send(string(response))
			c.silent()
			return nil, false
		})
		at("garbage of the right length", anyFailure, func(c *conn, response []byte) ([]byte, bool) {
			for i := 8; i < len(response); i++ {
				response[i] = 0xff
			}
			c.send(string(response))
			c.silent()
			return nil, false
		})
	}
	for i := range list {
		if strings.HasSuffix(list[i].name, "Metadata: garbage of the right length") {
			list[i].permanent = true // it says that there is no topic
		}
	}
	return list
}

// throttled is a connection that carries only so many more bytes to its other side.
type throttled struct {
	net.Conn
	left int
}

func (t *throttled) Write(b []byte) (int, error) {
	n := min(len(b), t.left)
	t.left -= n
	if n == 0 {
		return len(b), nil
	}
	if _, err := t.Conn.Write(b[:n]); err != nil {
		return 0, err
	}
	return len(b), nil
}

func selfSigned() tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		panic(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}
