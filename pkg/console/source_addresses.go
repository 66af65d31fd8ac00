package console

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"strings"

	"github.com/danielgtaylor/huma/v2"
)

// SourceAddressesPath is the path of the source addresses. It is the only path of the API
// that needs no session, and it stays the same: receivers' firewalls read it.
const SourceAddressesPath = "/api/source-addresses"

// SourceAddresses are the addresses from which a deployment sends webhooks. The text form
// is a comma-separated list of addresses and CIDR ranges.
type SourceAddresses []netip.Prefix

// UnmarshalText parses the text form. It refuses a range with host bits, because it
// cannot know whether the range or the address is meant.
func (s *SourceAddresses) UnmarshalText(text []byte) error {
	*s = nil
	if len(text) == 0 {
		return nil
	}
	for part := range strings.SplitSeq(string(text), ",") {
		part = strings.TrimSpace(part)
		p, err := netip.ParsePrefix(part)
		if a, notAddress := netip.ParseAddr(part); notAddress == nil && a.Zone() == "" {
			p, err = netip.PrefixFrom(a, a.BitLen()), nil
		}
		if err != nil {
			return fmt.Errorf("%q is not an address such as 192.0.2.1 or a range such as 192.0.2.0/28", part)
		}
		if p != p.Masked() {
			return fmt.Errorf("%q is an address within a range; write %s or %s", part, p.Addr(), p.Masked())
		}
		*s = append(*s, p)
	}
	return nil
}

// SourceAddressList is the answer of SourceAddressesPath.
type SourceAddressList struct {
	Addresses []netip.Prefix `json:"addresses" nullable:"false" doc:"CIDR ranges; an address is a range of one. Empty if the deployment has no fixed addresses"`
}

// publishSourceAddresses registers the operation that returns the source addresses.
func (c *Console) publishSourceAddresses(api huma.API) {
	list := SourceAddressList{append([]netip.Prefix{}, c.SourceAddresses...)}
	type answer struct {
		CacheControl string `header:"Cache-Control"`
		Body         SourceAddressList
	}
	huma.Register(api, huma.Operation{
		OperationID: "list-source-addresses", Method: http.MethodGet, Path: SourceAddressesPath,
		Summary:  "List the addresses from which webhooks are sent; no session is needed",
		Security: []map[string][]string{}, DefaultStatus: http.StatusOK,
	}, func(context.Context, *struct{}) (*answer, error) {
		return &answer{"public, max-age=300", list}, nil
	})
}
