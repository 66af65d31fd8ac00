// Package signature signs and verifies webhooks according to Standard Webhooks
// (https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md):
// symmetric `v1` (HMAC-SHA256) and asymmetric `v1a` (Ed25519) signatures of
// "id.timestamp.body". It promises that a secret does not appear in a log, an error or
// JSON: Secret redacts itself, and only Reveal returns its text.
package signature

import (
	"bytes"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"
)

// The header names of the specification. They are also attribute names on brokers, in
// lower case.
const (
	HeaderID        = "webhook-id"
	HeaderTimestamp = "webhook-timestamp"
	HeaderSignature = "webhook-signature"
)

// Tolerance is the maximum difference between a signature's timestamp and the
// verifier's clock, in either direction.
const Tolerance = 5 * time.Minute

const (
	symmetricPrefix  = "whsec_"
	privateKeyPrefix = "whsk_"
	publicKeyPrefix  = "whpk_"
	redacted         = "[redacted]"
	// The specification requires 24 to 64 random bytes.
	minSecretBytes = 24
	maxSecretBytes = 64
)

// Secret is a signing key. The zero value is not valid.
type Secret struct {
	text    string
	mac     []byte
	private ed25519.PrivateKey
}

// NewSecret returns a new symmetric secret of 32 random bytes.
func NewSecret() Secret {
	key := make([]byte, 32)
	_, _ = rand.Read(key) // never fails since Go 1.24
	return Secret{text: symmetricPrefix + base64.StdEncoding.EncodeToString(key), mac: key}
}

// NewEd25519 returns a new Ed25519 signing key (`whsk_…`).
func NewEd25519() Secret {
	seed := make([]byte, ed25519.SeedSize)
	_, _ = rand.Read(seed)
	return Secret{
		text:    privateKeyPrefix + base64.StdEncoding.EncodeToString(seed),
		private: ed25519.NewKeyFromSeed(seed),
	}
}

// ParseSecret parses `whsec_<base64 of 24 to 64 bytes>` or `whsk_<base64 of an Ed25519
// seed or private key>`. Its errors do not contain the text.
func ParseSecret(text string) (Secret, error) {
	if strings.ContainsAny(text, "\r\n") {
		return Secret{}, errors.New("secret: has a line break: receivers would not get the same text")
	}
	s, err := DecodeSecret(text)
	if err != nil || s.private == nil {
		return s, err
	}
	key, _ := base64.StdEncoding.DecodeString(text[len(privateKeyPrefix):]) // decoded above
	if len(key) == ed25519.PrivateKeySize && !bytes.Equal(key, s.private) {
		return Secret{}, errors.New("secret: the public half of the key after whsk_ does not match its seed: receivers would verify with another key")
	}
	return s, nil
}

// DecodeSecret is ParseSecret for a text that is stored already: it also accepts what
// earlier releases accepted, a line break and a public half that does not match.
func DecodeSecret(text string) (Secret, error) {
	switch {
	case strings.HasPrefix(text, symmetricPrefix):
		key, err := base64.StdEncoding.DecodeString(text[len(symmetricPrefix):])
		if err != nil {
			return Secret{}, errors.New("secret: the part after whsec_ is not standard base64")
		}
		if len(key) < minSecretBytes || len(key) > maxSecretBytes {
			return Secret{}, fmt.Errorf("secret: %d bytes after whsec_; Standard Webhooks requires %d to %d", len(key), minSecretBytes, maxSecretBytes)
		}
		return Secret{text: text, mac: key}, nil
	case strings.HasPrefix(text, privateKeyPrefix):
		key, err := base64.StdEncoding.DecodeString(text[len(privateKeyPrefix):])
		if err != nil {
			return Secret{}, errors.New("secret: the part after whsk_ is not standard base64")
		}
		switch len(key) {
		case ed25519.SeedSize:
			return Secret{text: text, private: ed25519.NewKeyFromSeed(key)}, nil
		case ed25519.PrivateKeySize:
			return Secret{text: text, private: ed25519.NewKeyFromSeed(key[:ed25519.SeedSize])}, nil
		}
		return Secret{}, fmt.Errorf("secret: %d bytes after whsk_; an Ed25519 key has %d or %d", len(key), ed25519.SeedSize, ed25519.PrivateKeySize)
	}
	return Secret{}, errors.New("secret: must start with whsec_ (HMAC-SHA256) or whsk_ (Ed25519)")
}

