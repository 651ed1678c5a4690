package bench

import (
	"bytes"
	"fmt"
	"iter"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/shipledger/shipledger/services/cli"
)

// reference is the event that figures are about: what the action sends for a
// deployment when nobody configured anything. Each one is a run of its own.
const reference = `{"product_name":"checkout-service","version":"1.2.3","environment_name":"production","status":"success",` +
	`"scm_repository":"acme/checkout-service","scm_sha":"8d1c0a7f3b5e2d4c6a9081726354fedcba098765","source_system":"github",` +
	`"build_number":"42","invoke_id":"` + runDigits + `","deploy_url":"https://github.com/acme/checkout-service/actions/runs/9876543210",` +
	`"deployed_by":"ada","deployed_by_email":"ada@users.noreply.example.com","deployed_by_name":"ada","completed_at":"` + completedAt + `",` +
	`"extra_metadata":{"vi_gh_workflow":"Deploy","vi_gh_job":"deploy","vi_gh_run_attempt":"1","vi_gh_event_name":"push","vi_gh_ref":"refs/heads/main"}}`

// What differs from event to event has a fixed width, so that a client only
// writes over it.
const (
	runDigits   = "000000000000"
	completedAt = "2006-01-02T15:04:05Z"
)

// events makes reference events, each run once, for any number of connections.
type events struct {
	keys    []string // each connection has the next one
	turn    *atomic.Int64
	body    string
	lastRun *atomic.Int64
}

func newEvents(keys ...string) *events {
	now := time.Now().UTC().Format(completedAt)
	return &events{keys: keys, turn: &atomic.Int64{}, body: strings.Replace(reference, completedAt, now, 1), lastRun: &atomic.Int64{}}
}

// request gives a whole request and where the run stands in it. It belongs to
// one connection.
func (e *events) request() (request []byte, run []byte) {
	key := e.keys[(e.turn.Add(1)-1)%int64(len(e.keys))]
	request = fmt.Appendf(nil, "POST /deployment-events/ HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer %s\r\n"+
		"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", key, len(e.body), e.body)
	at := bytes.Index(request, []byte(runDigits))
	return request, request[at : at+len(runDigits)]
}

// next writes the next run over digits.
func (e *events) next(digits []byte) {
	n := e.lastRun.Add(1)
	for i := len(digits) - 1; i >= 0; i-- {
		digits[i] = byte('0' + n%10)
		n /= 10
	}
}

// lines gives n new events, one a line.
func (e *events) lines(n int) []byte {
	at := strings.Index(e.body, runDigits)
	out := make([]byte, 0, n*(len(e.body)+1))
	for range n {
		out = append(out, e.body...)
		start := len(out) - len(e.body) + at
		e.next(out[start : start+len(runDigits)])
		out = append(out, '\n')
	}
	return out
}

// source gives at most that many items of a history.
type source func(limit int) ([]cli.Item, error)

const demoSeed = 1

func demoItems(limit int) ([]cli.Item, error) {
	return first(limit, cli.DemoHistory(demoSeed, time.Now().UTC().Truncate(24*time.Hour))), nil
}

func fileItems(path string) source {
	return func(limit int) ([]cli.Item, error) {
		f, err := os.Open(path)
		if err != nil {
			return nil, fmt.Errorf("open the history: %w", err)
		}
		defer f.Close()
		lines := cli.NewLines(f)
		items := first(limit, lines.All())
		return items, lines.Err()
	}
}

func first(limit int, all iter.Seq[cli.Item]) []cli.Item {
	var items []cli.Item
	for item := range all {
		if len(items) == limit {
			break
		}
		items = append(items, item)
	}
	return items
}
