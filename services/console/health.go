package console

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/shipledger/shipledger/pkg/httpapi"
)

const (
	healthTimeout = 2 * time.Second // twice what a process takes at most
	maxHealth     = 64 << 10
)

// partsOf says what of the whole is away with a service.
var partsOf = map[string]string{"ingest": httpapi.PartLog, "query": httpapi.PartReadModel}

// health asks one process of every service how it feels, and puts it together. A
// service of which none answers is unavailable, and with it what only it does.
func (d *Door) health(r *httpapi.Request) httpapi.Health {
	ctx, cancel := context.WithTimeout(r.Context(), healthTimeout)
	defer cancel()
	all := httpapi.Health{Version: d.cfg.Version, Parts: map[string]string{}}
	var mu sync.Mutex
	var group sync.WaitGroup
	for name, s := range d.services {
		group.Go(func() {
			h, err := s.ask(ctx)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				h = httpapi.Health{Status: httpapi.HealthUnavailable, Parts: map[string]string{}}
				if part := partsOf[name]; part != "" {
					h.Parts[part] = httpapi.HealthUnavailable
				}
			}
			worsen(all.Parts, name, h.Status)
			for part, word := range h.Parts {
				worsen(all.Parts, part, word)
			}
			if h.Durability != "" {
				all.Durability = h.Durability
			}
		})
	}
	group.Wait()
	all.Status = httpapi.OverallHealth(all.Parts)
	return all
}

var severity = map[string]int{httpapi.HealthOK: 0, httpapi.HealthDegraded: 1, httpapi.HealthUnavailable: 2}

func worsen(parts map[string]string, part, word string) {
	if held, ok := parts[part]; !ok || severity[held] < severity[word] {
		parts[part] = word
	}
}

func (s *service) ask(ctx context.Context) (h httpapi.Health, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.name+"/health", http.NoBody)
	if err != nil {
		return h, fmt.Errorf("ask %s how it feels: %w", s.name, err)
	}
	res, err := s.transport.RoundTrip(r)
	if err != nil {
		return h, fmt.Errorf("ask %s how it feels: %w", s.name, err)
	}
	defer res.Body.Close()
	if err := json.UnmarshalRead(http.MaxBytesReader(nil, res.Body, maxHealth), &h); err != nil {
		return h, fmt.Errorf("read how %s feels: %w", s.name, err)
	}
	return h, nil
}
