package onepass

import (
	"encoding/json"
	"fmt"
)

// TwiceError says that a name stands twice in one object.
type TwiceError struct {
	Path []string // the names that lead there, from the outermost; lists have none
}

func (e *TwiceError) Error() string { return fmt.Sprintf("%q stands twice in its object", e.Path) }

// Tree reads any value as encoding/json reads it into an any, with numbers as they
// are written (json.Number). A name that stands twice in one object is a
// *TwiceError.
func (r *Reader) Tree() (any, error) {
	var room [8]string
	return r.tree(room[:0])
}

func (r *Reader) tree(path []string) (any, error) {
	switch r.in.PeekKind() {
	case '{':
		object := map[string]any{}
		err := r.Object(func(text []byte) error {
			name := string(text)
			here := append(path, name)
			if _, there := object[name]; there {
				return &TwiceError{Path: append([]string(nil), here...)}
			}
			value, err := r.tree(here)
			object[name] = value
			return err
		})
		return object, err
	case '[':
		list := []any{}
		err := r.Array(func() error {
			value, err := r.tree(path)
			list = append(list, value)
			return err
		})
		return list, err
	}
	token, err := r.in.ReadToken()
	if err != nil {
		return nil, err
	}
	switch token.Kind() {
	case '"':
		return token.String(), nil
	case '0':
		return json.Number(token.String()), nil
	case 't', 'f':
		return token.Bool(), nil
	}
	return nil, nil
}
