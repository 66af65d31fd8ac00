package guard_test

import (
	"fmt"
	"net/netip"

	"github.com/tidings-dev/tidings/pkg/destination/guard"
)

func ExampleGuard_CheckHost() {
	g := guard.New(guard.Options{AllowNetworks: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/16")}})
	for _, host := range []string{"example.com", "10.0.0.7", "169.254.169.254", "0x7f000001"} {
		fmt.Println(host, g.CheckHost(host) == nil)
	}
	// Output:
	// example.com true
	// 10.0.0.7 true
	// 169.254.169.254 false
	// 0x7f000001 false
}
