package signature_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/tidings-dev/tidings/pkg/signature"
)

const id = "01J9Z8Q4X7RABCDEFGHJKMNPQR"

// bodies would change if a signer encoded them again.
var bodies = []string{`{}`, `{ "a" : 1 }`, `{"t":"<&>\u2028"}`, "{\"t\":\"\u2028 Grüße\"}", `{"n":1e21}`, `{"a":1,"a":2}`, "", "\x00\xff"}

func header(at time.Time, signatures string) http.Header {
	h := http.Header{}
	h.Set(signature.HeaderID, id)
	h.Set(signature.HeaderTimestamp, strconv.FormatInt(at.Unix(), 10))
	h.Set(signature.HeaderSignature, signatures)
	return h
}

func TestCompatibleWithTheOfficialLibrary(t *testing.T) {
	s, now := signature.NewSecret(), time.Now()
	official, err := standardwebhooks.NewWebhook(s.Reveal())
	if err != nil {
		t.Fatal(err)
	}
	for _, body := range bodies {
		h := header(now, signature.Sign([]signature.Secret{s}, id, now, []byte(body)))
		if err := official.Verify([]byte(body), h); err != nil {
			t.Errorf("standard-webhooks on %q: %v", body, err)
		}
		theirs, err := official.Sign(id, now, []byte(body))
		if err != nil {
			t.Fatal(err)
		}
		if err := signature.Verify(s, id, strconv.FormatInt(now.Unix(), 10), theirs, []byte(body), now); err != nil {
			t.Errorf("Verify of the official signature of %q: %v", body, err)
		}
	}
}

func TestRotationSignsWithBothSecrets(t *testing.T) {
	before, after, now := signature.NewSecret(), signature.NewSecret(), time.Now()
	h := header(now, signature.Sign([]signature.Secret{after, before}, id, now, []byte(`{}`)))
	for name, s := range map[string]signature.Secret{"old": before, "new": after} {
		official, err := standardwebhooks.NewWebhook(s.Reveal())
		if err != nil {
			t.Fatal(err)
		}
		if err := official.Verify([]byte(`{}`), h); err != nil {
			t.Errorf("a receiver with the %s secret: %v", name, err)
		}
	}
}

func TestEd25519SignatureVerifiesWithThePublicKey(t *testing.T) {
	s, now := signature.NewEd25519(), time.Now()
	public, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(s.Public(), "whpk_"))
	if err != nil {
		t.Fatal(err)
	}
	signed := signature.Sign([]signature.Secret{s}, id, now, []byte(`{}`))
	raw, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(signed, "v1a,"))
	if err != nil {
		t.Fatal(err)
	}
	if !ed25519.Verify(public, signature.SignedContent(id, now, []byte(`{}`)), raw) {
		t.Error("the signature does not verify")
	}
	if err := signature.Verify(s, id, strconv.FormatInt(now.Unix(), 10), signed, []byte(`{}`), now); err != nil {
		t.Error(err)
	}
}

func TestVerify(t *testing.T) {
	s, now := signature.NewSecret(), time.Unix(1_770_000_000, 0)
	stamp, body := strconv.FormatInt(now.Unix(), 10), []byte(`{"a":1}`)
	good := signature.Sign([]signature.Secret{s}, id, now, body)
	for name, c := range map[string]struct {
		id, stamp, signatures string
		body                  []byte
		at                    time.Time
		want                  error
	}{
		"valid":                     {id, stamp, good, body, now, nil},
		"valid after 5 minutes":     {id, stamp, good, body, now.Add(signature.Tolerance), nil},
		"more than 5 minutes later": {id, stamp, good, body, now.Add(signature.Tolerance + time.Second), signature.ErrTimestamp},
		"more than 5 min earlier":   {id, stamp, good, body, now.Add(-signature.Tolerance - time.Second), signature.ErrTimestamp},
		"another id":                {id + "x", stamp, good, body, now, signature.ErrNoMatch},
		"another time":              {id, stamp[:9] + "1", good, body, now, signature.ErrNoMatch},
		"another body":              {id, stamp, good, []byte(`{"a":2}`), now, signature.ErrNoMatch},
		"no timestamp":              {id, "", good, body, now, signature.ErrTimestamp},
		"no signature":              {id, stamp, "", body, now, signature.ErrNoMatch},
		"an unknown version":        {id, stamp, "v9" + good[2:], body, now, signature.ErrNoMatch},
		"not base64":                {id, stamp, "v1,***", body, now, signature.ErrNoMatch},
		"only a version":            {id, stamp, "v1", body, now, signature.ErrNoMatch},
	} {
		if err := signature.Verify(s, c.id, c.stamp, c.signatures, c.body, c.at); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	raw, err := base64.StdEncoding.DecodeString(good[3:])
	if err != nil {
		t.Fatal(err)
	}
	for bit := range len(raw) * 8 {
		flipped := bytes.Clone(raw)
		flipped[bit/8] ^= 1 << (bit % 8)
		if signature.Verify(s, id, stamp, "v1,"+base64.StdEncoding.EncodeToString(flipped), body, now) == nil {
			t.Errorf("verifies with bit %d flipped", bit)
		}
	}
}

func TestSecretIsRedacted(t *testing.T) {
	for _, s := range []signature.Secret{signature.NewSecret(), signature.NewEd25519()} {
		type holder struct {
			S  signature.Secret
			P  *signature.Secret
			In []signature.Secret
		}
		h := holder{s, &s, []signature.Secret{s}}
		var out bytes.Buffer
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
			fmt.Fprintf(&out, verb+verb, s, h)
		}
		text, err := json.Marshal(h)
		if err != nil {
			t.Fatal(err)
		}
		out.Write(text)
		for _, handler := range []slog.Handler{slog.NewJSONHandler(&out, nil), slog.NewTextHandler(&out, nil)} {
			slog.New(handler).Info("x", "s", s, "h", h)
		}
		key := s.Reveal()[strings.Index(s.Reveal(), "_")+1:]
		if strings.Contains(out.String(), key) || strings.Contains(out.String(), key[:12]) {
			t.Errorf("the secret appears in %s", out.String())
		}
	}
}

