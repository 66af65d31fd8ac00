// Package onepass reads JSON whose form is known, looking at each byte once and
// keeping only what is asked for. It is for what every delivery goes through (a
// batch of messages, a work item, an event's body), where encoding/json, which
// reads twice and by reflection, was a third of the time. It promises to refuse
// what encoding/json refuses and to mean by a value what encoding/json means, with
// two differences: names are compared exactly, and an object or a list whose name
// stands twice is read twice, into what the reading makes of that.
package onepass

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync"
	"time"
	"unicode/utf8"

	// What Go 1.27 has as encoding/json/jsontext, by the same hands.
	"github.com/go-json-experiment/json/jsontext"
)

// Reader reads one text, value by value. Each method reads the next value; one
// that reads null leaves things as they are, as encoding/json does. After an error
// nothing more may be read.
type Reader struct {
	text   []byte
	buffer bytes.Buffer
	in     jsontext.Decoder
}

var readers = sync.Pool{New: func() any { return new(Reader) }}

// ErrDone ends the reading where a callback returns it: the rest is not looked at.
var ErrDone = errors.New("done")

var errEmpty = errors.New("no value stands there")

// Read calls value to read the text's one value, and fails if more follows it.
// The reader is not to be kept.
func Read(text []byte, value func(*Reader) error) error {
	r := readers.Get().(*Reader)
	defer func() {
		r.text, r.buffer = nil, bytes.Buffer{} // the text is the caller's
		r.in.Reset(&r.buffer)
		readers.Put(r)
	}()
	r.text, r.buffer = text, *bytes.NewBuffer(text)
	// As encoding/json has it: whoever repeats a name means the last, and U+FFFD
	// stands for what is no character. An event that was accepted must be read.
	r.in.Reset(&r.buffer, jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	if err := value(r); err == ErrDone {
		return nil
	} else if err == io.EOF {
		return errEmpty
	} else if err != nil {
		return err
	}
	if _, err := r.in.ReadToken(); err != io.EOF {
		return fmt.Errorf("something follows the value at byte %d", r.in.InputOffset())
	}
	return nil
}

// Object reads an object and calls field at each value, with its name. field must
// read the value; the name is good for as long as it runs, and until it reads.
func (r *Reader) Object(field func(name []byte) error) error {
	return r.between('{', func() error {
		quoted, err := r.in.ReadValue()
		if err != nil {
			return err
		}
		name := quoted[1 : len(quoted)-1]
		if bytes.IndexByte(name, '\\') >= 0 || !utf8.Valid(name) {
			name = unquoted(quoted)
		}
		return field(name)
	})
}

// Array reads an array and calls element at each element, which it must read.
func (r *Reader) Array(element func() error) error { return r.between('[', element) }

// between reads what stands between a kind's delimiters.
func (r *Reader) between(kind jsontext.Kind, each func() error) error {
	if null, err := r.null(); null || err != nil {
		return err
	}
	begin, err := r.in.ReadToken()
	if err != nil {
		return err
	}
	if begin.Kind() != kind {
		return r.unexpected(begin.Kind(), kind.String())
	}
	for {
		switch r.in.PeekKind() {
		case '}', ']', 0:
			_, err := r.in.ReadToken()
			return err
		}
		if err := each(); err != nil {
			return err
		}
	}
}

// unexpected is the error about the value that was just read.
func (r *Reader) unexpected(kind jsontext.Kind, want string) error {
	return fmt.Errorf("%s%s stands where %s should", r.where(), kind, want)
}

// where names the value that was just read (RFC 6901), as far as a line bears it.
func (r *Reader) where() string {
	at := r.in.StackPointer()
	if at == "" {
		return ""
	}
	return fmt.Sprintf("%.100q: ", string(at))
}

func (r *Reader) null() (bool, error) {
	if r.in.PeekKind() != 'n' {
		return false, nil
	}
	_, err := r.in.ReadToken()
	return true, err
}

// quoted reads a string as it is written; nil for null.
func (r *Reader) quoted() (jsontext.Value, error) {
	if null, err := r.null(); null || err != nil {
		return nil, err
	}
	value, err := r.in.ReadValue()
	if err != nil {
		return nil, err
	}
	if value.Kind() != '"' {
		return nil, r.unexpected(value.Kind(), "a string")
	}
	return value, nil
}

// String reads a string.
func (r *Reader) String(to *string) error {
	value, err := r.quoted()
	if value == nil || err != nil {
		return err
	}
	if text := value[1 : len(value)-1]; bytes.IndexByte(text, '\\') < 0 && utf8.Valid(text) {
		*to = string(text)
		return nil
	}
	*to = string(unquoted(value))
	return nil
}

// unquoted is the text of a string that has been read.
func unquoted(value jsontext.Value) []byte {
	// It fails for what is no character, and has put U+FFFD there.
	text, _ := jsontext.AppendUnquote(make([]byte, 0, len(value)), value)
	return text
}

// Bytes reads a string, as bytes of the caller's own.
func (r *Reader) Bytes(to *[]byte) error {
	value, err := r.quoted()
	if value == nil || err != nil {
		return err
	}
	*to = unquoted(value)
	return nil
}

// Time reads an instant (RFC 3339).
func (r *Reader) Time(to *time.Time) error {
	value, err := r.quoted()
	if value == nil || err != nil {
		return err
	}
	return to.UnmarshalJSON(value)
}

// Int reads a whole number.
func (r *Reader) Int(to *int) error {
	if null, err := r.null(); null || err != nil {
		return err
	}
	value, err := r.in.ReadValue()
	if err != nil {
		return err
	}
	if value.Kind() != '0' {
		return r.unexpected(value.Kind(), "a number")
	}
	n, err := strconv.Atoi(string(value))
	if err != nil {
		return fmt.Errorf("%sthe number is not a whole one, or too large", r.where())
	}
	*to = n
	return nil
}

// Bool reads true or false.
func (r *Reader) Bool(to *bool) error {
	if null, err := r.null(); null || err != nil {
		return err
	}
	value, err := r.in.ReadToken()
	if err != nil {
		return err
	}
	if k := value.Kind(); k != 't' && k != 'f' {
		return r.unexpected(k, "true or false")
	}
	*to = value.Bool()
	return nil
}

// Raw reads any value as it is written: a part of the text that was given to Read,
// good for as long as that is.
func (r *Reader) Raw() ([]byte, error) {
	value, err := r.in.ReadValue()
	end := r.in.InputOffset()
	return r.text[end-int64(len(value)) : end], err
}

// Skip passes over any value.
func (r *Reader) Skip() error { return r.in.SkipValue() }
