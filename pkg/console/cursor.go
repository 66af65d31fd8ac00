package console

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"strings"
)

// A cursor is the place in a store's list where the next page begins. Clients get it
// encrypted and authenticated, bound to the tenant and to the list with its filter: they
// can neither read a place nor make one, and a cursor of another tenant, of another list
// or of an ended session key is invalid.

// list names a tenant's list and its filter.
type list struct {
	tenant string
	name   string
	filter []string
}

// associated is the text that a cursor of the list is bound to.
func (l list) associated() []byte {
	return []byte(strings.Join(append([]string{l.tenant, l.name}, l.filter...), "\x00"))
}

func invalidCursor() *Error { return errorf(Invalid, "invalid cursor; start at the first page") }

func (o *Operations) cursorCipher(ctx context.Context) (cipher.AEAD, error) {
	key, err := o.cursorKey(ctx)
	if err != nil {
		return nil, err
	}
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte("cursor"))
	block, err := aes.NewCipher(mac.Sum(nil))
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// sealCursor returns the cursor for a place in a list; "" for no place.
func (o *Operations) sealCursor(ctx context.Context, l list, place string) (string, error) {
	if place == "" {
		return "", nil
	}
	seal, err := o.cursorCipher(ctx)
	if err != nil {
		return "", err
	}
	nonce := make([]byte, seal.NonceSize())
	_, _ = rand.Read(nonce) // never fails since Go 1.24
	return base64.RawURLEncoding.EncodeToString(seal.Seal(nonce, nonce, []byte(place), l.associated())), nil
}

// openCursor reverses sealCursor.
func (o *Operations) openCursor(ctx context.Context, l list, cursor string) (place string, err error) {
	if cursor == "" {
		return "", nil
	}
	seal, err := o.cursorCipher(ctx)
	if err != nil {
		return "", err
	}
	sealed, err := base64.RawURLEncoding.DecodeString(cursor)
	if err != nil || len(sealed) < seal.NonceSize() {
		return "", invalidCursor()
	}
	text, err := seal.Open(nil, sealed[:seal.NonceSize()], sealed[seal.NonceSize():], l.associated())
	if err != nil {
		return "", invalidCursor()
	}
	return string(text), nil
}
