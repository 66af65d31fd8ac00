// Package signature signs webhooks as the Standard Webhooks specification says
// (https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md):
// symmetric `v1` (HMAC-SHA256) and asymmetric `v1a` (Ed25519) over
// "id.timestamp.body". It promises that a secret never shows in a log, an error
// or JSON: the type Secret redacts itself, and Reveal is the only way to its
// text.
package signature

import (
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

// The header names of the specification, in the lower case in which they travel
// as attributes on brokers.
const (
	HeaderID        = "webhook-id"
	HeaderTimestamp = "webhook-timestamp"
	HeaderSignature = "webhook-signature"
)

// Tolerance is how far a signature's timestamp may lie from the verifier's
// clock, in either direction.
const Tolerance = 5 * time.Minute

const (
	symmetricPrefix  = "whsec_"
	privateKeyPrefix = "whsk_"
	publicKeyPrefix  = "whpk_"
	redacted         = "[redacted]"
	// The specification asks for 24 to 64 random bytes.
	minSecretBytes = 24
	maxSecretBytes = 64
)

// Secret is a key that signs. The zero value signs nothing and is not valid.
type Secret struct {
	text    string
	mac     []byte
	private ed25519.PrivateKey
}

// NewSecret returns a fresh symmetric secret of 32 random bytes.
func NewSecret() Secret {
	key := make([]byte, 32)
	_, _ = rand.Read(key) // never fails since Go 1.24
	return Secret{text: symmetricPrefix + base64.StdEncoding.EncodeToString(key), mac: key}
}

// NewEd25519 returns a fresh Ed25519 signing key (`whsk_…`).
func NewEd25519() Secret {
	seed := make([]byte, ed25519.SeedSize)
	_, _ = rand.Read(seed)
	return Secret{
		text:    privateKeyPrefix + base64.StdEncoding.EncodeToString(seed),
		private: ed25519.NewKeyFromSeed(seed),
	}
}

// ParseSecret reads `whsec_<base64 of 24 to 64 bytes>`, or `whsk_<base64 of an
// Ed25519 seed or private key>`. Its errors say what is wrong with the form and
// never repeat the text.
func ParseSecret(text string) (Secret, error) {
	switch {
	case strings.HasPrefix(text, symmetricPrefix):
		key, err := base64.StdEncoding.DecodeString(text[len(symmetricPrefix):])
		if err != nil {
			return Secret{}, errors.New("secret: what follows whsec_ is not standard base64")
		}
		if len(key) < minSecretBytes || len(key) > maxSecretBytes {
			return Secret{}, fmt.Errorf("secret: %d bytes; Standard Webhooks asks for %d to %d", len(key), minSecretBytes, maxSecretBytes)
		}
		return Secret{text: text, mac: key}, nil
	case strings.HasPrefix(text, privateKeyPrefix):
		key, err := base64.StdEncoding.DecodeString(text[len(privateKeyPrefix):])
		if err != nil {
			return Secret{}, errors.New("secret: what follows whsk_ is not standard base64")
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

// Reveal returns the secret's text: for the store, and for the one time it is
// shown to whoever made it.
func (s Secret) Reveal() string { return s.text }

// IsZero reports whether s is no secret at all.
func (s Secret) IsZero() bool { return s.text == "" }

// Public returns the verification key (`whpk_…`) of an Ed25519 secret, and ""
// for a symmetric one.
func (s Secret) Public() string {
	if s.private == nil {
		return ""
	}
	pub := s.private.Public().(ed25519.PublicKey)
	return publicKeyPrefix + base64.StdEncoding.EncodeToString(pub)
}

// Masked shows which kind of secret it is, and nothing of it.
func (s Secret) Masked() string {
	if s.private != nil {
		return privateKeyPrefix + "••••••••"
	}
	return symmetricPrefix + "••••••••"
}

// Fingerprint tells secrets apart without giving one away: the first 8
// hexadecimal digits of the SHA-256 of its text. Whoever has the text can
// compute it and see whether both sides mean the same secret.
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

// Sign returns the value of the webhook-signature header: one signature a
// secret, in the order given, separated by spaces. Several secrets are how a
// rotation overlaps: the receiver accepts whichever it knows.
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

// hmacSHA256 is the HMAC of the signed content. It does not copy the body, because
// every attempt is signed.
func hmacSHA256(key []byte, id string, at time.Time, body []byte) []byte {
	mac := hmac.New(sha256.New, key)
	var head [64]byte
	mac.Write(appendHead(head[:0], id, at))
	mac.Write(body)
	return mac.Sum(head[:0])
}

// Errors of Verify. A receiver should answer each with 401 and tell no more.
var (
	ErrNoMatch   = errors.New("signature: none of the signatures matches")
	ErrTimestamp = errors.New("signature: the timestamp is missing, malformed or more than 5 minutes from the current time")
)

// Verify checks a received webhook against one secret. The comparison takes the
// same time wherever the signatures differ.
func Verify(s Secret, id, timestamp, signatures string, body []byte, now time.Time) error {
	unix, err := strconv.ParseInt(timestamp, 10, 64)
	if err != nil {
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