func TestParseSecret(t *testing.T) {
	b64 := func(n int) string { return base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{7}, n)) }
	seed := bytes.Repeat([]byte{7}, 32)
	whole := "whsk_" + base64.StdEncoding.EncodeToString(ed25519.NewKeyFromSeed(seed))
	for text, ok := range map[string]bool{
		"whsec_" + b64(24): true, "whsec_" + b64(64): true, "whsk_" + b64(32): true, whole: true,
		"whsk_" + b64(64): false, // the public half does not match
		"whsec_" + b64(24)[:16] + "\n" + b64(24)[16:]: false, "whsec_" + b64(24) + "\n": false, "whsec_" + b64(24) + "\r\n": false, "whsk_" + b64(32) + "\n": false,
		"whsec_" + b64(24) + " ": false, " whsec_" + b64(24): false,
		"whsec_" + b64(23): false, "whsec_" + b64(65): false, "whsk_" + b64(31): false,
		"whsec_" + strings.Repeat("*", 40): false, b64(32): false, "": false, "whpk_" + b64(32): false,
	} {
		s, err := signature.ParseSecret(text)
		if (err == nil) != ok || s.IsZero() == ok {
			t.Errorf("ParseSecret(%q) = %v", text, err)
		}
		if err != nil && len(text) > 12 && strings.Contains(err.Error(), text[6:]) {
			t.Errorf("the error repeats the secret: %v", err)
		}
		if err == nil && s.Reveal() != text {
			t.Errorf("Reveal does not return %q", text)
		}
	}
}

// Secrets that earlier releases accepted can still be read.
func TestDecodeSecretAcceptsStoredSecrets(t *testing.T) {
	b64 := func(n int) string { return base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{7}, n)) }
	at := time.Unix(1_770_000_000, 0)
	for stored, same := range map[string]string{
		"whsec_" + b64(24)[:16] + "\n" + b64(24)[16:]: "whsec_" + b64(24),
		"whsk_" + b64(64): "whsk_" + b64(32),
	} {
		s, err := signature.DecodeSecret(stored)
		if err != nil {
			t.Fatal(err)
		}
		key, err := signature.ParseSecret(same)
		if err != nil {
			t.Fatal(err)
		}
		if signed := signature.Sign([]signature.Secret{s}, "id", at, nil); signature.Verify(key, "id", "1770000000", signed, nil, at) != nil {
			t.Errorf("%q signs with another key", same)
		}
	}
}

// Only the timestamp that was signed verifies, not another spelling of it.
func TestVerifyRefusesOtherSpellingsOfTheTimestamp(t *testing.T) {
	s, at := signature.NewSecret(), time.Unix(1614265330, 0)
	signed := signature.Sign([]signature.Secret{s}, "id", at, nil)
	for timestamp, want := range map[string]error{
		"1614265330": nil, "+1614265330": signature.ErrTimestamp, "01614265330": signature.ErrTimestamp, " 1614265330": signature.ErrTimestamp,
		"1614265330.0": signature.ErrTimestamp, "1_614_265_330": signature.ErrTimestamp, "": signature.ErrTimestamp, "-1614265330": signature.ErrTimestamp,
	} {
		if err := signature.Verify(s, "id", timestamp, signed, nil, at); !errors.Is(err, want) {
			t.Errorf("%q: %v, want %v", timestamp, err, want)
		}
	}
}
