package httpapi

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/shipledger/shipledger/pkg/fault"
)

// errForeignAddress refuses a credential that does not work from everywhere.
var errForeignAddress = fault.New(fault.Forbidden, "IP_NOT_ALLOWED", "This credential does not work from this address.").
	WithHint("Its ip_allow says from where it does.")

// Base gives where the client reached this server, such as https://ledger.example.
func (r *Request) Base() string {
	if r.Secure() {
		return "https://" + r.Host
	}
	return "http://" + r.Host
}

// ClientAddr gives the address that a request comes from: that of the
// connection, or, where that is a trusted proxy's, the last one in
// X-Forwarded-For that is not. It is not valid where nobody can tell.
func (r *Request) ClientAddr() netip.Addr { return clientAddr(r.Request, r.api.cfg.TrustedProxies) }

func clientAddr(r *http.Request, trusted []netip.Prefix) netip.Addr {
	addr := remoteAddr(r.RemoteAddr)
	if len(trusted) == 0 || !inAny(trusted, addr) {
		return addr
	}
	hops := strings.Split(strings.Join(r.Header["X-Forwarded-For"], ","), ",")
	for _, hop := range slices.Backward(hops) {
		hop = strings.TrimSpace(hop)
		if hop == "" {
			continue
		}
		before := remoteAddr(hop)
		if !before.IsValid() { // what stands before it may be anybody's word
			return netip.Addr{}
		}
		if addr = before; !inAny(trusted, addr) {
			break
		}
	}
	return addr
}

// remoteAddr reads an address with or without a port.
func remoteAddr(text string) netip.Addr {
	if withPort, err := netip.ParseAddrPort(text); err == nil {
		return withPort.Addr().Unmap().WithZone("")
	}
	addr, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Addr{}
	}
	return addr.Unmap().WithZone("")
}

func inAny(all []netip.Prefix, addr netip.Addr) bool {
	return slices.ContainsFunc(all, func(p netip.Prefix) bool { return p.Contains(addr) })
}
