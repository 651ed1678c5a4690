package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"strconv"

	"github.com/shipledger/shipledger/pkg/event"
)

// partitioned is how many partitions a log has beside one that has one. Each has an
// account, and every connection writes for one of them.
const partitioned = 4

// partitions posts the same events to a log of one partition and to one of several,
// in turns. In one process each partition has a committer and a fold of its own, and
// all have the same processors.
func (b *bench) partitions(ctx context.Context) (err error) {
	type contender struct {
		*ledger
		partitions int
		accounts   []tenant
		rounds     []sample
	}
	var all []*contender
	defer func() {
		for _, c := range all {
			err = errors.Join(err, c.stop())
		}
	}()
	for _, n := range []int{1, partitioned} {
		l, err := startMeasured(ctx, b.Binary, filepath.Join(b.dir, "partitions-"+strconv.Itoa(n)), "SHIPLEDGER_RATE_LIMIT=off", "SHIPLEDGER_PARTITIONS="+strconv.Itoa(n))
		if err != nil {
			return err
		}
		c := &contender{ledger: l, partitions: n}
		all = append(all, c)
		if c.accounts, err = l.accountOfEach(ctx, partitioned); err != nil {
			return err
		}
	}
	for _, connections := range b.SideConnections {
		if connections < partitioned {
			continue
		}
		ratios := make([]float64, b.Rounds)
		for _, c := range all {
			c.rounds = nil
		}
		for round := range b.Rounds {
			b.logf("a log of several partitions, %d connections, round %d of %d", connections, round+1, b.Rounds)
			for _, c := range all {
				keys := make([]string, len(c.accounts))
				for i, a := range c.accounts {
					keys[i] = a.APIKey
				}
				before := c.cpu()
				out, err := drive(ctx, &c.server, b.sideEvents(keys...), load{connections: connections, warmUp: warmUp, measured: b.Round, max: b.MaxRequests})
				if err != nil {
					return fmt.Errorf("%d partitions: %w", c.partitions, err)
				}
				c.rounds = append(c.rounds, out.sample(before, c.cpu()))
				for _, a := range c.accounts {
					if _, err := c.settleAs(ctx, a.PAT, b.sideEvents(a.APIKey)); err != nil {
						return err
					}
				}
			}
			ratios[round] = all[1].rounds[round].perSecond / all[0].rounds[round].perSecond
		}
		for _, c := range all {
			row := Partitions{Connections: connections, Partitions: c.partitions, Side: medians(c.rounds), Ratio: 1}
			if c.partitions > 1 {
				row.Ratio = median(ratios)
			}
			b.report.Partitions = append(b.report.Partitions, row)
		}
	}
	return nil
}

// tenant is an account's credentials.
type tenant struct {
	APIKey string `json:"api_key"`
	PAT    string `json:"pat"`
}

// accountOfEach makes an account for each of n partitions, whether the log has so many
// or not.
func (l *ledger) accountOfEach(ctx context.Context, n int) (out []tenant, err error) {
	has := map[int]bool{}
	for i := 0; len(out) < n; i++ {
		name := fmt.Sprintf("team-%d", i)
		partition := event.PartitionOf(name, n)
		if has[partition] {
			continue
		}
		has[partition] = true
		order := fmt.Sprintf(`{"account":%q,"name":%q,"admin_email":"a@%s.example"}`, name, name, name)
		status, body, _, err := l.do(ctx, http.DefaultClient, http.MethodPost, "/accounts/", l.adminPAT, "application/json", []byte(order))
		if err == nil && status != http.StatusCreated {
			err = fmt.Errorf("answered %d: %.300s", status, body)
		}
		var made tenant
		if err == nil {
			err = json.Unmarshal(body, &made)
		}
		if err != nil {
			return nil, fmt.Errorf("make an account: %w", err)
		}
		out = append(out, made)
	}
	return out, nil
}
