package httpapi

import (
	"net/http"
	"net/netip"

	"github.com/shipledger/shipledger/pkg/credential"
)

// A Meter is told of every request whose credential was verified.
//
// Implementations must be fast, must not keep the memory of the texts and must
// be safe for concurrent use.
type Meter interface {
	// Used takes note of a use. The source system is empty where the request
	// carried no event; accepted tells whether it was answered without an error.
	Used(id *credential.Identity, from netip.Addr, userAgent, sourceSystem string, accepted bool)
}

// used tells the meter of the request as it was answered.
func (r *Request) used() {
	if r.token == "" {
		return
	}
	accepted := r.response.wrote && r.response.status < http.StatusBadRequest
	r.api.cfg.Meter.Used(&r.Identity, r.ClientAddr(), r.UserAgent(), r.SourceSystem, accepted)
}
