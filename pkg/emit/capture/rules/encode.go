package rules

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"unicode/utf8"

	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"

	"github.com/tidings-dev/tidings/pkg/event"
)

// maxEncoded bounds an event's data before it is shortened: six bytes for each of an item.
const maxEncoded = 6 * maxValueBytes

// maxNesting is how deep the data's values nest, at most: as deep as those of an item.
const maxNesting = 32

// encoder writes an event's data as JSON. Receivers get texts as they were written, without
// escapes for HTML.
type encoder struct {
	buf     bytes.Buffer
	json    *json.Encoder
	on      *evaluation
	shorten *shortening
	// shortened is the text that may have to be shortened, and at where it belongs.
	shortened *string
	at        int
}

func (o *encoder) fields(list []field) error {
	o.buf.WriteByte('{')
	first := true
	for n := range list {
		f := &list[n]
		start := o.buf.Len()
		if !first {
			o.buf.WriteByte(',')
		}
		o.text(f.name)
		o.buf.WriteByte(':')
		wrote, err := o.field(f)
		if err != nil {
			return err
		}
		if !wrote {
			o.buf.Truncate(start)
			continue
		}
		first = false
	}
	o.buf.WriteByte('}')
	return nil
}

// field writes the value of a field; false if the field is to be left out.
func (o *encoder) field(f *field) (wrote bool, err error) {
	if f.fields != nil {
		start := o.buf.Len()
		err := o.fields(f.fields)
		return !f.optional || o.buf.Len()-start > len("{}"), err
	}
	value, err := o.on.value(f.path, &f.value)
	if err != nil {
		return false, err
	}
	switch {
	case f.optional && isEmpty(value):
		return false, nil
	case value == types.NullValue:
		return false, o.on.fail(f.path, &f.value, &reason{fmt.Sprintf("the result is null: write %q if the field can be missing", f.name+"?")})
	}
	if text, ok := value.(types.String); ok && o.shorten != nil && f.path == "data."+o.shorten.field {
		long := string(text)
		o.buf.WriteByte('"')
		o.shortened, o.at = &long, o.buf.Len()
		o.buf.WriteByte('"')
		return true, nil
	}
	if problem := o.value(value, 0); problem != "" {
		return false, o.on.fail(f.path, &f.value, &reason{problem})
	}
	return true, nil
}

// value writes a value. It returns what is wrong with it, if it cannot be in an event.
func (o *encoder) value(v ref.Val, depth int) (problem string) {
	switch {
	case o.buf.Len() > maxEncoded:
		return fmt.Sprintf("the event is larger than %d bytes", event.MaxBodyBytes)
	case depth > maxNesting:
		return fmt.Sprintf("the value nests deeper than %d levels", maxNesting)
	}
	switch v := v.(type) {
	case types.Null:
		o.buf.WriteString("null")
	case types.Bool:
		o.buf.WriteString(strconv.FormatBool(bool(v)))
	case types.String:
		o.text(string(v))
	case types.Int, types.Uint:
		o.buf.WriteString(textOf(v))
	case types.Double:
		text, err := json.Marshal(float64(v))
		if err != nil {
			return "the number is infinite, or none"
		}
		o.buf.Write(text)
	case decimal:
		n := number(string(v))
		if n == "" {
			return "the value is not a number"
		}
		o.buf.WriteString(string(n))
	case types.Timestamp:
		o.text(formatTime(v.Time))
	case types.Duration:
		o.text(v.Duration.String())
	case types.Bytes:
		o.text(base64.StdEncoding.EncodeToString(v))
	case traits.Mapper:
		return o.object(v, depth)
	case traits.Lister:
		o.buf.WriteByte('[')
		for n, it := 0, v.Iterator(); it.HasNext() == types.True; n++ {
			if n > 0 {
				o.buf.WriteByte(',')
			}
			if problem := o.value(it.Next(), depth+1); problem != "" {
				return problem
			}
		}
		o.buf.WriteByte(']')
	default:
		return fmt.Sprintf("a %s cannot be in an event", v.Type().TypeName())
	}
	return ""
}

// object writes a map, its keys in order.
func (o *encoder) object(m traits.Mapper, depth int) (problem string) {
	var keys []string
	for it := m.Iterator(); it.HasNext() == types.True; {
		key, ok := it.Next().(types.String)
		if !ok {
			return "the keys of a map must be strings"
		}
		keys = append(keys, string(key))
	}
	slices.Sort(keys)
	o.buf.WriteByte('{')
	for n, key := range keys {
		if n > 0 {
			o.buf.WriteByte(',')
		}
		o.text(key)
		o.buf.WriteByte(':')
		value, _ := m.Find(types.String(key))
		if problem := o.value(value, depth+1); problem != "" {
			return problem
		}
	}
	o.buf.WriteByte('}')
	return ""
}

// text writes a string.
func (o *encoder) text(text string) {
	for n := range len(text) {
		if c := text[n]; c < ' ' || c >= utf8.RuneSelf || c == '"' || c == '\\' {
			if o.json == nil {
				o.json = json.NewEncoder(&o.buf)
				o.json.SetEscapeHTML(false)
			}
			_ = o.json.Encode(text) // cannot fail: a buffer takes every string
			o.buf.Truncate(o.buf.Len() - 1)
			return
		}
	}
	o.buf.WriteByte('"')
	o.buf.WriteString(text)
	o.buf.WriteByte('"')
}

// fit returns the data with its long text, shortened to what the rule and the size of an
// event allow. If it is shortened, two fields say so, if the rule names them.
func (o *encoder) fit() []byte {
	s, text := o.shorten, *o.shortened
	marks := func(length string) string {
		var m string
		if s.truncated != "" {
			m = fmt.Sprintf(`,%q:true`, s.truncated)
		}
		if s.length != "" {
			m += fmt.Sprintf(`,%q:%s`, s.length, length)
		}
		return m
	}
	room := maxData - o.buf.Len() - len(marks("1234567")) - len(ellipsis)
	last, n := 0, 0 // where the last character that may stay before an ellipsis ends, and how many there were
	for at, r := range text {
		if n < s.characters && room >= 0 {
			last = at
		}
		n++
		room -= encodedLen(r)
	}
	after := ""
	if n > s.characters || room < 0 {
		text, after = text[:last]+ellipsis, marks(strconv.Itoa(n))
	}
	rest := bytes.Clone(o.buf.Bytes())
	o.buf.Reset()
	o.buf.Write(rest[:o.at-1])
	o.text(text)
	o.buf.WriteString(after)
	o.buf.Write(rest[o.at+1:])
	return o.buf.Bytes()
}