// Reveal returns the secret's text, to store it or to show it once, when it is created.
func (s Secret) Reveal() string { return s.text }

// IsZero reports whether s is the zero value.
func (s Secret) IsZero() bool { return s.text == "" }

// Public returns the verification key (`whpk_…`) of an Ed25519 secret, or "" for a
// symmetric one.
func (s Secret) Public() string {
	if s.private == nil {
		return ""
	}
	pub := s.private.Public().(ed25519.PublicKey)
	return publicKeyPrefix + base64.StdEncoding.EncodeToString(pub)
}

// Masked returns the prefix that shows the kind of the secret, and a mask.
func (s Secret) Masked() string {
	if s.private != nil {
		return privateKeyPrefix + "••••••••"
	}
	return symmetricPrefix + "••••••••"
}

// Fingerprint identifies a secret without revealing it: the first 8 hexadecimal digits
// of the SHA-256 of its text. Sender and receiver can compare it.
func (s Secret) Fingerprint() string {
	digest := sha256.Sum256([]byte(s.text))
	return hex.EncodeToString(digest[:4])
}

// String, GoString, MarshalText and LogValue all redact.
func (s Secret) String() string               { return redacted }
func (s Secret) GoString() string             { return redacted }
func (s Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }
func (s Secret) LogValue() slog.Value         { return slog.StringValue(redacted) }

// SignedContent returns the bytes that are signed: "id.timestamp.body", with the
// timestamp in Unix seconds.
func SignedContent(id string, at time.Time, body []byte) []byte {
	return append(appendHead(make([]byte, 0, len(id)+12+len(body)+2), id, at), body...)
}

// appendHead appends the part of the signed content before the body.
func appendHead(b []byte, id string, at time.Time) []byte {
	b = append(append(b, id...), '.')
	return append(strconv.AppendInt(b, at.Unix(), 10), '.')
}

// Sign returns the value of the webhook-signature header: one signature per secret, in
// the given order, separated by spaces. During a rotation the receiver accepts the
// signature of either secret.
func Sign(secrets []Secret, id string, at time.Time, body []byte) string {
	var out []byte
	for i, s := range secrets {
		if i > 0 {
			out = append(out, ' ')
		}
		if s.private != nil {
			out = base64.StdEncoding.AppendEncode(append(out, "v1a,"...), ed25519.Sign(s.private, SignedContent(id, at, body)))
			continue
		}
		out = base64.StdEncoding.AppendEncode(append(out, "v1,"...), hmacSHA256(s.mac, id, at, body))
	}
	return string(out)
}

// hmacSHA256 returns the HMAC of the signed content without a copy of the body.
func hmacSHA256(key []byte, id string, at time.Time, body []byte) []byte {
	mac := hmac.New(sha256.New, key)
	var head [64]byte
	mac.Write(appendHead(head[:0], id, at))
	mac.Write(body)
	return mac.Sum(head[:0])
}

// Errors of Verify. A receiver should respond to both with 401 and no details.
var (
	ErrNoMatch   = errors.New("signature: none of the signatures matches")
	ErrTimestamp = errors.New("signature: the timestamp is missing, malformed or more than 5 minutes from the current time")
)

// Verify checks a received webhook against one secret, in constant time.
func Verify(s Secret, id, timestamp, signatures string, body []byte, now time.Time) error {
	unix, err := strconv.ParseInt(timestamp, 10, 64)
	if err != nil || strconv.FormatInt(unix, 10) != timestamp { // a sign or a leading zero is not what was signed
		return ErrTimestamp
	}
	at := time.Unix(unix, 0)
	if d := now.Sub(at); d > Tolerance || d < -Tolerance {
		return ErrTimestamp
	}
	for _, one := range strings.Fields(signatures) {
		version, encoded, found := strings.Cut(one, ",")
		if !found {
			continue
		}
		given, err := base64.StdEncoding.DecodeString(encoded)
		if err != nil {
			continue
		}
		switch {
		case version == "v1" && s.mac != nil && hmac.Equal(given, hmacSHA256(s.mac, id, at, body)):
			return nil
		case version == "v1a" && s.private != nil && ed25519.Verify(s.private.Public().(ed25519.PublicKey), SignedContent(id, at, body), given):
			return nil
		}
	}
	return ErrNoMatch
}
