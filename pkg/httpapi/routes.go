package httpapi

import (
	"net/http"
	"net/netip"

	"github.com/shipledger/shipledger/pkg/fault"
)

// errMisdirected is for a request that came to a process that does not answer it.
// It is no 404: what a client asks for may well exist, and "there is no such
// deployment" would be taken for a fact.
var errMisdirected = fault.New(fault.Misdirected, "", "This process does not answer that. Ask at the public address.")

// Routes is the table of who answers what (architecture 9), which whoever stands
// in front of the services forwards by.
type Routes struct{ table table }

// NewRoutes reads the table out of the document.
func NewRoutes(spec *Spec) *Routes {
	r := &Routes{}
	for _, op := range spec.operations {
		r.table.add(op, nil, false)
	}
	return r
}

// Service names who answers a request: a service; Everywhere, for operations that
// every process answers; nothing where no path is like that. A method that the
// path does not have is refused by any of its services.
func (t *Routes) Service(r *http.Request) string {
	path := r.URL.Path
	if r.URL.RawPath != "" {
		path = r.URL.RawPath
	}
	route, _ := t.table.matchDecoded(path, r.URL.RawPath != "")
	if route == nil {
		return ""
	}
	if e := route.entry(r.Method); e != nil {
		return e.op.Service
	}
	return route.entries[0].op.Service
}

// ClientAddr gives the address that a request comes from, as Request.ClientAddr does.
func ClientAddr(r *http.Request, trusted []netip.Prefix) netip.Addr { return clientAddr(r, trusted) }

// Answer answers a request with an error, for whoever is no API and answers as one.
func Answer(w http.ResponseWriter, err error, requestID string) {
	w.Header()["X-Request-Id"] = []string{requestID}
	p := Describe(err, requestID)
	p.write(w)
}

// OverallHealth gives the word for a whole, of one process or of all, out of those
// for its parts: it is unavailable where it lets nobody in, or where it neither
// writes nor reads of what it is there for.
func OverallHealth(parts map[string]string) string {
	serves, able := false, false
	for _, part := range []string{PartLog, PartReadModel} {
		if word, ok := parts[part]; ok {
			serves = true
			able = able || word == HealthOK
		}
	}
	if parts[PartKeys] == HealthUnavailable || serves && !able {
		return HealthUnavailable
	}
	for _, word := range parts {
		if word != HealthOK {
			return HealthDegraded
		}
	}
	return HealthOK
}

// The parts of health that everything hangs on.
const (
	PartLog       = "log"
	PartKeys      = "keys"
	PartReadModel = "read_model"
)
