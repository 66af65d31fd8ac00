// Package xraytest is an X-Ray daemon for tests: a UDP socket that receives a tracer's
// datagrams. It promises to report what X-Ray would refuse: the daemon's header line,
// the limit of 64 KiB, and the forms of ids, times, names and annotations (AWS X-Ray
// Developer Guide, "Segment documents").
package xraytest

import (
	"bytes"
	"encoding/json"
	"net"
	"regexp"
	"testing"
	"time"
)

// MaxDocument is X-Ray's limit on a document, in bytes.
const MaxDocument = 64 * 1024

// Document is a segment document.
type Document struct {
	TraceID     string         `json:"trace_id"`
	ID          string         `json:"id"`
	ParentID    string         `json:"parent_id"`
	Name        string         `json:"name"`
	Type        string         `json:"type"`
	Namespace   string         `json:"namespace"`
	StartTime   float64        `json:"start_time"`
	EndTime     float64        `json:"end_time"`
	InProgress  bool           `json:"in_progress"`
	Error       bool           `json:"error"`
	Fault       bool           `json:"fault"`
	Throttle    bool           `json:"throttle"`
	Annotations map[string]any `json:"annotations"`
	Raw         string         `json:"-"`
}

// Collector is a daemon.
type Collector struct {
	Address string

	t         testing.TB
	documents chan Document
}

// New starts a daemon for the duration of the test.
func New(t testing.TB) *Collector {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &Collector{Address: conn.LocalAddr().String(), t: t, documents: make(chan Document, 10_000)}
	done := make(chan struct{})
	t.Cleanup(func() {
		_ = conn.Close()
		<-done // the goroutine calls t.Errorf
	})
	go func() {
		defer close(done)
		buf := make([]byte, 1<<16)
		for {
			n, _, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			c.take(buf[:n])
		}
	}()
	return c
}

var (
	header     = []byte(`{"format": "json", "version": 1}` + "\n")
	traceForm  = regexp.MustCompile(`^1-[0-9a-f]{8}-[0-9a-f]{24}$`)
	idForm     = regexp.MustCompile(`^[0-9a-f]{16}$`)
	nameForm   = regexp.MustCompile(`^[\p{L}\p{N}\p{Z}_.:/%&#=+\\\-@]{1,200}$`)
	annotation = regexp.MustCompile(`^[A-Za-z0-9_]{1,500}$`)
)

func (c *Collector) take(datagram []byte) {
	text, ok := bytes.CutPrefix(datagram, header)
	if !ok {
		c.t.Errorf("the datagram does not begin with the daemon's header: %.80q", datagram)
		return
	}
	if len(text) > MaxDocument {
		c.t.Errorf("a document of %d bytes; X-Ray's limit is %d", len(text), MaxDocument)
	}
	d := Document{Raw: string(text)}
	if err := json.Unmarshal(text, &d); err != nil {
		c.t.Errorf("the document is not JSON: %v", err)
		return
	}
	for what, ok := range map[string]bool{
		"trace_id":                            traceForm.MatchString(d.TraceID),
		"id":                                  idForm.MatchString(d.ID),
		"name":                                nameForm.MatchString(d.Name),
		"parent_id, which a subsegment needs": d.Type != "subsegment" || idForm.MatchString(d.ParentID),
		"type":                                d.Type == "subsegment", // Lambda sends the segments
		"namespace":                           d.Namespace == "remote" || d.Namespace == "aws" || d.Namespace == "",
		"times":                               d.StartTime > 1.7e9 && d.EndTime >= d.StartTime && d.EndTime < d.StartTime+3600,
		"in_progress beside end_time":         !d.InProgress,
		"the number of annotations":           len(d.Annotations) <= 50,
		"throttle without error":              !d.Throttle || d.Error,
	} {
		if !ok {
			c.t.Errorf("invalid %s in %s", what, text)
		}
	}
	for key, value := range d.Annotations {
		scalar := false
		switch v := value.(type) {
		case string:
			scalar = len(v) <= 1000
		case float64, bool:
			scalar = true
		}
		if !annotation.MatchString(key) || !scalar {
			c.t.Errorf("annotation %s: %v is invalid", key, value)
		}
	}
	c.documents <- d
}

// Next waits for a document.
func (c *Collector) Next() Document {
	c.t.Helper()
	select {
	case d := <-c.documents:
		return d
	case <-time.After(30 * time.Second):
		c.t.Fatal("no document arrived within 30 s")
		return Document{}
	}
}

// Rest returns the documents that Next has not returned.
func (c *Collector) Rest() (list []Document) {
	for {
		select {
		case d := <-c.documents:
			list = append(list, d)
		default:
			return list
		}
	}
}
