package accounts

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/shipledger/shipledger/pkg/credential"
	"github.com/shipledger/shipledger/pkg/httpapi"
	"github.com/shipledger/shipledger/pkg/keyring"
)

const (
	propagatedHeader = "X-Shipledger-Propagated"
	// propagationTimeout is how long an answer waits for the other processes.
	propagationTimeout = time.Second
)

// everywhere tells in the headers of an answer where the change at seq stands,
// and whether every live process acts by it. It returns as soon as they do, at
// the latest after a second: then one of them may not have heard of it yet.
func (s *Service) everywhere(w http.ResponseWriter, r *httpapi.Request, seq uint64) {
	propagated := true
	if s.nodes != nil {
		ctx, cancel := context.WithTimeout(r.Context(), propagationTimeout)
		defer cancel()
		propagated = s.nodes.Await(ctx, seq)
	}
	h := w.Header()
	h[httpapi.PositionHeader] = []string{position(seq)}
	h[propagatedHeader] = []string{strconv.FormatBool(propagated)}
}

// propagationAnswer is how far the last change of a credential has come.
type propagationAnswer struct {
	ID         string       `json:"id"`
	Position   string       `json:"position"`
	Propagated bool         `json:"propagated"`
	Nodes      []nodeAnswer `json:"nodes"`
}

type nodeAnswer struct {
	Service  string       `json:"service"`
	ID       string       `json:"id"`
	Position httpapi.Text `json:"position"`
	Applied  bool         `json:"applied"`
	SeenAt   *time.Time   `json:"seen_at"`
}

// propagation answers which live processes act by the last change of a credential.
func (s *Service) propagation(f family) httpapi.Handler {
	return func(_ http.ResponseWriter, r *httpapi.Request) error {
		if err := s.fresh(r); err != nil {
			return err
		}
		held, err := s.find(f, r)
		if err != nil {
			return err
		}
		return r.JSON(http.StatusOK, s.progress(&held))
	}
}

func (s *Service) progress(held *credential.Held) propagationAnswer {
	var live []keyring.Node
	if s.nodes != nil {
		live = s.nodes.Live()
	}
	a := propagationAnswer{ID: held.ID, Position: position(held.At.Seq()), Propagated: true, Nodes: make([]nodeAnswer, len(live))}
	for i, n := range live {
		node := nodeAnswer{Service: n.Service, ID: n.ID, Applied: n.Applied >= held.At.Seq(), SeenAt: httpapi.Moment(n.SeenAt)}
		if n.Applied > 0 {
			node.Position = httpapi.Text(position(n.Applied))
		}
		a.Nodes[i], a.Propagated = node, a.Propagated && node.Applied
	}
	return a
}
