package credential

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/shipledger/shipledger/pkg/fault"
)

// Limits are what one credential is held to beside what holds for all. They are
// shared by identities, and not to be changed.
type Limits struct {
	// From are the addresses that it works from; none: from everywhere.
	From []netip.Prefix
	// Rate is its own budget; zero: that of its class.
	Rate Rate
}

// A Rate is a budget: Tokens in every Per, up to Burst. Package ratelimit says
// which there are.
type Rate struct {
	Tokens int
	Per    time.Duration
	Burst  int
}

// maxPrefixes bounds an allow-list: it is gone through for every request.
const maxPrefixes = 100

// ParsePrefixes reads addresses and networks, such as 192.0.2.7 and 10.0.0.0/8.
func ParsePrefixes(texts []string) ([]netip.Prefix, error) {
	if len(texts) > maxPrefixes {
		return nil, fault.New(fault.Unprocessable, "", "up to %d addresses or networks", maxPrefixes)
	}
	out := make([]netip.Prefix, 0, len(texts))
	for _, text := range texts {
		text = strings.TrimSpace(text)
		p, err := netip.ParsePrefix(text)
		if err != nil {
			addr, addrErr := netip.ParseAddr(text)
			if addrErr != nil || addr.Zone() != "" {
				return nil, fault.New(fault.Unprocessable, "", "%q is neither an address nor a network such as 10.0.0.0/8", text)
			}
			addr = addr.Unmap()
			p = netip.PrefixFrom(addr, addr.BitLen())
		}
		if p.Addr().Is4In6() {
			return nil, fault.New(fault.Unprocessable, "", "write %q as an IPv4 network", text)
		}
		out = append(out, p.Masked())
	}
	return out, nil
}

// Admits tells whether a credential works from an address. Where there is a
// list, an address that nobody knows is not on it.
func (l *Limits) Admits(from netip.Addr) bool {
	if l == nil || len(l.From) == 0 {
		return true
	}
	from = from.Unmap().WithZone("")
	for _, p := range l.From {
		if p.Contains(from) {
			return true
		}
	}
	return false
}

// limits gives what a record is held to, nil where that is nothing.
func (r *Record) limits() *Limits {
	if len(r.AllowFrom) == 0 && r.Rate == (Rate{}) {
		return nil
	}
	return &Limits{r.AllowFrom, r.Rate}
}

type rateWire struct {
	Tokens int    `json:"tokens"`
	Per    string `json:"per"`
	Burst  int    `json:"burst"`
}

func toRateWire(r Rate) *rateWire {
	if r == (Rate{}) {
		return nil
	}
	return &rateWire{r.Tokens, r.Per.String(), r.Burst}
}

func (w *rateWire) rate() (Rate, error) {
	if w == nil {
		return Rate{}, nil
	}
	per, err := time.ParseDuration(w.Per)
	if err != nil || per <= 0 || w.Tokens <= 0 || w.Burst <= 0 {
		return Rate{}, fmt.Errorf("the rate of %d in %q up to %d is none", w.Tokens, w.Per, w.Burst)
	}
	return Rate{w.Tokens, per, w.Burst}, nil
}

// readPrefixes reads a recorded allow-list.
func readPrefixes(texts []string) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for _, text := range texts {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	return out, nil
}
