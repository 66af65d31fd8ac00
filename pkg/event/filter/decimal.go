package filter

import (
	"cmp"
	"strconv"
	"strings"
)

// decimal is the exact value of a JSON number: 0.digits × 10^exponent. Equal numbers are
// equal decimals, however they are written, and numbers that a 64-bit float cannot tell
// apart (2⁵³ and 2⁵³+1) are not.
type decimal struct {
	negative bool
	digits   string // without leading and trailing zeros; empty for zero
	exponent int64
}

// maxExponent bounds the exponents that are told apart, so that adding to one cannot
// overflow.
const maxExponent = 1 << 62

// parseDecimal reads the text of a valid JSON number.
func parseDecimal(number string) decimal {
	mantissa, negative := strings.CutPrefix(number, "-")
	var exponent int64
	if i := strings.IndexAny(mantissa, "eE"); i >= 0 {
		exponent, _ = strconv.ParseInt(mantissa[i+1:], 10, 64) // out of range: the nearest
		exponent = max(-maxExponent, min(exponent, maxExponent))
		mantissa = mantissa[:i]
	}
	whole, fraction, _ := strings.Cut(mantissa, ".")
	all := whole + fraction
	significant := strings.TrimLeft(all, "0")
	if significant == "" {
		return decimal{} // zero has one form, whatever its sign and exponent
	}
	return decimal{
		negative: negative,
		digits:   strings.TrimRight(significant, "0"),
		exponent: exponent + int64(len(whole)-(len(all)-len(significant))),
	}
}

func (d decimal) sign() int {
	switch {
	case d.digits == "":
		return 0
	case d.negative:
		return -1
	}
	return 1
}

// compare returns -1, 0 or 1.
func (d decimal) compare(other decimal) int {
	if d.sign() != other.sign() {
		return cmp.Compare(d.sign(), other.sign())
	}
	magnitude := cmp.Or(cmp.Compare(d.exponent, other.exponent), cmp.Compare(d.digits, other.digits))
	return d.sign() * magnitude
}

// String returns the number as JSON: in full, or with an exponent if that is shorter.
func (d decimal) String() string {
	const longest = 24
	sign := ""
	if d.negative {
		sign = "-"
	}
	switch n := int64(len(d.digits)); {
	case n == 0:
		return "0"
	case d.exponent >= n && d.exponent <= longest:
		return sign + d.digits + strings.Repeat("0", int(d.exponent-n))
	case d.exponent > 0 && d.exponent < n:
		return sign + d.digits[:d.exponent] + "." + d.digits[d.exponent:]
	case d.exponent <= 0 && d.exponent > -6:
		return sign + "0." + strings.Repeat("0", int(-d.exponent)) + d.digits
	default:
		return sign + "0." + d.digits + "e" + strconv.FormatInt(d.exponent, 10)
	}
}
