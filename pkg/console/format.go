package console

import (
	"bytes"
	"encoding/json"
	"fmt"
	"html/template"
	"math"
	"net/url"
	"strconv"
	"strings"
	"time"
)

var functions = template.FuncMap{
	"asset":  assetURL,
	"since":  func(t time.Time) string { return since(time.Since(t)) },
	"until":  func(t time.Time) string { return "in " + ago(time.Until(t)) },
	"past":   func(t time.Time) bool { return !time.Now().Before(t) },
	"soon":   func(t time.Time) bool { return time.Until(t) < ExpiringWithin },
	"minute": func(t time.Time) string { return t.UTC().Format("2 Jan 2006, 15:04 UTC") },
	"moment": func(t time.Time) string {
		if t.IsZero() {
			return ""
		}
		return t.UTC().Format("2006-01-02 15:04:05 UTC")
	},
	"iso":    func(t time.Time) string { return t.UTC().Format(time.RFC3339) },
	"short":  short,
	"words":  func(v any) string { return strings.ReplaceAll(fmt.Sprint(v), "_", " ") },
	"pretty": pretty,
	"join":   func(list []string) string { return strings.Join(list, ", ") },
	"ms":     milliseconds,
	"bars":   bars,
	"n":      thousands,
	"percent": func(f *float64) string {
		if f == nil {
			return "–"
		}
		if *f == 1 {
			return "100 %"
		}
		return fmt.Sprintf("%.1f %%", math.Floor(*f*1e3+1e-9)/10) // 100 % means all
	},
	"took": func(f *float64) string {
		if f == nil {
			return "–"
		}
		return milliseconds(int64(*f + .5))
	},
	"age":   func(ms int64) string { return ago(time.Duration(ms) * time.Millisecond) },
	"chart": chart,
	"args":  func(list ...any) []any { return list },
	"query": query,
}

// thousands formats a number with a thin space between groups of three digits.
func thousands(n int64) string {
	text := strconv.FormatInt(n, 10)
	for i := len(text) - 3; i > 0 && text[i-1] != '-'; i -= 3 {
		text = text[:i] + "\u202f" + text[i:]
	}
	return text
}

// chart returns the data of the page's chart as JSON: times, delivered, failed.
func chart(minutes []Minute) (string, error) {
	var data [3][]int64
	for _, m := range minutes {
		data[0] = append(data[0], m.At.Unix())
		data[1] = append(data[1], m.Delivered)
		data[2] = append(data[2], m.Failed)
	}
	text, err := json.Marshal(data)
	return string(text), err
}

// since formats the time that has passed.
func since(d time.Duration) string {
	if d < time.Second {
		return "just now"
	}
	return ago(d) + " ago"
}

// ago formats a duration in its largest unit.
func ago(d time.Duration) string {
	switch d = max(d, 0); {
	case d < time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h", int(d.Hours()))
	}
	return fmt.Sprintf("%d days", int(d.Hours()/24))
}

// short returns the end of an id. Ids begin with a time, so their ends differ most.
func short(id string) string {
	if len(id) <= 10 {
		return id
	}
	return "…" + id[len(id)-8:]
}

func pretty(text json.RawMessage) string {
	var out bytes.Buffer
	if err := json.Indent(&out, text, "", "  "); err != nil {
		return string(text)
	}
	return out.String()
}

func milliseconds(n int64) string {
	if n >= 1000 {
		return fmt.Sprintf("%.1f s", float64(n)/1000)
	}
	return fmt.Sprintf("%d ms", n)
}

// bar is one phase of an attempt in the timing chart.
type bar struct {
	Name  string
	MS    int64
	X, W  float64 // percent
	Class string
}

// bars returns an attempt's phases, scaled to the longest attempt.
func bars(a Attempt, all []Attempt) []bar {
	longest := int64(1)
	for _, one := range all {
		longest = max(longest, one.Total)
	}
	rest := max(a.Total-a.DNS-a.Connect-a.TLS-a.FirstByte, 0)
	var out []bar
	x := 0.0
	for _, b := range []bar{{Name: "DNS", MS: a.DNS, Class: "dns"}, {Name: "connect", MS: a.Connect, Class: "connect"}, {Name: "TLS", MS: a.TLS, Class: "tls"},
		{Name: "first byte", MS: a.FirstByte, Class: "wait"}, {Name: "rest", MS: rest, Class: "rest"}} {
		if b.MS == 0 {
			continue
		}
		b.X, b.W = x, float64(b.MS)*100/float64(longest)
		x += b.W
		out = append(out, b)
	}
	return out
}

// query builds a query string from the pairs whose value is not empty.
func query(pairs ...string) string {
	v := url.Values{}
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			v.Set(pairs[i], pairs[i+1])
		}
	}
	if len(v) == 0 {
		return ""
	}
	return "?" + v.Encode()
}
