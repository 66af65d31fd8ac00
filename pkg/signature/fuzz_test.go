package signature_test

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/tidings-dev/tidings/pkg/signature"
)

// FuzzVerify: an arbitrary signature verifies for no secret of either kind, and the
// error is one of two.
func FuzzVerify(f *testing.F) {
	symmetric, asymmetric := signature.NewSecret(), signature.NewEd25519()
	f.Add(id, "1770000000", "v1,abc v1a,def", []byte(`{}`))
	f.Add("", "1770000000", "v1, v1a,", []byte{})
	f.Add("a.b", "+1770000000", "v1,"+base64.StdEncoding.EncodeToString(make([]byte, 32)), []byte("x"))
	f.Add(id, "9223372036854775808", "v1a,"+base64.StdEncoding.EncodeToString(make([]byte, 64)), []byte("x"))
	f.Fuzz(func(t *testing.T, id, stamp, signatures string, body []byte) {
		for _, s := range []signature.Secret{symmetric, asymmetric, {}} {
			err := signature.Verify(s, id, stamp, signatures, body, time.Unix(1_770_000_000, 0))
			if err != signature.ErrNoMatch && err != signature.ErrTimestamp {
				t.Errorf("an arbitrary signature: %v", err)
			}
		}
	})
}

// FuzzSign: a signature verifies with each of its secrets and with no other, here and
// in the official library. It does not verify with another id, time or body.
func FuzzSign(f *testing.F) {
	f.Add([]byte("0123456789abcdef01234567"), "msg_1", int64(1_770_000_000), []byte(`{"a":"<&\u2028"}`))
	f.Add(make([]byte, 64), "", int64(0), []byte{})
	f.Add(make([]byte, 32), "a.b.c", int64(-1), []byte{0, 0xff})
	f.Fuzz(func(t *testing.T, key []byte, id string, unix int64, body []byte) {
		s, err := signature.ParseSecret("whsec_" + base64.StdEncoding.EncodeToString(key))
		if (err == nil) != (len(key) >= 24 && len(key) <= 64) {
			t.Fatalf("a key of %d bytes: %v", len(key), err)
		}
		if err != nil || unix < -1<<40 || unix > 1<<40 {
			return
		}
		at, stamp := time.Unix(unix, 0), strconv.FormatInt(unix, 10)
		other, asymmetric := signature.NewSecret(), signature.NewEd25519()
		header := signature.Sign([]signature.Secret{other, asymmetric, s}, id, at, body)
		for _, one := range []signature.Secret{s, other, asymmetric} {
			if err := signature.Verify(one, id, stamp, header, body, at); err != nil {
				t.Errorf("our own signature: %v", err)
			}
			for name, err := range map[string]error{
				"id":   signature.Verify(one, id+"x", stamp, header, body, at),
				"body": signature.Verify(one, id, stamp, header, append([]byte{' '}, body...), at),
				"time": signature.Verify(one, id, strconv.FormatInt(unix+1, 10), header, body, at),
			} {
				if err != signature.ErrNoMatch {
					t.Errorf("verified with another %s: %v", name, err)
				}
			}
		}
		if err := signature.Verify(signature.NewSecret(), id, stamp, header, body, at); err == nil {
			t.Error("verifies with a secret that did not sign")
		}
		official, err := standardwebhooks.NewWebhookRaw(key)
		if err != nil {
			t.Fatal(err)
		}
		h := http.Header{"Webhook-Id": {id}, "Webhook-Timestamp": {stamp}, "Webhook-Signature": {header}}
		if err := official.VerifyIgnoringTimestamp(body, h); err != nil && id != "" {
			t.Errorf("the official library: %v", err)
		}
	})
}

// FuzzParseSecret: Reveal returns the text of a valid secret, and formatting does not.
// Errors repeat no part of the text.
func FuzzParseSecret(f *testing.F) {
	for _, seed := range []string{
		signature.NewSecret().Reveal(), signature.NewEd25519().Reveal(), "whsec_" + strings.Repeat("*", 40), "whsk_" + base64.StdEncoding.EncodeToString(make([]byte, 64)),
		"whpk_x", "", "whsec_", "whsk_AAAA", "whsec_ " + strings.Repeat("A", 32), "whsec_" + strings.Repeat("A", 16) + "\n" + strings.Repeat("A", 16), "WHSEC_" + strings.Repeat("A", 32),
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := signature.ParseSecret(text)
		if err != nil {
			for from := 0; from+16 <= len(text); from++ {
				if strings.Contains(err.Error(), text[from:from+16]) && !strings.Contains("secret: must start with whsec_ (HMAC-SHA256) or whsk_ (Ed25519)", text[from:from+16]) {
					t.Errorf("the error repeats %q: %v", text[from:from+16], err)
				}
			}
			if len(err.Error()) > 256 || !s.IsZero() {
				t.Errorf("zero secret: %v; an error of %d bytes", s.IsZero(), len(err.Error()))
			}
			return
		}
		if s.Reveal() != text {
			t.Errorf("Reveal does not return %q", text)
		}
		shown := fmt.Sprintf("%v %+v %#v %s %q", s, s, s, s, s)
		if key := text[strings.IndexByte(text, '_')+1:]; strings.Contains(shown, key) {
			t.Errorf("the secret is formatted as %s", shown)
		}
		at := time.Unix(1_770_000_000, 0)
		if err := signature.Verify(s, id, "1770000000", signature.Sign([]signature.Secret{s}, id, at, []byte("x")), []byte("x"), at); err != nil {
			t.Errorf("its own signature does not verify: %v", err)
		}
	})
}
