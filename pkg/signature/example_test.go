package signature_test

import (
	"fmt"
	"time"

	"github.com/tidings-dev/tidings/pkg/signature"
)

// With several secrets, as during a rotation, the header has one signature for each.
func ExampleSign() {
	secret, err := signature.ParseSecret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	if err != nil {
		panic(err)
	}
	body := []byte(`{"test": 2432232314}`)
	fmt.Println(signature.Sign([]signature.Secret{secret}, "msg_p5jXN8AQM9LWM0D4loKWxJek", time.Unix(1614265330, 0), body))
	// Output: v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=
}

func ExampleVerify() {
	secret, err := signature.ParseSecret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	if err != nil {
		panic(err)
	}
	// The three headers of the request, and its body before any parsing.
	id, timestamp := "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330"
	signatures := "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
	body := []byte(`{"test": 2432232314}`)

	now := time.Unix(1614265340, 0)
	fmt.Println(signature.Verify(secret, id, timestamp, signatures, body, now))
	fmt.Println(signature.Verify(secret, id, timestamp, signatures, []byte(`{}`), now))
	fmt.Println(signature.Verify(secret, id, timestamp, signatures, body, now.Add(time.Hour)))
	// Output:
	// <nil>
	// signature: none of the signatures matches
	// signature: the timestamp is missing, malformed or more than 5 minutes from the current time
}
